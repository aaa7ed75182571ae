//! The command line.

// The paths are written out for the fuzz target, which includes this file from another directory.
#[cfg(all(test, target_os = "linux"))]
#[path = "args/man.rs"]
mod man;
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
An ENDPOINT is one of:
  echo              a portable name, for servers and clients of your user
  system:NAME       a name for the whole machine
  session:NAME      a name for this login session
  ./x.sock          a path of a socket, also from the root
  abstract:NAME     a Linux socket without a file
  \\\\.\\pipe\\NAME    a named pipe
  fd:N              a passed socket (Unix): a listening or a connected one

Examples:
  sockpipe listen hello                     in one terminal
  sockpipe connect hello                    in another; Ctrl-D ends a direction
  sockpipe info hello                       where it is, and which process
  sockpipe relay tcp:127.0.0.1:8080 hello   let a browser connect to a socket

Exit codes:
  0    success; info: a server is listening
  1    any other failure
  2    wrong usage, or an endpoint that this system does not have
  3    no server is listening, a crashed server left its socket, or the directory does not exist
  4    the name is taken by a server, or the path is not a socket
  5    permission denied: another user's server, socket or directory
  6    no answer in time
  130  stopped by Ctrl-C or a signal: listen, relay FROM stdio:, unanswered ping
  141  the reader of standard output closed it

Signals: servers of many clients (echo, relay, listen --keep --exec) finish their connections, \
print how many they cut after 5 s, and exit with 0; a second signal stops them at once, with 130. \
ping prints its results, and exits with 0. connect and relay stdio: TO are terminated by the \
signal, which a shell shows as 130 for Ctrl-C and 143 for SIGTERM.";

/// Netcat for Unix domain sockets and Windows named pipes, the same on every OS.
#[derive(Debug, Parser)]
#[command(name = "sockpipe", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,

    /// Print what happens to standard error.
    #[arg(short, long, global = true)]
    pub verbose: bool,

    /// Print errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Accept a client, and connect it to standard input and output.
    Listen(Listen),
    /// Connect to a server, and send standard input to it.
    Connect(Connect),
    /// Send received data back to clients.
    Echo(Echo),
    /// Pass connections on between endpoints, loopback TCP and standard streams.
    Relay(Box<Relay>),
    /// Print the addresses of an endpoint, and the state of each.
    Info(Info),
    /// Measure round trips to an echo server.
    Ping(Ping),
    /// Remove the socket of a crashed server, and nothing else.
    Clean(Clean),
    /// Print completions for a shell.
    Completions(Completions),
}

impl Verb {
    /// Whether the verb handles the signals that ask it to stop.
    pub fn hears_signals(&self) -> bool {
        match self {
            Self::Listen(_) | Self::Echo(_) | Self::Ping(_) => true,
            Self::Relay(relay) => !matches!(relay.from, Address::Stdio),
            Self::Connect(_) | Self::Info(_) | Self::Clean(_) | Self::Completions(_) => false,
        }
    }

    /// Returns the numbers of the passed descriptors that the arguments name.
    pub fn passed(&self) -> Vec<u32> {
        let place = |place: &Place| match place {
            Place::Passed(number) => Some(*number),
            Place::Endpoint(_) => None,
        };
        let address = |address: &Address| match address {
            Address::Passed(number) => Some(*number),
            Address::Local(_) | Address::Tcp(_) | Address::Stdio => None,
        };

        let passed = match self {
            Self::Listen(args) => [place(&args.endpoint), None],
            Self::Connect(args) => [place(&args.endpoint), None],
            Self::Echo(args) => [place(&args.endpoint), None],
            Self::Relay(args) => [address(&args.from), address(&args.to)],
            Self::Info(_) | Self::Ping(_) | Self::Clean(_) | Self::Completions(_) => [None; 2],
        };
        passed.into_iter().flatten().collect()
    }
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "sockpipe listen [OPTIONS] <ENDPOINT> [--exec <COMMAND>...]")]
#[command(after_help = "\
The command of --exec finds its client in SOCKPIPE_PEER_USER and SOCKPIPE_PEER_PID. On Unix it has \
a process group of its own. The group gets SIGTERM one second after its client has left, and when \
the server ends, and SIGKILL 2 s later. A command that ends by itself leaves its other processes \
running.

--linger applies to a pipe of byte type, which cannot carry an end of file, and on Windows to a \
peer that does not read the rest.

Examples:
  sockpipe listen hello > received.txt      write what one client sends to a file
  sockpipe listen hello --keep --exec cat   echo to any number of clients
  sockpipe listen system:log --everyone     let every user connect")]
pub struct Listen {
    /// Where to listen.
    #[arg(value_parser = place(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Place,

