//! The system calls on pipes, and one type for both ends of one.
#![allow(unsafe_code, reason = "system calls, and handles that tokio takes over")]

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, IntoRawHandle, OwnedHandle};
use std::pin::pin;
use std::ptr::{from_mut, null, null_mut};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;
use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer, PipeMode, ServerOptions};
use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_FILE_NOT_FOUND, ERROR_INVALID_PARAMETER, ERROR_NO_DATA,
    ERROR_PIPE_BUSY, ERROR_PIPE_NOT_CONNECTED, ERROR_SEM_TIMEOUT, HANDLE,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OVERLAPPED, SECURITY_IDENTIFICATION};
use windows_sys::Win32::System::Pipes::{
    GetNamedPipeInfo, PIPE_READMODE_MESSAGE, PIPE_SERVER_END, PIPE_TYPE_MESSAGE,
    SetNamedPipeHandleState, WaitNamedPipeW,
};

use super::reactor;
use super::security::{SecurityDescriptor, check};
use crate::options::{Access, ListenOptions};

/// What the system takes of each direction before a write has to wait, unless told otherwise.
const QUOTA: u32 = 256 * 1024;

/// One end, registered with the reactor.
#[derive(Debug)]
pub(super) enum Pipe {
    Server { pipe: NamedPipeServer, messages: bool },
    Client { pipe: NamedPipeClient, messages: bool },
}

impl Pipe {
    /// Whether it is of message type, so that an end can be written into it.
    pub(super) fn has_messages(&self) -> bool {
        match self {
            Self::Server { messages, .. } | Self::Client { messages, .. } => *messages,
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Server { pipe, .. } => pipe.poll_read_ready(cx),
            Self::Client { pipe, .. } => pipe.poll_read_ready(cx),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Server { pipe, .. } => pipe.poll_write_ready(cx),
            Self::Client { pipe, .. } => pipe.poll_write_ready(cx),
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Server { pipe, .. } => pipe.writable().await,
            Self::Client { pipe, .. } => pipe.writable().await,
        }
    }

    pub(super) fn try_read(&self, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        // SAFETY: nothing uninitialized is written: the bytes go into it and are not read.
        let mut room = unsafe { buf.unfilled_mut() };
        let length = match self {
            Self::Server { pipe, .. } => pipe.try_read_buf(&mut room),
            Self::Client { pipe, .. } => pipe.try_read_buf(&mut room),
        }?;
        // SAFETY: that many bytes were read into what is not filled.
        unsafe { buf.assume_init(length) };
        buf.advance(length);
        Ok(length)
    }

    pub(super) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Server { pipe, .. } => pipe.try_write(buf),
            Self::Client { pipe, .. } => pipe.try_write(buf),
        }
    }

    pub(super) fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Server { pipe, .. } => pipe.try_write_vectored(bufs),
            Self::Client { pipe, .. } => pipe.try_write_vectored(bufs),
        }
    }
}

impl AsHandle for Pipe {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self {
            Self::Server { pipe, .. } => pipe.as_handle(),
            Self::Client { pipe, .. } => pipe.as_handle(),
        }
    }
}

/// What all instances of a pipe have in common.
pub(super) struct Kind {
    security: SecurityDescriptor,
    messages: bool,
    quota: u32,
}

impl Kind {
    pub(super) fn new(access: Access) -> io::Result<Self> {
        Ok(Self { security: SecurityDescriptor::new(access)?, messages: true, quota: QUOTA })
    }

    pub(super) fn chosen(options: &ListenOptions) -> io::Result<Self> {
        let chosen = &options.windows;
        let security = match &chosen.security_descriptor {
            Some(sddl) => SecurityDescriptor::from_sddl(sddl),
            None => SecurityDescriptor::new(options.access),
        };
        let quota = chosen.buffer_size.or(options.stream.send_buffer_size).unwrap_or(QUOTA);
        Ok(Self { security: security?, messages: !chosen.byte_type, quota })
    }

