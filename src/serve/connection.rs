//! A connection that is served: its handler, polled by a task of its own.
//!
//! A program may have thousands of idle connections, and each holds this future. It is written by
//! hand, because an `async` block would hold the stream a second time beside the handler's own.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::counters::Active;
use super::users::Seat;
use super::{HandlerOutput, Refusal, Stopping};
use crate::error::events;
use crate::peer::PeerTold;
use crate::stream::Closed;

/// The hook that receives the error of each handler that fails.
pub(super) type OnError<E> = Arc<dyn Fn(E) + Send + Sync>;

pin_project! {
    pub(super) struct Connection<S, H, F, E> {
        // The fields are dropped in this order: the connection is closed before it stops counting.
        #[pin]
        stage: Stage<S, H, F>,
        more: Option<Box<More<E>>>,
        active: Active,
    }
}

pin_project! {
    #[project = At]
    enum Stage<S, H, F> {
        // The handler is called by the task, so that a panic ends this connection only.
        Starts { start: Option<Start<S, H>> },
        Runs { #[pin] future: F },
        Ended,
    }
}

/// A handler and its arguments.
pub(super) struct Start<S, H> {
    pub(super) handler: H,
    pub(super) stream: S,
    pub(super) stopping: Stopping,
}

/// The options that only some servers set.
pub(super) struct More<E> {
    on_error: Option<OnError<E>>,
    seat: Option<(Seat, Option<PeerTold>)>,
    closed: Option<Closed>,
}

impl<S, H, F, E> Connection<S, H, F, E> {
    pub(super) fn new(start: Start<S, H>, active: Active, more: Option<Box<More<E>>>) -> Self {
        Self { stage: Stage::Starts { start: Some(start) }, more, active }
    }
}

impl<S, H, F, E> Future for Connection<S, H, F, E>
where
    H: FnOnce(S, Stopping) -> F,
    F: Future<Output: HandlerOutput<Error = E>>,
    E: Display,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let At::Starts { start } = this.stage.as_mut().project() {
            let Some(Start { handler, stream, stopping }) = start.take() else {
                return Poll::Ready(());
            };
            this.stage.set(Stage::Runs { future: handler(stream, stopping) });
        }
        let At::Runs { future } = this.stage.as_mut().project() else { return Poll::Ready(()) };

        if this.more.as_mut().is_some_and(|more| more.is_over_limit(cx)) {
            this.active.refuse(Refusal::UserLimit);
            return Poll::Ready(());
        }
        let Poll::Ready(output) = future.poll(cx) else {
            return match this.more {
                Some(more) => more.has_left(cx),
                None => Poll::Pending,
            };
        };

        // The stream is closed before the error is reported.
        this.stage.set(Stage::Ended);
        if let Err(error) = output.into_result() {
            events::handler_failed(&error);
            if let Some(on_error) = this.more.as_ref().and_then(|more| more.on_error.as_ref()) {
                on_error(error);
            }
        }
        Poll::Ready(())
    }
}

impl<E> More<E> {
    /// Returns `None` if the server sets none of these options.
    pub(super) fn new(
        on_error: Option<OnError<E>>,
        seat: Option<(Seat, Option<PeerTold>)>,
        closed: Option<Closed>,
    ) -> Option<Box<Self>> {
        let is_any = on_error.is_some() || seat.is_some() || closed.is_some();
        is_any.then(|| Box::new(Self { on_error, seat, closed }))
    }

    /// Polls for the user of a connection whose user was not known at first. Reports whether that
    /// user is over the limit.
    fn is_over_limit(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((seat, told)) = &mut self.seat else { return false };
        let Some(Poll::Ready(peer)) = told.as_mut().map(|told| told.as_mut().poll(cx)) else {
            return false;
        };
        *told = None;
        !seat.told(&peer)
    }

    /// Polls whether the client has left, if its handler is cancelled then. If the transport does
    /// not report it, the handler continues, and there is no further poll.
    fn has_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(future) = &mut self.closed else { return Poll::Pending };
        if let Err(error) = ready!(future.as_mut().poll(cx)) {
            events::departure_unheard(&error);
            self.closed = None;
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::Ready;

    use super::*;
    use crate::echo::echo;
    use crate::serve::Counters;

    /// As large as a stream may be. The handlers only hold it.
    type Stream = [u64; 8];

    #[test]
    fn a_connection_takes_two_words_and_a_tag_beside_its_handler() {
        async fn handle(stream: Stream, _: Stopping) {
            std::future::pending::<()>().await;
            std::hint::black_box(stream);
        }
        fn size<F: Future>(_: impl FnOnce(Stream, Stopping) -> F) -> (usize, usize) {
            type Served<F> = Connection<Stream, fn(), F, Infallible>;
            (size_of::<Served<F>>(), size_of::<F>())
        }

        let (connection, handler) = size(handle);
        // The stream is aligned as its numbers are, which may be more than a word.
        let most = (handler + 3 * size_of::<usize>()).next_multiple_of(align_of::<Stream>());
        assert!(connection <= most, "{connection}, of it {handler}");
        let least = size_of::<Connection<Stream, fn(), Ready<()>, Infallible>>();
        assert!(least < connection, "{least}");
    }

    #[test]
    fn an_echo_that_waits_holds_its_stream_once() {
        let stream = tokio::io::BufStream::new(tokio::io::duplex(1).0);
        let size = size_of_val(&stream);
        let echo = echo(stream, |_| ());
        assert!(size_of_val(&echo) < 2 * size, "{}, of it {size}", size_of_val(&echo));
    }

    #[tokio::test]
    async fn a_panic_of_a_call_of_the_handler_leaves_the_counters_right() {
        let counters = Counters::default();
        let (_stop, stopping) = Stopping::new();
        let handler = |_: Stream, _: Stopping| -> Ready<()> { panic!("at the call") };
        let start = Start { handler, stream: [0; 8], stopping };
        let served = Connection::<_, _, _, Infallible>::new(start, counters.accept(), None);
        assert_eq!(counters.active(), 1);
        assert!(tokio::spawn(served).await.expect_err("a panic").is_panic());
        assert_eq!(counters.active(), 0);
    }
}
