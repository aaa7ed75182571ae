//! A connected socket of a session: its bytes, and the file descriptors that come with them.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::{MaybeUninit, take};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_linger};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, send, sendmsg,
    shutdown,
};
use sockpipe::Stream;
use sockpipe::os::unix::StreamExt;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::system::{self, Pipe, Received};
use super::watch::{register, until_unread};
use crate::args::Spin;
use crate::os::{Chunk, Descriptors, Moved};
use crate::say;

/// The most descriptors of one message. No system takes more.
pub const MOST_DESCRIPTORS: usize = 512;
/// How long a read polls for an answer before it sleeps, with `--spin`.
const SPIN: Duration = Duration::from_micros(50);

/// File descriptors that go with the first byte of a chunk.
pub type Attached = Vec<OwnedFd>;

pub struct Socket {
    socket: AsyncFd<OwnedFd>,
    kind: Kind,
    spin: bool,
    /// The pipe for bytes that are spliced out of this socket. `None` if no descriptors were free
    /// for it.
    pipe: OnceLock<Option<Pipe>>,
    closed_some: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    PassesOn,
    /// `true` if the system keeps the peer from passing any.
    Refuses(bool),
    Closes,
}

impl Socket {
    pub fn local(stream: Stream, descriptors: Descriptors, spin: Spin) -> io::Result<Self> {
        let socket = stream.into_fd()?;
        let kind = match descriptors {
            Descriptors::PassedOn => Kind::PassesOn,
            Descriptors::Refused => Kind::Refuses(system::refuse_descriptors(&socket)),
            Descriptors::Closed => Kind::Closes,
        };
        Self::new(socket, kind, spin)
    }

    pub fn tcp(stream: TcpStream, spin: Spin) -> io::Result<Self> {
        Self::new(stream.into_std()?.into(), Kind::Tcp, spin)
    }

    fn new(socket: OwnedFd, kind: Kind, spin: Spin) -> io::Result<Self> {
        let socket = register(socket, Interest::READABLE | Interest::WRITABLE)?;
        let spin = spin.spin;
        Ok(Self { socket, kind, spin, pipe: OnceLock::new(), closed_some: AtomicBool::new(false) })
    }

