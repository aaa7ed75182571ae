//! Options that several verbs have.

use std::time::Duration;

#[cfg(feature = "shared-memory")]
use sockpipe::SharedMemory;
use sockpipe::{ConnectOptions, ListenOptions, SpinPolicy};

use super::values::{FOREVER, mode, seconds};

/// How long a client may take for the last bytes of its connection, by default.
pub const LAST_BYTES: Duration = Duration::from_secs(5);

/// Options of a client.
#[derive(Debug, clap::Args)]
pub struct Client {
    /// Wait for the server to start, for SECONDS or without a limit.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = FOREVER,
        value_parser = seconds
    )]
    pub wait: Option<Duration>,

    /// How long to wait for a busy server [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Connect even if another user runs the server.
    #[arg(long)]
    pub any_server: bool,

    /// Connect only to a server of USER (name, number or SID) or root.
    #[arg(long, value_name = "USER", conflicts_with = "any_server")]
    pub expect_user: Option<String>,
}

/// Options of a server.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// Accept every user of this machine.
    #[arg(long, conflicts_with = "mode")]
    pub everyone: bool,

    /// Permission bits of the socket, such as 660 for its group (Unix).
    #[arg(long, value_name = "OCTAL", value_parser = mode)]
    pub mode: Option<u32>,

    /// Group of the socket; alone it means --mode 660 (Unix).
    #[arg(long, value_name = "GROUP", conflicts_with = "everyone")]
    pub group: Option<String>,

    /// Allow a directory where others can replace the socket (Unix).
    #[arg(long)]
    pub unsafe_directory: bool,

    /// Number of pending connections [default: the system's limit] (Unix).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub backlog: Option<u32>,
}

/// How a program waits for its peer.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Spin {
    /// Poll for up to 50 microseconds before a read sleeps; Windows ignores it.
    #[arg(long)]
    pub spin: bool,
}

/// Whether a busy connection may move into memory.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Memory {
    /// Move busy connections into shared memory, if the peer does too (Linux).
    #[cfg(feature = "shared-memory")]
    #[arg(long)]
    pub shared_memory: bool,
}

impl Memory {
    pub fn listening(self, options: ListenOptions) -> ListenOptions {
        #[cfg(feature = "shared-memory")]
        let options = options.shared_memory(self.policy());
        options
    }

    pub fn connecting(self, options: ConnectOptions) -> ConnectOptions {
        #[cfg(feature = "shared-memory")]
        let options = options.shared_memory(self.policy());
        options
    }

    #[cfg(feature = "shared-memory")]
    fn policy(self) -> SharedMemory {
        if self.shared_memory { SharedMemory::Auto } else { SharedMemory::Off }
    }
}

impl Spin {
    pub fn policy(self) -> SpinPolicy {
        if self.spin { SpinPolicy::Auto } else { SpinPolicy::Off }
    }
}

/// Handling of the end of standard input.
#[derive(Debug, clap::Args)]
pub struct End {
    /// Close the connection at the end of input, without waiting for an answer.
    #[arg(long)]
    pub close: bool,

    #[command(flatten)]
    pub linger: Linger,
}

impl End {
    pub fn ends(&self) -> Ends {
        Ends { half_close: !self.close, linger: self.linger.linger }
    }
}

/// The time limit for a connection that cannot be ended otherwise.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Linger {
    /// How long to wait for a peer after one side has ended.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub linger: Option<Duration>,
}

impl Linger {
    /// Returns the ends for a session between two programs, which would otherwise wait forever.
    pub fn between_programs(self) -> Ends {
        let linger = self.linger.unwrap_or(Duration::from_millis(500));
        Ends { half_close: true, linger: Some(linger) }
    }

    /// Returns how long a peer may take to read the rest.
    pub fn for_the_rest(self) -> Duration {
        self.linger.unwrap_or(LAST_BYTES)
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Whether the near side's end of file is passed on, so that the far side may still answer.
    /// Otherwise that end closes the session.
    pub half_close: bool,
    /// How long one direction may be quiet after the other one ended at a side that takes no end of
    /// file. `None` means forever.
    pub linger: Option<Duration>,
}
