//! Starting a daemon: once, on its own, and without what is ours.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use rustix::io::Errno;
use rustix::process::{Pid, setsid, test_kill_process};

use super::lock::{self, Lock, lock_name};
use super::name::place_to_bind;
use super::place::{Place, random};
use crate::endpoint::Endpoint;
use crate::error::{Error, Reason};
use crate::options::ListenOptions;

/// What the lock on starting a name's server is called, after a dot and the name.
const SPAWN_LOCK: &str = ".spawn";

/// Held by the one client that starts the server of an endpoint.
///
/// The child that starts is written in the lock's file. While it lives the file stays, also when its
/// client gives up or is killed: who takes the lock next waits for that child.
pub(crate) struct SpawnLock {
    lock: Lock,
    child: Option<Starting>,
}

impl SpawnLock {
    /// `None` while another has it.
    pub(crate) fn try_take(endpoint: &Endpoint) -> io::Result<Option<Self>> {
        match Lock::take_as_left(place(endpoint)?, SPAWN_LOCK) {
            Ok(lock) => {
                let child = lock::written(&lock.file).and_then(|written| Starting::parse(&written));
                let mut lock = Self { lock, child };
                lock.starting();
                Ok(Some(lock))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The process that starts by an earlier holder or this one, as long as it lives.
    pub(crate) fn starting(&mut self) -> Option<u32> {
        self.child = self.child.take().filter(Starting::lives);
        self.lock.stays = self.child.is_some();
        self.child.as_ref().map(|child| child.pid)
    }

    /// Says for those who come later that `pid` starts.
    pub(crate) fn started(&mut self, pid: u32) {
        let child = Starting { pid, since: start_time(pid) };
        let since = child.since.map_or(String::new(), |since| format!(" {since}"));
        self.lock.write(&format!("{pid}{since}"));
        self.lock.stays = true;
        self.child = Some(child);
    }

    /// A server listens: nobody has to wait for a child any more.
    pub(crate) fn settled(mut self) {
        self.lock.stays = false;
    }

    /// Removes the file that a client left whose child listens by now.
    pub(crate) fn tidy(endpoint: &Endpoint) {
        let Ok(place) = place(endpoint) else { return };
        if matches!(place.stat(&lock_name(&place, SPAWN_LOCK)), Ok(Some(_))) {
            if let Ok(Some(lock)) = Self::try_take(endpoint) {
                lock.settled();
            }
        }
    }
}

/// Where the server is going to listen.
fn place(endpoint: &Endpoint) -> io::Result<Place> {
    // That the directory is safe is for it to judge.
    let mut options = ListenOptions::default();
    options.os.unsafe_directory = true;
    let (Some(place), _) = place_to_bind(endpoint, &options)? else {
        let error = Error::new(Reason::Unsupported, "it has no place for a lock").at(endpoint);
        return Err(error.advising("use a path, or a name").into());
    };
    Ok(place)
}

/// A process, told from a later one with the same number by when it started, where that can be read.
struct Starting {
    pid: u32,
    since: Option<u64>,
}

impl Starting {
    fn parse(written: &str) -> Option<Self> {
        let mut numbers = written.split_whitespace();
        let pid = numbers.next()?.parse().ok()?;
        Some(Self { pid, since: numbers.next().and_then(|since| since.parse().ok()) })
    }

    fn lives(&self) -> bool {
        if self.since.is_some() {
            return start_time(self.pid) == self.since;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
    }
}

/// In ticks since the machine started, from Linux's /proc. None of a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have spaces and brackets. The rest begins with field 3 of proc(5), the
    // state; field 22 is the start.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| state != "Z")
}

/// A file that vanishes with its last descriptor: in the temporary directory or, where there is none to
/// write to, beside the socket, where the spawn lock's file could be made too.
pub(crate) fn nameless_file(endpoint: &Endpoint) -> io::Result<File> {
    nameless_file_in(&env::temp_dir()).or_else(|error| {
        let beside = place(endpoint).and_then(|place| nameless_file_in(place.dir_path()));
        beside.map_err(|_| error)
    })
}

fn nameless_file_in(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!(".sockpipe.{:016x}", random()));
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
