//! One end of a pipe, registered with the crate's reactor: tokio's types, and mio's beneath them.
#![allow(unsafe_code, reason = "handles that tokio takes over")]

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::os::windows::io::{AsHandle, BorrowedHandle, IntoRawHandle, OwnedHandle};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;
use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};
use windows_sys::Win32::Foundation::ERROR_INVALID_PARAMETER;

use super::pipe::{self, Opened};
use super::reactor;
use super::system::{self, End};

/// One end, registered with the reactor.
#[derive(Debug)]
pub(super) struct Pipe {
    registered: Registered,
    messages: bool,
}

#[derive(Debug)]
enum Registered {
    Server(NamedPipeServer),
    Client(NamedPipeClient),
}

impl Pipe {
    fn new(registered: Registered, messages: bool) -> Self {
        Self { registered, messages }
    }

    /// Registers a client's end, which the server has accepted or is going to accept.
    pub(super) fn client(opened: Opened) -> io::Result<Self> {
        let _context = reactor::handle()?.enter();
        let handle = opened.handle.into_raw_handle();
        // SAFETY: the handle is an end of a pipe that was opened for overlapped I/O, and nothing
        // else owns it any more.
        let pipe = unsafe { NamedPipeClient::from_raw_handle(handle) }?;
        Ok(Self::new(Registered::Client(pipe), opened.messages))
    }

    /// Registers a server's end that has a client.
    pub(super) fn server(handle: OwnedHandle, messages: bool) -> io::Result<Self> {
        let _context = reactor::handle()?.enter();
        // SAFETY: the handle is a server's end, and nothing else owns it any more. The system
        // checks at registration that it is for overlapped I/O.
        let pipe = unsafe { NamedPipeServer::from_raw_handle(handle.into_raw_handle()) }?;
        Ok(Self::new(Registered::Server(pipe), messages))
    }

    /// Registers an end whose peer is connected already.
    pub(super) fn connected(handle: OwnedHandle, end: End, messages: bool) -> io::Result<Self> {
        if end == End::Client {
            return Self::client(Opened { handle, messages });
        }
        connected(&handle)?;
        Self::server(handle, messages)
    }

    /// Wraps a server's end that is registered with another runtime than the reactor.
    pub(super) fn from_server(pipe: NamedPipeServer) -> io::Result<Self> {
        complete(&pipe)?;
        let messages = pipe::reads_messages(&pipe)?;
        Ok(Self::new(Registered::Server(pipe), messages))
    }

    /// Wraps a client's end that is registered with another runtime than the reactor.
    pub(super) fn from_client(pipe: NamedPipeClient) -> io::Result<Self> {
        let messages = pipe::reads_messages(&pipe)?;
        Ok(Self::new(Registered::Client(pipe), messages))
    }

    pub(super) fn end(&self) -> End {
        match self.registered {
            Registered::Server(_) => End::Server,
            Registered::Client(_) => End::Client,
        }
    }

    /// Whether the pipe is of message type, so that it can carry the end of one direction.
    pub(super) fn has_messages(&self) -> bool {
        self.messages
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.registered {
            Registered::Server(pipe) => pipe.poll_read_ready(cx),
            Registered::Client(pipe) => pipe.poll_read_ready(cx),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.registered {
            Registered::Server(pipe) => pipe.poll_write_ready(cx),
            Registered::Client(pipe) => pipe.poll_write_ready(cx),
        }
    }

    /// Waits until the pipe is readable. It consumes nothing, so it may run beside a reader.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match &self.registered {
            Registered::Server(pipe) => pipe.readable().await,
            Registered::Client(pipe) => pipe.readable().await,
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match &self.registered {
            Registered::Server(pipe) => pipe.writable().await,
            Registered::Client(pipe) => pipe.writable().await,
        }
    }

    pub(super) fn try_read(&self, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        // SAFETY: no uninitialized bytes are written to the buffer, and its bytes are not read.
        let mut room = unsafe { buf.unfilled_mut() };
        let length = match &self.registered {
            Registered::Server(pipe) => pipe.try_read_buf(&mut room),
            Registered::Client(pipe) => pipe.try_read_buf(&mut room),
        }?;
        // SAFETY: the call read `length` bytes into the unfilled part.
        unsafe { buf.assume_init(length) };
        buf.advance(length);
        Ok(length)
    }

