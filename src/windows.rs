//! Named pipes.

mod accept;
mod connect;
pub mod ext;
mod pipe;
mod reactor;
mod security;
mod spawn;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
use tokio::sync::mpsc::{Receiver, channel};
use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_NO_DATA, ERROR_PIPE_BUSY};

use self::accept::{ARMED, Instances, Name, RELEASE};
use self::pipe::{Instance, Kind, Pipe, Presence};
use self::reactor::Task;
pub(crate) use self::reactor::sleep;
use self::security::own_sid;
pub(crate) use self::spawn::{SpawnLock, leave, nameless_file, spawn_detached};
use crate::endpoint::resolve::{Candidate, Environment, Family, candidates};
use crate::endpoint::{Endpoint, Form, ParseEndpointError};
use crate::listener::ListenerStats;
use crate::messages::in_use;
use crate::occupancy::Occupancy;
use crate::options::{Access, ConnectOptions, ListenOptions};
use crate::peer::{PeerCredentials, UserId};

/// The longest `\\.\pipe\NAME` that the system takes, in UTF-16 units.
const PATH_LIMIT: usize = 256;
/// Clients that are connected and not accepted yet, beyond those in the armed instances.
const BACKLOG: usize = 128;
/// The most that one write hands to the system, and so the most of what was written that is lost
/// when the process ends without `close`.
const CHUNK: usize = 64 * 1024;

pub(crate) fn environment() -> io::Result<Environment> {
    Ok(Environment {
        family: Family::Windows,
        user: UserId::Sid(own_sid()?.to_owned()),
        runtime_dir: None,
        user_temp_dir: None,
    })
}

pub(crate) fn occupancy(candidate: &Candidate) -> io::Result<Occupancy> {
    let address = resolve(&candidate.address())?;
    match pipe::presence(&address.to_string()) {
        Presence::There => Ok(Occupancy::Held { process: None }),
        Presence::Absent => Ok(Occupancy::Free),
        Presence::Unknown => {
            let what = format!("the system does not tell whether there is a pipe at {address}");
            Err(io::Error::other(what))
        }
    }
}

/// The system takes a pipe's name back with its last handle, so there never is anything.
pub(crate) fn remove_stale(candidate: &Candidate) -> io::Result<bool> {
    match occupancy(candidate)? {
        Occupancy::Held { process } => Err(in_use(candidate.address(), process)),
        _ => Ok(false),
    }
}

pub(crate) struct Listener {
    // Dropped in this order: first what holds instances of the pipe, then the name, which waits
    // until they are closed.
    instances: Task<Vec<NamedPipeServer>>,
    clients: Receiver<NamedPipeServer>,
    name: Name,
    messages: bool,
    pauses: Arc<AtomicU64>,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let address = resolve(endpoint)?;
        let path = address.to_string();
        let kind = Kind::chosen(options)?;
        let (messages, armed) = (kind.has_messages(), options.windows.instances.unwrap_or(ARMED));
        // The system refuses a second server too, but not with an error that means only this.
        if pipe::presence(&path) == Presence::There {
            return Err(in_use(&address, None));
        }
        let instances = match Instances::claim(&path, kind, armed) {
            Ok(instances) => instances,
            Err(error) => return Err(cannot_listen(&address, &path, &error)),
        };
        let (sender, clients) = channel(BACKLOG);
        let (name, pauses) = (Name::new(path), instances.pauses());
        let instances = Task::spawn(instances.serve(sender))?;
        Ok((Self { instances, clients, name, messages, pauses }, address))
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let Some(pipe) = ready!(self.clients.poll_recv(cx)) else {
            return Poll::Ready(Err(io::Error::other("the thread that accepts clients is gone")));
        };
        Poll::Ready(Ok(self.stream(pipe)))
    }

    pub(crate) fn take_pending(&mut self) -> Vec<Stream> {
        self.clients.close();
        let left = if reactor::is_current_thread() { None } else { self.instances.wait(RELEASE) };
        let mut pipes = Vec::new();
        while let Ok(pipe) = self.clients.try_recv() {
            pipes.push(pipe);
        }
        pipes.extend(left.into_iter().flatten());
        pipes.into_iter().map(|pipe| self.stream(pipe)).collect()
    }

    fn stream(&self, pipe: NamedPipeServer) -> Stream {
        let pipe = Pipe::Server { pipe, messages: self.messages };
        Stream::new(pipe, false, Some(self.name.keep()))
    }

    /// No client is refused here: the system does, by the pipe's descriptor.
    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats { refused: 0, pauses: self.pauses.load(Ordering::Relaxed) }
    }
}

