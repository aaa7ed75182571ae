//! The handlers of a server: how they start, each in a task and within the limits, and how they
//! end.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{Connection, More, OnError, Start};
use super::refusals::{OnRefused, Refusals};
use super::users::Users;
use super::{Counters, Drained, HandlerOutput, Refusal, Stopping};
use crate::listener::LocalListener;
use crate::runtime::sleep;
use crate::stream::LocalStream;

/// How long aborted handlers have to end.
const CUT: Duration = Duration::from_secs(1);

/// The options of a server.
pub(super) struct Settings<S, H, E> {
    pub(super) handler: H,
    pub(super) on_error: Option<OnError<E>>,
    pub(super) on_refused: Option<OnRefused<S>>,
    pub(super) max_connections: Option<usize>,
    pub(super) max_per_user: Option<usize>,
    /// Whether a handler ends when its client leaves.
    pub(super) cancels: bool,
    pub(super) counters: Counters,
}

/// Why the server accepts no more clients: the signal, a lack of clients, or the listener's error.
pub(super) enum Ended<T, I> {
    Stopped(T),
    Idle(I),
    Failed(io::Error),
}

pub(super) struct Handlers<S, H, E> {
    handler: H,
    on_error: Option<OnError<E>>,
    max_connections: Option<usize>,
    max_per_user: Option<usize>,
    cancels: bool,
    counters: Counters,
    users: Users,
    tasks: JoinSet<()>,
    refusals: Refusals<S>,
    stop: watch::Sender<bool>,
    stopping: Stopping,
}

