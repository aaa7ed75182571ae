//! Accepts clients for blocking callers. The listener has a thread of its own that waits for
//! clients. So instances are armed even while no thread is in `accept`, and the thread that armed
//! them stays.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::super::accept::{Instances, Next};
use super::super::pipe::{ARMED, BACKLOG, Kind};
use super::super::system::End;
use super::super::{refuse_present, released, resolve};
use super::{Own, Stream, waker};
use crate::endpoint::Endpoint;
use crate::error::events::ListenerStats;
use crate::error::stopped;
use crate::options::ListenOptions;
use crate::wait::Deadline;

pub(crate) struct Listener {
    address: Endpoint,
    shared: Arc<Shared>,
    pauses: Arc<AtomicU64>,
    arming: Thread,
}

/// What `accept` shares with the listener's thread.
struct Shared {
    clients: Mutex<Clients>,
    /// Notified when clients have come, or the thread is gone.
    came: Condvar,
}

struct Clients {
    waiting: VecDeque<Own>,
    /// `None` once the listener accepts no more clients.
    instances: Option<Instances>,
    /// The thread is gone, so no more clients will come.
    gone: bool,
    /// `accept` was asked to stop.
    stopped: bool,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let address = resolve(endpoint)?;
        refuse_present(&address)?;
        let wanted = options.os.instances.unwrap_or(ARMED);
        let instances = Instances::claim(&address, Kind::chosen(options)?, wanted)?;
        Ok((Self::start(address.clone(), instances)?, address))
    }

    fn start(address: Endpoint, instances: Instances) -> io::Result<Self> {
        let pauses = instances.pauses();
        let clients = Clients {
            waiting: VecDeque::new(),
            instances: Some(instances),
            gone: false,
            stopped: false,
        };
        let shared = Arc::new(Shared { clients: Mutex::new(clients), came: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("sockpipe-accept".to_owned());
        let thread = thread.spawn(move || theirs.serve())?;
        Ok(Self { address, shared, pauses, arming: thread.thread().clone() })
    }

    /// Accepts a client. Returns `None` once the deadline is past.
    pub(crate) fn accept(&self, deadline: Deadline) -> io::Result<Option<Stream>> {
        let mut clients = self.shared.lock();
        loop {
            if clients.stopped {
                return Err(stopped());
            }
            if clients.waiting.len() >= BACKLOG {
                // The thread waits while the backlog is full. This call makes room.
                self.arming.unpark();
            }
            if let Some(client) = clients.waiting.pop_front() {
                return Ok(Some(Stream::Own(client)));
            }
            if clients.gone {
                return Err(io::Error::other("the thread that accepts clients has ended"));
            }

            let came = &self.shared.came;
            clients = match deadline.left() {
                None => came.wait(clients).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Ok(None),
                Some(left) => {
                    came.wait_timeout(clients, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(crate) fn unblock(&self) {
        self.shared.lock().stopped = true;
        self.shared.came.notify_all();
    }

    pub(crate) fn into_pending(self) -> Vec<Stream> {
        self.end().into_iter().map(Stream::Own).collect()
    }

    pub(crate) fn close(self) -> io::Result<()> {
        let address = self.address.clone();
        drop(self);
        released(&address)
    }

    /// No client is refused here: the system refuses them by the pipe's security descriptor.
    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats { pauses: self.pauses.load(Ordering::Relaxed), ..ListenerStats::default() }
    }

    /// Closes the instances and releases the thread. Returns the connections that were not
    /// accepted.
    fn end(&self) -> VecDeque<Own> {
        let mut clients = self.shared.lock();
        let mut left = std::mem::take(&mut clients.waiting);
        if let Some(instances) = clients.instances.take() {
            let messages = instances.has_messages();
            left.extend(
                instances
                    .end()
                    .into_iter()
                    .filter_map(|pipe| Own::new(Arc::new(pipe), End::Server, messages, false).ok()),
            );
        }
        drop(clients);
        self.arming.unpark();
        left
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// Notifies the calls of `accept` that the thread is gone, whatever ended it.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let mut clients = self.0.lock();
        clients.instances = None;
        clients.gone = true;
        drop(clients);
        self.0.came.notify_all();
    }
}

/// The result of a check for a client.
enum Receiving {
    Received,
    Wait(Option<Instant>),
    Ended,
}

impl Shared {
    /// Queues clients as they come, until the listener accepts no more.
    fn serve(&self) {
        let _gone = Gone(self);
        let waker = waker();
        loop {
            match self.receive(&waker) {
                Receiving::Ended => return,
                Receiving::Received => {}
                Receiving::Wait(None) => thread::park(),
                Receiving::Wait(Some(until)) => {
                    thread::park_timeout(until.saturating_duration_since(Instant::now()));
                }
            }
        }
    }

    fn receive(&self, waker: &Waker) -> Receiving {
        let mut clients = self.lock();
        let Clients { waiting, instances: Some(instances), .. } = &mut *clients else {
            return Receiving::Ended;
        };
        // When the backlog is full, further clients wait in the armed instances, and the next ones
        // find the pipe busy.
        if waiting.len() >= BACKLOG {
            return Receiving::Wait(None);
        }
        let pipe = match instances.next(waker) {
            Next::Client(pipe) => Arc::new(pipe),
            Next::Wait(until) => return Receiving::Wait(until),
        };
        match Own::new(pipe, End::Server, instances.has_messages(), false) {
            Ok(client) => {
                waiting.push_back(client);
                self.came.notify_one();
            }
            Err(error) => instances.failed(&error),
        }
        Receiving::Received
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use super::super::super::pipe::reads_messages;
    use super::super::super::tests::unique;
    use super::*;
    use crate::options::ConnectOptions;

    fn accept(listener: &Listener) -> Stream {
        listener.accept(Deadline::after(None)).expect("a listener").expect("a client")
    }

    /// In byte read mode Windows loses the end of the stream. Wine does not, so only this test
    /// shows the mode.
    #[test]
    fn both_ends_of_a_connection_read_messages() {
        let endpoint = unique().parse().expect("an endpoint");
        let (listener, _) = Listener::bind(&endpoint, &ListenOptions::new()).expect("a free name");
        let client = Stream::connect(&endpoint, &ConnectOptions::new()).expect("a server");
        let server = accept(&listener);
        let (one, other) = Stream::pair().expect("a pair");
        for stream in [client, server, one, other] {
            assert!(reads_messages(&stream).expect("a mode"), "{stream:?}");
        }
    }

    #[test]
    fn accept_fails_when_the_thread_is_gone() {
        let endpoint = unique().parse().expect("an endpoint");
        let (listener, _) = Listener::bind(&endpoint, &ListenOptions::new()).expect("a free name");
        let (listener, shared) = (&listener, Arc::clone(&listener.shared));
        thread::scope(|scope| {
            let patience = Deadline::after(Some(Duration::from_secs(60)));
            let waiting = scope.spawn(move || listener.accept(patience).map(|_| ()));
            // This is what a panic of the thread does.
            drop(Gone(&shared));
            let error = waiting.join().expect("no panic").expect_err("nobody will come");
            assert!(error.to_string().contains("is gone"), "{error}");
        });
    }
}
