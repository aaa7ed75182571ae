//! Accepting, by the crate's reactor.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::sync::mpsc::{Receiver, channel};

use super::accept::{Instances, Name, RELEASE};
use super::pipe::{ARMED, BACKLOG, Kind};
use super::reactor::{self, Task};
use super::registered::Pipe;
use super::stream::Stream;
use super::wakers::Guard;
use super::{refuse_present, resolve};
use crate::endpoint::Endpoint;
use crate::error::events::ListenerStats;
use crate::options::ListenOptions;

pub(crate) struct Listener {
    // Dropped in this order: first what holds instances of the pipe, then the name, which waits
    // until they are closed.
    instances: Task<Vec<NamedPipeServer>>,
    clients: Receiver<NamedPipeServer>,
    name: Name,
    messages: bool,
    pauses: Arc<AtomicU64>,
    guard: Guard,
}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let address = resolve(endpoint)?;
        let path = address.to_string();
        let kind = Kind::chosen(options)?;
        let (messages, armed) = (kind.has_messages(), options.os.instances.unwrap_or(ARMED));
        refuse_present(&address, &path)?;
        let instances = Instances::claim(&address, kind, armed)?;
        let (sender, clients) = channel(BACKLOG);
        let (name, pauses) = (Name::new(path), instances.pauses());
        let instances = Task::spawn(instances.serve(sender))?;
        let guard = Guard::new();
        Ok((Self { instances, clients, name, messages, pauses, guard }, address))
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let Some(pipe) = ready!(self.guard.poll(cx, |cx| self.clients.poll_recv(cx))) else {
            return Poll::Ready(Err(io::Error::other("the thread that accepts clients is gone")));
        };
        Poll::Ready(Ok(self.stream(pipe)))
    }

    pub(crate) fn take_pending(&mut self) -> Vec<Stream> {
        self.clients.close();
        let left = if reactor::is_current_thread() { None } else { self.instances.wait(RELEASE) };
        let mut pipes = Vec::new();
        while let Ok(pipe) = self.clients.try_recv() {
            pipes.push(pipe);
        }
        pipes.extend(left.into_iter().flatten());
        pipes.into_iter().map(|pipe| self.stream(pipe)).collect()
    }

    fn stream(&self, pipe: NamedPipeServer) -> Stream {
        let pipe = Pipe::server(pipe, self.messages);
        Stream::new(pipe, false, Some(self.name.keep()))
    }

    /// No client is refused here: the system does, by the pipe's descriptor.
    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats { pauses: self.pauses.load(Ordering::Relaxed), ..ListenerStats::default() }
    }
}
