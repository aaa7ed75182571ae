//! Conversions from and to the types that other code uses for an end of a pipe.

use std::io;
use std::os::windows::io::OwnedHandle;

#[cfg(feature = "tokio")]
use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};

use super::ext::StreamExt;
#[cfg(feature = "blocking")]
use crate::blocking;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// As [`StreamExt::from_handle`].
#[cfg(feature = "tokio")]
impl TryFrom<OwnedHandle> for Stream {
    type Error = io::Error;

    fn try_from(pipe: OwnedHandle) -> io::Result<Self> {
        Self::from_handle(pipe)
    }
}

/// It fails where the pipe has no client. The stream belongs to the runtime that the pipe was
/// registered with, and ends with it: bytes that are on their way out then are lost. It has a
/// half-close where the pipe is of message type and read in message mode.
#[cfg(feature = "tokio")]
impl TryFrom<NamedPipeServer> for Stream {
    type Error = io::Error;

    fn try_from(pipe: NamedPipeServer) -> io::Result<Self> {
        let pipe = super::registered::Pipe::from_server(pipe)?;
        Ok(Self::from_imp(super::Stream::adopted(pipe)))
    }
}

/// The stream belongs to the runtime that the pipe was registered with, and ends with it: bytes
/// that are on their way out then are lost. It has a half-close where the pipe is of message type
/// and read in message mode.
#[cfg(feature = "tokio")]
impl TryFrom<NamedPipeClient> for Stream {
    type Error = io::Error;

    fn try_from(pipe: NamedPipeClient) -> io::Result<Self> {
        let pipe = super::registered::Pipe::from_client(pipe)?;
        Ok(Self::from_imp(super::Stream::adopted(pipe)))
    }
}

/// As [`StreamExt::from_handle`].
#[cfg(feature = "blocking")]
impl TryFrom<OwnedHandle> for blocking::Stream {
    type Error = io::Error;

    fn try_from(pipe: OwnedHandle) -> io::Result<Self> {
        Self::from_handle(pipe)
    }
}

/// As [`StreamExt::into_handle`].
#[cfg(feature = "blocking")]
impl TryFrom<blocking::Stream> for OwnedHandle {
    type Error = io::Error;

    fn try_from(stream: blocking::Stream) -> io::Result<Self> {
        stream.into_handle()
    }
}