    pub(super) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match &self.registered {
            Registered::Server(pipe) => pipe.try_write(buf),
            Registered::Client(pipe) => pipe.try_write(buf),
        }
    }

    pub(super) fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.registered {
            Registered::Server(pipe) => pipe.try_write_vectored(bufs),
            Registered::Client(pipe) => pipe.try_write_vectored(bufs),
        }
    }
}

impl AsHandle for Pipe {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match &self.registered {
            Registered::Server(pipe) => pipe.as_handle(),
            Registered::Client(pipe) => pipe.as_handle(),
        }
    }
}

/// Registers an end that was made elsewhere.
pub(super) fn adopt(handle: OwnedHandle) -> io::Result<Pipe> {
    let (end, messages) = pipe::check_adopted(&handle)?;
    Pipe::connected(handle, end, messages).map_err(|error| match system::code(&error) {
        // The system returns this error for a handle that is not for overlapped I/O, or that is
        // bound to another event loop. Such a binding cannot be undone.
        Some(ERROR_INVALID_PARAMETER) => io::Error::new(
            ErrorKind::InvalidInput,
            "the handle is not for overlapped I/O, or is in use with another event loop",
        ),
        _ => error,
    })
}

/// Completes the connection of a client that is there already, unless the pipe's owner has done so.
/// A pipe that was registered before its client came reads nothing until then.
fn complete(pipe: &NamedPipeServer) -> io::Result<()> {
    connected(pipe)?;
    let cx = &mut Context::from_waker(Waker::noop());
    // A pipe that reads already is ready for writing too, and is left alone: `ConnectNamedPipe`
    // makes NT forget who a connected client is.
    if let Poll::Ready(ready) = pipe.poll_write_ready(cx) {
        return ready;
    }
    match pin!(pipe.connect()).poll(cx) {
        Poll::Ready(connected) => connected,
        // The client is there, and the owner's pending `connect` completes later.
        Poll::Pending => Ok(()),
    }
}

/// Refuses a server's end that has no client. An end with a client needs no `connect` if it is
/// registered only now.
fn connected(pipe: &impl AsHandle) -> io::Result<()> {
    if pipe::has_client(pipe)? {
        return Ok(());
    }
    Err(no_client())
}

fn no_client() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "the pipe has no client yet")
}

#[cfg(test)]
mod tests {
    use std::os::windows::io::FromRawHandle;
    use std::ptr::null;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
    use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OVERLAPPED, PIPE_ACCESS_DUPLEX};
    use windows_sys::Win32::System::Pipes::{CreateNamedPipeW, PIPE_TYPE_MESSAGE};

    use super::super::tests::{run, unique};
    use super::*;

    fn made_elsewhere(path: &str) -> OwnedHandle {
        let (path, access) = (system::wide(path), PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED);
        // SAFETY: the path ends in NUL, and null means the default descriptor.
        let handle = unsafe {
            CreateNamedPipeW(path.as_ptr(), access, PIPE_TYPE_MESSAGE, 1, 4096, 4096, 0, null())
        };
        assert_ne!(handle, INVALID_HANDLE_VALUE);
        // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
        unsafe { OwnedHandle::from_raw_handle(handle) }
    }

    #[test]
    fn a_server_end_is_adopted_once_it_has_a_client() {
        let path = unique();
        let error = adopt(made_elsewhere(&path)).expect_err("no client");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("no client yet"), "{error}");

        let path = unique();
        let server = made_elsewhere(&path);
        let client = Pipe::client(pipe::open(&path).expect("a server")).expect("a reactor");
        let server = adopt(server).expect("a server's end");
        assert_eq!((server.end(), server.has_messages()), (End::Server, true));

        let stream = |pipe| crate::Stream::from_imp(super::super::stream::Stream::adopted(pipe));
        let (mut client, mut server) = (stream(client), stream(server));

        run(async {
            client.write_all(b"question").await.expect("a write");
            client.shutdown().await.expect("a half-close");
            let mut question = Vec::new();
            server.read_to_end(&mut question).await.expect("an end");
            assert_eq!(question, b"question");
            server.write_all(b"answer").await.expect("a write");
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("an end");
            assert_eq!(answer, b"answer");
        });
    }
}
