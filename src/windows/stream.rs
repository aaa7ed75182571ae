//! A connection: one end of a pipe whose I/O the crate's reactor completes.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::connect::Search;
use super::end::{self, Again, PeerEnd};
use super::reactor::{self, Task};
use super::registered::Pipe;
use super::{CHUNK, broken_pipe, no_half_close, not_taken, pipe, security, system};
use crate::endpoint::Endpoint;
use crate::error::{Error, Reason};
use crate::options::ConnectOptions;
use crate::peer::{PeerCredentials, PeerTold};
use tokio::io::ReadBuf;
use tokio::sync::watch;
use tokio::time;

pub(crate) struct Stream {
    pub(super) pipe: Arc<Pipe>,
    peer_end: PeerEnd,
    shut: AtomicBool,
    /// Whether `shutdown` succeeds on a pipe that cannot carry our end: the peer reads it at close.
    end_on_close: bool,
    /// `None` until the write side is shut.
    end: Mutex<Option<Ending>>,
    /// Dropped with the stream, which notifies the futures that wait to identify the peer.
    open: OnceLock<watch::Sender<()>>,
}

struct Ending {
    end: End,
    /// Sends the end, and sends it again.
    _task: Option<Task<()>>,
}

/// Our end of the stream: an empty message, or nothing on a pipe of byte type.
#[derive(Clone)]
enum End {
    Sent(Outcome),
    Sending(watch::Receiver<Option<Outcome>>),
}

/// The error is shared, because several callers can ask for it.
type Outcome = Result<(), Arc<io::Error>>;

