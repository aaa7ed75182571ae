//! Unix.

mod group;
mod init;
mod listen;
mod obstacle;
mod passed;
mod receive;
mod signals;
mod socket;
mod stdio;
#[cfg_attr(all(target_os = "linux", not(sockpipe_posix)), path = "unix/linux.rs")]
#[cfg_attr(not(all(target_os = "linux", not(sockpipe_posix))), path = "unix/posix.rs")]
mod system;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access as Permissions, access};
use rustix::process::geteuid;
use sockpipe::os::unix::ListenerExt;
use sockpipe::{Endpoint, Listener, Stream, UserId};

pub use self::group::Group;
pub use self::init::{is_first_process, take_orphans};
pub use self::listen::{closed_directory, listen_options, user_id};
pub use self::obstacle::why_no_server;
pub use self::passed::{
    check_passed, passed_is_connected, passed_listener, passed_stream, restore_passed,
};
pub use self::signals::{asked_to_stop, bear_file_limit};
pub use self::socket::{Attached, Socket};
use self::stdio::{Stdin, Stdout};
pub use self::system::{give_back_memory, refuse_descriptors};
pub use self::watch::stdout_unread;
use super::Access;

/// How many pairs of descriptors a runtime takes.
const PAIRS: usize = 4;

/// Checks that enough descriptors are free for a runtime, which would panic without them.
pub fn check_room() -> io::Result<()> {
    (0..PAIRS).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>().map(drop)
}

/// Binds the name of `listener` again if it was removed.
pub fn keep_name(listener: &mut Listener) -> io::Result<()> {
    listener.republish()
}

/// Standard input.
pub fn stdin() -> impl Read + Send + 'static {
    Stdin
}

/// Standard output, without the line buffer of std.
pub fn stdout() -> impl Write + Send + 'static {
    Stdout
}

/// Returns the program that a process runs, if this user may know.
pub fn program(pid: u32) -> Option<String> {
    // Linux: the name of the program is readable by all users, its path only by the process's own
    // user.
    if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) {
        return Some(path.to_string_lossy().into_owned());
    }
    if let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) {
        return Some(name.trim_end().to_owned());
    }
    if Path::new("/proc/self/comm").exists() {
        // The process is gone, and no other program would know more.
        return None;
    }
    let pid = pid.to_string();
    let output = Command::new("ps").args(["-o", "comm=", "-p", &pid]).output().ok()?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

/// Returns a user, with its name if the local list has it. The list is read once for each user.
pub fn user(id: &UserId) -> String {
    static SHOWN: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());

    let UserId::Uid(uid) = id else { return id.to_string() };
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let user = shown.entry(*uid).or_insert_with(|| match user_name(*uid) {
        Some(name) => format!("uid {uid} ({name})"),
        None => format!("uid {uid}"),
    });
    user.clone()
}

fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Reads the mode of the socket's file, which needs no connection.
pub fn who_may_connect(address: &Endpoint, _: Option<&Stream>) -> Option<Access> {
    let path = address.as_path()?;
    let data = fs::metadata(path).ok()?;
    let mode = data.mode() & 0o7777;
    let meaning = match (mode & 0o020 != 0, mode & 0o002 != 0) {
        (false, false) if data.uid() == 0 => "only root may connect",
        (false, false) => "the owner and root may connect",
        (true, false) => "the owner, its group and root may connect",
        (_, true) => "every user may connect",
    };

    Some(Access {
        owner: user(&UserId::Uid(data.uid())),
        uid: Some(data.uid()),
        rights: format!("mode {mode:04o}"),
        meaning: Some(meaning),
        admits: access(path, Permissions::WRITE_OK).is_ok(),
    })
}

/// Returns the socket that a link finally leads to.
pub fn leads_to(address: &Endpoint) -> Option<PathBuf> {
    let path = address.as_path()?;
    let link = fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
    let socket = link && fs::metadata(path).is_ok_and(|data| data.file_type().is_socket());
    if socket { path.canonicalize().ok() } else { None }
}

pub fn is_own(uid: u32) -> bool {
    uid == geteuid().as_raw()
}

/// Whether a client needs an option to connect to a server of this user.
pub fn is_stranger(uid: u32) -> bool {
    uid != 0 && !is_own(uid)
}
