//! Server options on Unix.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use sockpipe::os::unix::ListenOptionsExt;
use sockpipe::{Endpoint, ListenOptions, UserId};

use crate::args::Server;
use crate::exit::{Exit, USAGE};

/// The mode for a group that is named, whose members may connect.
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

/// Returns a directory on the way to the socket that admits only its owner and group.
pub fn closed_directory(endpoint: &Endpoint) -> Option<String> {
    let path = std::path::absolute(endpoint.as_path()?).ok()?;
    let dir = path.parent()?.canonicalize().ok()?;
    let is_closed = |dir: &&Path| fs::metadata(dir).is_ok_and(|data| data.mode() & 0o001 == 0);
    let closed = dir.ancestors().find(is_closed)?;
    let mode = fs::metadata(closed).ok()?.mode() & 0o7777;
    Some(format!("{} (mode {mode:04o})", closed.display()))
}

/// Parses a user: a number, or a name.
pub fn user_id(user: &str) -> Result<UserId> {
    id(user, "user", "/etc/passwd").map(UserId::Uid)
}

fn group_id(group: &str) -> Result<u32> {
    id(group, "group", "/etc/group")
}

/// Looks a name up in the local list, whose third field is the number.
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
