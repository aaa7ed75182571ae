//! A listener inside the process, for tests that need no name on the machine and for a program that
//! is sometimes its own client. It implements the same trait as [`Listener`](crate::Listener);
//! [Testing your program](crate::docs::testing) has more.
//!
//! ```
//! use sockpipe::{LocalListener, memory};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let (mut listener, connector) = memory::pair();
//! let mut client = connector.connect().await?;
//! let mut server = listener.accept().await?;
//! client.write_all(b"hello").await?;
//! client.shutdown().await?;
//! let mut text = String::new();
//! server.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//! # Ok(())
//! # }
//! ```

mod stream;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::io::DuplexStream;
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError, mpsc};

pub use self::stream::Stream;
use crate::endpoint::Endpoint;
use crate::instance::connector::LocalConnector;
use crate::listener::LocalListener;
use crate::options::ConnectOptions;
use crate::runtime::sleep;
use crate::stream::LocalStream;

/// How many connections may wait for `accept`. A further client has to wait for room.
const BACKLOG: usize = 128;

/// Creates a listener and a connector for it.
#[must_use]
pub fn pair() -> (Listener, Connector) {
    let (sender, incoming) = mpsc::unbounded_channel();
    let backlog = Arc::new(Backlog { room: Semaphore::new(BACKLOG), entry: Mutex::new(()) });
    (Listener { incoming, backlog: backlog.clone() }, Connector { listener: sender, backlog })
}

#[derive(Debug)]
struct Backlog {
    room: Semaphore,
    /// Held by a client that enters and by a closing listener:
    /// [`Listener::stop_listening`](LocalListener::stop_listening) returns every client that has
    /// entered.
    entry: Mutex<()>,
}

/// A listener for the connections of its [`Connector`].
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::UnboundedReceiver<Stream>,
    backlog: Arc<Backlog>,
}

impl Listener {
    fn close(&mut self) {
        let entry = self.backlog.entry.lock().unwrap_or_else(PoisonError::into_inner);
        self.incoming.close();
        drop(entry);
        // Clients that wait for room are notified.
        self.backlog.room.close();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl LocalListener for Listener {
    type Stream = Stream;

    /// # Errors
    ///
    /// `NotConnected` when every connector is dropped, because no client can connect any more.
    async fn accept(&mut self) -> io::Result<Stream> {
        let Some(stream) = self.incoming.recv().await else {
            let what = "every connector of this listener is gone";
            return Err(io::Error::new(io::ErrorKind::NotConnected, what));
        };
        self.backlog.room.add_permits(1);
        Ok(stream)
    }

    /// # Errors
    ///
    /// Always `Unsupported`: the listener has no address.
    fn endpoint(&self) -> io::Result<Endpoint> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a listener in memory has no address"))
    }

    fn stop_listening(&mut self) -> Vec<Stream> {
        self.close();
        std::iter::from_fn(|| self.incoming.try_recv().ok()).collect()
    }
}

/// A connector to its [`Listener`]. Clones connect to the same listener.
///
/// It needs a tokio runtime, with timers, only while the backlog is full.
#[derive(Clone, Debug)]
pub struct Connector {
    listener: mpsc::UnboundedSender<Stream>,
    backlog: Arc<Backlog>,
}

impl Connector {
    /// Makes a new connection with the default options.
    ///
    /// # Errors
    ///
    /// As for [`connect_with`](Self::connect_with).
    ///
    /// # Cancel safety
    ///
    /// As for [`connect_with`](Self::connect_with).
    pub async fn connect(&self) -> io::Result<Stream> {
        self.connect_with(&ConnectOptions::default()).await
    }

    /// Makes a new connection. Only the [deadline](ConnectOptions::deadline) of `options` applies.
    ///
    /// # Errors
    ///
    /// `NotFound` if the listener is dropped, `TimedOut` if its backlog of 128 stays full; `Other`
    /// if it is full and there is no tokio runtime, or one without timers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn connect_with(&self, options: &ConnectOptions) -> io::Result<Stream> {
        let place = match self.backlog.room.try_acquire() {
            Ok(place) => place,
            Err(TryAcquireError::Closed) => return Err(gone()),
            Err(TryAcquireError::NoPermits) => self.wait(options).await?,
        };
        let (client, server) = stream::connected();
        let entry = self.backlog.entry.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = self.listener.send(server);
        drop(entry);
        // `accept` returns this permit to the semaphore.
        place.forget();
        entered.map_err(|_| gone())?;
        Ok(client)
    }

    /// Waits for a place in the backlog.
    async fn wait(&self, options: &ConnectOptions) -> io::Result<SemaphorePermit<'_>> {
        let mut over = pin!(sleep(options.deadline)?);
        let mut place = pin!(self.backlog.room.acquire());
        poll_fn(|cx| match place.as_mut().poll(cx) {
            Poll::Ready(place) => Poll::Ready(place.map_err(|_| gone())),
            Poll::Pending => over.as_mut().poll(cx).map(|()| {
                let what = "the listener in memory was too busy to accept within the deadline";
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            }),
        })
        .await
    }
}

