//! The command line.

// Written out for the fuzz target, which has this file from elsewhere.
#[path = "args/shared.rs"]
mod shared;
#[path = "args/values.rs"]
mod values;

use std::ffi::OsString;

use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use sockpipe::Endpoint;

pub use self::shared::{Client, End, Ends, LAST_BYTES, Linger, Memory, Server, Spin};
pub use self::values::{Address, Place};
use self::values::{address, endpoint, place, rate};

const AFTER_HELP: &str = "\
An ENDPOINT is a portable name such as `echo` (a socket in your runtime directory, or a pipe with \
your SID in its name), `system:NAME` for the whole machine, a path (`/run/x.sock`, `./x.sock`), a \
pipe (`\\\\.\\pipe\\NAME`) or a Linux `abstract:NAME`. A server can also listen at `fd:N`, a socket that \
was passed to it.

Exit codes:
  0    done; info: a server is there
  1    failed in another way than these
  2    wrong usage, or an endpoint that cannot be on this system
  3    no server is listening, or a crashed server left its socket; there is no such directory, also
       for a server
  4    the name is taken: by a server, or by something that is no socket
  5    not allowed: another user's server, socket or directory
  6    no answer in time
  130  stopped by Ctrl-C or a signal: listen, relay to stdio:, ping without an answer
  141  standard output was closed by its reader

Servers of many clients (echo, relay, listen --keep --exec) let their connections finish when they \
are asked to stop, say how many were cut after 5 s, and end with 0; asked a second time, they end \
at once, with 130. A ping that has \
figures prints them, and ends with 0. What is not named here is ended by the signal itself, which a \
shell shows as 130 for Ctrl-C and 143 for SIGTERM: connect and relay stdio:, for example.";

/// Netcat for Unix domain sockets and Windows named pipes, the same on every OS.
#[derive(Debug, Parser)]
#[command(name = "sockpipe", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,

    /// Say what happens, on standard error.
    #[arg(short, long, global = true)]
    pub verbose: bool,

    /// Say nothing but errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Wait for a client, and join it to standard input and output.
    Listen(Listen),
    /// Connect to a server, and join it to standard input and output.
    Connect(Connect),
    /// Serve clients by sending back what they send.
    Echo(Echo),
    /// Pass connections on, from one endpoint to another, to or from loopback TCP.
    Relay(Box<Relay>),
    /// Tell what an endpoint is here, and what is there.
    Info(Info),
    /// Measure the round trips to an echo server.
    Ping(Ping),
    /// Remove what a crashed server has left, and nothing else.
    Clean(Clean),
    /// Print completions for a shell.
    Completions(Completions),
}

impl Verb {
    /// Whether it decides what a signal does that asks it to stop.
    pub fn hears_signals(&self) -> bool {
        match self {
            Self::Listen(_) | Self::Echo(_) | Self::Ping(_) => true,
            Self::Relay(relay) => !matches!(relay.from, Address::Stdio),
            Self::Connect(_) | Self::Info(_) | Self::Clean(_) | Self::Completions(_) => false,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Listen {
    /// Where to listen.
    #[arg(value_parser = place(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Place,

    /// Serve one client after the other, until stopped; with --exec, all at a time.
    #[arg(short, long)]
    pub keep: bool,

    #[command(flatten)]
    pub end: End,

    #[command(flatten)]
    pub server: Server,

    #[command(flatten)]
    pub spin: Spin,

    /// Run a command for each client, joined to its standard input and output. All that follows is
    /// the command. It finds who the client is in SOCKPIPE_PEER_USER and SOCKPIPE_PEER_PID. On Unix
    /// it is in a process group of its own, which is sent SIGTERM a second after its client has left,
    /// and when the server ends, and SIGKILL 2 s later.
    #[arg(
        long,
        value_name = "COMMAND",
        num_args = 1..,
        allow_hyphen_values = true,
        conflicts_with = "close"
    )]
    pub exec: Option<Vec<OsString>>,
}

#[derive(Debug, clap::Args)]
pub struct Connect {
    /// Where the server listens.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Endpoint,

    #[command(flatten)]
    pub end: End,

