//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use sockpipe::{Endpoint, ParseEndpointError};

use crate::session::AtEnd;

const AFTER_HELP: &str = "\
An ENDPOINT is a portable name such as `echo` (a socket in your runtime directory, or a pipe with \
your SID in its name), `system:NAME` for the whole machine, a path (`/run/x.sock`, `./x.sock`), a \
pipe (`\\\\.\\pipe\\NAME`) or a Linux `abstract:NAME`.

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
    Relay(Relay),
    /// Tell what an endpoint is here, and what is there.
    Info(Info),
    /// Measure the round trips to an echo server.
    Ping(Ping),
    /// Remove what a crashed server has left, and nothing else.
    Clean(Clean),
    /// Print completions for a shell.
    Completions(Completions),
}

#[derive(Debug, clap::Args)]
pub struct Listen {
    /// Where to listen.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath)]
    pub endpoint: Endpoint,

    /// Serve one client after the other, until stopped; with --exec, all at a time.
    #[arg(short, long)]
    pub keep: bool,

    #[command(flatten)]
    pub end: End,

    #[command(flatten)]
    pub server: Server,

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
}

#[derive(Debug, clap::Args)]
pub struct Echo {
    /// Where to listen.
    #[arg(value_parser = endpoint(), value_hint = ValueHint::AnyPath, default_value = "echo")]
    pub endpoint: Endpoint,

    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each of FROM and TO is an ENDPOINT, `tcp:HOST:PORT`, or `stdio:` for standard input and output. \
The relay listens at FROM and connects to TO for each client; with `stdio:` it serves one.

Every user of this machine can connect to a TCP port, whatever guards the endpoint behind it.")]
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
}

/// What a server can be told.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// Let every user of this machine connect, and not only your own.
    #[arg(long)]
    pub everyone: bool,
}

/// What the end of standard input means.
#[derive(Debug, clap::Args)]
pub struct End {
    /// Close the connection at the end of input, without waiting for an answer. Otherwise the peer
    /// reads the end and can still answer, which a pipe of byte type cannot carry.
    #[arg(long)]
    pub close: bool,
}

impl End {
    pub fn at_end(&self) -> AtEnd {
        if self.close { AtEnd::Closes } else { AtEnd::Waits }
    }
}

/// One end of a relay.
#[derive(Clone, Debug)]
pub enum Address {
    Local(Endpoint),
    Tcp(String),
    Stdio,
}

const FOREVER: &str = "forever";

/// Any text, and paths that are not UTF-8.
fn endpoint() -> impl TypedValueParser<Value = Endpoint> {
    OsStringValueParser::new().try_map(parse_endpoint)
}

fn address() -> impl TypedValueParser<Value = Address> {
    OsStringValueParser::new().try_map(parse_address)
}

fn parse_endpoint(text: OsString) -> Result<Endpoint, String> {
    let endpoint = match text.to_str() {
        Some(text) => text.parse(),
        None if is_path(&text) => Endpoint::try_from(PathBuf::from(text)),
        None if text.as_encoded_bytes().starts_with(b"abstract:") => {
            return Err("it is no UTF-8; a byte of an abstract name is written `%XX`, and a path \
                        from the root, or with `./` before it"
                .to_owned());
        }
        // Its scheme, if it has one, must not become part of a file's name.
        None => {
            return Err(
                "it is no UTF-8, which only a path need not be; a path is written from the \
                        root, or with `./` before it"
                    .to_owned(),
            );
        }
    };
    endpoint.map_err(|error: ParseEndpointError| error.to_string())
}

fn is_path(text: &OsStr) -> bool {
    ["/", "./", "../"].iter().any(|start| text.as_encoded_bytes().starts_with(start.as_bytes()))
}

fn parse_address(text: OsString) -> Result<Address, String> {
    match text.to_str() {
        Some("stdio:") => return Ok(Address::Stdio),
        Some(text) if text.starts_with("stdio:") => {
            return Err("nothing follows `stdio:`".to_owned());
        }
        Some(text) if text.starts_with("tcp:") => {
            let address = &text["tcp:".len()..];
            let right = address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            return if right {
                Ok(Address::Tcp(address.to_owned()))
            } else {
                Err("TCP is written `tcp:HOST:PORT`, as in `tcp:127.0.0.1:8080`".to_owned())
            };
        }
        _ => {}
    }
    parse_endpoint(text).map(Address::Local)
}

fn seconds(text: &str) -> Result<Duration, String> {
    if text == FOREVER {
        return Ok(Duration::MAX);
    }
    let what = match text.parse::<f64>() {
        Ok(number) if number < 0.0 => "seconds cannot be negative",
        Ok(number) if !number.is_nan() => match Duration::try_from_secs_f64(number) {
            Ok(duration) => return Ok(duration),
            Err(_) => "it is too long to be counted; 1000000000 seconds are 31 years",
        },
        _ => "it is no number of seconds, such as 2 or 0.5",
    };
    Err(what.to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.001..=1e6).contains(&number) {
        Ok(number)
    } else {
        Err("a rate is from 0.001 to 1000000 in a second".to_owned())
    }
}

#[cfg(test)]
mod tests {
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

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_a_path_only_where_one_is_written() {
        use std::os::unix::ffi::OsStringExt;

        for (start, right) in [
            ("/run/", true),
            ("./", true),
            ("../", true),
            ("", false),
            ("abstract:", false),
            ("system:", false),
            ("unix:", false),
            ("tcp:127.0.0.1:1", false),
            ("stdio:", false),
        ] {
            let text = OsString::from_vec([start.as_bytes(), b"caf\xe9"].concat());
            match parse_address(text) {
                Ok(_) => assert!(right, "{start}"),
                Err(why) => assert!(!right && why.contains("`./` before it"), "{start}: {why}"),
            }
        }
    }

    #[test]
    fn addresses() {
        for (text, right) in [
            ("stdio:", true),
            ("stdio:x", false),
            ("tcp:127.0.0.1:80", true),
            ("tcp:[::1]:80", true),
            ("tcp:80", false),
            ("tcp::80", false),
            ("tcp:localhost:http", false),
            ("tcp:localhost:65536", false),
            ("echo", true),
            ("udp:1", false),
        ] {
            assert_eq!(parse_address(text.into()).is_ok(), right, "{text}");
        }
    }
}