    /// Returns the next bytes, none at end of file. A dropped future has read nothing.
    pub async fn read(&self) -> io::Result<Chunk> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Some(read) = self.try_read() {
                return read;
            }
            ready.clear_ready();
            if self.spin {
                if let Some(read) = self.look_again().await {
                    return read;
                }
            }
        }
    }

    /// Returns `None` if nothing has arrived.
    fn try_read(&self) -> Option<io::Result<Chunk>> {
        let chunk = match Chunk::new() {
            Ok(chunk) => chunk,
            Err(error) => return Some(Err(error)),
        };
        match self.receive(chunk) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.try_read(),
            // The peer is gone without reading all bytes. What it sent has been read.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && self.kind != Kind::Tcp => {
                Some(Chunk::new())
            }
            read => Some(read),
        }
    }

    fn receive(&self, mut chunk: Chunk) -> io::Result<Chunk> {
        let room = chunk.room();
        let received = match self.kind {
            Kind::Tcp => {
                let (length, _) = recv(&self.socket, room, RecvFlags::DONTWAIT)?;
                return Ok(chunk.filled(length));
            }
            Kind::PassesOn => system::receive(self.socket.as_fd(), room)?,
            Kind::Refuses(_) | Kind::Closes => Received::bytes_only(self.socket.as_fd(), room)?,
        };
        if received.lost {
            self.tell_lost()?;
        }
        chunk.attached = received.descriptors;
        Ok(chunk.filled(received.length))
    }

    fn tell_lost(&self) -> io::Result<()> {
        let what = match self.kind {
            Kind::Closes => {
                if !self.closed_some.swap(true, Ordering::Relaxed) {
                    say::warning("the peer passed file descriptors, which were closed");
                }
                return Ok(());
            }
            Kind::Refuses(_) => "the peer passed file descriptors, which are not passed on here",
            Kind::PassesOn | Kind::Tcp => {
                "file descriptors of the peer were lost: this process may have no more open; raise \
                 its limit"
            }
        };
        Err(io::Error::new(ErrorKind::InvalidData, what))
    }

    async fn look_again(&self) -> Option<io::Result<Chunk>> {
        let started = Instant::now();
        while started.elapsed() < SPIN {
            yield_now().await;
            if let Some(read) = self.try_read() {
                return Some(read);
            }
        }
        None
    }

    pub async fn write(&self, mut chunk: Chunk) -> io::Result<()> {
        let descriptors = take(&mut chunk.attached);
        let mut rest = &chunk[..];
        if !descriptors.is_empty() {
            let sent = self.when_writable(|| pass(&self.socket, rest, &descriptors)).await?;
            drop(descriptors);
            rest = &rest[sent..];
        }
        while !rest.is_empty() {
            let sent = self.when_writable(|| send(&self.socket, rest, SendFlags::DONTWAIT)).await?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Moves what has arrived to `to`. When it returns, read again.
    ///
    /// It leaves bytes that descriptors may come with, because a splice would lose the descriptors.
    pub async fn splice(&self, to: &Self, moved: &Moved) -> io::Result<()> {
        // Into TCP, a copy is as fast.
        if to.kind == Kind::Tcp {
            return Ok(());
        }
        let looks_first = match self.kind {
            Kind::Tcp | Kind::Refuses(true) => false,
            Kind::PassesOn | Kind::Refuses(false) => true,
            Kind::Closes => return Ok(()),
        };

        let Some(pipe) = self.pipe.get_or_init(|| Pipe::new().ok()) else { return Ok(()) };
        loop {
            let most = if looks_first { Some(self.bytes_ahead()?) } else { None };
            let Some(length) = pipe.fill(self.socket.as_fd(), most)? else { return Ok(()) };
            moved.begin();
            let mut left = length;
            while left > 0 {
                left -= to.when_writable(|| pipe.empty(to.socket.as_fd(), left)).await?;
            }
            moved.finish(length);
        }
    }

    /// Returns at least how many bytes come before the next descriptors, or zero if a splice does
    /// not pay.
    fn bytes_ahead(&self) -> io::Result<usize> {
        let mut chunk = Chunk::new()?;
        match system::bytes_ahead(self.socket.as_fd(), chunk.room()) {
            Err(Errno::AGAIN) => Ok(0),
            ahead => Ok(ahead?),
        }
    }

    async fn when_writable(
        &self,
        mut write: impl FnMut() -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        let mut ready: Option<AsyncFdReadyGuard<'_, _>> = None;
        loop {
            match write() {
                Err(Errno::AGAIN) => {
                    if let Some(mut ready) = ready.take() {
                        ready.clear_ready();
                    }
                }
                Err(Errno::INTR) => continue,
                written => return Ok(written?),
            }
            ready = Some(self.socket.writable().await?);
        }
    }

    /// Passes on the end of file.
    pub async fn shutdown(&self) -> io::Result<()> {
        Ok(shutdown(&self.socket, Shutdown::Write)?)
    }

    /// Completes when the peer is gone, or both directions have ended.
    pub async fn gone(&self) {
        until_unread(&self.socket).await;
    }

    /// Makes the close of a TCP socket a reset.
    pub fn reset(&self) {
        if self.kind == Kind::Tcp {
            let _ = set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
    }

    /// Closes the socket. The kernel already has all written bytes.
    pub async fn close(self, _: Duration) -> io::Result<()> {
        // Ignore that the peer has left. Before a reset, send no end of file: the peer would take
        // it for a normal end.
        if self.kind != Kind::Tcp || socket_linger(&self.socket) != Ok(Some(Duration::ZERO)) {
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        Ok(())
    }
}

/// Writes bytes, and passes descriptors with the first of them.
fn pass(socket: impl AsFd, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<usize, Errno> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT)
}
