//! The blocking backend.

mod listener;
#[cfg(feature = "tokio")]
mod reactor;
mod turn;
mod write;

use std::fmt;
use std::io::{self, IoSlice};
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

pub(crate) use self::listener::Listener;
use self::turn::Turn;
use self::write::WriteSide;
#[cfg(feature = "tokio")]
pub(super) use self::write::WriteState;
use super::connect::Search;
use super::end::PeerEnd;
use super::overlapped::{self, Event};
use super::pipe::{self, Opened};
use super::system::End;
use super::{CHUNK, security};
use crate::endpoint::Endpoint;
use crate::options::ConnectOptions;
use crate::peer::PeerCredentials;
use crate::wait::{Deadline, Limit, timed_out};

pub(crate) enum Stream {
    Own(Own),
    /// A stream that was async before. The reactor still completes its I/O, because its
    /// registration cannot be undone.
    #[cfg(feature = "tokio")]
    Registered(reactor::Registered),
}

/// One end of a pipe.
pub(crate) struct Own {
    pipe: Arc<OwnedHandle>,
    end: End,
    /// Whether the pipe is of message type, so that it can carry the end of one direction.
    messages: bool,
    peer_end: PeerEnd,
    reading: Turn,
    read_event: Event,
    write: WriteSide,
}

