//! Single instances of a program, and connections to them.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::way::Way;
use crate::endpoint::Endpoint;
#[cfg(feature = "tokio")]
use crate::endpoint::ParseEndpointError;
use crate::error::{Error, Operation, Reason, during};
use crate::options::{ConnectOptions, ListenOptions};
#[cfg(feature = "tokio")]
use crate::{listener::Listener, stream::Stream};

/// The pause between attempts while the process that holds the name is neither reachable nor gone.
const PAUSE: Duration = Duration::from_millis(10);

/// The role of this process: the primary instance, or a secondary one that can pass its arguments
/// to the primary.
///
/// A portable name makes it one instance for each user. When the primary crashes, the next process
/// to start becomes the primary.
///
/// ```no_run
/// use sockpipe::SingleInstance;
/// use tokio::io::AsyncWriteExt;
///
/// # async fn run() -> std::io::Result<()> {
/// match SingleInstance::acquire("org.example.editor").await? {
///     SingleInstance::Primary(mut listener) => loop {
///         let later = listener.accept().await?; // a later start: read what it wants opened
///         # drop(later);
///     },
///     SingleInstance::Secondary(mut first) => first.write_all(b"open notes.txt\n").await,
/// }
/// # }
/// ```
#[cfg(feature = "tokio")]
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a program has one")]
pub enum SingleInstance {
    /// The primary instance: it holds the name, and its listener accepts the later ones.
    Primary(Listener),
    /// A secondary instance, connected to the primary.
    Secondary(Stream),
}

#[cfg(feature = "tokio")]
impl SingleInstance {
    /// Binds `endpoint`, or connects to the process that holds it, with the default options.
    ///
    /// # Errors
    ///
    /// As for [`acquire_with`](Self::acquire_with).
    pub async fn acquire<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        Self::acquire_with(endpoint, &ListenOptions::default(), &ConnectOptions::default()).await
    }

    /// Binds `endpoint`, or connects to the process that holds it. If several processes start at
    /// the same time, exactly one becomes the primary.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::bind`] except `AddrInUse`, and those of [`Stream::connect`] except
    /// `NotFound` and `ConnectionRefused`. While the primary starts or ends, this call retries
    /// until the deadline of `connect`, and then fails with `TimedOut`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn acquire_with<E>(
        endpoint: E,
        listen: &ListenOptions,
        connect: &ConnectOptions,
    ) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        Ok(match acquire::<super::way::Tasks>(&endpoint, listen, connect).await? {
            Acquired::First(listener) => Self::Primary(listener),
            Acquired::Later(stream) => Self::Secondary(stream),
        })
    }
}

pub(crate) enum Acquired<L, S> {
    First(L),
    Later(S),
}

pub(crate) async fn acquire<W: Way>(
    endpoint: &Endpoint,
    listen: &ListenOptions,
    connect: &ConnectOptions,
) -> io::Result<Acquired<W::Listener, W::Stream>> {
    let started = Instant::now();
    loop {
        let taken = match W::bind(endpoint, listen) {
            Ok(listener) => return Ok(Acquired::First(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => error,
            Err(error) => return Err(error),
        };
        let left = connect.limit().saturating_sub(started.elapsed());
        match W::connect(endpoint, &connect.at_once(left)).await {
            Ok(stream) => return Ok(Acquired::Later(stream)),
            Err(error) if !is_absent(&error) && (!is_in_gap(&error) || left.is_zero()) => {
                return Err(error);
            }
            // No process starts or ends there: connections hold the name, which the error of `bind`
            // reports.
            Err(_) if left.is_zero() && is_held_by_connections(&taken) => return Err(taken),
            Err(error) if left.is_zero() => {
                let what = format!("a process holds the name, and cannot be reached: {error}");
                let late = Error::new(Reason::Deadline, what).caused_by(error);
                return Err(during(Operation::Connect, endpoint, late.into()));
            }
            Err(_) => W::sleep(PAUSE.min(left)).await?,
        }
    }
}

/// Reports whether `connect` failed because no server is listening and no process holds the name.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) && !is_in_gap(error)
}

/// Reports whether `bind` failed because of a former server's connections.
fn is_held_by_connections(error: &io::Error) -> bool {
    matches!(Error::of(error).map(Error::reason), Some(Reason::HeldByConnections))
}

/// Reports whether `connect` failed because the process that holds the name does not listen at the
/// moment, or no longer.
pub(crate) fn is_in_gap(error: &io::Error) -> bool {
    let reason = Error::of(error).map(Error::reason);
    matches!(reason, Some(Reason::NameWithoutServer { .. } | Reason::Stopping { .. }))
}
