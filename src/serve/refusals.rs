//! Clients that are refused before a handler runs, and their answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::HandlerOutput;
use crate::error::events;

/// How many clients are answered at a time. Further ones are closed at once, so that a flood of
/// clients does not take memory for each.
const TOLD: usize = 64;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The reason why a client is refused, from [`on_refused`](crate::Serve::on_refused).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The user has as many connections as
    /// [`max_connections_per_user`](crate::Serve::max_connections_per_user) allows.
    UserLimit,
    /// The server is shutting down.
    Stopping,
}

type Telling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The hook that answers a refused client.
pub(super) type OnRefused<S> = Arc<dyn Fn(S, Refusal) -> Telling + Send + Sync>;

pub(super) fn on_refused<S, R, G>(hook: R) -> OnRefused<S>
where
    S: Send + 'static,
    R: FnOnce(S, Refusal) -> G + Clone + Send + Sync + 'static,
    G: Future<Output: HandlerOutput> + Send + 'static,
{
    Arc::new(move |stream, why| {
        let hook = hook.clone();
        // Called inside the task, so that a panic ends only this task.
        Box::pin(async move {
            if let Err(error) = hook(stream, why).await.into_result() {
                events::handler_failed(&error);
            }
        })
    })
}

pub(super) struct Refusals<S> {
    hook: Option<OnRefused<S>>,
    tasks: JoinSet<()>,
}

impl<S> Refusals<S> {
    pub(super) fn new(hook: Option<OnRefused<S>>) -> Self {
        Self { hook, tasks: JoinSet::new() }
    }

    /// Reports whether refused clients get an answer.
    pub(super) fn are_told(&self) -> bool {
        self.hook.is_some()
    }

    pub(super) fn tell(&mut self, stream: S, why: Refusal) {
        while self.tasks.try_join_next().is_some() {}
        let Some(hook) = self.hook.as_ref().filter(|_| self.tasks.len() < TOLD) else { return };
        let telling = hook(stream, why);
        self.tasks.spawn(async {
            // A client that is too slow is closed.
            let _ = timeout(PATIENCE, telling).await;
        });
    }

    /// Drops finished answers, so that their results do not pile up.
    pub(super) fn reap(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {}
    }

    /// Lets running answers continue by themselves.
    pub(super) fn leave(&mut self) {
        self.tasks.detach_all();
    }

    /// Waits until all running answers have ended.
    pub(super) async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
