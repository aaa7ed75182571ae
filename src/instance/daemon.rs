//! Starting the server that a client needs, exactly once.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::command::DaemonCommand;
use super::single::{is_absent, is_in_gap};
use super::way::Way;
use crate::candidate::{Candidate, Occupancy};
use crate::endpoint::Endpoint;
#[cfg(feature = "tokio")]
use crate::endpoint::ParseEndpointError;
use crate::error::{Error, Operation, Reason, during, held_by_connections};
use crate::imp;
use crate::options::ConnectOptions;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// The pause between attempts to connect to a server that starts.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a server may take to listen after its command exited successfully, as a daemon that
/// forks does.
const AFTER_END: Duration = Duration::from_secs(1);
const SLOW: &str = "try again, or raise ConnectOptions::deadline";
/// How much of a failed server's standard error is shown.
const SHOWN: u64 = 2048;

/// Connects to `endpoint`, and starts `daemon` first if no server is listening there.
///
/// It does what [`connect_or_spawn_with`] does with the default options: 5 seconds in all. That
/// function describes what the daemon inherits from this process.
///
/// # Errors
///
/// As for [`connect_or_spawn_with`].
#[cfg(feature = "tokio")]
pub async fn connect_or_spawn<E>(
    endpoint: E,
    daemon: impl Into<DaemonCommand>,
) -> io::Result<Stream>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    connect_or_spawn_with(endpoint, daemon, &ConnectOptions::default()).await
}

/// Connects to `endpoint` with `options`, and starts `daemon` first if no server is listening
/// there.
///
/// `daemon` is a program that listens on that endpoint. If several clients call this at the same
/// time, one of them starts it and all connect. The longer of the deadlines in `options` applies to
/// the whole call.
///
/// The daemon is detached: it has no terminal, its standard input and output are empty, and it
/// outlives this process. Its standard error goes to a file without a name, so it can always write
/// there. If it fails to start, the error contains the end of that file.
///
/// The daemon inherits from this process, for as long as it runs:
///
/// * The working directory. Its file system cannot be unmounted meanwhile, and on Windows the
///   directory cannot be removed: set [`current_dir`](Command::current_dir).
/// * The environment, the limits and the place among processes: [daemons](crate::docs::daemons) has
///   the whole list.
/// * The file of its standard error, which grows on disk and which no program can read: a daemon
///   that logs redirects its log after the start.
///
/// ```no_run
/// use std::process::Command;
///
/// # async fn run() -> std::io::Result<()> {
/// let mut daemon = Command::new("exampled");
/// daemon.args(["--listen", "org.example.daemon"]);
/// let stream = sockpipe::connect_or_spawn("org.example.daemon", daemon).await?;
/// # drop(stream);
/// # Ok(())
/// # }
/// ```
///
/// [`on_start`](DaemonCommand::on_start) reports whether this call started the daemon.
///
/// # Errors
///
/// Those of [`Stream::connect`], and:
///
/// | kind | when |
/// |---|---|
/// | that of [`Command::spawn`] | the program cannot be run |
/// | `Other` | the daemon exited before it listened, and no other server has the name; after a successful exit, or one whose status is lost because the program ignores SIGCHLD, it is reported a second later |
/// | `TimedOut`, with the process id | the daemon does not listen in time. It goes on starting, unless [`kill_at_deadline`](DaemonCommand::kill_at_deadline) is set |
/// | `Unsupported` | the endpoint is an abstract socket, which has no directory for the lock that keeps a second client from starting a second daemon |
///
/// # Cancel safety
///
/// If the future is dropped after the daemon was started, the daemon goes on starting. It leaves no
/// zombie when it ends.
///
/// # Platform-specific behavior
///
/// A later call waits for the daemon of an earlier call that timed out, was dropped or was killed,
/// as long as that process lives, and starts no other.
///
/// Unix: the daemon has a session of its own (`setsid`), the default signal handling, and no
/// descriptor of this process except those of [`keep_fds`](crate::os). While it starts, a lock file
/// `.NAME.spawn` is beside the socket. If a call did not see the daemon listen, the file stays
/// until the next call removes it. The file of the standard error is in the temporary directory,
/// beside the socket if that directory cannot be written, and in memory (Linux) if neither can.
///
/// Windows: the daemon has no console window and a process group of its own, and leaves this
/// process's job if the job allows that. While it starts, there is a named mutex, and a file in the
/// temporary directory that identifies its process. The daemon starts suspended, and runs once the
/// handles that it inherited are closed in it. A process that forbids invalid handles
/// (`ProcessStrictHandleCheckPolicy`) cannot determine which ones these are, so its daemon keeps
/// them.
#[cfg(feature = "tokio")]
pub async fn connect_or_spawn_with<E>(
    endpoint: E,
    daemon: impl Into<DaemonCommand>,
    options: &ConnectOptions,
) -> io::Result<Stream>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
    find_or_start::<super::way::Tasks>(&endpoint, daemon.into(), options).await
}