impl Stream {
    pub(crate) async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        let mut search = Search::new(endpoint, options)?;
        loop {
            match search.attempt()? {
                Ok(opened) => {
                    return Ok(Self::new(Pipe::client(opened)?, options.end_on_close));
                }
                Err(pause) => reactor::sleep(pause)?.await,
            }
        }
    }

    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (server, client) = pipe::pair()?;
        let server = Pipe::connected(server, system::End::Server, true)?;
        let client = Pipe::client(client)?;
        Ok((Self::new(server, false), Self::new(client, false)))
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 || self.peer_end.is_read() {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.pipe.poll_read_ready(cx))?;
            match self.pipe.try_read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(self.peer_end.read(outcome).map(drop)),
            }
        }
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let chunk = &buf[..buf.len().min(CHUNK)];
        self.write_with(cx, chunk.is_empty(), || self.pipe.try_write(chunk))
    }

    /// As [`poll_write`](Self::poll_write), for a caller that has the stream to itself.
    pub(crate) fn poll_write_alone(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, buf)
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
            return self.end(self.pipe.has_messages(), |_| ());
        }
        Err(no_half_close())
    }

    pub(crate) async fn close(self, deadline: Duration) -> io::Result<()> {
        self.close_shared(deadline).await
    }

    pub(super) async fn close_shared(&self, deadline: Duration) -> io::Result<()> {
        let outcome = match self.end(false, End::clone)? {
            End::Sent(outcome) => outcome,
            End::Sending(outcome) => match reactor::timeout(deadline, sent(outcome))?.await {
                Ok(outcome) => outcome?,
                Err(_) => return Err(not_taken(deadline)),
            },
        };
        outcome.map_err(|error| again(&error))
    }

    /// The future does not keep the pipe open.
    pub(crate) fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let pipe = Arc::downgrade(&self.pipe);
        async move {
            while let Some(is_gone) = pipe.upgrade().map(|pipe| pipe::peer_is_gone(&*pipe)) {
                if is_gone? {
                    return Ok(());
                }
                reactor::sleep(pipe::LOOK)?.await;
            }
            pending().await
        }
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        security::peer(&*self.pipe, self.pipe.end())
    }

    pub(crate) fn peer_told(&self) -> Option<PeerTold> {
        let error = self.peer_credentials().err()?;
        match Error::of(&error)?.reason() {
            Reason::PeerNotToldYet { .. } => Some(Box::pin(self.told_when_readable())),
            _ => None,
        }
    }

    /// Returns the peer's credentials once the pipe is readable. The event loop reads ahead, and
    /// the data that it has read identifies the client that wrote it.
    pub(super) fn told_when_readable(
        &self,
    ) -> impl Future<Output = io::Result<PeerCredentials>> + Send + use<> {
        let pipe = Arc::clone(&self.pipe);
        let mut open = self.open.get_or_init(|| watch::Sender::new(())).subscribe();
        async move {
            let (mut closed, mut readable) = (pin!(open.changed()), pin!(pipe.readable()));
            poll_fn(|cx| match closed.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(Err(ErrorKind::NotConnected.into())),
                Poll::Pending => readable.as_mut().poll(cx),
            })
            .await?;
            security::peer(&*pipe, pipe.end())
        }
    }

    /// Resumes a stream that was used before, and may have read the peer's end or sent ours.
    #[cfg(feature = "blocking")]
    pub(super) fn resumed(
        pipe: Pipe,
        peer_end: PeerEnd,
        write: super::blocking::WriteState,
    ) -> Self {
        let stream = Self { peer_end, ..Self::new(pipe, write.end_on_close) };
        stream.shut.store(write.ended.is_some(), Ordering::Relaxed);
        let sent = |outcome: io::Result<()>| End::Sent(outcome.map_err(Arc::new));
        let end = write.ended.map(|outcome| Ending { end: sent(outcome), _task: None });
        Self { end: Mutex::new(end), ..stream }
    }

    pub(super) fn adopted(pipe: Pipe) -> Self {
        Self::new(pipe, false)
    }

    pub(super) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    pub(super) fn new(pipe: Pipe, end_on_close: bool) -> Self {
        Self {
            pipe: Arc::new(pipe),
            peer_end: PeerEnd::default(),
            shut: AtomicBool::new(false),
            end_on_close,
            end: Mutex::new(None),
            open: OnceLock::new(),
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
            // Nothing is written after the end, which another task or thread may be sending.
            let ending = self.ending();
            if self.shut.load(Ordering::Relaxed) {
                return Poll::Ready(Err(broken_pipe()));
            }
            let written = write();
            drop(ending);
            match written {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if pipe::is_gone(&error) => return Poll::Ready(Err(broken_pipe())),
                done => return Poll::Ready(done),
            }
        }
    }

    /// Ends the write side, if it is not ended yet, without waiting.
    fn end<T>(&self, again: bool, then: impl FnOnce(&End) -> T) -> io::Result<T> {
        let mut ending = self.ending();
        self.shut.store(true, Ordering::Relaxed);
        let ending = match &mut *ending {
            Some(ending) => ending,
            none => none.insert(Ending::start(&self.pipe, again)?),
        };
        Ok(then(&ending.end))
    }

    fn ending(&self) -> MutexGuard<'_, Option<Ending>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ending {
    fn start(pipe: &Arc<Pipe>, again: bool) -> io::Result<Self> {
        let tried = try_end(pipe);
        let pipe = Arc::clone(pipe);

        let (end, task) = match tried {
            Some(Ok(())) if again => {
                (End::Sent(Ok(())), Some(Task::spawn(async move { repeat_end(&pipe).await })?))
            }
            Some(outcome) => (End::Sent(outcome.map_err(Arc::new)), None),

            None => {
                let (sender, receiver) = watch::channel(None);
                let send = async move {
                    let outcome = send_end(&pipe).await;
                    let again = again && outcome.is_ok();
                    sender.send_replace(Some(outcome.map_err(Arc::new)));
                    if again {
                        repeat_end(&pipe).await;
                    }
                };
                (End::Sending(receiver), Some(Task::spawn(send)?))
            }
        };
        Ok(Self { end, _task: task })
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedPipe").field("pipe", &self.pipe).finish_non_exhaustive()
    }
}

/// Waits for the outcome of sending the end.
async fn sent(mut end: watch::Receiver<Option<Outcome>>) -> io::Result<Outcome> {
    loop {
        if let Some(outcome) = &*end.borrow_and_update() {
            return Ok(outcome.clone());
        }
        end.changed().await.map_err(io::Error::other)?;
    }
}

/// Copies an error for another caller.
fn again(error: &io::Error) -> io::Error {
    let code = error.raw_os_error();
    code.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

async fn send_end(pipe: &Pipe) -> io::Result<()> {
    loop {
        pipe.writable().await?;
        if let Some(outcome) = try_end(pipe) {
            return outcome;
        }
    }
}

async fn repeat_end(pipe: &Pipe) {
    for pause in Again::new() {
        time::sleep(pause).await;
        match pipe.try_write(&[]) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// Tries to send our end. Returns `None` while a write of ours is under way.
fn try_end(pipe: &Pipe) -> Option<io::Result<()>> {
    match pipe.try_write(&[]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        outcome => Some(end::sent(outcome.map(drop))),
    }
}
