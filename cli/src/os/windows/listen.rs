//! Server options that exist on Unix only, and their errors here.

use anyhow::Result;
use sockpipe::{Endpoint, ListenOptions, Listener, Stream, UserId};

use crate::args::Server;
use crate::exit::{Exit, USAGE};

pub fn listen_options(options: ListenOptions, args: &Server) -> Result<ListenOptions> {
    let given = [
        ("--mode", args.mode.is_some()),
        ("--group", args.group.is_some()),
        ("--unsafe-directory", args.unsafe_directory),
        ("--backlog", args.backlog.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(only_on_unix(option)),
        None => Ok(options),
    }
}

pub fn check_passed(number: u32) -> Result<()> {
    Err(passed(number))
}

pub fn passed_listener(number: u32, _: &ListenOptions) -> Result<Listener> {
    Err(passed(number))
}

pub fn passed_stream(number: u32) -> Result<Stream> {
    Err(passed(number))
}

/// No socket is passed here.
pub fn restore_passed() {}

pub fn passed_is_connected(_: u32) -> bool {
    false
}

fn passed(number: u32) -> anyhow::Error {
    let what =
        format!("fd:{number}: sockets are passed by number on Unix only; use a name or a pipe");
    Exit::new(USAGE, what).into()
}

fn only_on_unix(what: &str) -> anyhow::Error {
    Exit::new(USAGE, format!("{what} is for Unix only; leave it out")).into()
}

/// A pipe has no directory.
pub fn closed_directory(_: &Endpoint) -> Option<String> {
    None
}

/// Parses the SID of a user. A name would need a query to the domain, which can take seconds.
pub fn user_id(user: &str) -> Result<UserId> {
    if user.starts_with("S-1-") {
        return Ok(UserId::Sid(user.to_owned()));
    }
    let what =
        format!("{user} is not a SID, such as S-1-5-21-1-2-3-1001; `whoami /user` prints yours");
    Err(Exit::new(USAGE, what).into())
}