    pub(super) fn has_messages(&self) -> bool {
        self.messages
    }
}

/// How many instances a pipe may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Instance {
    /// Fails where the pipe exists.
    First,
    /// As `First`, and there will be no other.
    Only,
    Further,
}

/// A new instance of the pipe at `path`, which clients can open at once.
pub(super) fn create(path: &str, instance: Instance, kind: &Kind) -> io::Result<NamedPipeServer> {
    let mut options = ServerOptions::new();
    options
        .first_pipe_instance(instance != Instance::Further)
        .reject_remote_clients(true)
        // Type and read mode. In byte read mode Windows joins what was written, and the empty
        // message that is the end of the stream vanishes in it.
        .pipe_mode(if kind.messages { PipeMode::Message } else { PipeMode::Byte })
        .in_buffer_size(kind.quota)
        .out_buffer_size(kind.quota);
    if instance == Instance::Only {
        options.max_instances(1);
    }
    let mut attributes = kind.security.attributes();
    let _context = reactor::handle()?.enter();
    // SAFETY: the attributes are valid, and the descriptor in them outlives the call.
    unsafe { options.create_with_security_attributes_raw(path, from_mut(&mut attributes).cast()) }
}

/// A client's end that no reactor knows yet, and that can only be asked about.
pub(super) struct Opened {
    file: File,
    messages: bool,
}

/// Opens the pipe at `path`. The server can learn who we are, not act as us.
pub(super) fn open(path: &str) -> io::Result<Opened> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .share_mode(0)
        .custom_flags(FILE_FLAG_OVERLAPPED)
        .security_qos_flags(SECURITY_IDENTIFICATION)
        .open(path)?;
    let messages = is_of_message_type(&file)?;
    if messages {
        read_messages(&file)?;
    }
    Ok(Opened { file, messages })
}

/// Has to come before the pipe is registered with a reactor, which reads from it at once.
fn read_messages(pipe: &impl AsHandle) -> io::Result<()> {
    // SAFETY: the handle is open as long as the pipe is borrowed, the mode is one, and null means
    // unchanged.
    check(unsafe { SetNamedPipeHandleState(raw(pipe), &PIPE_READMODE_MESSAGE, null(), null()) })
}

/// An end that was made elsewhere.
pub(super) fn adopt(handle: OwnedHandle) -> io::Result<Pipe> {
    let invalid = |what: &str| io::Error::new(ErrorKind::InvalidInput, what);
    let Ok(flags) = flags(&handle) else {
        return Err(invalid("the handle is not a pipe's"));
    };
    let messages = flags & PIPE_TYPE_MESSAGE != 0;
    if messages {
        read_messages(&handle)?;
    }
    // The system's answer for a handle that is not for overlapped I/O, or that another event loop
    // has: that cannot be undone.
    let refused = |error: io::Error| match code(&error) {
        Some(ERROR_INVALID_PARAMETER) => {
            invalid("the handle is not for overlapped I/O, or is in use with another event loop")
        }
        _ => error,
    };
    let _context = reactor::handle()?.enter();
    let handle = handle.into_raw_handle();
    if flags & PIPE_SERVER_END == 0 {
        // SAFETY: the handle is a pipe's client end, and nobody else's any more. That it is for
        // overlapped I/O is what the system checks when it is registered.
        let pipe = unsafe { NamedPipeClient::from_raw_handle(handle) }.map_err(refused)?;
        return Ok(Pipe::Client { pipe, messages });
    }
    // SAFETY: as above, for a server's end.
    let pipe = unsafe { NamedPipeServer::from_raw_handle(handle) }.map_err(refused)?;
    connected(&pipe)?;
    Ok(Pipe::Server { pipe, messages })
}

/// Completes a connection whose client is there already.
pub(super) fn connected(pipe: &NamedPipeServer) -> io::Result<()> {
    match pin!(pipe.connect()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(connected) => connected,
        Poll::Pending => Err(io::Error::new(ErrorKind::InvalidInput, "the pipe has no client yet")),
    }
}