impl Stream {
    pub(crate) fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        let mut search = Search::new(endpoint, options)?;
        loop {
            match search.attempt()? {
                Ok(opened) => return Own::client(opened, options.end_on_close).map(Self::Own),
                Err(pause) => thread::sleep(pause),
            }
        }
    }

    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        // A server's end that has its client already needs no `ConnectNamedPipe`.
        let (server, client) = pipe::pair()?;
        let server = Own::new(Arc::new(server), End::Server, true, false)?;
        Ok((Self::Own(server), Self::Own(Own::client(client, false)?)))
    }

    pub(crate) fn read(&self, buf: &mut [u8], limit: Limit) -> io::Result<usize> {
        match self {
            Self::Own(own) => own.read(buf, Deadline::after(limit.get())),
            #[cfg(feature = "tokio")]
            Self::Registered(stream) => stream.read(buf, Deadline::after(limit.get())),
        }
    }

    pub(crate) fn write(&self, buf: &[u8], limit: Limit) -> io::Result<usize> {
        let chunk = &buf[..buf.len().min(CHUNK)];
        match self {
            Self::Own(own) => own.write(chunk, Deadline::after(limit.get())),
            #[cfg(feature = "tokio")]
            Self::Registered(stream) => stream.write(chunk, Deadline::after(limit.get())),
        }
    }

    pub(crate) fn write_vectored(&self, bufs: &[IoSlice<'_>], limit: Limit) -> io::Result<usize> {
        match self {
            Self::Own(own) => own.write(&first_of(bufs), Deadline::after(limit.get())),
            #[cfg(feature = "tokio")]
            Self::Registered(stream) => stream.write_vectored(bufs, Deadline::after(limit.get())),
        }
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Own(own) => own.write.shutdown(&own.pipe),
            #[cfg(feature = "tokio")]
            Self::Registered(stream) => stream.shutdown(),
        }
    }

    pub(crate) fn close(&self, deadline: Duration) -> io::Result<()> {
        match self {
            Self::Own(own) => own.write.close(&own.pipe, deadline),
            #[cfg(feature = "tokio")]
            Self::Registered(stream) => stream.close(deadline),
        }
    }

    pub(crate) fn closed(&self, deadline: Deadline) -> io::Result<bool> {
        loop {
            if pipe::peer_is_gone(self)? {
                return Ok(true);
            }
            if deadline.is_past() {
                return Ok(false);
            }
            thread::sleep(deadline.left().map_or(pipe::LOOK, |left| left.min(pipe::LOOK)));
        }
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        security::peer(self, self.end())
    }

    pub(super) fn end(&self) -> End {
        match self {
            Self::Own(own) => own.end,
            #[cfg(feature = "tokio")]
            Self::Registered(stream) => stream.end(),
        }
    }

    /// Wraps an end that was made elsewhere.
    pub(super) fn adopted(handle: OwnedHandle) -> io::Result<Self> {
        let (end, messages) = pipe::check_adopted(&handle)?;
        overlapped::check_adopted(&handle, end)?;
        Own::new(Arc::new(handle), end, messages, false).map(Self::Own)
    }

    /// Returns the handle, which is not bound to a completion port of ours.
    pub(super) fn into_handle(self) -> io::Result<OwnedHandle> {
        match self {
            Self::Own(own) => own.into_handle(),
            #[cfg(feature = "tokio")]
            Self::Registered(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the crate's event loop completes the I/O of this stream, which was an async one, \
                 and the system does not release it",
            )),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn from_async(stream: super::Stream) -> io::Result<Self> {
        Ok(Self::Registered(reactor::Registered::new(stream)))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn into_async(self) -> io::Result<super::Stream> {
        let own = match self {
            Self::Own(own) => own,
            Self::Registered(stream) => return Ok(stream.into_inner()),
        };
        let (end, messages) = (own.end, own.messages);
        let (handle, peer_end, state) = own.into_parts()?;
        let pipe = super::registered::Pipe::connected(handle, end, messages)?;
        Ok(super::Stream::resumed(pipe, peer_end, state))
    }
}

impl Own {
    fn client(opened: Opened, end_on_close: bool) -> io::Result<Self> {
        Self::new(Arc::new(opened.handle), End::Client, opened.messages, end_on_close)
    }

    fn new(
        pipe: Arc<OwnedHandle>,
        end: End,
        messages: bool,
        end_on_close: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            pipe,
            end,
            messages,
            peer_end: PeerEnd::default(),
            reading: Turn::default(),
            read_event: Event::new()?,
            write: WriteSide::new(messages, end_on_close)?,
        })
    }

    fn read(&self, buf: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        // One read at a time: the system gives the end of the stream to one read only.
        let Some(_turn) = self.reading.take(deadline) else { return Err(timed_out("read")) };
        if buf.is_empty() || self.peer_end.is_read() {
            return Ok(0);
        }
        match overlapped::read(&*self.pipe, buf, &self.read_event, deadline) {
            Ok(None) => Err(timed_out("read")),
            Ok(Some(length)) => self.peer_end.read(Ok(length)),
            Err(error) => self.peer_end.read(Err(error)),
        }
    }

    fn write(&self, bytes: &[u8], deadline: Deadline) -> io::Result<usize> {
        self.write.write(&self.pipe, bytes, deadline)
    }

    /// Returns the pipe, once no operation is under way on it.
    fn into_handle(self) -> io::Result<OwnedHandle> {
        self.write.finish()?;
        unshared(self.pipe)
    }

    /// Returns the pipe in the same way, and the state of both directions.
    #[cfg(feature = "tokio")]
    fn into_parts(self) -> io::Result<(OwnedHandle, PeerEnd, WriteState)> {
        let state = self.write.into_state()?;
        Ok((unshared(self.pipe)?, self.peer_end, state))
    }
}

fn unshared(pipe: Arc<OwnedHandle>) -> io::Result<OwnedHandle> {
    Arc::try_unwrap(pipe).map_err(|_| {
        io::Error::new(io::ErrorKind::ResourceBusy, "a write of this stream is under way")
    })
}

/// Joins the bytes that one write takes into one message: as many as fit in a chunk.
fn first_of(bufs: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for buf in bufs {
        let room = CHUNK - bytes.len();
        bytes.extend_from_slice(&buf[..buf.len().min(room)]);
    }
    bytes
}

impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self {
            Self::Own(own) => own.pipe.as_handle(),
            #[cfg(feature = "tokio")]
            Self::Registered(stream) => stream.as_handle(),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedPipe")
            .field("pipe", &self.as_handle())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

/// Returns a waker that unparks this thread.
fn waker() -> Waker {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(thread::current())))
}
