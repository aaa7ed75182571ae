//! The instances of a pipe that wait for clients, and the name that they hold.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::sync::mpsc::Sender;
use tokio::task::{self, JoinSet};
use tokio::time;

use super::pauses::Pauses;
use super::pipe::{self, Instance, Kind, Presence};
use super::{cannot_add, cannot_listen, reactor, registered};
use crate::endpoint::Endpoint;

/// Turns of the reactor in which a client that has connected becomes known.
const LAST_TURNS: usize = 8;
/// How long the end of a listener may wait for the reactor and the system.
pub(super) const RELEASE: Duration = Duration::from_millis(250);

pub(super) struct Instances {
    path: String,
    kind: Kind,
    wanted: usize,
    armed: JoinSet<(NamedPipeServer, io::Result<()>)>,
    /// A client that cannot be handed out yet.
    connected: Option<NamedPipeServer>,
    /// Between tries to make an instance, or after one that failed.
    pauses: Pauses,
}

impl Instances {
    pub(super) fn claim(address: &Endpoint, kind: Kind, wanted: usize) -> io::Result<Self> {
        let path = address.to_string();
        let mut instances = Self::new(&path, kind, wanted);
        instances.arm(Instance::First).map_err(|error| cannot_listen(address, &path, error))?;
        instances.refill().map_err(|error| cannot_add(address, error))?;
        Ok(instances)
    }

    fn new(path: &str, kind: Kind, wanted: usize) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            wanted,
            armed: JoinSet::new(),
            connected: None,
            pauses: Pauses::new(),
        }
    }

    /// How often it had to wait, also once it serves.
    pub(super) fn pauses(&self) -> Arc<AtomicU64> {
        self.pauses.count()
    }

    fn arm(&mut self, instance: Instance) -> io::Result<()> {
        let pipe = registered::server(pipe::create(&self.path, instance, &self.kind)?)?;
        let wait = async move {
            let connected = pipe.connect().await;
            (pipe, connected)
        };
        self.armed.spawn_on(wait, reactor::handle()?);
        Ok(())
    }

    /// # Errors
    ///
    /// Not all that should be armed are. What keeps one from being made may pass.
    fn refill(&mut self) -> io::Result<()> {
        while self.armed.len() < self.wanted {
            self.arm(Instance::Further)?;
        }
        self.pauses.went_well();
        Ok(())
    }

    /// The name lives as long as an instance does. Were the last one handed out, and its client
    /// left, anybody could take the name.
    async fn hold_name(&mut self) {
        while let Err(error) = self.refill() {
            if !self.armed.is_empty() {
                return;
            }
            time::sleep(self.pauses.after(&error)).await;
        }
    }

    /// Sends the clients that come, until it is dropped or nobody receives them; returns those
    /// that it still has then.
    pub(super) async fn serve(mut self, clients: Sender<NamedPipeServer>) -> Vec<NamedPipeServer> {
        // Room first: clients beyond it wait in the armed instances, and then before the pipe.
        while let Ok(room) = clients.reserve().await {
            match self.next_until(pin!(clients.closed())).await {
                Some(pipe) => room.send(pipe),
                None => break,
            }
        }
        // What the system has completed is known only after a turn of the reactor, and to the
        // instance's own task first.
        for _ in 0..LAST_TURNS {
            task::yield_now().await;
        }
        let mut left: Vec<_> = self.connected.take().into_iter().collect();
        while let Some(joined) = self.armed.try_join_next() {
            if let Ok((pipe, Ok(()))) = joined {
                left.push(pipe);
            }
        }
        left
    }

    async fn next_until(
        &mut self,
        mut closed: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<NamedPipeServer> {
        let mut next = pin!(self.next());
        poll_fn(|cx| match closed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => next.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Dropping its future loses no client.
    async fn next(&mut self) -> NamedPipeServer {
        loop {
            let joined = match self.refill() {
                Ok(()) => self.armed.join_next().await,
                Err(error) => {
                    let pause = self.pauses.after(&error);
                    match time::timeout(pause, self.armed.join_next()).await {
                        Ok(joined) => joined,
                        Err(_) => continue,
                    }
                }
            };
            let mut failure = None;
            match joined {
                Some(Ok((pipe, Ok(())))) => self.connected = Some(pipe),
                Some(Ok((_, Err(error)))) => failure = Some(error),
                Some(Err(_)) | None => {}
            }
            self.hold_name().await;
            if let Some(pipe) = self.connected.take() {
                return pipe;
            }
            if let Some(error) = failure {
                time::sleep(self.pauses.after(&error)).await;
            }
        }
    }
}

/// A listener's name. Its drop waits until the system has released it, so that it can be bound
/// again at once.
pub(super) struct Name {
    path: String,
    /// Each accepted stream has a clone: it keeps the name alive.
    streams: Arc<()>,
}

impl Name {
    pub(super) fn new(path: String) -> Self {
        Self { path, streams: Arc::new(()) }
    }

    pub(super) fn keep(&self) -> Arc<()> {
        Arc::clone(&self.streams)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // It is the reactor that closes the handles, once their I/O is cancelled.
        if Arc::strong_count(&self.streams) > 1 || reactor::is_current_thread() {
            return;
        }
        let started = Instant::now();
        while pipe::presence(&self.path) == Presence::There && started.elapsed() < RELEASE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::net::windows::named_pipe::{PipeMode, ServerOptions};
    use tokio::sync::mpsc::channel;

    use super::super::pipe::ARMED;
    use super::super::tests::{run, unique};
    use super::*;
    use crate::options::Access;

    /// A foreign instance sets the limit that a system out of resources would.
    #[test]
    fn the_last_instance_is_not_handed_out() {
        let path = unique();
        let context = reactor::handle().expect("a reactor").enter();
        let mut foreign = ServerOptions::new();
        foreign.max_instances(ARMED + 2).pipe_mode(PipeMode::Message);
        let foreign = foreign.create(&path).expect("a free name");
        drop(context);
        let busy = pipe::open(&path).expect("the foreign instance");

        let kind = Kind::new(Access::Owner).expect("a descriptor");
        let mut instances = Instances::new(&path, kind, ARMED);
        instances.refill().expect("room for these");
        let pauses = instances.pauses();
        let (sender, mut clients) = channel(16);
        let _serving = reactor::Task::spawn(instances.serve(sender)).expect("a reactor");

        // All but one of ours are handed out, and that one is taken too: there is no room left.
        let opened: Vec<_> = run(async {
            let mut opened = Vec::new();
            while opened.len() <= ARMED {
                match pipe::open(&path) {
                    Ok(client) => opened.push(client),
                    Err(_) => reactor::sleep(Duration::from_millis(1)).expect("a reactor").await,
                }
            }
            opened
        });
        let handed_out: Vec<_> = run(async {
            let mut handed_out = Vec::new();
            while handed_out.len() < ARMED {
                handed_out.push(clients.recv().await.expect("a client"));
            }
            handed_out
        });
        // Longer than the pause between tries.
        run(reactor::sleep(Duration::from_millis(200)).expect("a reactor"));
        assert!(clients.try_recv().is_err(), "the last instance was handed out");
        // Waiting longer each time: 5, 10, 20, 40, 80 ms.
        let count = pauses.load(Ordering::Relaxed);
        assert!((1..20).contains(&count), "{count}");
        drop((foreign, busy, opened, handed_out));
        // With all others closed there is room again for its successor.
        run(clients.recv()).expect("the last client");
        assert_eq!(pipe::presence(&path), Presence::There);
    }
}
