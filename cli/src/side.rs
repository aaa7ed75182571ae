//! One end of a session: the source of its bytes, and the sink for the other end's bytes.

use std::io::{self, ErrorKind};
use std::process::{ChildStdin, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sockpipe::Stream;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::args::Spin;
use crate::exit;
use crate::os::{self, Chunk, Descriptors, Moved, Socket};
use crate::stdio::{Input, Output};

pub struct Side {
    pub from: Source,
    pub to: Sink,
    pub watch: Watch,
}

impl Side {
    pub fn local(stream: Stream, descriptors: Descriptors, spin: Spin) -> io::Result<Self> {
        Ok(Self::socket(Socket::local(stream, descriptors, spin)?))
    }

    pub fn tcp(stream: TcpStream, spin: Spin) -> io::Result<Self> {
        // A relay must not hold small messages back.
        let _ = stream.set_nodelay(true);
        Ok(Self::socket(Socket::tcp(stream, spin)?))
    }

    fn socket(socket: Socket) -> Self {
        let socket = Arc::new(socket);
        Self {
            from: Source::Socket(Arc::clone(&socket)),
            to: Sink::Socket(Arc::clone(&socket)),
            watch: Watch::Socket(socket),
        }
    }

    /// Standard input and output.
    pub fn stdio() -> Result<Self> {
        Ok(Self {
            from: Source::Stdin(Input::new(os::stdin()).context("cannot start")?),
            to: Sink::Stdout(Output::new(os::stdout()).context("cannot start")?),
            watch: Watch::Stdout,
        })
    }

    /// A command's output and input.
    pub fn command(output: ChildStdout, input: ChildStdin, exited: Exited) -> io::Result<Self> {
        Ok(Self {
            from: Source::Command(Input::new(output)?),
            to: Sink::Command(Output::new(input)?),
            watch: Watch::Command(exited),
        })
    }

    /// Makes the close of a TCP socket a reset.
    pub fn reset(&self) {
        if let Watch::Socket(socket) = &self.watch {
            socket.reset();
        }
    }

    /// Closes the side once all written bytes are on their way.
    ///
    /// # Errors
    ///
    /// Fails if the peer did not take all bytes within `deadline`, or left before that.
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        let Self { from, to, watch } = self;
        drop((from, to));
        match watch {
            Watch::Socket(socket) => match Arc::into_inner(socket) {
                Some(socket) => socket.close(deadline).await,
                None => Ok(()),
            },
            Watch::Stdout | Watch::Command(_) => Ok(()),
        }
    }
}

/// Shows that a peer is gone, as opposed to one that has only stopped sending.
pub enum Watch {
    Socket(Arc<Socket>),
    /// The reader of standard output.
    Stdout,
    Command(Exited),
}

/// How a command ended, once it has.
pub type Exited = watch::Receiver<Option<io::Result<ExitStatus>>>;

impl Watch {
    /// Completes when the peer is gone.
    pub async fn gone(&self) {
        match self {
            Self::Socket(socket) => socket.gone().await,
            Self::Stdout => os::stdout_unread().await,
            Self::Command(exited) => drop(exited.clone().wait_for(Option::is_some).await),
        }
    }

    pub fn is_command(&self) -> bool {
        matches!(self, Self::Command(_))
    }
}

/// Why a session does not go on in one direction.
pub enum Fault {
    /// The peer is gone, or takes no more.
    Gone,
    /// A failure that no peer causes.
    Failed(anyhow::Error),
}

pub enum Source {
    Socket(Arc<Socket>),
    Stdin(Input),
    Command(Input),
}

impl Source {
    /// Returns the next bytes, none at end of file.
    pub async fn read(&mut self) -> Result<Chunk, Fault> {
        match self {
            Self::Socket(socket) => socket.read().await.map_err(|error| match error.kind() {
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe => Fault::Gone,
                _ => Fault::Failed(anyhow!(error)),
            }),
            Self::Stdin(input) => input.read().await.map_err(|error| {
                Fault::Failed(anyhow::Error::new(error).context("cannot read standard input"))
            }),
            Self::Command(input) => input.read().await.map_err(|error| {
                Fault::Failed(anyhow::Error::new(error).context("cannot read from the command"))
            }),
        }
    }

    /// Moves what has arrived to `to` within the kernel, if that is possible and pays.
    pub async fn splice(&mut self, to: &mut Sink, moved: &Moved) -> Result<(), Fault> {
        match (self, to) {
            (Self::Socket(from), Sink::Socket(to)) => {
                from.splice(to, moved).await.map_err(gone_or_failed)
            }
            _ => Ok(()),
        }
    }

    /// Whether it has bytes that no reader has taken, or returns some within `limit`. Those bytes
    /// are lost.
    pub async fn has_more(&mut self, limit: Duration) -> bool {
        match self {
            Self::Stdin(input) | Self::Command(input) => input.has_more(limit).await,
            Self::Socket(_) => false,
        }
    }
}

pub enum Sink {
    Socket(Arc<Socket>),
    Stdout(Output),
    Command(Output),
}

impl Sink {
    pub async fn write(&mut self, chunk: Chunk) -> Result<(), Fault> {
        match self {
            Self::Socket(socket) => socket.write(chunk).await.map_err(gone_or_failed),
            Self::Stdout(output) => {
                output.write(chunk).await.map_err(|error| Fault::Failed(exit::at_output(error)))
            }
            Self::Command(output) => output.write(chunk).await.map_err(gone_or_failed),
        }
    }

    /// Returns when standard output has all bytes that were written to it. The other sinks need no
    /// wait: they are closed only when they have all bytes, or when the peer has left.
    ///
    /// # Errors
    ///
    /// Returns errors of standard output.
    pub async fn flush(&mut self) -> Result<()> {
        match self {
            Self::Stdout(output) => output.flush().await.map_err(exit::at_output),
            Self::Socket(_) | Self::Command(_) => Ok(()),
        }
    }

    /// Passes on the end of file. Returns `false` if the sink cannot carry it, so that the peer
    /// reads it only when the connection is closed.
    pub async fn end(&mut self) -> Result<bool, Fault> {
        match self {
            Self::Socket(socket) => match socket.shutdown().await {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
                Err(error) => Err(gone_or_failed(error)),
            },
            Self::Stdout(_) => self.flush().await.map(|()| true).map_err(Fault::Failed),
            Self::Command(output) => output.close().await.map(|()| true).map_err(gone_or_failed),
        }
    }
}

fn gone_or_failed(error: io::Error) -> Fault {
    match error.kind() {
        ErrorKind::BrokenPipe
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected => Fault::Gone,
        _ => Fault::Failed(anyhow!(error)),
    }
}
