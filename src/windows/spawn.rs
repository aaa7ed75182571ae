//! Starts a daemon once, detached from this process.
#![allow(unsafe_code, reason = "system calls")]

mod inherited;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::OwnedHandle;
use std::path::PathBuf;
use std::process::{Child, Command};

use windows_sys::Win32::Foundation::ERROR_ACCESS_DENIED;
use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_DELETE_ON_CLOSE;
use windows_sys::Win32::System::Threading::{
    CREATE_BREAKAWAY_FROM_JOB, CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW,
};

use super::pipe::random;
use super::process;
use super::resolve;
use super::system::code;
use crate::endpoint::{Endpoint, Form};
use crate::error::{Error, Reason};

/// Windows has no options of its own for a daemon.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OsDaemonOptions {}

/// Held by the one client that starts the server of an endpoint.
///
/// A file records which child is starting. The mutex vanishes with its holder, and the child must
/// be known for longer.
pub(crate) struct SpawnLock {
    _mutex: OwnedHandle,
    file: PathBuf,
    child: Option<Starting>,
}

impl SpawnLock {
    /// Takes the lock. Returns `None` while another client holds it.
    pub(crate) fn try_take(endpoint: &Endpoint) -> io::Result<Option<Self>> {
        let name = lock_name(endpoint)?;
        let Some(mutex) = process::alone(&name)? else { return Ok(None) };
        let file = file_of(&name);
        let child = fs::read_to_string(&file).ok().and_then(|text| Starting::parse(&text));
        Ok(Some(Self { _mutex: mutex, file, child }))
    }

    /// Returns the process that this or an earlier holder is starting, as long as it lives.
    pub(crate) fn starting(&mut self) -> Option<u32> {
        self.child = self.child.take().filter(|child| child.open().is_some());
        self.child.as_ref().map(|child| child.pid)
    }

    /// Records for later clients that `pid` is starting. If the record cannot be written, the start
    /// goes on: only later clients need the record.
    pub(crate) fn started(&mut self, pid: u32) {
        self.child = process::open(pid).and_then(|process| Starting::of(pid, &process));
        if let Some(child) = &self.child {
            let _ = fs::write(&self.file, format!("{} {}\n", child.pid, child.since));
        }
    }

    /// Ends the process that is starting.
    pub(crate) fn kill(&mut self) -> bool {
        let killed =
            self.child.as_ref().and_then(Starting::open).is_some_and(|it| process::kill(&it));
        if killed {
            self.child = None;
        }
        killed
    }

    /// Forgets the child: a server listens, so no client has to wait for the child any more.
    pub(crate) fn settled(mut self) {
        self.child = None;
    }

    /// Returns the process that is starting, if the holder recorded one.
    pub(crate) fn told(endpoint: &Endpoint) -> Option<u32> {
        let written = fs::read_to_string(file_of(&lock_name(endpoint).ok()?)).ok()?;
        Starting::parse(&written).filter(|child| child.open().is_some()).map(|child| child.pid)
    }

    /// Removes the file that a client left behind, if its child listens by now.
    pub(crate) fn tidy(endpoint: &Endpoint) {
        let Ok(name) = lock_name(endpoint) else { return };
        if file_of(&name).exists() {
            if let Ok(Some(lock)) = Self::try_take(endpoint) {
                lock.settled();
            }
        }
    }
}

impl Drop for SpawnLock {
    /// Removes the file while the mutex is still held.
    fn drop(&mut self) {
        if self.starting().is_none() {
            let _ = fs::remove_file(&self.file);
        }
    }
}

/// Returns the name of the lock. All sessions of the machine share the pipes, and the names of
/// pipes ignore case.
fn lock_name(endpoint: &Endpoint) -> io::Result<String> {
    let address = resolve(endpoint)?;
    let Form::Pipe(pipe) = &address.0 else {
        let error =
            Error::new(Reason::Unsupported, "this endpoint has no place for a lock").at(endpoint);
        return Err(error.advising("use a pipe, or a name").into());
    };
    Ok(format!("sockpipe.{}", pipe.to_lowercase()))
}

/// Returns the path of a file of this user. Characters that a pipe's name may contain, but a file's
/// name may not, are written in hexadecimal.
fn file_of(name: &str) -> PathBuf {
    let mut file = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => file.push(byte.into()),
            other => file.push_str(&format!("%{other:02x}")),
        }
    }
    env::temp_dir().join(format!("{}.spawn", process::shortened(&file)))
}

/// A process. Its start time distinguishes it from a later process with the same number.
struct Starting {
    pid: u32,
    since: u64,
}

impl Starting {
    fn parse(written: &str) -> Option<Self> {
        let (pid, since) = written.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, since: since.parse().ok()? })
    }

    fn of(pid: u32, process: &OwnedHandle) -> Option<Self> {
        Some(Self { pid, since: process::start_time(process)? })
    }

    /// Returns the process while it lives.
    fn open(&self) -> Option<OwnedHandle> {
        let process = process::open(self.pid)?;
        let same = process::start_time(&process) == Some(self.since);
        (same && !process::has_ended(&process)).then_some(process)
    }
}

