//! Accepting. A thread of the listener's own waits for clients, so that instances are armed also
//! while nobody is in `accept`; and so that the thread that armed them stays.

use std::collections::VecDeque;
use std::io;
use std::os::windows::io::OwnedHandle;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::super::overlapped::{Connect, Event, MOST_EVENTS, wait_for_any};
use super::super::pauses::Pauses;
use super::super::pipe::{self, ARMED, BACKLOG, End, Instance, Kind};
use super::super::{cannot_add, cannot_listen, refuse_present, resolve};
use super::{Own, Stream};
use crate::endpoint::Endpoint;
use crate::error::events::ListenerStats;
use crate::error::stopped;
use crate::options::ListenOptions;
use crate::wait::Deadline;

pub(crate) struct Listener {
    shared: Arc<Shared>,
    pauses: Arc<AtomicU64>,
    /// `None` once it has ended.
    arming: Option<JoinHandle<()>>,
}

/// What `accept` has in common with the thread.
struct Shared {
    clients: Mutex<Clients>,
    /// Clients have come, or the thread is gone.
    came: Condvar,
    /// Signalled when there is room for clients again, or nobody wants any more.
    wanted: Event,
}

#[derive(Default)]
struct Clients {
    waiting: VecDeque<Own>,
    /// Nobody wants any more.
    closed: bool,
    /// No more are wanted by `accept`.
    stopped: bool,
    /// Why there will be no more.
    failed: Option<io::Error>,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let address = resolve(endpoint)?;
        let path = address.to_string();
        refuse_present(&address, &path)?;
        let kind = Kind::chosen(options)?;
        let wanted = options.os.instances.unwrap_or(ARMED).min(MOST_EVENTS - 1);
        // Clients can open them from here on.
        let instances = create_all(&address, &kind, wanted)?;
        Ok((Self::start(path, kind, wanted, instances)?, address))
    }

    fn start(
        path: String,
        kind: Kind,
        wanted: usize,
        instances: Vec<OwnedHandle>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            clients: Mutex::default(),
            came: Condvar::new(),
            wanted: Event::new()?,
        });
        let pauses = Pauses::new();
        let count = pauses.count();
        let arming =
            Arming { shared: Arc::clone(&shared), path, kind, wanted, armed: Vec::new(), pauses };
        let thread = thread::Builder::new().name("sockpipe-accept".to_owned());
        let arming = Some(thread.spawn(move || arming.run(instances))?);
        Ok(Self { shared, pauses: count, arming })
    }

    /// `None` once the deadline is past.
    pub(crate) fn accept(&self, deadline: Deadline) -> io::Result<Option<Stream>> {
        let mut clients = self.shared.lock();
        loop {
            if clients.stopped {
                return Err(stopped());
            }
            if clients.waiting.len() >= BACKLOG {
                self.shared.wanted.set()?;
            }
            if let Some(client) = clients.waiting.pop_front() {
                return Ok(Some(Stream::Own(client)));
            }
            if let Some(error) = &clients.failed {
                let (kind, text) = (error.kind(), error.to_string());
                let code = error.raw_os_error().map(io::Error::from_raw_os_error);
                return Err(code.unwrap_or_else(|| io::Error::new(kind, text)));
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

    pub(crate) fn into_pending(mut self) -> Vec<Stream> {
        self.end();
        let waiting = std::mem::take(&mut self.shared.lock().waiting);
        waiting.into_iter().map(Stream::Own).collect()
    }

    /// No client is refused here: the system does, by the pipe's descriptor.
    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats { pauses: self.pauses.load(Ordering::Relaxed), ..ListenerStats::default() }
    }

    /// Stops arming. Clients that had come are among the waiting ones then.
    fn end(&mut self) {
        let Some(arming) = self.arming.take() else { return };
        self.shared.lock().closed = true;
        // Without the signal it would not end, and it has no more to lose than the name.
        if self.shared.wanted.set().is_ok() {
            let _ = arming.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn create_all(address: &Endpoint, kind: &Kind, wanted: usize) -> io::Result<Vec<OwnedHandle>> {
    let path = &address.to_string();
    let first = pipe::create(path, Instance::First, kind)
        .map_err(|error| cannot_listen(address, path, error))?;
    let mut instances = vec![first];
    while instances.len() < wanted {
        let further = pipe::create(path, Instance::Further, kind);
        instances.push(further.map_err(|error| cannot_add(address, error))?);
    }
    Ok(instances)
}

/// The thread that waits for clients.
struct Arming {
    shared: Arc<Shared>,
    path: String,
    kind: Kind,
    wanted: usize,
    armed: Vec<Armed>,
    /// Between tries to make an instance, or after one that failed.
    pauses: Pauses,
}

/// Tells those who wait for clients that the thread is gone, for whatever reason.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        let mut clients = self.0.lock();
        if !clients.closed && clients.failed.is_none() {
            clients.failed = Some(io::Error::other("the thread that accepts clients has ended"));
        }
        drop(clients);
        self.0.came.notify_all();
    }
}

/// An instance that waits for its client, and the stream that it becomes then. All that a stream
/// needs is there before its client, so that no client is lost for want of it.
struct Armed {
    connect: Connect,
    stream: Own,
}

impl Armed {
    fn begin(pipe: Arc<OwnedHandle>, kind: &Kind) -> io::Result<Self> {
        let stream = Own::new(Arc::clone(&pipe), End::Server, kind.has_messages(), false)?;
        Ok(Self { connect: Connect::begin(pipe)?, stream })
    }

    fn end(self) -> io::Result<Own> {
        self.connect.end().map(|()| self.stream)
    }
}

impl Arming {
    fn run(mut self, instances: Vec<OwnedHandle>) {
        let _gone = Gone(Arc::clone(&self.shared));
        for pipe in instances {
            self.arm(pipe);
        }
        let failed = self.serve().err();
        let mut clients = self.shared.lock();
        // Clients that connected and were not handed over yet.
        let connected = self.armed.drain(..).filter_map(|armed| armed.end().ok());
        clients.waiting.extend(connected);
        clients.failed = failed;
    }

    /// One that cannot be armed is made again later, but not while it alone holds the name.
    fn arm(&mut self, pipe: OwnedHandle) {
        let pipe = Arc::new(pipe);
        loop {
            match Armed::begin(Arc::clone(&pipe), &self.kind) {
                Ok(armed) => return self.armed.push(armed),
                Err(_) if !self.armed.is_empty() || self.shared.lock().closed => return,
                Err(error) => self.rest(&error),
            }
        }
    }

    /// Before the next try, but no longer than clients are wanted.
    fn rest(&mut self, error: &io::Error) {
        let end = Deadline::after(Some(self.pauses.after(error)));
        while let Ok(true) = self.shared.wanted.wait(end) {
            // In this order, for who closes does it the other way round.
            let reset = self.shared.wanted.reset();
            if reset.is_err() || self.shared.lock().closed {
                return;
            }
        }
    }

    /// Until nobody wants clients any more. An error is final.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let (closed, full) = {
                let clients = self.shared.lock();
                (clients.closed, clients.waiting.len() >= BACKLOG)
            };
            if closed {
                return Ok(());
            }
            let limit = match self.refill() {
                Ok(()) => None,
                Err(error) => Some(self.pauses.after(&error)),
            };
            let mut events = vec![&self.shared.wanted];
            // Clients beyond the backlog wait in the armed instances, and then before the pipe.
            if !full {
                events.extend(self.armed.iter().map(|armed| armed.connect.event()));
            }
            match wait_for_any(&events, Deadline::after(limit))? {
                None => {}
                Some(0) => self.shared.wanted.reset()?,
                Some(signalled) => {
                    let armed = self.armed.swap_remove(signalled - 1);
                    self.hand_over(armed);
                }
            }
        }
    }

    /// Its successor first. The name lives as long as an instance does: were the last one handed
    /// over, and its client left, anybody could take the name.
    fn hand_over(&mut self, armed: Armed) {
        while let Err(error) = self.refill() {
            if !self.armed.is_empty() || self.shared.lock().closed {
                break;
            }
            self.rest(&error);
        }
        match armed.end() {
            Ok(stream) => {
                self.shared.lock().waiting.push_back(stream);
                self.shared.came.notify_one();
            }
            Err(error) => self.rest(&error),
        }
    }

    /// # Errors
    ///
    /// Not all that should be armed are. What keeps one from being made may pass.
    fn refill(&mut self) -> io::Result<()> {
        while self.armed.len() < self.wanted {
            let pipe = pipe::create(&self.path, Instance::Further, &self.kind)?;
            self.armed.push(Armed::begin(Arc::new(pipe), &self.kind)?);
        }
        self.pauses.went_well();
        Ok(())
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use std::time::Instant;

    use tokio::net::windows::named_pipe::{PipeMode, ServerOptions};

    use super::super::super::pipe::{Presence, presence, reads_messages};
    use super::super::super::reactor;
    use super::super::super::tests::unique;
    use super::*;
    use crate::options::{Access, ConnectOptions};

    fn accept(listener: &Listener) -> Stream {
        listener.accept(Deadline::after(None)).expect("a listener").expect("a client")
    }

    /// Wine lets byte read mode pass, where Windows loses the end of the stream: only this shows it.
    #[test]
    fn both_ends_read_messages() {
        let endpoint = unique().parse().expect("an endpoint");
        let (listener, _) = Listener::bind(&endpoint, &ListenOptions::new()).expect("a free name");
        let client = Stream::connect(&endpoint, &ConnectOptions::new()).expect("a server");
        let server = accept(&listener);
        let (one, other) = Stream::pair().expect("a pair");
        for stream in [client, server, one, other] {
            assert!(reads_messages(&stream).expect("a mode"), "{stream:?}");
        }
    }

    /// A listener whose pipe has room for no instance but the armed ones, until what is given with it
    /// is dropped. A foreign instance sets the limit that a system out of resources would.
    fn without_room(path: &str) -> (Listener, impl Sized) {
        let context = reactor::handle().expect("a reactor").enter();
        let mut foreign = ServerOptions::new();
        foreign.max_instances(ARMED + 2).pipe_mode(PipeMode::Message);
        let foreign = foreign.create(path).expect("a free name");
        drop(context);
        let busy = pipe::open(path).expect("the foreign instance");
        let kind = Kind::new(Access::Owner).expect("a descriptor");
        let mut instances = Vec::new();
        for _ in 0..ARMED {
            let instance = pipe::create(path, Instance::Further, &kind);
            instances.push(instance.expect("room for these"));
        }
        let listener =
            Listener::start(path.to_owned(), kind, ARMED, instances).expect("a listener");

        // All but one of ours are handed out, and that one is taken too: there is no room left.
        let mut opened = Vec::new();
        while opened.len() <= ARMED {
            match pipe::open(path) {
                Ok(client) => opened.push(client),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        let handed_out: Vec<_> = (0..ARMED).map(|_| accept(&listener)).collect();
        (listener, (foreign, busy, opened, handed_out))
    }

    #[test]
    fn the_last_instance_is_not_handed_out() {
        let path = unique();
        let (listener, others) = without_room(&path);
        // Longer than the pause between tries.
        thread::sleep(Duration::from_millis(200));
        assert!(listener.shared.lock().waiting.is_empty(), "the last instance was handed out");
        // Waiting longer each time: 5, 10, 20, 40, 80 ms.
        let pauses = listener.stats().pauses;
        assert!((1..20).contains(&pauses), "{pauses}");
        drop(others);
        // With all others closed there is room again for its successor.
        accept(&listener);
        assert_eq!(presence(&path), Presence::There);
        drop(listener);
        assert_eq!(presence(&path), Presence::Absent);
    }

    /// Not even where it waits a second between tries.
    #[test]
    fn a_listener_that_cannot_go_on_ends_at_once() {
        let path = unique();
        let (listener, _others) = without_room(&path);
        let started = Instant::now();
        while listener.stats().pauses < 9 {
            assert!(started.elapsed() < Duration::from_secs(60), "it does not wait");
            thread::sleep(Duration::from_millis(1));
        }
        let dropped = Instant::now();
        drop(listener);
        assert!(dropped.elapsed() < Duration::from_millis(500), "{:?}", dropped.elapsed());
    }

    #[test]
    fn who_waits_hears_that_the_thread_is_gone() {
        let path = unique();
        let kind = Kind::new(Access::Owner).expect("a descriptor");
        let first = pipe::create(&path, Instance::First, &kind).expect("a free name");
        let listener = Listener::start(path, kind, 1, vec![first]).expect("a listener");
        let (listener, shared) = (&listener, Arc::clone(&listener.shared));
        thread::scope(|scope| {
            let patience = Deadline::after(Some(Duration::from_secs(60)));
            let waiting = scope.spawn(move || listener.accept(patience).map(|_| ()));
            // As when it panics.
            drop(Gone(shared));
            let error = waiting.join().expect("no panic").expect_err("nobody will come");
            assert!(error.to_string().contains("is gone"), "{error}");
        });
    }
}
