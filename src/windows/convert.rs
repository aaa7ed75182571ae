//! Conversions between streams and the pipe types of std and tokio.

use std::io;
use std::os::windows::io::OwnedHandle;

#[cfg(feature = "tokio")]
use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};

use super::ext::StreamExt;
#[cfg(feature = "blocking")]
use crate::blocking;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// Calls [`StreamExt::from_handle`].
#[cfg(feature = "tokio")]
impl TryFrom<OwnedHandle> for Stream {
    type Error = io::Error;

    fn try_from(pipe: OwnedHandle) -> io::Result<Self> {
        Self::from_handle(pipe)
    }
}

/// Fails if no client is connected to the pipe.
///
/// The pipe stays registered with its tokio runtime. When that runtime shuts down, the stream ends,
/// and data that it has not sent yet is lost. The stream supports half-close only if the pipe is of
/// message type and in message-read mode.
#[cfg(feature = "tokio")]
impl TryFrom<NamedPipeServer> for Stream {
    type Error = io::Error;

    fn try_from(pipe: NamedPipeServer) -> io::Result<Self> {
        let pipe = super::registered::Pipe::from_server(pipe)?;
        Ok(Self::from_imp(super::Stream::adopted(pipe)))
    }
}

/// Keeps the pipe registered with its tokio runtime. When that runtime shuts down, the stream ends,
/// and data that it has not sent yet is lost.
///
/// The stream supports half-close only if the pipe is of message type and in message-read mode.
#[cfg(feature = "tokio")]
impl TryFrom<NamedPipeClient> for Stream {
    type Error = io::Error;

    fn try_from(pipe: NamedPipeClient) -> io::Result<Self> {
        let pipe = super::registered::Pipe::from_client(pipe)?;
        Ok(Self::from_imp(super::Stream::adopted(pipe)))
    }
}

/// Calls [`StreamExt::from_handle`].
#[cfg(feature = "blocking")]
impl TryFrom<OwnedHandle> for blocking::Stream {
    type Error = io::Error;

    fn try_from(pipe: OwnedHandle) -> io::Result<Self> {
        Self::from_handle(pipe)
    }
}

/// Calls [`StreamExt::into_handle`].
#[cfg(feature = "blocking")]
impl TryFrom<blocking::Stream> for OwnedHandle {
    type Error = io::Error;

    fn try_from(stream: blocking::Stream) -> io::Result<Self> {
        stream.into_handle()
    }
}