pub(crate) struct Stream {
    pipe: Arc<Pipe>,
    /// The peer's end was read. Later reads must not wait for another.
    at_end: AtomicBool,
    shut: AtomicBool,
    /// What `shutdown` may do on a pipe that cannot carry our end.
    end_on_close: bool,
    /// What became of our end, once the write side is shut.
    end: Mutex<Option<End>>,
    // Last, so that the listener's name is not waited for before the pipe is on its way out.
    _name: Option<Arc<()>>,
}

/// An empty message, the end of a stream; nothing on a pipe of byte type. The system takes it when
/// it has all that was written before, so it is also the proof of that.
enum End {
    Sent(io::Result<()>),
    Sending(Task<io::Result<()>>),
}

impl Stream {
    pub(crate) async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        let pipe = connect::connect(&resolve(endpoint)?, options).await?;
        Ok(Self::new(pipe, options.end_on_close, None))
    }

    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let name = format!("sockpipe.{}.{:016x}", process::id(), connect::random());
        let path = Endpoint(Form::Pipe(name)).to_string();
        let pipe = pipe::create(&path, Instance::Only, &Kind::new(Access::Owner)?)?;
        let client = pipe::open(&path)?.register()?;
        pipe::connected(&pipe)?;
        let server = Pipe::Server { pipe, messages: true };
        Ok((Self::new(server, false, None), Self::new(client, false, None)))
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 || self.at_end.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.pipe.poll_read_ready(cx))?;
            match self.pipe.try_read(buf) {
                Ok(1..) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if !pipe::is_gone(&error) => return Poll::Ready(Err(error)),
                // An empty message, or the peer is gone.
                Ok(0) | Err(_) => {
                    self.at_end.store(true, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let chunk = &buf[..buf.len().min(CHUNK)];
        self.write_with(cx, chunk.is_empty(), || self.pipe.try_write(chunk))
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first) = bufs.iter().position(|buf| !buf.is_empty()) else {
            return self.poll_write(cx, &[]);
        };
        let bufs = &bufs[first..];
        let mut room = CHUNK;
        let whole = bufs.iter().take_while(|buf| {
            let fits = buf.len() <= room;
            room = room.saturating_sub(buf.len());
            fits
        });
        match whole.count() {
            0 | 1 => self.poll_write(cx, &bufs[0]),
            whole => self.write_with(cx, false, || self.pipe.try_write_vectored(&bufs[..whole])),
        }
    }

    pub(crate) fn is_write_vectored(&self) -> bool {
        true
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        if self.pipe.has_messages() || self.end_on_close {
            return self.end(|_| ());
        }
        Err(io::Error::new(
            ErrorKind::Unsupported,
            "the pipe is of byte type and cannot carry the end of one direction; the peer reads \
             it when the stream is closed, and ConnectOptions::end_on_close leaves it to that",
        ))
    }

    pub(crate) async fn close(self, deadline: Duration) -> io::Result<()> {
        match self.end(|end| std::mem::replace(end, End::Sent(Ok(()))))? {
            End::Sent(outcome) => outcome,
            End::Sending(task) => match reactor::timeout(deadline, task)?.await {
                Ok(outcome) => outcome?,
                Err(_) => Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "the peer did not take what was written within {} s; it still arrives \
                         while this process lives",
                        deadline.as_secs_f32()
                    ),
                )),
            },
        }
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let (sid, process) = match *self.pipe {
            Pipe::Server { .. } => {
                (security::client_sid(&*self.pipe)?, security::client_process(&*self.pipe))
            }
            Pipe::Client { .. } => {
                let Some(owner) = security::owner_sid(&*self.pipe)? else {
                    let what = "the server's pipe does not name its owner";
                    return Err(io::Error::new(ErrorKind::Unsupported, what));
                };
                (owner, security::server_process(&*self.pipe))
            }
        };
        Ok(PeerCredentials::new(UserId::Sid(sid), None, process))
    }

    fn adopted(pipe: Pipe) -> Self {
        Self::new(pipe, false, None)
    }

    fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    fn new(pipe: Pipe, end_on_close: bool, name: Option<Arc<()>>) -> Self {
        Self {
            pipe: Arc::new(pipe),
            at_end: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            end_on_close,
            end: Mutex::new(None),
            _name: name,
        }
    }

    fn write_with(
        &self,
        cx: &mut Context<'_>,
        nothing: bool,
        write: impl Fn() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.shut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(broken_pipe()));
        }
        // An empty message would be the end.
        if nothing {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(self.pipe.poll_write_ready(cx))?;
            match write() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if pipe::is_gone(&error) => return Poll::Ready(Err(broken_pipe())),
                done => return Poll::Ready(done),
            }
        }
    }

    /// Ends the write side, if it is not ended yet, without waiting.
    fn end<T>(&self, then: impl FnOnce(&mut End) -> T) -> io::Result<T> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        self.shut.store(true, Ordering::Relaxed);
        let end = match &mut *end {
            Some(end) => end,
            none => none.insert(match try_end(&self.pipe) {
                Some(outcome) => End::Sent(outcome),
                None => End::Sending(Task::spawn(send_end(Arc::clone(&self.pipe)))?),
            }),
        };
        Ok(then(end))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedPipe").field("pipe", &self.pipe).finish_non_exhaustive()
    }
}

