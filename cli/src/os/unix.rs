//! Unix.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sockpipe::{Endpoint, Stream, UserId};

use super::Access;

/// Whether the peer has closed its end, and not only one direction: it takes nothing more.
pub fn is_gone(stream: &Stream) -> bool {
    // A hang-up and errors are told without being asked for. But macOS looks at nothing where
    // nothing is asked for, and takes the end of one direction for a hang-up where that is. So it is
    // asked whether it can be written to, and the answer not looked at. This does not wait.
    let mut polled = [PollFd::new(stream, PollFlags::OUT)];
    let looked = poll(&mut polled, Some(&Timespec::default()));
    looked.is_ok() && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Standard output, without the line buffer of std where it is no terminal.
pub fn stdout() -> Box<dyn Write + Send> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        if let Ok(file) = stdout.as_fd().try_clone_to_owned() {
            return Box::new(File::from(file));
        }
    }
    Box::new(stdout)
}

/// The program that a process runs, where this user may know.
pub fn program(pid: u32) -> Option<String> {
    // Linux. The name of what it runs is readable by all, its path only by its own user.
    if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) {
        return Some(path.to_string_lossy().into_owned());
    }
    if let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) {
        return Some(name.trim_end().to_owned());
    }
    let pid = pid.to_string();
    let output = Command::new("ps").args(["-o", "comm=", "-p", &pid]).output().ok()?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

/// A user, with its name where there is one in the local list.
pub fn user(id: &UserId) -> String {
    let UserId::Uid(uid) = id else { return id.to_string() };
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(*uid)).then(|| name.to_owned())
    });
    match name {
        Some(name) => format!("uid {uid} ({name})"),
        None => format!("uid {uid}"),
    }
}

/// By the socket's file, which needs no connection.
pub fn who_may_connect(address: &Endpoint, _: Option<&Stream>) -> Option<Access> {
    let data = fs::metadata(address.as_path()?).ok()?;
    let mode = data.mode() & 0o7777;
    let meaning = match (mode & 0o020 != 0, mode & 0o002 != 0) {
        (false, false) => "the owner and root may connect",
        (true, false) => "the owner, its group and root may connect",
        (_, true) => "every user may connect",
    };
    Some(Access {
        owner: user(&UserId::Uid(data.uid())),
        rights: format!("mode {mode:04o}"),
        meaning: Some(meaning),
    })
}
