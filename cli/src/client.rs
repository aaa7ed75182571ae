//! Connecting as the options say.

use std::time::Duration;

use anyhow::Result;
use sockpipe::{ConnectOptions, Endpoint, ExpectServer, PeerCredentials, Stream};

use crate::args::Client;
use crate::{exit, os, say};

/// How long a server may be too busy, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

pub async fn connect(endpoint: &Endpoint, args: &Client) -> Result<Stream> {
    say::detail(format_args!("connecting to {endpoint}"));
    let stream = Stream::connect_with(endpoint, &options(args)).await.map_err(exit::at_endpoint)?;
    say::detail(format_args!("connected to {endpoint}, the server is {}", peer(&stream)));
    Ok(stream)
}

fn options(args: &Client) -> ConnectOptions {
    // A wait that was asked for is not to be longer because a busy server would get more time.
    let usual = args.wait.map_or(TIMEOUT, |wait| wait.min(TIMEOUT));
    let mut options = ConnectOptions::new().deadline(args.timeout.unwrap_or(usual));
    if let Some(wait) = args.wait {
        options = options.wait_for_server(wait);
    }
    if args.any_server {
        options = options.expect_server(ExpectServer::Anyone);
    }
    options
}

/// Who is at the other end, in words.
pub fn peer(stream: &Stream) -> String {
    match stream.peer_credentials() {
        Ok(peer) => credentials(&peer),
        Err(error) => format!("unknown ({error})"),
    }
}

pub fn credentials(peer: &PeerCredentials) -> String {
    let user = os::user(peer.user());
    match peer.pid() {
        Some(pid) => format!("{user}, {}", process(pid)),
        None => user,
    }
}

pub fn process(pid: u32) -> String {
    match os::program(pid) {
        // Who named it may have meant to drive this terminal.
        Some(program) => format!("pid {pid} ({})", program.replace(char::is_control, "\u{fffd}")),
        None => format!("pid {pid}"),
    }
}
