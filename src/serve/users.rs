//! How many connections each user has.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Reason};
use crate::peer::{PeerCredentials, UserId};
use crate::stream::LocalStream;

/// The user or process that a connection counts for.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    User(UserId),
    /// A process whose user the OS does not report, or not yet. If all of these counted as one
    /// user, any of them could take the connections of all.
    Process(u32),
    Untold,
}

impl Holder {
    fn of(peer: &io::Result<PeerCredentials>) -> Self {
        let reason = match peer {
            Ok(peer) => return Self::User(peer.user().clone()),
            Err(error) => Error::of(error).map(Error::reason),
        };
        match reason {
            Some(
                Reason::PeerNotToldYet { process: Some(process) }
                | Reason::AnonymousPeer { process: Some(process) },
            ) => Self::Process(*process),
            _ => Self::Untold,
        }
    }
}

type Taken = HashMap<Holder, usize>;

/// The connections that each user has.
#[derive(Clone, Default)]
pub(super) struct Users(Arc<Mutex<Taken>>);

impl Users {
    /// Takes a seat for the user of `stream`. Returns `None` if the user has `limit` connections.
    pub(super) fn seat(&self, stream: &impl LocalStream, limit: usize) -> Option<Seat> {
        let holder = Holder::of(&stream.peer_credentials());
        let taken = take(&mut self.lock(), &holder, limit);
        taken.then(|| Seat { users: self.clone(), holder, limit })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(taken: &mut Taken, holder: &Holder, limit: usize) -> bool {
    let count = taken.entry(holder.clone()).or_default();
    let free = *count < limit;
    *count += usize::from(free);
    free
}

fn give_back(taken: &mut Taken, holder: &Holder) {
    if let Some(count) = taken.get_mut(holder) {
        *count -= 1;
        if *count == 0 {
            taken.remove(holder);
        }
    }
}

/// A connection that counts for a user. It is given back when the handler ends, however it ends.
pub(super) struct Seat {
    users: Users,
    holder: Holder,
    limit: usize,
}

impl Seat {
    /// Takes a seat of the user in place of this one, once the user is known. Returns `false` if
    /// the user is at the limit.
    pub(super) fn told(&mut self, peer: &io::Result<PeerCredentials>) -> bool {
        let holder = match Holder::of(peer) {
            user @ Holder::User(_) if user != self.holder => user,
            // A client whose user stays unknown keeps its seat.
            _ => return true,
        };
        let mut taken = self.users.lock();
        if !take(&mut taken, &holder, self.limit) {
            return false;
        }
        give_back(&mut taken, &self.holder);
        drop(taken);
        self.holder = holder;
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        give_back(&mut self.users.lock(), &self.holder);
    }
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::listener::LocalListener;
    use crate::peer::PeerTold;
    use crate::serve::{Refusal, serve};
    use crate::{echo, memory};

    /// A client whose user becomes known later, like a client on Windows that connected without an
    /// impersonation level.
    struct Foreign {
        inner: memory::Stream,
        process: u32,
        told: Mutex<Option<oneshot::Receiver<UserId>>>,
    }

    impl LocalStream for Foreign {
        fn peer_credentials(&self) -> io::Result<PeerCredentials> {
            let process = Some(self.process);
            Err(Error::new(Reason::PeerNotToldYet { process }, "it has not said anything").into())
        }

        fn peer_told(&self) -> Option<PeerTold> {
            let told = self.told.lock().expect("no panic").take()?;
            Some(Box::pin(async { Ok(told.await.map_err(io::Error::other)?.into()) }))
        }
    }

    impl AsyncRead for Foreign {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Foreign {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.inner).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    /// A listener whose clients belong to `processes`, in their order.
    struct OfProcesses {
        inner: memory::Listener,
        processes: &'static [u32],
        next: AtomicUsize,
        tell: mpsc::UnboundedSender<oneshot::Sender<UserId>>,
    }

    impl LocalListener for OfProcesses {
        type Stream = Foreign;

        async fn accept(&mut self) -> io::Result<Foreign> {
            let inner = self.inner.accept().await?;
            let (tell, told) = oneshot::channel();
            self.tell.send(tell).map_err(io::Error::other)?;
            let process = self.processes[self.next.fetch_add(1, Ordering::Relaxed)];
            Ok(Foreign { inner, process, told: Mutex::new(Some(told)) })
        }

        fn endpoint(&self) -> io::Result<Endpoint> {
            self.inner.endpoint()
        }
    }

    async fn is_served(client: &mut memory::Stream) -> bool {
        client.write_u8(7).await.is_ok() && client.read_u8().await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_identified_late_is_served_at_once_and_then_counts_for_its_user() {
        let (inner, connector) = memory::pair();
        let (tell, mut tells) = mpsc::unbounded_channel();
        let processes = &[1, 2, 2, 1, 1];
        let listener = OfProcesses { inner, processes, next: AtomicUsize::new(0), tell };
        let server =
            serve(listener, |stream| echo::echo(stream, |_| ())).max_connections_per_user(1);
        let counters = server.counters();
        let server = tokio::spawn(server.into_future());
        let mut clients = Vec::new();
        let mut tell = Vec::new();

        for served in [true, true, false] {
            let mut client = connector.connect().await.expect("a connection");
            assert_eq!(is_served(&mut client).await, served);
            clients.push(client);
            tell.push(tells.recv().await.expect("a client"));
        }
        let user = UserId::Uid(7);
        let mut tell = tell.into_iter();
        let mut told = || tell.next().expect("a client").send(user.clone()).expect("a waiting one");
        told();
        assert!(is_served(&mut clients[0]).await, "the first of the user");
        assert_eq!(counters.refused(Refusal::UserLimit), 1);
        // The handler waits for a byte when its user becomes known, and is ended all the same.
        told();
        assert_eq!(clients[1].read(&mut [0]).await.expect("an end"), 0);
        assert_eq!(counters.refused(Refusal::UserLimit), 2);
        // The first client now counts for its user, so its process has room again. A client whose
        // user never becomes known keeps counting for its process.
        let mut fourth = connector.connect().await.expect("a connection");
        assert!(is_served(&mut fourth).await);
        drop(tells.recv().await.expect("a client"));
        assert!(is_served(&mut fourth).await);
        let mut fifth = connector.connect().await.expect("a connection");
        assert!(!is_served(&mut fifth).await);
        server.abort();
    }
}
