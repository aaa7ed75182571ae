//! One instance of a program, and a server that is started when it is needed, for threads.

use std::io;

use super::way::{Threads, block_on};
use super::{Listener, Stream};
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::instance::command::DaemonCommand;
use crate::instance::daemon::find_or_start;
use crate::instance::single::{Acquired, acquire};
use crate::options::{ConnectOptions, ListenOptions};

/// Connects to `endpoint`, and starts `daemon` first when nobody listens there.
///
/// As [`connect_or_spawn_with`], with the default options: 5 seconds in all.
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

/// Connects to `endpoint`, and starts `daemon` first when nobody listens there: a program that
/// listens on that endpoint. Of any number of clients that come at once, one starts it, and all
/// connect. The longer of the deadlines in `options` is for all of it.
///
/// What the daemon has from this process, and what later calls do, is as for the async
/// `connect_or_spawn_with`; [daemons](crate::docs::daemons) tells of it.
///
/// # Errors
///
/// Those of [`Stream::connect`]; that of [`Command::spawn`](std::process::Command::spawn) when the
/// program cannot be run; `Other` when it ended before it listened and no other server has the name;
/// `TimedOut` with its process id when it does not listen in time; `Unsupported` for an abstract socket.
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

/// What this process is: the first of its name, or one that came later and is connected to it.
///
/// A portable name makes it one instance per user. When the first one crashes, the next to come is
/// the first.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a program has one")]
pub enum SingleInstance {
    /// The first: it has the name, and hears of those that come later.
    Primary(Listener),
    /// A later one, connected to the first.
    Secondary(Stream),
}

impl SingleInstance {
    /// Takes `endpoint`, or connects to who has it, with the default options.
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

    /// Takes `endpoint`, or connects to who has it. Whichever comes first is atomic: of any number
    /// that start at once, one is the first.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::bind`] but `AddrInUse`, and those of [`Stream::connect`] but `NotFound`
    /// and `ConnectionRefused`: when the first one is just starting or ending, it is tried again,
    /// until the deadline of `connect`, and then `TimedOut`.
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
