//! Accepts clients on the crate's reactor.

use std::io;
use std::os::windows::io::OwnedHandle;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::mpsc::{Permit, Receiver, Sender, channel};
use tokio::time::timeout_at;

use super::accept::{Instances, Next};
use super::pipe::{ARMED, BACKLOG, Kind};
use super::reactor::{self, Task};
use super::registered::Pipe;
use super::stream::Stream;
use super::{refuse_present, released, resolve};
use crate::endpoint::Endpoint;
use crate::error::events::ListenerStats;
use crate::options::ListenOptions;

/// Dropping it closes its instances and pending connections without waiting.
pub(crate) struct Listener {
    address: Endpoint,
    shared: Arc<Shared>,
    clients: Receiver<OwnedHandle>,
    messages: bool,
    pauses: Arc<AtomicU64>,
    _serving: Task<()>,
}

/// What the listener shares with the reactor's task.
struct Shared {
    /// `None` once the listener accepts no more clients.
    instances: Mutex<Option<Instances>>,
    /// Notified when a client may have come.
    came: Notify,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let address = resolve(endpoint)?;
        let kind = Kind::chosen(options)?;
        refuse_present(&address)?;
        let armed = options.os.instances.unwrap_or(ARMED);
        let instances = Instances::claim(&address, kind, armed)?;
        Ok((Self::start(address.clone(), instances)?, address))
    }

    fn start(address: Endpoint, instances: Instances) -> io::Result<Self> {
        let (messages, pauses) = (instances.has_messages(), instances.pauses());
        let (sender, clients) = channel(BACKLOG);
        let instances = Mutex::new(Some(instances));
        let shared = Arc::new(Shared { instances, came: Notify::new() });
        let _serving = Task::spawn(Arc::clone(&shared).serve(sender))?;
        Ok(Self { address, shared, clients, messages, pauses, _serving })
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        loop {
            let Some(pipe) = ready!(self.clients.poll_recv(cx)) else {
                let what = "the thread that accepts clients is gone";
                return Poll::Ready(Err(io::Error::other(what)));
            };
            match self.stream(pipe) {
                Ok(stream) => return Poll::Ready(Ok(stream)),
                // The system lacks a resource, which may be available again for the next client.
                Err(error) => self.shared.failed(&error),
            }
        }
    }

    pub(crate) fn take_pending(&mut self) -> Vec<Stream> {
        let left = self.end();
        left.into_iter().filter_map(|pipe| self.stream(pipe).ok()).collect()
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        let address = self.address.clone();
        drop(self);
        // Waits until the streams that were accepted and dropped before are closed.
        reactor::settled()?.await?;
        released(&address)
    }

    /// Closes the handles, as a drop does: the name goes with the last one.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        drop(self.end());
        Ok(())
    }

    /// Returns the connections that were not accepted.
    fn end(&mut self) -> Vec<OwnedHandle> {
        self.clients.close();
        // Without instances the task sends no more clients.
        let instances = self.shared.lock().take();
        let mut pipes = Vec::new();
        while let Ok(pipe) = self.clients.try_recv() {
            pipes.push(pipe);
        }
        pipes.extend(instances.into_iter().flat_map(Instances::end));
        pipes
    }

    fn stream(&self, pipe: OwnedHandle) -> io::Result<Stream> {
        Ok(Stream::new(Pipe::server(pipe, self.messages)?, false))
    }

    /// No client is refused here: the system refuses them by the pipe's security descriptor.
    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats { pauses: self.pauses.load(Ordering::Relaxed), ..ListenerStats::default() }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// The result of an attempt to send a client.
enum Sending {
    Sent,
    Wait(Option<Instant>),
    Ended,
}

impl Shared {
    /// Sends clients as they come, until the listener stops receiving them.
    async fn serve(self: Arc<Self>, clients: Sender<OwnedHandle>) {
        let waker = Waker::from(Arc::clone(&self));
        // Room in the backlog comes first: further clients wait in the armed instances, and the
        // next ones find the pipe busy.
        while let Ok(room) = clients.reserve().await {
            let mut room = Some(room);
            loop {
                match self.send_next(&waker, &mut room) {
                    Sending::Sent => break,
                    Sending::Ended => return,
                    Sending::Wait(None) => self.came.notified().await,
                    Sending::Wait(Some(until)) => {
                        // The loop tries again, whether it was notified or the time is up.
                        let _ = timeout_at(until.into(), self.came.notified()).await;
                    }
                }
            }
        }
    }

    /// Holds the lock throughout, so that a client is always either among the instances or sent.
    fn send_next(&self, waker: &Waker, room: &mut Option<Permit<'_, OwnedHandle>>) -> Sending {
        let mut instances = self.lock();
        let Some(instances) = &mut *instances else { return Sending::Ended };
        match instances.next(waker) {
            Next::Wait(until) => Sending::Wait(until),
            Next::Client(pipe) => {
                if let Some(room) = room.take() {
                    room.send(pipe);
                }
                Sending::Sent
            }
        }
    }

    fn failed(&self, error: &io::Error) {
        if let Some(instances) = &mut *self.lock() {
            instances.failed(error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instances>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.came.notify_one();
    }
}
