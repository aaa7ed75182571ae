//! The program to start if no server is listening.

use std::fmt;
use std::process::Command;

use crate::imp;

/// The program that [`connect_or_spawn`](crate::connect_or_spawn) starts, with its options. A
/// [`Command`] converts into one with the default options.
///
/// The program's standard input and output are empty, whatever the command sets. Its standard error
/// is kept for the error message in case it does not start.
///
/// ```no_run
/// use std::process::Command;
/// use sockpipe::DaemonCommand;
///
/// # async fn run() -> std::io::Result<()> {
/// let daemon = DaemonCommand::new(Command::new("exampled")).kill_at_deadline(true);
/// let stream = sockpipe::connect_or_spawn("org.example.daemon", daemon).await?;
/// # drop(stream);
/// # Ok(())
/// # }
/// ```
///
/// `os::unix::DaemonCommandExt` has the options of Unix: the umask, and the descriptors that the
/// program inherits.
pub struct DaemonCommand {
    pub(crate) command: Command,
    pub(crate) kill_at_deadline: bool,
    pub(crate) on_start: Option<Box<dyn FnOnce(u32) + Send>>,
    pub(crate) os: imp::OsDaemonOptions,
}

impl DaemonCommand {
    /// Creates a daemon of `command` with the default options.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let os = imp::OsDaemonOptions::default();
        Self { command, kill_at_deadline: false, on_start: None, os }
    }

    /// Kills a daemon that does not listen by the deadline, even one that an earlier call started.
    /// Default: `false`.
    ///
    /// By default the daemon goes on starting, and later calls wait for it.
    ///
    /// Use it for a daemon that may hang while it starts. A slow daemon is killed too, and never
    /// comes up if the deadline of every call is shorter than its start.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: SIGKILL goes to the daemon's own process group. A daemon of an earlier call is killed
    /// only where the system reports when a process started (Linux), because elsewhere its process
    /// id may belong to another process by now. Windows: `TerminateProcess`.
    #[must_use]
    pub fn kill_at_deadline(mut self, kill: bool) -> Self {
        self.kill_at_deadline = kill;
        self
    }

    /// Calls `hook` with the process id if this call starts the daemon.
    ///
    /// It is not called if a server was listening, or if another client started one.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use sockpipe::DaemonCommand;
    ///
    /// # async fn run() -> std::io::Result<()> {
    /// let daemon = DaemonCommand::new(Command::new("exampled"))
    ///     .on_start(|process| eprintln!("started exampled, process {process}"));
    /// let stream = sockpipe::connect_or_spawn("org.example.daemon", daemon).await?;
    /// # drop(stream);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_start(mut self, hook: impl FnOnce(u32) + Send + 'static) -> Self {
        self.on_start = Some(Box::new(hook));
        self
    }
}

impl fmt::Debug for DaemonCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, kill_at_deadline, on_start: _, os } = self;
        let mut debug = f.debug_struct("DaemonCommand");
        debug.field("command", command).field("kill_at_deadline", kill_at_deadline);
        debug.field("os", os).finish_non_exhaustive()
    }
}

impl From<Command> for DaemonCommand {
    fn from(command: Command) -> Self {
        Self::new(command)
    }
}
