//! An echo server, the same source on every OS.
//!
//! ```text
//! cargo run --example echo_server                  # listens on the portable name `echo`
//! cargo run --example echo_client                  # in a second terminal
//! cargo run --example echo_server -- /tmp/echo.sock --quiet
//! ```
//!
//! Ctrl-C (or SIGTERM) stops accepting and lets connections finish for up to 5 seconds; a second
//! one ends at once.

use std::io::{self, ErrorKind, Write, stdout};
use std::process::{ExitCode, exit};
use std::time::Duration;

use anyhow::Result;
use lexopt::{Arg, ValueExt};
use sockpipe::{Listener, Stream, echo, serve, shutdown_signal};

const USAGE: &str = "usage: echo_server [ENDPOINT] [--quiet]

ENDPOINT  where to listen: a name such as echo (the default), a path for a Unix
          domain socket, or a \\\\.\\pipe\\NAME
--quiet   do not print what is echoed";

const DRAIN: Duration = Duration::from_secs(5);

struct Options {
    endpoint: String,
    quiet: bool,
}

fn main() -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("echo_server: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None` when help is asked for.
fn parse(mut arguments: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let (mut endpoint, mut quiet) = (None, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quiet") | Arg::Short('q') => quiet = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Value(value) if endpoint.is_none() => endpoint = Some(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(Options { endpoint: endpoint.unwrap_or_else(|| "echo".to_owned()), quiet }))
}

#[tokio::main]
async fn run(Options { endpoint, quiet }: Options) -> Result<()> {
    let listener = Listener::bind(endpoint)?;
    // Before it reports that it listens, so that no signal is missed.
    let stop = stop_asked_for();
    say(&format!("listening on {}", listener.endpoint()));
    serve(listener, move |stream| handle(stream, quiet))
        .on_error(|error| {
            // A client that does not wait for its answer is no news.
            if error.kind() != ErrorKind::BrokenPipe {
                eprintln!("echo_server: {error}");
            }
        })
        .with_graceful_shutdown(stop)
        .drain_deadline(DRAIN)
        .await?;
    Ok(())
}

async fn handle(mut stream: Stream, quiet: bool) -> io::Result<()> {
    let seen = |chunk: &[u8]| {
        if !quiet {
            say(&format!("echo: {}", printable(chunk)));
        }
    };
    echo::echo(&mut stream, seen).await?;
    // The process may end right after the last connection has finished.
    stream.close(DRAIN).await
}

fn stop_asked_for() -> impl Future<Output = io::Result<()>> + Send {
    let first = shutdown_signal();
    async {
        first.await?;
        let second = shutdown_signal();
        tokio::spawn(async {
            if second.await.is_ok() {
                exit(130);
            }
        });
        Ok(())
    }
}

/// Text as it is, but for what would drive the terminal.
fn printable(chunk: &[u8]) -> String {
    let keep = |c: char| !c.is_control() || c == '\n' || c == '\t';
    let text = String::from_utf8_lossy(chunk);
    text.trim_end_matches(['\r', '\n']).replace(|c| !keep(c), "\u{fffd}")
}

/// Prints a line at once, also into a pipe; that nobody reads it is no reason to end.
fn say(line: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
