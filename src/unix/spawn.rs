//! Starting a daemon once.

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

/// What the lock on starting a name's server is called, after a dot and the name.
const SPAWN_LOCK: &str = ".spawn";

/// Held by the one client that starts the server of an endpoint.
///
/// The child that starts is written in the lock's file. While it lives the file stays, also when
/// its client gives up or is killed: who takes the lock next waits for that child.
pub(crate) struct SpawnLock {
    lock: Lock,
    child: Option<Starting>,
}

impl SpawnLock {
    /// `None` while another has it.
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

    /// The process that starts by an earlier holder or this one, as long as it lives.
    pub(crate) fn starting(&mut self) -> Option<u32> {
        self.child = self.child.take().filter(Starting::lives);
        self.lock.stays = self.child.is_some();
        self.child.as_ref().map(|child| child.pid)
    }

    /// Says for those who come later that `pid` starts.
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

    /// A server listens: nobody has to wait for a child any more.
    pub(crate) fn settled(mut self) {
        self.lock.stays = false;
    }

    /// The process that starts, if the holder has said so.
    pub(crate) fn told(endpoint: &Endpoint) -> Option<u32> {
        let place = place(endpoint).ok()?;
        let path = place.dir_path().join(lock_name(&place, SPAWN_LOCK));
        let child = Starting::parse(&fs::read_to_string(path).ok()?)?;
        child.lives().then_some(child.pid)
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

/// Of use to those who come later only: a full disk is no reason not to go on.
fn write(file: &OwnedFd, text: &str) {
    let _ = pwrite(file, text.as_bytes(), 0);
    // In this order it is never empty, for those who look meanwhile.
    let _ = ftruncate(file, text.len() as u64);
}

fn written(file: &OwnedFd) -> Option<String> {
    let mut text = [0; 32];
    let length = pread(file, &mut text, 0).ok()?;
    String::from_utf8(text[..length].to_vec()).ok()
}

/// Where the server is going to listen.
pub(super) fn place(endpoint: &Endpoint) -> io::Result<Place> {
    // That the directory is safe is for it to judge.
    let mut options = ListenOptions::default();
    options.os.unsafe_directory = true;
    let (Some(place), _) = place_to_bind(endpoint, &options)? else {
        let error =
            Error::new(Reason::Unsupported, "this endpoint has no place for a lock").at(endpoint);
        return Err(error.advising("use a path, or a name").into());
    };
    Ok(place)
}

/// A process, told from a later one with the same number by when it started, where that can be
/// read.
struct Starting {
    pid: u32,
    since: Option<u64>,
    /// A child of this process, which nobody else can ask for its end.
    ours: bool,
}

impl Starting {
    fn parse(written: &str) -> Option<Self> {
        let mut numbers = written.split_whitespace();
        let pid = numbers.next()?.parse().ok()?;
        let since = numbers.next().and_then(|since| since.parse().ok());
        Some(Self { pid, since, ours: false })
    }

    /// With its process group, which `setsid` has made its own.
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

/// In ticks since the machine started, from Linux's /proc. None of a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have spaces and brackets. The rest begins with field 3 of proc(5), the
    // state; field 22 is the start.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| state != "Z")
}
