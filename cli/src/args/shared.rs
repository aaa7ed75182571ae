//! Options that several verbs have.

use std::time::Duration;

#[cfg(feature = "shared-memory")]
use sockpipe::SharedMemory;
use sockpipe::{ConnectOptions, ListenOptions, SpinPolicy};

use super::values::{FOREVER, mode, seconds};

/// How long a client may take for the last bytes of its connection, unless told otherwise.
pub const LAST_BYTES: Duration = Duration::from_secs(5);

/// What a client can be told.
#[derive(Debug, clap::Args)]
pub struct Client {
    /// Wait for a server that is not there yet: for so many seconds, or without a number for as
    /// long as it takes.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = FOREVER,
        value_parser = seconds
    )]
    pub wait: Option<Duration>,

    /// How long a server may be too busy [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Talk to the server whoever runs it. Otherwise it must be yours, or the system's.
    #[arg(long)]
    pub any_server: bool,

    /// Talk to the server only if this user runs it: a name or number, on Windows a SID.
    #[arg(long, value_name = "USER", conflicts_with = "any_server")]
    pub expect_user: Option<String>,
}

/// What a server can be told.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// Let every user of this machine connect, and not only your own.
    #[arg(long, conflicts_with = "mode")]
    pub everyone: bool,

    /// Permission bits of the socket, such as 660 for its group. Unix only.
    #[arg(long, value_name = "OCTAL", value_parser = mode)]
    pub mode: Option<u32>,

    /// Group of the socket, by name or number; its members may connect unless --mode says otherwise.
    /// Unix only.
    #[arg(long, value_name = "GROUP", conflicts_with = "everyone")]
    pub group: Option<String>,

    /// Listen in a directory where other users could replace the socket. Unix only.
    #[arg(long)]
    pub unsafe_directory: bool,

    /// How many clients may wait to be accepted [default: the system's limit]. Unix only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub backlog: Option<u32>,
}

/// How a program waits for its peer.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Spin {
    /// Look for an answer for up to 50 microseconds before sleeping: quicker round trips between two
    /// cores, for processor time. Unix only.
    #[arg(long)]
    pub spin: bool,
}

/// Whether a busy connection may move into memory.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Memory {
    /// Let a busy connection move into memory that both processes share, if the peer allows it too.
    /// Linux only.
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

/// What the end of standard input means.
#[derive(Debug, clap::Args)]
pub struct End {
    /// Close the connection at the end of input, without waiting for an answer. Otherwise the peer
    /// reads the end and can still answer, which a pipe of byte type cannot carry.
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

/// How long what cannot be ended otherwise is waited for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Linger {
    /// Once one side has ended, wait so long for more from a peer that takes no end of file (a pipe of
    /// byte type), and for a peer to read the rest.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub linger: Option<Duration>,
}

impl Linger {
    /// For a session between two programs, of which nobody would end one that waits for ever.
    pub fn between_programs(self) -> Ends {
        let linger = self.linger.unwrap_or(Duration::from_millis(500));
        Ends { half_close: true, linger: Some(linger) }
    }

    /// How long a peer may take to read the rest.
    pub fn for_the_rest(self) -> Duration {
        self.linger.unwrap_or(LAST_BYTES)
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The end of the near side is passed on, and the far side may still answer. Otherwise the
    /// session ends with it.
    pub half_close: bool,
    /// How long a direction may be quiet whose other side takes no end of file; `None`: for ever.
    pub linger: Option<Duration>,
}