pub(crate) async fn shutdown_signal() -> io::Result<()> {
    let (mut c, mut end, mut close, mut shutdown) =
        (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
    poll_fn(|cx| {
        let came =
            [c.poll_recv(cx), end.poll_recv(cx), close.poll_recv(cx), shutdown.poll_recv(cx)];
        if came.iter().any(Poll::is_ready) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(())
}

async fn send_end(pipe: Arc<Pipe>) -> io::Result<()> {
    loop {
        pipe.writable().await?;
        if let Some(outcome) = try_end(&pipe) {
            return outcome;
        }
    }
}

/// `None` while a write of ours is under way.
fn try_end(pipe: &Pipe) -> Option<io::Result<()>> {
    match pipe.try_write(&[]) {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        // It is this write that met a closed pipe. One that was under way when the peer left has
        // another error, which comes first.
        Err(error) if pipe::code(&error) == Some(ERROR_NO_DATA) => Some(Ok(())),
        Err(error) if pipe::is_gone(&error) => Some(Err(broken_pipe())),
        Err(error) => Some(Err(error)),
    }
}

/// The address with a portable name resolved.
fn resolve(endpoint: &Endpoint) -> io::Result<Endpoint> {
    // There is exactly one on Windows.
    let address = match candidates(endpoint, &environment()?)?.first() {
        Some(candidate) => candidate.address(),
        None => endpoint.clone(),
    };
    let length = address.to_string().encode_utf16().count();
    if length > PATH_LIMIT {
        let reason = format!("a pipe's path has at most {PATH_LIMIT} characters, not {length}");
        return Err(ParseEndpointError::new(address, reason).into());
    }
    Ok(address)
}

fn cannot_listen(address: &Endpoint, path: &str, error: &io::Error) -> io::Error {
    match pipe::code(error) {
        Some(ERROR_ACCESS_DENIED | ERROR_PIPE_BUSY) if pipe::presence(path) == Presence::There => {
            in_use(address, None)
        }
        _ => io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")),
    }
}

fn broken_pipe() -> io::Error {
    io::Error::from(ErrorKind::BrokenPipe)
}
