//! The handlers of a server: each in a task, within the limits, and how they come to an end.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::{Drained, HandlerOutput};
use crate::error::events;
use crate::listener::LocalListener;
use crate::peer::UserId;
use crate::runtime::sleep;
use crate::stream::LocalStream;

/// How long those that are cut have to notice it.
const CUT: Duration = Duration::from_secs(1);

/// How many connections are served at a time.
#[derive(Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) connections: Option<usize>,
    pub(super) per_user: Option<usize>,
}

pub(super) enum Ended<T, S> {
    /// The signal's output, and the connections that were made and not accepted yet.
    Stopped(T, Vec<S>),
    Failed(io::Error),
}

/// Told of each handler that fails.
pub(super) type OnError<E> = Arc<dyn Fn(E) + Send + Sync>;

pub(super) struct Handlers<H, E> {
    handler: H,
    on_error: Option<OnError<E>>,
    limits: Limits,
    users: Users,
    tasks: JoinSet<()>,
}

impl<H: Clone + Send + 'static, E: Display + 'static> Handlers<H, E> {
    pub(super) fn new(
        handler: H,
        on_error: Option<OnError<E>>,
        limits: Limits,
    ) -> io::Result<Self> {
        if [limits.connections, limits.per_user].contains(&Some(0)) {
            let what = "a limit of 0 connections would serve nobody: give 1 or more";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if Handle::try_current().is_err() {
            let what = "serve needs a tokio runtime to run handlers on: await it inside one";
            return Err(io::Error::other(what));
        }
        Ok(Self { handler, on_error, limits, users: Users::default(), tasks: JoinSet::new() })
    }

    pub(super) async fn accept_until<L, F, S>(
        &mut self,
        mut listener: L,
        signal: S,
    ) -> Ended<S::Output, L::Stream>
    where
        L: LocalListener,
        H: FnOnce(L::Stream) -> F,
        F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
        S: Future,
    {
        let mut signal = pin!(signal);
        let output = loop {
            let mut accept = pin!(listener.accept());
            let next = poll_fn(|cx| {
                if let Poll::Ready(output) = signal.as_mut().poll(cx) {
                    return Poll::Ready(Err(Ok(output)));
                }
                // A finished task is let go of here, so that their results do not pile up.
                while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {}
                if self.is_full() {
                    // The next one to finish wakes us.
                    return Poll::Pending;
                }
                accept.as_mut().poll(cx).map(|accepted| accepted.map_err(Err))
            });
            match next.await {
                Ok(stream) => self.start(stream),
                Err(Ok(output)) => break output,
                Err(Err(error)) => return Ended::Failed(error),
            }
        };
        // Their clients have been let in, and may have sent their questions.
        Ended::Stopped(output, listener.into_pending())
    }

    fn is_full(&self) -> bool {
        self.limits.connections.is_some_and(|most| self.tasks.len() >= most)
    }

    /// Unless the user has as many as there may be.
    fn start<S, F>(&mut self, stream: S)
    where
        S: LocalStream,
        H: FnOnce(S) -> F,
        F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
    {
        let seat = match self.limits.per_user {
            None => None,
            Some(limit) => {
                let Some(seat) = self.users.seat(user_of(&stream), limit) else { return };
                Some(seat)
            }
        };
        let (handler, on_error) = (self.handler.clone(), self.on_error.clone());
        self.tasks.spawn(async move {
            // Called here, so that its future has its room once, and a panic ends this task only.
            if let Err(error) = handler(stream).await.into_result() {
                events::handler_failed(&error);
                if let Some(on_error) = on_error {
                    on_error(error);
                }
            }
            drop(seat);
        });
    }

    /// Lets those that run go on by themselves.
    pub(super) fn leave(mut self) {
        self.tasks.detach_all();
    }

    /// Lets those that run finish, and starts `pending` as the limits allow, until the deadline.
    pub(super) async fn drain<S, F>(
        mut self,
        pending: Vec<S>,
        deadline: Duration,
    ) -> io::Result<Drained>
    where
        S: LocalStream,
        H: FnOnce(S) -> F,
        F: Future<Output: HandlerOutput<Error = E>> + Send + 'static,
    {
        let mut pending = VecDeque::from(pending);
        let mut over = pin!(sleep(deadline)?);
        let mut finished = 0;
        loop {
            while !self.is_full() {
                let Some(stream) = pending.pop_front() else { break };
                self.start(stream);
            }
            if self.tasks.is_empty() {
                break;
            }
            let in_time = poll_fn(|cx| match self.tasks.poll_join_next(cx) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending => over.as_mut().poll(cx).map(|()| false),
            });
            if !in_time.await {
                break;
            }
            finished += 1;
        }
        let cut = self.tasks.len() + pending.len();
        drop(pending);
        self.cut().await?;
        Ok(Drained { finished, cut })
    }

    /// Ends those that run, but for one that blocks its thread: nothing can end that.
    async fn cut(mut self) -> io::Result<()> {
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

fn user_of(stream: &impl LocalStream) -> Option<UserId> {
    stream.peer_credentials().ok().map(|peer| peer.user().clone())
}

/// The connections that each user has.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<Option<UserId>, usize>>>);

impl Users {
    /// `None` when `user` has as many as there may be.
    fn seat(&self, user: Option<UserId>, limit: usize) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(user.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Seat { users: self.clone(), user })
    }
}

/// Given back when the handler is done, however it ends.
struct Seat {
    users: Users,
    user: Option<UserId>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}
