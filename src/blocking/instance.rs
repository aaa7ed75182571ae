//! Single instances of a program, and servers that their clients start, for threads.

use std::io;

use super::way::{Threads, block_on};
use super::{Listener, Stream};
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::instance::command::DaemonCommand;
use crate::instance::daemon::find_or_start;
use crate::instance::single::{Acquired, acquire};
use crate::options::{ConnectOptions, ListenOptions};

/// Connects to `endpoint`, and starts `daemon` first if no server is listening there.
///
/// It does what [`connect_or_spawn_with`] does with the default options: 5 seconds in all.
///
/// ```no_run
/// use std::process::Command;
///
/// # fn run() -> std::io::Result<()> {
/// let mut daemon = Command::new("exampled");
/// daemon.args(["--listen", "org.example.daemon"]);
/// let stream = sockpipe::blocking::connect_or_spawn("org.example.daemon", daemon)?;
/// # drop(stream);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As for [`connect_or_spawn_with`].
pub fn connect_or_spawn<E>(endpoint: E, daemon: impl Into<DaemonCommand>) -> io::Result<Stream>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    connect_or_spawn_with(endpoint, daemon, &ConnectOptions::default())
}

/// Connects to `endpoint` with `options`, and starts `daemon` first if no server is listening
/// there.
///
/// `daemon` is a program that listens on that endpoint. If several clients call this at the same
/// time, one of them starts it and all connect. The longer of the deadlines in `options` applies to
/// the whole call.
///
/// The async `connect_or_spawn_with` and [daemons](crate::docs::daemons) describe what the daemon
/// inherits from this process, and what later calls do.
///
/// # Errors
///
/// Those of [`Stream::connect`], and:
///
/// | kind | when |
/// |---|---|
/// | that of [`Command::spawn`](std::process::Command::spawn) | the program cannot be run |
/// | `Other` | the daemon exited before it listened, and no other server has the name |
/// | `TimedOut`, with the process id | the daemon does not listen in time |
/// | `Unsupported` | the endpoint is an abstract socket |
pub fn connect_or_spawn_with<E>(
    endpoint: E,
    daemon: impl Into<DaemonCommand>,
    options: &ConnectOptions,
) -> io::Result<Stream>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
    block_on(find_or_start::<Threads>(&endpoint, daemon.into(), options))
}

/// The role of this process: the primary instance, or a secondary one that is connected to the
/// primary.
///
/// With a plain name such as `tool`, each user has one primary. When the primary crashes, the next
/// process to start becomes the primary.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a program has one")]
pub enum SingleInstance {
    /// The primary instance: it holds the name, and its listener accepts the later ones.
    Primary(Listener),
    /// A secondary instance, connected to the primary.
    Secondary(Stream),
}

impl SingleInstance {
    /// Binds `endpoint`, or connects to the process that holds it, with the default options.
    ///
    /// # Errors
    ///
    /// As for [`acquire_with`](Self::acquire_with).
    pub fn acquire<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        Self::acquire_with(endpoint, &ListenOptions::default(), &ConnectOptions::default())
    }

    /// Binds `endpoint`, or connects to the process that holds it. If several processes start at
    /// the same time, exactly one becomes the primary.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::bind`] except `AddrInUse`, and those of [`Stream::connect`] except
    /// `NotFound` and `ConnectionRefused`. While the primary starts or ends, this call retries
    /// until the deadline of `connect`, and then fails with `TimedOut`.
    pub fn acquire_with<E>(
        endpoint: E,
        listen: &ListenOptions,
        connect: &ConnectOptions,
    ) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        Ok(match block_on(acquire::<Threads>(&endpoint, listen, connect))? {
            Acquired::First(listener) => Self::Primary(listener),
            Acquired::Later(stream) => Self::Secondary(stream),
        })
    }
}