/// Creates a file that vanishes with its last handle. If the temporary directory fails, there is no
/// other place: a pipe has no directory of its own.
pub(crate) fn nameless_file(_: &Endpoint) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .custom_flags(FILE_FLAG_DELETE_ON_CLOSE)
        .open(env::temp_dir().join(format!("sockpipe.{:016x}", random())))
}

/// Starts a process without our console, so that neither the console's signals nor its end reach
/// the process.
pub(crate) fn spawn_detached(command: &mut Command, _: &OsDaemonOptions) -> io::Result<Child> {
    let flags = CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP;
    // A job that kills its processes when it is closed, such as a build's or a terminal's, would
    // end the daemon.
    match inherited::spawn(command, flags | CREATE_BREAKAWAY_FROM_JOB) {
        // Either the job does not allow breakaway, and the daemon ends with the job; or access to
        // the program is denied, and this fails too.
        Err(error) if code(&error) == Some(ERROR_ACCESS_DENIED) => inherited::spawn(command, flags),
        spawned => spawned,
    }
}

/// Returns `false`: a handle of a process keeps its exit status.
pub(crate) fn is_reaped(_: &io::Error) -> bool {
    false
}

/// Releases a child. On Windows no process has to collect its exit status.
pub(crate) fn leave(child: Child) {
    drop(child);
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use std::io::{Read, Seek, Write};

    use std::os::windows::io::AsRawHandle;
    use std::thread;
    use std::time::{Duration, Instant};

    use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};

    use super::super::pipe;
    use super::super::tests::unique;
    use super::*;

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let endpoint: Endpoint = unique().parse().expect("an endpoint");
        let other_case = endpoint.to_string().replace("unit", "UNIT").parse().expect("an endpoint");
        let lock = SpawnLock::try_take(&endpoint).expect("an answer").expect("the lock");
        assert!(SpawnLock::try_take(&endpoint).expect("an answer").is_none());
        assert!(SpawnLock::try_take(&other_case).expect("an answer").is_none());
        // The lock does not belong to a thread.
        thread::spawn(|| drop(lock)).join().expect("no panic");
        drop(SpawnLock::try_take(&endpoint).expect("an answer").expect("the lock"));
        assert!(SpawnLock::try_take(&other_case).expect("an answer").is_some());
    }

    #[test]
    fn a_nameless_file_is_shared_and_vanishes() {
        let here = || {
            let entries = env::temp_dir().read_dir().expect("a directory");
            let names = entries.map(|entry| entry.expect("an entry").file_name());
            names.filter(|name| name.to_string_lossy().starts_with("sockpipe.")).count()
        };
        let before = here();
        let endpoint = unique().parse().expect("an endpoint");
        let mut file = nameless_file(&endpoint).expect("a file");
        assert_eq!(here(), before + 1);

        file.try_clone().expect("a handle").write_all(b"said").expect("a write");
        file.rewind().expect("a place");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "said");
        drop(file);
        assert_eq!(here(), before);
    }

    /// The daemon of the test below, which lives until it is killed.
    #[test]
    fn helper_lives_until_killed() {
        if env::var_os("SOCKPIPE_LIVES_ON").is_some() {
            println!("here");
            thread::sleep(Duration::from_secs(60));
        }
    }

    #[test]
    fn a_daemon_has_no_handle_that_it_was_not_given() {
        let (server, client) = pipe::pair().expect("a pair");
        let handle = client.handle.as_raw_handle();
        // SAFETY: the handle is open.
        let set = unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT) };
        assert_ne!(set, 0);
        let mut log = tempfile::tempfile().expect("a file");
        let mut command = Command::new(env::current_exe().expect("a program"));
        command.args([
            "--exact",
            "windows::spawn::tests::helper_lives_until_killed",
            "--nocapture",
        ]);
        command.env("SOCKPIPE_LIVES_ON", "1").stdin(std::process::Stdio::null());
        command.stdout(log.try_clone().expect("a handle")).stderr(std::process::Stdio::null());
        let mut child = spawn_detached(&mut command, &OsDaemonOptions {}).expect("a process");

        let began = Instant::now();
        let mut said = String::new();
        while !said.contains("here") && began.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(5));
            said.clear();
            log.rewind().expect("a place");
            log.read_to_string(&mut said).expect("text");
        }
        // No other process has the other end, so its drop here closes it.
        let held = !pipe::peer_is_gone(&server).expect("a state");
        drop(client);
        let gone = pipe::peer_is_gone(&server).expect("a state");
        let ended = child.try_wait().expect("a process");
        child.kill().expect("a kill");
        child.wait().expect("an end");
        assert!(said.contains("here"), "it does not run, or what it was given is closed");
        assert_eq!(ended, None, "it lives on");
        assert!(held && gone, "the daemon holds our end of a pipe");
    }
}
