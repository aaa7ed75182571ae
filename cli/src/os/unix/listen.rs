//! What a server can be told on Unix.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use sockpipe::os::unix::{ListenOptionsExt, ListenerExt};
use sockpipe::{Endpoint, ListenOptions, Listener, UserId};

use crate::args::Server;
use crate::exit::{Exit, USAGE, at_endpoint};

/// For the members of a group that is named.
const GROUP_MODE: u32 = 0o660;

pub fn listen_options(options: ListenOptions, args: &Server) -> Result<ListenOptions> {
    let mut options = options.unsafe_directory(args.unsafe_directory);
    if let Some(group) = &args.group {
        options = options.group(group_id(group)?).mode(GROUP_MODE);
    }
    if let Some(mode) = args.mode {
        options = options.mode(mode);
    }
    if let Some(length) = args.backlog {
        options = options.backlog(length);
    }
    Ok(options)
}

/// A listener at a socket that whoever started this process has passed to it.
pub fn passed_listener(number: u32, options: &ListenOptions) -> Result<Listener> {
    let socket = duplicate(number).map_err(|error| {
        let what = format!("cannot listen at fd:{number}: {error}; pass a socket that listens");
        Exit::new(USAGE, what)
    })?;
    Listener::from_fd(socket, options).map_err(|error| at_endpoint(error).into())
}

/// What was passed stays open, for the number may be another's; commands do not inherit it.
#[allow(unsafe_code, reason = "a number is all that there is of a passed descriptor")]
fn duplicate(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: the number is not -1. Whether it is open is what is asked, by calls that report that it
    // is not.
    let passed = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = fcntl_dupfd_cloexec(passed, 3)?;
    fcntl_setfd(passed, FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// A directory on the way to the socket that lets nobody in but its owner and group.
pub fn closed_directory(endpoint: &Endpoint) -> Option<String> {
    let path = std::path::absolute(endpoint.as_path()?).ok()?;
    let dir = path.parent()?.canonicalize().ok()?;
    let is_closed = |dir: &&Path| fs::metadata(dir).is_ok_and(|data| data.mode() & 0o001 == 0);
    let closed = dir.ancestors().find(is_closed)?;
    let mode = fs::metadata(closed).ok()?.mode() & 0o7777;
    Some(format!("{} (mode {mode:04o})", closed.display()))
}

/// A user by number, or by name.
pub fn user_id(user: &str) -> Result<UserId> {
    id(user, "user", "/etc/passwd").map(UserId::Uid)
}

fn group_id(group: &str) -> Result<u32> {
    id(group, "group", "/etc/group")
}

/// As in the local list, of which the third field is the number.
fn id(name: &str, kind: &str, list: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let entries = fs::read_to_string(list).unwrap_or_default();
    let found = entries.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| {
        let what = format!("there is no {kind} {name} in {list}; give its number");
        Exit::new(USAGE, what).into()
    })
}
