//! What is started where no server listens.

use std::fmt;
use std::process::Command;

use crate::imp;

/// The program that [`connect_or_spawn`](crate::connect_or_spawn) starts, and how. A [`Command`] alone
/// is one with the defaults.
///
/// Standard input and output of the program are empty, and its standard error is kept for the error
/// message should it not come up, whatever the command has for them.
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
/// `os::unix::DaemonCommandExt` has what only Unix knows: the umask, and descriptors that the program
/// is to have.
pub struct DaemonCommand {
    pub(crate) command: Command,
    pub(crate) kill_at_deadline: bool,
    pub(crate) on_start: Option<Box<dyn FnOnce(u32) + Send>>,
    pub(crate) os: imp::OsDaemonOptions,
}

impl DaemonCommand {
    /// Starts `command`, with the defaults.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let os = imp::OsDaemonOptions::default();
        Self { command, kill_at_deadline: false, on_start: None, os }
    }

    /// Kills a daemon that does not listen at the deadline, be it this call's or one that an earlier
    /// call started. Default: `false`, it goes on starting, and later calls wait for it.
    ///
    /// For a daemon that may hang when it starts: one that is only slow is killed too, and never
    /// comes up if every call is shorter than its start.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: SIGKILL for its process group, which is its own. One of an earlier call is killed where the
    /// system tells when a process started (Linux), and left elsewhere, where its number may be
    /// another's by now. Windows: `TerminateProcess`.
    #[must_use]
    pub fn kill_at_deadline(mut self, kill: bool) -> Self {
        self.kill_at_deadline = kill;
        self
    }

    /// Tells `hook` that this call started the daemon, with its process id. It is not called where a
    /// server was there, or another client started one.
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
