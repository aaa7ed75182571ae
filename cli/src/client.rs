//! Connects as the options specify.

use std::fmt::{self, Display};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use sockpipe::{ConnectOptions, Endpoint, ExpectServer, PeerCredentials, Stream};

use crate::args::{Client, Memory, Place, Spin};
use crate::{exit, os, say};

/// How long a server may be too busy, by default.
const TIMEOUT: Duration = Duration::from_secs(5);

pub async fn connect(place: &Place, args: &Client, spin: Spin) -> Result<Stream> {
    match place {
        Place::Endpoint(endpoint) => connect_fast(endpoint, args, spin, Memory::default()).await,
        Place::Passed(number) => passed(*number, args),
    }
}

/// Takes a passed connection. The process that passed it chose the peer, so the user is checked
/// only if `--expect-user` names one.
fn passed(number: u32, args: &Client) -> Result<Stream> {
    let stream = os::passed_stream(number)?;
    say::detail(format_args!("fd:{number} is connected, the peer is {}", peer(&stream)));
    if let Some(user) = &args.expect_user {
        let (expected, found) = (os::user_id(user)?, stream.peer_credentials()?);
        if *found.user() != expected {
            let found = credentials(&found);
            let what = format!("the peer of fd:{number} is {found}, and not {user} as expected");
            return Err(exit::Exit::new(exit::DENIED, what).into());
        }
    }
    Ok(stream)
}

pub async fn connect_fast(
    endpoint: &Endpoint,
    args: &Client,
    spin: Spin,
    memory: Memory,
) -> Result<Stream> {
    let options = memory.connecting(options(args)?.spin(spin.policy()));
    say::detail(format_args!("connecting to {endpoint}"));
    let stream = Stream::connect_with(endpoint, &options).await.map_err(|error| {
        let nobody = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        // A client without a server waits for the longer of the two.
        let waited = args.wait.map(|wait| args.timeout.map_or(wait, |limit| wait.max(limit)));
        let exit = match waited.filter(|_| nobody) {
            Some(waited) => exit::after_wait(error, waited),
            None => exit::at_endpoint(error),
        };
        if nobody { exit.hinting(path_without_its_dot(endpoint)) } else { exit }
    })?;
    say::detail(format_args!("connected to {endpoint}, the server is {}", peer(&stream)));
    Ok(stream)
}

/// Returns a hint for a user who writes `x.sock` in the directory of that file, and may have meant
/// the file and not the name.
fn path_without_its_dot(endpoint: &Endpoint) -> Option<String> {
    let name = endpoint.to_string();
    let named = endpoint.as_path().is_none() && !name.contains(':') && name.ends_with(".sock");
    let is_there = cfg!(unix) && named && Path::new(&name).symlink_metadata().is_ok();
    is_there.then(|| format!("for the file in this directory write `./{name}`"))
}

fn options(args: &Client) -> Result<ConnectOptions> {
    // A requested wait must not become longer because a busy server gets more time.
    let usual = args.wait.map_or(TIMEOUT, |wait| wait.min(TIMEOUT));
    let mut options = ConnectOptions::new().deadline(args.timeout.unwrap_or(usual));
    if let Some(wait) = args.wait {
        options = options.wait_for_server(wait);
    }
    if args.any_server {
        options = options.expect_server(ExpectServer::Anyone);
    } else if let Some(user) = &args.expect_user {
        options = options.expect_server(ExpectServer::User(os::user_id(user)?));
    }
    Ok(options)
}

/// Describes the peer. The description is made only when it is shown, because that reads a list of
/// users and may run a program.
pub fn peer(stream: &Stream) -> impl Display {
    Peer(stream)
}

struct Peer<'a>(&'a Stream);

impl Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.peer_credentials() {
            Ok(peer) => f.write_str(&credentials(&peer)),
            Err(error) => write!(f, "unknown ({error})"),
        }
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
        Some(program) => format!("pid {pid} ({})", say::shown(&program)),
        None => format!("pid {pid}"),
    }
}