pub(super) fn is_of_message_type(pipe: &impl AsHandle) -> io::Result<bool> {
    Ok(flags(pipe)? & PIPE_TYPE_MESSAGE != 0)
}

fn flags(pipe: &impl AsHandle) -> io::Result<u32> {
    let mut flags = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `flags` is a place for a number,
    // and null means not wanted.
    check(unsafe { GetNamedPipeInfo(raw(pipe), &mut flags, null_mut(), null_mut(), null_mut()) })?;
    Ok(flags)
}

impl Opened {
    pub(super) fn register(self) -> io::Result<Pipe> {
        let _context = reactor::handle()?.enter();
        let handle = self.file.into_raw_handle();
        // SAFETY: the handle is a pipe's, opened for overlapped I/O, and nobody else's any more.
        let pipe = unsafe { NamedPipeClient::from_raw_handle(handle) }?;
        Ok(Pipe::Client { pipe, messages: self.messages })
    }
}

impl AsHandle for Opened {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.file.as_handle()
    }
}

/// Whether a pipe exists, where that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    Absent,
    Unknown,
}

/// Looks without connecting, so that the server's clients are not disturbed.
pub(super) fn presence(path: &str) -> Presence {
    let path = wide(path);
    // Zero would mean the server's choice; this waits a millisecond for an instance to be free.
    // SAFETY: the path ends in NUL.
    match check(unsafe { WaitNamedPipeW(path.as_ptr(), 1) }).map_err(|error| code(&error)) {
        Ok(()) | Err(Some(ERROR_SEM_TIMEOUT | ERROR_PIPE_BUSY)) => Presence::There,
        Err(Some(ERROR_FILE_NOT_FOUND)) => Presence::Absent,
        Err(_) => Presence::Unknown,
    }
}

/// The system's number of an error.
pub(super) fn code(error: &io::Error) -> Option<u32> {
    error.raw_os_error().map(|code| code as u32)
}

/// Whether `error` says that the other end is closed.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(code(error), Some(ERROR_BROKEN_PIPE | ERROR_NO_DATA | ERROR_PIPE_NOT_CONNECTED))
}

pub(super) fn raw(pipe: &impl AsHandle) -> HANDLE {
    pipe.as_handle().as_raw_handle()
}

/// As the system wants text: UTF-16 that ends in NUL.
pub(super) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use std::os::windows::io::FromRawHandle;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
    use windows_sys::Win32::Storage::FileSystem::PIPE_ACCESS_DUPLEX;
    use windows_sys::Win32::System::Pipes::CreateNamedPipeW;

    use super::super::tests::{run, unique};
    use super::*;

    fn made_elsewhere(path: &str) -> OwnedHandle {
        let (path, access) = (wide(path), PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED);
        // SAFETY: the path ends in NUL, and null means the default descriptor.
        let handle = unsafe {
            CreateNamedPipeW(path.as_ptr(), access, PIPE_TYPE_MESSAGE, 1, 4096, 4096, 0, null())
        };
        assert_ne!(handle, INVALID_HANDLE_VALUE);
        // SAFETY: the call succeeded, so it is an open handle, and nobody else has it.
        unsafe { OwnedHandle::from_raw_handle(handle) }
    }

    #[test]
    fn a_server_s_end_is_adopted_once_it_has_a_client() {
        let path = unique();
        let error = adopt(made_elsewhere(&path)).expect_err("no client");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("no client yet"), "{error}");

        let path = unique();
        let server = made_elsewhere(&path);
        let client = open(&path).expect("a server").register().expect("a reactor");
        let server = adopt(server).expect("a server's end");
        assert!(matches!(server, Pipe::Server { messages: true, .. }));
        let stream = |pipe| crate::Stream::from_imp(super::super::Stream::adopted(pipe));
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