impl<S, H, F, E> Handlers<S, H, E>
where
    S: LocalStream,
    H: FnOnce(S, Stopping) -> F + Clone + Send + 'static,
    F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
    E: Display + 'static,
{
    pub(super) fn new(settings: Settings<S, H, E>) -> io::Result<Self> {
        let Settings { max_connections, max_per_user, on_refused, .. } = settings;
        if [max_connections, max_per_user].contains(&Some(0)) {
            let what = "a limit of 0 connections would serve no client; use 1 or more";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if Handle::try_current().is_err() {
            let what = "serve needs a tokio runtime to run handlers on: await it inside one";
            return Err(io::Error::other(what));
        }
        if on_refused.is_some() {
            // Reports a runtime without timers now, because no client could be answered without
            // them.
            drop(sleep(Duration::ZERO)?);
        }

        let (stop, stopping) = Stopping::new();
        Ok(Self {
            handler: settings.handler,
            on_error: settings.on_error,
            max_connections,
            max_per_user,
            cancels: settings.cancels,
            counters: settings.counters,
            users: Users::default(),
            tasks: JoinSet::new(),
            refusals: Refusals::new(on_refused),
            stop,
            stopping,
        })
    }

    /// Accepts clients until `signal` or `idle` completes, or the listener fails. `idle` is polled
    /// if no client is pending, with whether no connection is served.
    pub(super) async fn accept_until<L, T, I>(
        &mut self,
        listener: &mut L,
        signal: T,
        mut idle: impl FnMut(&mut Context<'_>, bool) -> Poll<I>,
    ) -> Ended<T::Output, I>
    where
        L: LocalListener<Stream = S>,
        T: Future,
    {
        let mut signal = pin!(signal);
        loop {
            let mut accept = pin!(listener.accept());
            let next = poll_fn(|cx| {
                if let Poll::Ready(output) = signal.as_mut().poll(cx) {
                    return Poll::Ready(Err(Ended::Stopped(output)));
                }
                self.reap(cx);
                if self.is_full() {
                    // The next handler that finishes wakes this task.
                    return Poll::Pending;
                }
                match accept.as_mut().poll(cx) {
                    Poll::Ready(accepted) => Poll::Ready(accepted.map_err(Ended::Failed)),
                    Poll::Pending => idle(cx, self.tasks.is_empty()).map(Ended::Idle).map(Err),
                }
            });
            match next.await {
                Ok(stream) => self.start(stream),
                Err(ended) => return ended,
            }
        }
    }

    /// Returns connections that were made before the shutdown, whose clients may have sent
    /// requests. From here on `listener` accepts no more, unless further clients are to get an
    /// answer.
    pub(super) fn last<L: LocalListener<Stream = S>>(&self, listener: &mut L) -> Vec<S> {
        if self.refusals.are_told() {
            crate::listener::waiting(listener)
        } else {
            listener.stop_listening()
        }
    }

    /// Lets running handlers continue by themselves.
    pub(super) fn leave(mut self) {
        self.tasks.detach_all();
        self.refusals.leave();
    }

    /// Lets running handlers finish, and starts `pending` as the limits allow, until the deadline.
    /// Clients that `listener` yields meanwhile are refused.
    pub(super) async fn drain<L: LocalListener<Stream = S>>(
        mut self,
        mut listener: Option<L>,
        pending: Vec<S>,
        deadline: Duration,
    ) -> io::Result<Drained> {
        self.stop.send_replace(true);
        let mut pending = VecDeque::from(pending);
        let mut over = pin!(sleep(deadline)?);
        let (mut finished, mut accepts) = (0, listener.is_some());
        loop {
            while !self.is_full() {
                let Some(stream) = pending.pop_front() else { break };
                self.start(stream);
            }
            if self.tasks.is_empty() {
                break;
            }

            let mut late = pin!(late(listener.as_mut().filter(|_| accepts)));
            let next = poll_fn(|cx| {
                self.refusals.reap(cx);
                if self.tasks.poll_join_next(cx).is_ready() {
                    return Poll::Ready(Some(Step::Finished));
                }
                if over.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                late.as_mut().poll(cx).map(|late| Some(Step::Late(late)))
            });
            match next.await {
                Some(Step::Finished) => finished += 1,
                Some(Step::Late(Ok(stream))) => self.refuse(stream, Refusal::Stopping),
                // The listener has stopped, and keeps the name until it is dropped.
                Some(Step::Late(Err(_))) => accepts = false,
                None => break,
            }
        }

        let cut = self.tasks.len() + pending.len();
        self.counters.add_cut(cut);
        for stream in pending {
            self.refusals.tell(stream, Refusal::Stopping);
        }
        self.cut().await?;
        for stream in listener.iter_mut().flat_map(LocalListener::stop_listening) {
            self.refuse(stream, Refusal::Stopping);
        }
        self.refusals.finish().await;
        let release_error = listener.and_then(|mut listener| listener.release().err());
        Ok(Drained { finished, cut, release_error })
    }

    fn is_full(&self) -> bool {
        self.max_connections.is_some_and(|most| self.tasks.len() >= most)
    }

    /// Drops finished tasks, so that their results do not pile up.
    fn reap(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {}
        self.refusals.reap(cx);
    }

    /// Starts the handler of a connection, or refuses the client if its user is at the limit.
    fn start(&mut self, stream: S) {
        let mut seat = None;
        if let Some(limit) = self.max_per_user {
            let Some(free) = self.users.seat(&stream, limit) else {
                return self.refuse(stream, Refusal::UserLimit);
            };
            seat = Some((free, stream.peer_told()));
        }
        let closed = self.cancels.then(|| stream.closed());
        let more = More::new(self.on_error.clone(), seat, closed);
        let start =
            Start { handler: self.handler.clone(), stream, stopping: self.stopping.clone() };
        self.tasks.spawn(Connection::new(start, self.counters.accept(), more));
    }

    fn refuse(&mut self, stream: S, why: Refusal) {
        self.counters.refuse(why);
        self.refusals.tell(stream, why);
    }

    /// Ends running handlers, except one that blocks its thread: nothing can end that.
    async fn cut(&mut self) -> io::Result<()> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        self.tasks.abort_all();
        let mut over = pin!(sleep(CUT)?);
        poll_fn(|cx| {
            while let Poll::Ready(ended) = self.tasks.poll_join_next(cx) {
                if ended.is_none() {
                    return Poll::Ready(());
                }
            }
            over.as_mut().poll(cx)
        })
        .await;
        Ok(())
    }
}

enum Step<S> {
    Finished,
    /// A client connected after the stop, or the listener failed.
    Late(io::Result<S>),
}

async fn late<L: LocalListener>(listener: Option<&mut L>) -> io::Result<L::Stream> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}