    /// Serve clients one after another, or all at once with --exec.
    #[arg(short, long)]
    pub keep: bool,

    #[command(flatten)]
    pub end: End,

    #[command(flatten)]
    pub server: Server,

    #[command(flatten)]
    pub spin: Spin,

    /// Run the rest of the line for each client, connected to its standard streams.
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
#[command(after_help = "\
--linger applies to a pipe of byte type, which cannot carry an end of file, and on Windows to a \
peer that does not read the rest.

Examples:
  echo question | sockpipe connect hello    send a line, and print the answer
  sockpipe connect hello --wait=10          wait up to 10 s for the server to start
  ssh host sockpipe connect hello           connect to a server of another machine")]
pub struct Connect {
    /// Address of the server.
    #[arg(value_parser = place(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Place,

    #[command(flatten)]
    pub end: End,

    #[command(flatten)]
    pub client: Client,

    #[command(flatten)]
    pub spin: Spin,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sockpipe echo                             serve at the name `echo`, for sockpipe ping
  sockpipe echo ./x.sock --mode 660         let the socket's group connect")]
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
FROM and TO are an ENDPOINT, `tcp:HOST:PORT`, or `stdio:` for standard input and output. The relay \
listens at FROM and connects to TO for each client; with `stdio:` or a connected `fd:N` it \
serves one client.

Every user of this machine can connect to a TCP port, even if the endpoint behind it admits one \
user.

After one side ends, a peer that takes no end of file is cut off after 0.5 s without data, or \
after --linger.

Examples:
  sockpipe relay tcp:127.0.0.1:8080 hello   let a browser connect to a socket
  sockpipe relay hello tcp:127.0.0.1:8080   put a socket in front of a TCP server
  sockpipe relay outer.example inner        give a server a second name")]
pub struct Relay {
    /// Where to listen.
    #[arg(value_parser = address())]
    pub from: Address,

    /// Where to connect, for each client.
    #[arg(value_parser = address())]
    pub to: Address,

    /// Allow TCP addresses of other machines.
    #[arg(long)]
    pub remote: bool,

    /// Refuse file descriptors instead of passing them on.
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
Does not connect if the server can be detected otherwise: a server that accepts a single client \
would be used up. It connects to a socket without sockpipe's lock on which no visible process \
listens, because only a connection shows whether that server is alive.

Exit codes: 0 a server is listening, 2 not an endpoint of this system, 3 no server, 4 not a \
socket, 5 permission denied.

Examples:
  sockpipe info hello          addresses, states, next step
  sockpipe info hello --json   the same for a program")]
pub struct Info {
    /// Endpoint to look up.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Endpoint,

    /// Connect once, to print the server's user and process.
    #[arg(long)]
    pub connect: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first round trip, in which the server has to accept, is not counted. --timeout also limits \
each answer. Ctrl-C prints the results so far.

Examples:
  sockpipe ping                         1000 round trips
  sockpipe ping hello -n 10000 --json   percentiles as JSON
  sockpipe ping hello --rate 500        500 sent each second")]
pub struct Ping {
    /// Address of the echo server.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath, default_value = "echo")]
    pub endpoint: Endpoint,

    /// Number of round trips.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000)
    )]
    pub count: u32,

    /// Bytes to send each way.
    #[arg(
        short,
        long,
        value_name = "BYTES",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=1 << 30)
    )]
    pub size: u32,

    /// Requests to send each second, even before answers [default: one at a time].
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
#[command(after_help = "\
A server does the same when it starts. Call this to remove the socket without a new server.

Example:
  sockpipe clean hello                      exits with 4 if a server is listening")]
pub struct Clean {
    /// Address of the crashed server.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Endpoint,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sockpipe completions bash > /etc/bash_completion.d/sockpipe")]
pub struct Completions {
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_fault_in_the_command_line() {
        Args::command().debug_assert();
    }

    #[test]
    fn wait_takes_an_optional_limit() {
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
    fn usage_of_exec_without_an_endpoint_puts_the_endpoint_first() {
        let error = Args::try_parse_from(["sockpipe", "listen", "--exec", "cat", "x"]);
        let message = error.expect_err("no endpoint").to_string();
        assert!(message.contains("<ENDPOINT> [--exec <COMMAND>...]"), "{message}");
    }

    #[test]
    fn everything_after_exec_is_the_command() {
        let args =
            Args::try_parse_from(["sockpipe", "listen", "x", "--exec", "sh", "-c", "--keep"]);
        let Verb::Listen(listen) = args.expect("right usage").verb else { panic!("listen") };
        assert_eq!(listen.exec.as_deref(), Some(&["sh".into(), "-c".into(), "--keep".into()][..]));
        assert!(!listen.keep);
    }
}