impl LocalConnector for Connector {
    type Stream = Stream;

    async fn connect(&self) -> io::Result<Stream> {
        Self::connect(self).await
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the listener in memory is gone")
}

/// For tests that have a listener of their own.
impl LocalStream for DuplexStream {}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::runtime::Builder;
    use tokio::time::{Instant, timeout};

    use super::*;

    /// Returns the output of a future that must not wait, inside a runtime or outside.
    #[track_caller]
    pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    fn fill(connector: &Connector) -> Vec<Stream> {
        (0..BACKLOG).map(|_| at_once(connector.connect()).expect("a connection")).collect()
    }

    #[test]
    fn connect_without_a_runtime_fails_only_if_it_has_to_wait() {
        let (mut listener, connector) = pair();
        let mut clients = fill(&connector);
        let error = at_once(connector.connect()).expect_err("no timers to wait with");
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert!(error.to_string().contains("call this inside a tokio runtime"), "{error}");
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let error = runtime.block_on(connector.connect()).expect_err("no timers to wait with");
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert!(error.to_string().contains("enable_time()"), "{error}");
        // The first client connected while there was room.
        let mut server = at_once(listener.accept()).expect("a client");
        at_once(clients[0].write_all(b"?")).expect("a write");
        assert_eq!(at_once(server.read_u8()).expect("a byte"), b'?');
        at_once(connector.connect()).expect("a place was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_backlog_admits_one_client_for_each_accepted() {
        let (mut listener, connector) = pair();
        let _clients = fill(&connector);
        let options = ConnectOptions::new().deadline(Duration::from_secs(3));
        let error = connector.connect_with(&options).await.expect_err("nobody accepts");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (accepted, connected) = timeout(Duration::from_secs(9), async {
            tokio::join!(listener.accept(), connector.connect())
        })
        .await
        .expect("room");
        accepted.expect("a client");
        connected.expect("a place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_room_gets_an_error_once_the_listener_is_gone() {
        let (listener, connector) = pair();
        let _clients = fill(&connector);
        let mut waiting = pin!(connector.connect());
        assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "there is no room");
        let gone = Instant::now();
        drop(listener);
        let error = waiting.await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        assert_eq!(gone.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_write_that_fits_the_buffer_does_not_wait_and_one_of_several_parts_is_one_write() {
        let (mut listener, connector) = pair();
        let mut client = at_once(connector.connect()).expect("a connection");
        let mut server = at_once(listener.accept()).expect("a client");
        at_once(client.write_all(&vec![7; 64 * 1024 - 3])).expect("room");
        assert!(client.is_write_vectored());
        let parts = [io::IoSlice::new(b"a"), io::IoSlice::new(b"bc")];
        assert_eq!(at_once(client.write_vectored(&parts)).expect("room"), 3);
        let mut bytes = vec![0; 64 * 1024];
        at_once(server.read_exact(&mut bytes)).expect("all of them");
        assert_eq!(bytes[64 * 1024 - 3..], *b"abc");
    }

    #[test]
    fn stop_listening_returns_clients_that_connect_meanwhile() {
        for round in 0..500 {
            let (mut listener, connector) = pair();
            let begun = Arc::new(AtomicUsize::new(0));
            let connecting: Vec<_> = (0..3)
                .map(|_| {
                    let (connector, begun) = (connector.clone(), begun.clone());
                    let connect = move || {
                        begun.fetch_add(1, Ordering::Relaxed);
                        let connect = || at_once(connector.connect());
                        std::iter::from_fn(|| connect().ok()).take(BACKLOG / 3).collect::<Vec<_>>()
                    };
                    std::thread::spawn(connect)
                })
                .collect();
            // Each round stops the listener at another moment of the rush.
            while begun.load(Ordering::Relaxed) < 3 {
                std::thread::yield_now();
            }
            for _ in 0..round * 37 % 2000 {
                std::hint::spin_loop();
            }
            let pending = listener.stop_listening();
            let clients: usize =
                connecting.into_iter().map(|clients| clients.join().expect("no panic").len()).sum();
            assert_eq!(pending.len(), clients, "round {round}");
        }
    }

    /// A waiting client is given a place, and the listener stops before the client takes it.
    #[tokio::test]
    async fn stop_listening_refuses_a_client_that_waits_for_room() {
        let (mut listener, connector) = pair();
        let clients = fill(&connector);
        let mut late = pin!(connector.connect());
        let early = poll_fn(|cx| Poll::Ready(late.as_mut().poll(cx))).await;
        assert!(early.is_pending(), "{early:?}");
        drop(at_once(listener.accept()).expect("a client"));
        let pending = listener.stop_listening();
        assert_eq!(pending.len(), clients.len() - 1);
        let error = at_once(late).expect_err("nobody would have seen it");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = at_once(connector.connect()).expect_err("the listener is gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
