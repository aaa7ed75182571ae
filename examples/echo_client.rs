//! A client for `echo_server`, the same source on every OS.
//!
//! ```text
//! cargo run --example echo_server                          # in a first terminal
//! cargo run --example echo_client                          # says hello until stopped
//! cargo run --example echo_client -- --message hi --count 3
//! cargo run --example echo_client -- --stdin < file | cmp - file
//! ```

use std::io::{ErrorKind, Write, stdout};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, ValueExt};
use sockpipe::{ConnectOptions, ExpectServer, OwnedReadHalf, OwnedWriteHalf, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, copy_buf, stdin};
use tokio::runtime::Runtime;
use tokio::time::sleep;

const USAGE: &str = "usage: echo_client [ENDPOINT] [OPTIONS]

ENDPOINT        where the server listens: a name such as echo (the default), a path
                of a Unix domain socket, or a \\\\.\\pipe\\NAME
--message TEXT  what to send (default: olá mundo)
--count N       end after N answers
--interval MS   milliseconds between messages (default: 400)
--stdin         send standard input instead, and print what comes back
--any-server    connect even if another user runs the server";

const CHUNK: usize = 64 * 1024;

struct Options {
    endpoint: String,
    message: String,
    count: Option<u64>,
    interval: Duration,
    stdin: bool,
    any_server: bool,
}

fn main() -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("echo_client: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = Runtime::new().context("cannot start").and_then(|runtime| {
        let done = runtime.block_on(run(options));
        // A read of standard input that nobody will answer must not keep the process.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `None` when help is asked for.
fn parse(mut arguments: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut endpoint = None;
    let mut options = Options {
        endpoint: String::new(),
        message: "olá mundo".to_owned(),
        count: None,
        interval: Duration::from_millis(400),
        stdin: false,
        any_server: false,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("message") => options.message = arguments.value()?.string()?,
            Arg::Long("count") => options.count = Some(arguments.value()?.parse()?),
            Arg::Long("interval") => {
                options.interval = Duration::from_millis(arguments.value()?.parse()?);
            }
            Arg::Long("stdin") => options.stdin = true,
            Arg::Long("any-server") => options.any_server = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Value(value) if endpoint.is_none() => endpoint = Some(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if options.message.is_empty() {
        return Err("--message must not be empty".into());
    }
    if options.count == Some(0) {
        return Err("--count must be at least 1".into());
    }
    options.endpoint = endpoint.unwrap_or_else(|| "echo".to_owned());
    Ok(Some(options))
}

async fn run(options: Options) -> Result<()> {
    let mut how = ConnectOptions::new();
    if options.any_server {
        how = how.expect_server(ExpectServer::Anyone);
    }
    let endpoint = &options.endpoint;
    let stream = match Stream::connect_with(endpoint, &how).await {
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            bail!("{error}; here: cargo run --example echo_server -- {endpoint}");
        }
        // Its message has the OS's error in it already.
        Err(error) => bail!("{error}"),
        Ok(stream) => stream,
    };
    let (from, to) = stream.into_split();
    if options.stdin { relay(from, to).await } else { talk(from, to, options).await }
}

/// Sends the message again and again in one task and prints the answers in another.
async fn talk(from: OwnedReadHalf, mut to: OwnedWriteHalf, options: Options) -> Result<()> {
    let Options { message, count, interval, .. } = options;
    let enough = count.map(|count| count * message.len() as u64);
    let receiver = tokio::spawn(receive(from, enough));
    let sender = tokio::spawn(async move {
        let mut left = count.unwrap_or(u64::MAX);
        while left > 0 {
            // The receiver sees that the server is gone, and reports it.
            if to.write_all(message.as_bytes()).await.is_err() {
                return to;
            }
            if say(&format!("sent: {message}")).is_err() {
                return to;
            }
            left -= 1;
            sleep(interval).await;
        }
        to
    });
    let received = receiver.await??;
    sender.abort();
    match enough {
        Some(enough) if received < enough => {
            bail!("the server closed the connection after {received} of {enough} bytes")
        }
        _ => Ok(()),
    }
}

/// Prints what arrives until the end, or until there is `enough`.
async fn receive(mut from: OwnedReadHalf, enough: Option<u64>) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    while enough.is_none_or(|enough| received < enough) {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        received += length as u64;
        say(&format!("received: {}", String::from_utf8_lossy(&buffer[..length])))?;
    }
    Ok(received)
}

/// Standard input to the server, the server to standard output.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
    // How much was sent: known before the end is sent, and so before the server's end comes back.
    let sent = Arc::new(OnceLock::new());
    let mut upload = tokio::spawn({
        let sent = sent.clone();
        async move {
            let mut input = BufReader::with_capacity(CHUNK, stdin());
            match copy_buf(&mut input, &mut to).await {
                Ok(length) => drop(sent.set(length)),
                // The server is gone; what it sent before is still to be read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(true),
                Err(error) => return Err(error).context("cannot send standard input"),
            }
            match to.shutdown().await {
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
                ended => Ok(ended.map(|()| true)?),
            }
        }
    });
    let mut out = tokio::io::stdout();
    let mut buffer = vec![0; CHUNK];
    let (mut received, mut enough, mut uploading) = (0, u64::MAX, true);
    while received < enough {
        tokio::select! {
            length = from.read(&mut buffer) => {
                let length = length?;
                if length == 0 {
                    break;
                }
                received += length as u64;
                out.write_all(&buffer[..length]).await.context("cannot print")?;
            }
            done = &mut upload, if uploading => {
                uploading = false;
                if let (false, Some(sent)) = (done??, sent.get()) {
                    // A server that cannot see our end sends none, so the client stops once all
                    // bytes are back.
                    enough = *sent;
                }
            }
        }
    }
    out.flush().await.context("cannot print")?;
    if sent.get() == Some(&received) {
        return Ok(());
    }
    bail!("the server closed the connection after {received} bytes")
}

/// Prints a line at once, also into a pipe.
fn say(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot print")
}
