//! Starting a daemon: once, on its own, and without what is ours.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;

use rustix::process::setsid;

use super::lock::Lock;
use super::name::place_to_bind;
use super::place::random;
use crate::endpoint::Endpoint;
use crate::error::{Error, Reason};
use crate::options::ListenOptions;

/// What the lock on starting a name's server is called, after a dot and the name.
const SPAWN_LOCK: &str = ".spawn";

/// Held by the one client that starts the server of an endpoint.
pub(crate) struct SpawnLock {
    _lock: Lock,
}

impl SpawnLock {
    /// `None` while another has it.
    pub(crate) fn try_take(endpoint: &Endpoint) -> io::Result<Option<Self>> {
        // Where the server is going to listen. That the directory is safe is for it to judge.
        let mut options = ListenOptions::default();
        options.unix.unsafe_directory = true;
        let (Some(place), _) = place_to_bind(endpoint, &options)? else {
            let error = Error::new(Reason::Unsupported, "it has no place for a lock").at(endpoint);
            return Err(error.advising("use a path, or a name").into());
        };
        match Lock::take(place, SPAWN_LOCK) {
            Ok(lock) => Ok(Some(Self { _lock: lock })),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A file that vanishes with its last descriptor.
pub(crate) fn nameless_file() -> io::Result<File> {
    let path = env::temp_dir().join(format!(".sockpipe.{:016x}", random()));
    let file =
        OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// In a session of its own, so that no terminal's signals reach it.
pub(crate) fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    in_own_session(command);
    command.spawn()
}

#[allow(unsafe_code, reason = "std has no stable call for it")]
fn in_own_session(command: &mut Command) {
    // SAFETY: what runs in the child, between fork and exec, is one system call, setsid(2), which
    // is async-signal-safe; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
}

/// Lets a child go. Somebody has to ask how it ended, or it stays as a zombie.
pub(crate) fn leave(mut child: Child) {
    // Where no thread can be had, it is one until this process ends.
    let waiting = thread::Builder::new().name("sockpipe-wait".to_owned());
    let _ = waiting.stack_size(64 * 1024).spawn(move || child.wait());
}
