//! One end of a session, whatever it is: where bytes come from, and where they go.

use std::io::{self, ErrorKind};
use std::process::{ChildStdin, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::stdio::{Input, Output};
use crate::{exit, os};

/// What one read or write moves: past this, more gains little.
pub const CHUNK: usize = 64 * 1024;
/// Between two looks whether a peer that has ended its side is gone.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

pub struct Side {
    pub from: Source,
    pub to: Sink,
    pub watch: Watch,
}

impl Side {
    pub fn local(stream: Stream) -> Self {
        let stream = Arc::new(stream);
        Self {
            from: Source::Local(Arc::clone(&stream), vec![0; CHUNK]),
            to: Sink::Local(Arc::clone(&stream)),
            watch: Watch::Local(stream),
        }
    }

    pub fn tcp(stream: TcpStream) -> Self {
        // A relay must not hold small messages back.
        let _ = stream.set_nodelay(true);
        let (from, to) = stream.into_split();
        Self { from: Source::Tcp(from, vec![0; CHUNK]), to: Sink::Tcp(to), watch: Watch::Never }
    }

    /// Standard input and output.
    pub fn stdio() -> Result<Self> {
        Ok(Self {
            from: Source::Stdin(Input::new(os::stdin()).context("cannot start")?),
            to: Sink::Stdout(Output::new(os::stdout()).context("cannot start")?),
            watch: Watch::Never,
        })
    }

    /// A command: what it prints, and what it reads.
    pub fn command(output: ChildStdout, input: ChildStdin, exited: Exited) -> io::Result<Self> {
        Ok(Self {
            from: Source::Command(Input::new(output)?),
            to: Sink::Command(Output::new(input)?),
            watch: Watch::Command(exited),
        })
    }

    /// Closes it, once what was written to it is on its way.
    ///
    /// # Errors
    ///
    /// The peer did not take all within `deadline`, or left before.
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        let Self { from, to, watch } = self;
        drop((from, to));
        match watch {
            Watch::Local(stream) => match Arc::into_inner(stream) {
                Some(stream) => stream.close(deadline).await,
                None => Ok(()),
            },
            Watch::Never | Watch::Command(_) => Ok(()),
        }
    }
}

/// To see that a peer is gone, and does not only have nothing more to say.
pub enum Watch {
    /// It cannot be seen.
    Never,
    Local(Arc<Stream>),
    Command(Exited),
}

/// How a command ended, once it has.
pub type Exited = watch::Receiver<Option<io::Result<ExitStatus>>>;

impl Watch {
    /// Completes when the peer is gone.
    pub async fn gone(&self) {
        match self {
            Self::Never => std::future::pending().await,
            Self::Local(stream) => {
                while !os::is_gone(stream) {
                    sleep(LOOK_PAUSE).await;
                }
            }
            Self::Command(exited) => drop(exited.clone().wait_for(Option::is_some).await),
        }
    }
}

/// Why a session does not go on in one direction.
pub enum Fault {
    /// The peer is gone, or takes no more.
    Gone,
    /// What is no peer's doing.
    Failed(anyhow::Error),
}

pub enum Source {
    Local(Arc<Stream>, Vec<u8>),
    Tcp(OwnedReadHalf, Vec<u8>),
    Stdin(Input),
    Command(Input),
}

impl Source {
    /// The next bytes; none at the end.
    pub async fn read(&mut self) -> Result<&[u8], Fault> {
        match self {
            Self::Local(stream, buffer) => match (&**stream).read(buffer).await {
                Ok(length) => Ok(&buffer[..length]),
                Err(error) => Err(Fault::Failed(error.into())),
            },
            Self::Tcp(stream, buffer) => match stream.read(buffer).await {
                Ok(length) => Ok(&buffer[..length]),
                Err(error) => Err(match error.kind() {
                    ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe => Fault::Gone,
                    _ => Fault::Failed(anyhow::Error::new(error).context("cannot read from TCP")),
                }),
            },
            Self::Stdin(input) => input.read().await.map_err(|error| {
                Fault::Failed(anyhow::Error::new(error).context("cannot read standard input"))
            }),
            Self::Command(input) => input.read().await.map_err(|error| {
                Fault::Failed(anyhow::Error::new(error).context("cannot read from the command"))
            }),
        }
    }

    /// Whether it has bytes that nobody has had, or gives some within `limit`; those are lost.
    pub async fn has_more(&mut self, limit: Duration) -> bool {
        match self {
            Self::Stdin(input) | Self::Command(input) => input.has_more(limit).await,
            Self::Local(..) | Self::Tcp(..) => false,
        }
    }
}

pub enum Sink {
    Local(Arc<Stream>),
    Tcp(OwnedWriteHalf),
    Stdout(Output),
    Command(Output),
}

impl Sink {
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Local(stream) => (&**stream).write_all(bytes).await.map_err(gone_or_failed),
            Self::Tcp(stream) => stream.write_all(bytes).await.map_err(|_| Fault::Gone),
            Self::Stdout(output) => {
                output.write(bytes).await.map_err(|error| Fault::Failed(exit::at_output(error)))
            }
            Self::Command(output) => output.write(bytes).await.map_err(gone_or_failed),
        }
    }

    /// Returns when standard output has all that was written to it. The others need no waiting for:
    /// they are closed only when they have all, or the peer has left.
    ///
    /// # Errors
    ///
    /// Those of standard output.
    pub async fn flush(&mut self) -> Result<()> {
        match self {
            Self::Stdout(output) => output.flush().await.map_err(exit::at_output),
            Self::Local(_) | Self::Tcp(_) | Self::Command(_) => Ok(()),
        }
    }

    /// Passes on that no more comes. `false` where that cannot be, and the end has to come with the
    /// close.
    pub async fn end(&mut self) -> Result<bool, Fault> {
        match self {
            Self::Local(stream) => match (&**stream).shutdown().await {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
                Err(error) => Err(gone_or_failed(error)),
            },
            Self::Tcp(stream) => stream.shutdown().await.map(|()| true).map_err(|_| Fault::Gone),
            Self::Stdout(_) => self.flush().await.map(|()| true).map_err(Fault::Failed),
            Self::Command(output) => output.close().await.map(|()| true).map_err(gone_or_failed),
        }
    }
}

fn gone_or_failed(error: io::Error) -> Fault {
    match error.kind() {
        ErrorKind::BrokenPipe => Fault::Gone,
        _ => Fault::Failed(anyhow!(error)),
    }
}
