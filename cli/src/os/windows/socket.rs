//! A pipe or a TCP socket of a session.

use std::io;
use std::net::{self, Shutdown};
use std::os::windows::io::{AsHandle, AsRawHandle, AsSocket};
use std::pin::Pin;
use std::ptr::null_mut;
use std::task::{Poll, ready};
use std::time::Duration;

use sockpipe::Stream;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;
use windows_sys::Win32::System::Pipes::PeekNamedPipe;

use crate::args::Spin;
use crate::os::{Chunk, Descriptors, Moved};

/// The pause between checks whether a peer that has half-closed is gone.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A pipe carries nothing but bytes.
pub type Attached = ();

pub enum Socket {
    Local(Stream),
    Tcp(TcpStream),
}

impl Socket {
    pub fn local(stream: Stream, _: Descriptors, _: Spin) -> io::Result<Self> {
        Ok(Self::Local(stream))
    }

    pub fn tcp(stream: TcpStream, _: Spin) -> io::Result<Self> {
        Ok(Self::Tcp(stream))
    }

    /// Returns the next bytes, none at end of file. A dropped future has read nothing.
    pub async fn read(&self) -> io::Result<Chunk> {
        match self {
            Self::Local(stream) => read_pipe(stream).await,
            Self::Tcp(stream) => loop {
                stream.readable().await?;
                let mut chunk = Chunk::new()?;
                match stream.try_read(chunk.room()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Ok(chunk.filled(read?)),
                }
            },
        }
    }

    pub async fn write(&self, chunk: Chunk) -> io::Result<()> {
        let () = chunk.attached;
        let stream = match self {
            Self::Local(stream) => return (&*stream).write_all(&chunk).await,
            Self::Tcp(stream) => stream,
        };
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => rest = &rest[written?..],
            }
        }
        Ok(())
    }

    /// Nothing to do: Windows has no such call.
    pub async fn splice(&self, _: &Self, _: &Moved) -> io::Result<()> {
        Ok(())
    }

    /// Passes on the end of file.
    pub async fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Local(stream) => (&*stream).shutdown().await,
            Self::Tcp(stream) => {
                let socket = net::TcpStream::from(stream.as_socket().try_clone_to_owned()?);
                socket.shutdown(Shutdown::Write)
            }
        }
    }

    /// Completes when the peer of a pipe is gone. It never completes for a TCP socket.
    pub async fn gone(&self) {
        match self {
            Self::Local(stream) => {
                while !is_gone(stream) {
                    sleep(LOOK_PAUSE).await;
                }
            }
            Self::Tcp(_) => std::future::pending().await,
        }
    }

    /// Makes the close of a TCP socket a reset.
    pub fn reset(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_zero_linger();
        }
    }

    /// Closes the connection once all written bytes are on their way.
    pub async fn close(self, deadline: Duration) -> io::Result<()> {
        match self {
            Self::Local(stream) => stream.close(deadline).await,
            Self::Tcp(_) => Ok(()),
        }
    }
}

/// Holds a buffer only while there are bytes to read.
async fn read_pipe(mut stream: &Stream) -> io::Result<Chunk> {
    std::future::poll_fn(|cx| {
        let mut chunk = Chunk::new()?;
        let mut buffer = ReadBuf::new(chunk.room());
        ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer))?;
        let length = buffer.filled().len();
        Poll::Ready(Ok(chunk.filled(length)))
    })
    .await
}

/// Whether the peer has closed its end, as opposed to a half-close: it then takes nothing more.
fn is_gone(stream: &Stream) -> bool {
    let pipe = stream.as_handle().as_raw_handle();
    // SAFETY: the handle is open while the stream is borrowed. No buffer is passed, and null means
    // that a result is not wanted.
    unsafe { PeekNamedPipe(pipe, null_mut(), 0, null_mut(), null_mut(), null_mut()) == 0 }
}
