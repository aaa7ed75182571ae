//! Makes sure that only one client starts a daemon.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use rustix::fs::ftruncate;
use rustix::io::{Errno, pread, pwrite};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};

use super::lock::{Lock, lock_name};
use super::place::Place;
use super::places::place_to_bind;
use crate::endpoint::Endpoint;
use crate::error::{Error, Reason};
use crate::options::ListenOptions;

/// The suffix of the lock file for starting a name's server, which is called `.NAME.spawn`.
const SPAWN_LOCK: &str = ".spawn";

/// Held by the one client that starts the server of an endpoint.
///
/// The lock file records the child that starts. While the child lives the file stays, even if its
/// client gives up or is killed: the next holder of the lock waits for that child.
pub(crate) struct SpawnLock {
    lock: Lock,
    child: Option<Starting>,
}

impl SpawnLock {
    /// Returns `None` while another process holds the lock.
    pub(crate) fn try_take(endpoint: &Endpoint) -> io::Result<Option<Self>> {
        match Lock::take_as_left(place(endpoint)?, SPAWN_LOCK) {
            Ok(lock) => {
                let child = written(&lock.file).and_then(|written| Starting::parse(&written));
                let mut lock = Self { lock, child };
                lock.starting();
                Ok(Some(lock))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the process that an earlier holder or this one has started, as long as it lives.
    pub(crate) fn starting(&mut self) -> Option<u32> {
        self.child = self.child.take().filter(Starting::lives);
        self.lock.stays = self.child.is_some();
        self.child.as_ref().map(|child| child.pid)
    }

    /// Records for later clients that `pid` starts.
    pub(crate) fn started(&mut self, pid: u32) {
        let child = Starting { pid, since: start_time(pid), ours: true };
        let since = child.since.map_or(String::new(), |since| format!(" {since}"));
        write(&self.lock.file, &format!("{pid}{since}\n"));
        self.lock.stays = true;
        self.child = Some(child);
    }

    /// Ends the starting process and its children; `false` if it cannot be distinguished from
    /// another process with its number.
    pub(crate) fn kill(&mut self) -> bool {
        let child = self.child.as_ref().filter(|child| child.ours || child.since.is_some());
        let killed = child.filter(|child| child.lives()).is_some_and(Starting::kill);
        if killed {
            self.child = None;
            self.lock.stays = false;
        }
        killed
    }

    /// Releases the lock once a server listens, so that no client waits for a child any more.
    pub(crate) fn settled(mut self) {
        self.lock.stays = false;
    }

    /// Returns the process that starts, if the holder has recorded one.
    pub(crate) fn told(endpoint: &Endpoint) -> Option<u32> {
        let place = place(endpoint).ok()?;
        let path = place.dir_path().join(lock_name(&place, SPAWN_LOCK));
        let child = Starting::parse(&fs::read_to_string(path).ok()?)?;
        child.lives().then_some(child.pid)
    }

    /// Removes the lock file that a client left behind, once its child listens.
    pub(crate) fn tidy(endpoint: &Endpoint) {
        let Ok(place) = place(endpoint) else { return };
        if matches!(place.stat(&lock_name(&place, SPAWN_LOCK)), Ok(Some(_))) {
            if let Ok(Some(lock)) = Self::try_take(endpoint) {
                lock.settled();
            }
        }
    }
}

/// Ignores errors such as a full disk: only later clients read the file.
fn write(file: &OwnedFd, text: &str) {
    let _ = pwrite(file, text.as_bytes(), 0);
    // In this order, a client that reads the file meanwhile never finds it empty.
    let _ = ftruncate(file, text.len() as u64);
}

fn written(file: &OwnedFd) -> Option<String> {
    let mut text = [0; 32];
    let length = pread(file, &mut text, 0).ok()?;
    String::from_utf8(text[..length].to_vec()).ok()
}

/// Returns the place where the server will listen.
pub(super) fn place(endpoint: &Endpoint) -> io::Result<Place> {
    // The server itself checks whether the directory is safe.
    let mut options = ListenOptions::default();
    options.os.unsafe_directory = true;
    let (Some(place), _) = place_to_bind(endpoint, &options)? else {
        let error =
            Error::new(Reason::Unsupported, "this endpoint has no place for a lock").at(endpoint);
        return Err(error.advising("use a path, or a name").into());
    };
    Ok(place)
}

/// A process. Its start time, if it can be read, tells it apart from a later process with the same
/// number.
struct Starting {
    pid: u32,
    since: Option<u64>,
    /// A child of this process, which no other process can wait for.
    ours: bool,
}

impl Starting {
    fn parse(written: &str) -> Option<Self> {
        let mut numbers = written.split_whitespace();
        let pid = numbers.next()?.parse().ok()?;
        let since = numbers.next().and_then(|since| since.parse().ok());
        Some(Self { pid, since, ours: false })
    }

    /// Kills the process with its process group, which `setsid` has created.
    fn kill(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process_group(pid, Signal::KILL).is_ok())
    }

    fn lives(&self) -> bool {
        if self.since.is_some() {
            return start_time(self.pid) == self.since;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
    }
}

/// Returns the start time in ticks since the system started, from Linux's `/proc`. A zombie has
/// none.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process name before the bracket may contain spaces and brackets. The rest begins with
    // field 3 of proc(5), the state. Field 22 is the start time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| state != "Z")
}