    #[command(flatten)]
    pub client: Client,

    #[command(flatten)]
    pub spin: Spin,
}

#[derive(Debug, clap::Args)]
pub struct Echo {
    /// Where to listen.
    #[arg(value_parser = place(), value_hint = ValueHint::AnyPath, default_value = "echo")]
    pub endpoint: Place,

    #[command(flatten)]
    pub server: Server,

    #[command(flatten)]
    pub linger: Linger,

    #[command(flatten)]
    pub spin: Spin,

    #[command(flatten)]
    pub memory: Memory,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each of FROM and TO is an ENDPOINT, `tcp:HOST:PORT`, or `stdio:` for standard input and output. \
The relay listens at FROM and connects to TO for each client; with `stdio:` it serves one.

Every user of this machine can connect to a TCP port, whatever guards the endpoint behind it.

A peer that takes no end of file is given 0.5 s of silence, unless --linger says otherwise.")]
pub struct Relay {
    /// Where to listen.
    #[arg(value_parser = address())]
    pub from: Address,

    /// Where to connect, for each client.
    #[arg(value_parser = address())]
    pub to: Address,

    /// Allow TCP addresses beyond this machine.
    #[arg(long)]
    pub remote: bool,

    /// Let no peer pass file descriptors, which are otherwise passed on between two endpoints. Bulk
    /// data then flows faster on Linux.
    #[arg(long)]
    pub no_descriptors: bool,

    #[command(flatten)]
    pub linger: Linger,

    #[command(flatten)]
    pub spin: Spin,

    #[command(flatten)]
    pub server: Server,

    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It makes no connection to a server that it can see otherwise, so that a server that serves one \
client does not lose its turn. It does for a socket without sockpipe's lock that no process here is \
seen to listen on: only a connection tells whether that is dead. The exit code tells what was \
found: 0 a server, 2 what no socket can be called, 3 nobody, 4 something that is no socket, 5 that \
this user may not know.")]
pub struct Info {
    /// The endpoint to tell about.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Endpoint,

    /// Connect once and close again, to learn what only the server's end tells: its user and
    /// process, and on Windows who may connect. The server sees a client that says nothing.
    #[arg(long)]
    pub connect: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A first round trip, in which the server has to accept, is not counted. --timeout is also for each \
answer. Ctrl-C prints what there is so far.")]
pub struct Ping {
    /// Where the echo server listens.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath, default_value = "echo")]
    pub endpoint: Endpoint,

    /// How many round trips.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000)
    )]
    pub count: u32,

    /// How many bytes each way.
    #[arg(
        short,
        long,
        value_name = "BYTES",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=1 << 30)
    )]
    pub size: u32,

    /// How many to send in a second, on time and whether or not answers have come. Default: each
    /// as soon as the one before has come back.
    #[arg(short, long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub client: Client,

    #[command(flatten)]
    pub spin: Spin,

    #[command(flatten)]
    pub memory: Memory,
}

#[derive(Debug, clap::Args)]
pub struct Clean {
    /// Where the server was.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Endpoint,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "For example: sockpipe completions bash > /etc/bash_completion.d/sockpipe")]
pub struct Completions {
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_wait_has_a_limit_or_none() {
        let wait = |arguments: &[&str]| {
            let args = Args::try_parse_from([&["sockpipe", "connect"], arguments].concat());
            match args.expect("right usage").verb {
                Verb::Connect(connect) => connect.client.wait,
                _ => None,
            }
        };
        assert_eq!(wait(&["x"]), None);
        assert_eq!(wait(&["--wait", "x"]), Some(Duration::MAX));
        assert_eq!(wait(&["--wait=2.5", "x"]), Some(Duration::from_millis(2500)));
    }

    #[test]
    fn all_that_follows_exec_is_the_command() {
        let args =
            Args::try_parse_from(["sockpipe", "listen", "x", "--exec", "sh", "-c", "--keep"]);
        let Verb::Listen(listen) = args.expect("right usage").verb else { panic!("listen") };
        assert_eq!(listen.exec.as_deref(), Some(&["sh".into(), "-c".into(), "--keep".into()][..]));
        assert!(!listen.keep);
    }
}