pub(crate) async fn find_or_start<W: Way>(
    endpoint: &Endpoint,
    daemon: DaemonCommand,
    options: &ConnectOptions,
) -> io::Result<W::Stream> {
    let search = Search::<W> { endpoint, options, started: Instant::now(), way: PhantomData };
    loop {
        if let Some(stream) = search.connect().await? {
            imp::SpawnLock::tidy(endpoint);
            return Ok(stream);
        }

        let lock = imp::SpawnLock::try_take(endpoint)
            .map_err(|error| during(Operation::Spawn, endpoint, error))?;
        if let Some(mut lock) = lock {
            let stream = search.start(daemon, &mut lock).await?;
            lock.settled();
            return Ok(stream);
        }

        if search.left().is_zero() {
            return Err(match imp::SpawnLock::told(endpoint) {
                Some(pid) => search.still_starting(&name(&daemon.command), pid, false, ""),
                None => search.too_late("another process starts the server".to_owned(), SLOW),
            });
        }
        search.pause().await?;
    }
}

struct Search<'a, W> {
    endpoint: &'a Endpoint,
    options: &'a ConnectOptions,
    started: Instant,
    way: PhantomData<fn() -> W>,
}

impl<W: Way> Search<'_, W> {
    fn left(&self) -> Duration {
        self.options.limit().saturating_sub(self.started.elapsed())
    }

    async fn pause(&self) -> io::Result<()> {
        W::sleep(PAUSE.min(self.left())).await
    }

    /// Connects to the server. Returns `None` if no server is listening.
    async fn connect(&self) -> io::Result<Option<W::Stream>> {
        loop {
            let left = self.left();
            match W::connect(self.endpoint, &self.options.at_once(left)).await {
                Ok(stream) => return Ok(Some(stream)),
                Err(error) if is_absent(&error) => return Ok(None),
                // The server starts or ends, or binds its name again. Another server could not take
                // the name.
                Err(error) if is_in_gap(&error) && !left.is_zero() => self.pause().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts the daemon, unless a server or an earlier daemon turns up. The lock is held.
    async fn start(
        &self,
        mut command: DaemonCommand,
        lock: &mut imp::SpawnLock,
    ) -> io::Result<W::Stream> {
        loop {
            // Checked before the connection attempt, because a daemon that has ended may have made
            // way for another server.
            let earlier = lock.starting();
            // The previous holder of the lock may have started a server.
            if let Some(stream) = self.connect().await? {
                return Ok(stream);
            }
            let Some(pid) = earlier else { break };
            if self.left().is_zero() {
                let killed = command.kill_at_deadline && lock.kill();
                return Err(self.still_starting(&name(&command.command), pid, killed, ""));
            }
            self.pause().await?;
        }

        let mut daemon = Daemon::spawn(&mut command, self.endpoint)
            .map_err(|error| during(Operation::Spawn, self.endpoint, error))?;
        lock.started(daemon.pid);
        if let Some(on_start) = command.on_start.take() {
            on_start(daemon.pid);
        }

        let mut ended_well = None;
        loop {
            // Checked before the connection attempt, because the daemon may have ended after
            // another server took the name.
            let ended = daemon.ended();
            let ended = ended.map_err(|error| during(Operation::Spawn, self.endpoint, error))?;
            if let Some(stream) = self.connect().await? {
                return Ok(stream);
            }
            // If another server already holds the name, the daemon may have failed because of that,
            // and the other server is about to listen.
            let grace_is_over = |end: &End| {
                let since = *ended_well.get_or_insert_with(Instant::now);
                end.is_failure() || since.elapsed() >= AFTER_END || self.left().is_zero()
            };
            if let Some(end) = ended.filter(grace_is_over).filter(|_| !self.is_held()) {
                lock.starting();
                // Connections of a former server may have kept the name from the daemon.
                return Err(match self.held_by_connections() {
                    Some(address) => {
                        during(Operation::Spawn, &address, held_by_connections(&address))
                    }
                    None => self.failed(&command.command, &end, &daemon.said()),
                });
            }
            if self.left().is_zero() {
                let killed = command.kill_at_deadline && lock.kill();
                let (name, said) = (name(&command.command), daemon.said());
                return Err(self.still_starting(&name, daemon.pid, killed, &said));
            }
            self.pause().await?;
        }
    }

    /// Returns the address that connections of a former server hold.
    fn held_by_connections(&self) -> Option<Endpoint> {
        let held = |place: &Candidate| {
            matches!(place.occupancy(), Ok(Occupancy::HeldByConnections)).then(|| place.address())
        };
        self.endpoint.resolve().ok()?.iter().find_map(held)
    }

    /// Reports whether a server holds the name, even if it does not listen yet.
    fn is_held(&self) -> bool {
        let held = |place: &Candidate| matches!(place.occupancy(), Ok(Occupancy::Held { .. }));
        self.endpoint.resolve().is_ok_and(|places| places.iter().any(held))
    }

    fn failed(&self, command: &Command, end: &End, said: &str) -> io::Error {
        let what = format!("{} exited before it listened: {end}{said}", name(command));
        during(Operation::Spawn, self.endpoint, Error::new(Reason::ServerExited, what).into())
    }

    /// Creates the error for a daemon that does not listen by the deadline. By default it is not
    /// killed, because it may only be slow, and the next client would start all over.
    fn still_starting(&self, name: &str, pid: u32, killed: bool, said: &str) -> io::Error {
        let (state, advice) = if killed {
            ("was killed", SLOW)
        } else {
            (
                "is still starting",
                "try again, or raise ConnectOptions::deadline; see that it listens under this \
                 name; if it hangs, stop it, or set DaemonCommand::kill_at_deadline",
            )
        };
        self.too_late(format!("{name} does not listen yet: process {pid} {state}{said}"), advice)
    }

    fn too_late(&self, what: String, advice: &'static str) -> io::Error {
        let seconds = self.options.limit().as_secs_f32();
        let what = format!("no server after {seconds} s: {what}");
        let error = Error::new(Reason::Deadline, what).advising(advice);
        during(Operation::Spawn, self.endpoint, error.into())
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A daemon that was started. A drop lets it run on: when it listens, on an error, and when the
/// caller's future is dropped.
struct Daemon {
    child: Option<Child>,
    pid: u32,
    stderr: File,
}

impl Daemon {
    fn spawn(daemon: &mut DaemonCommand, endpoint: &Endpoint) -> io::Result<Self> {
        let command = &mut daemon.command;
        let stderr = imp::nameless_file(endpoint).map_err(|error| {
            let (name, dir) = (name(command), std::env::temp_dir());
            let what =
                format!("cannot start {name}: no file for its standard error in {}", dir.display());
            Error::new(Reason::Os, format!("{what}: {error}")).caused_by(error)
        })?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone()?);
        let child = imp::spawn_detached(command, &daemon.os).map_err(|error| {
            let what = format!("cannot start {}: {error}", name(command));
            Error::new(Reason::Os, what).caused_by(error)
        })?;
        // Closes the command's handle of the file, which belongs to the daemon now.
        command.stderr(Stdio::null());
        Ok(Self { pid: child.id(), child: Some(child), stderr })
    }

    fn ended(&mut self) -> io::Result<Option<End>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        match child.try_wait() {
            Ok(status) => Ok(status.map(End::Known)),
            Err(error) if imp::is_reaped(&error) => Ok(Some(End::Unknown)),
            Err(error) => Err(error),
        }
    }

    /// Returns the end of the daemon's standard error, for a message.
    fn said(&mut self) -> String {
        let mut said = Vec::new();
        let length = self.stderr.seek(SeekFrom::End(0)).unwrap_or(0);
        if self.stderr.seek(SeekFrom::Start(length.saturating_sub(SHOWN))).is_ok() {
            let _ = self.stderr.by_ref().take(SHOWN).read_to_end(&mut said);
        }
        let said = String::from_utf8_lossy(&said);
        match said.trim() {
            "" => ", and its standard error is empty".to_owned(),
            said => format!("; its standard error: {said}"),
        }
    }
}

/// The end of a daemon.
enum End {
    Known(ExitStatus),
    /// Something else in this process has taken the exit status.
    Unknown,
}

impl End {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Known(status) if !status.success())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(status) => status.fmt(f),
            Self::Unknown => f.write_str(
                "its exit status is lost, because this program ignores SIGCHLD or waits for all \
                 children",
            ),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child whose exit status was read needs no further wait.
        let running = self.child.take().map(|mut child| (child.try_wait(), child));
        if let Some((Ok(None) | Err(_), child)) = running {
            imp::leave(child);
        }
    }
}
