//! Spawns a daemon in a session of its own, without this process's descriptors and signal settings.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::ptr;
use std::thread;

use rustix::fs::Mode;
use rustix::process::{Resource, geteuid, getrlimit, setsid, umask};

use super::lock::ROUNDS;
use super::platform;
use super::spawn::place;
use crate::endpoint::Endpoint;

/// The first descriptor after the standard ones.
const FIRST: RawFd = 3;
/// How many descriptors other threads may open between the search for the highest one and the fork.
const SLACK: RawFd = 256;
/// The most descriptors that are marked one by one if the system does not list the open ones.
const MANY: RawFd = 65_536;
/// One more than the highest signal of these systems.
const SIGNALS: libc::c_int = 65;

/// The options that `os::unix` sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct OsDaemonOptions {
    pub(super) keep_fds: Vec<RawFd>,
    pub(super) umask: Option<u32>,
}

/// Creates a file without a name, which disappears with its last descriptor. It is in the temporary
/// directory. If that is not writable, it is in the directory of the socket, where the spawn lock's
/// file could be created too, and else in memory.
pub(crate) fn nameless_file(endpoint: &Endpoint) -> io::Result<File> {
    let beside = place(endpoint).map(|place| place.dir_path().to_owned());
    nameless_file_in_first([env::temp_dir()].into_iter().chain(beside))
}

/// If all directories fail, returns the error of the first one.
fn nameless_file_in_first(mut dirs: impl Iterator<Item = PathBuf>) -> io::Result<File> {
    let first = dirs.next().map_or_else(|| Err(io::ErrorKind::NotFound.into()), nameless_file_in);
    first.or_else(|error| {
        let file = dirs.find_map(|dir| nameless_file_in(dir).ok());
        file.or_else(|| platform::memory_file().ok().map(File::from)).ok_or(error)
    })
}

fn nameless_file_in(dir: PathBuf) -> io::Result<File> {
    if let Some(file) = platform::unlinked_file(&dir) {
        return Ok(File::from(file));
    }
    // All processes use the same name, so that the next one removes the file that a killed process
    // left.
    let path = dir.join(format!(".sockpipe-{}.said", geteuid().as_raw()));
    for _ in 0..ROUNDS {
        let _ = fs::remove_file(&path);
        let new =
            OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path);
        match new {
            // Another process that starts may have created the file, and may remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let _ = fs::remove_file(&path);
                return Ok(file);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Spawns the child in a session of its own, so that no signals of a terminal reach it.
pub(crate) fn spawn_detached(
    command: &mut Command,
    options: &OsDaemonOptions,
) -> io::Result<Child> {
    clean(command, Cleaning::new(options));
    command.spawn()
}

#[allow(unsafe_code, reason = "std has no stable call for it")]
fn clean(command: &mut Command, cleaning: Cleaning) {
    // SAFETY: between fork and exec the child runs `Cleaning::apply`, which makes only
    // async-signal-safe system calls, with numbers that were stored before the fork. It allocates
    // nothing, frees nothing and takes no lock.
    unsafe { command.pre_exec(move || cleaning.apply()) };
}

/// The steps that the child takes before its program runs, prepared in the parent.
struct Cleaning {
    /// The descriptors that the daemon keeps, in ascending order.
    keep: Vec<RawFd>,
    /// No descriptor from here on is open. Used on systems that cannot mark all descriptors in one
    /// call.
    end: RawFd,
    umask: Option<Mode>,
}

impl Cleaning {
    fn new(options: &OsDaemonOptions) -> Self {
        let mut keep = options.keep_fds.clone();
        keep.retain(|fd| *fd >= FIRST);
        keep.sort_unstable();
        keep.dedup();
        let umask = options.umask.map(|bits| Mode::from_raw_mode((bits & 0o777) as _));
        Self { keep, end: end_of_descriptors(), umask }
    }

    fn apply(&self) -> io::Result<()> {
        setsid()?;
        default_signals();
        // The descriptors are marked, not closed: the standard library reports a failed exec
        // through one of them.
        let mut first = FIRST;
        for &kept in &self.keep {
            self.mark(first, kept - 1);
            set_close_on_exec(kept, false)?;
            first = kept + 1;
        }
        self.mark(first, RawFd::MAX);
        if let Some(mask) = self.umask {
            umask(mask);
        }
        Ok(())
    }

    /// Marks all open descriptors of `first..=last` as close-on-exec.
    fn mark(&self, first: RawFd, last: RawFd) {
        if first > last || platform::close_on_exec_from(first, last).is_ok() {
            return;
        }
        for fd in first..=last.min(self.end) {
            let _ = set_close_on_exec(fd, true);
        }
    }
}

/// A number above all descriptors that are open now or will be opened soon.
fn end_of_descriptors() -> RawFd {
    let numbers = ["/proc/self/fd", "/dev/fd"].into_iter().find_map(|dir| {
        let names = fs::read_dir(dir).ok()?.filter_map(Result::ok).map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.parse::<RawFd>().ok()).max()
    });
    // Some systems list only the standard descriptors.
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| limit.try_into().ok());
    let limit = limit.unwrap_or(MANY).min(MANY);
    numbers.unwrap_or(0).saturating_add(SLACK).max(limit)
}

#[allow(unsafe_code, reason = "a number that may not be open is no descriptor of rustix's")]
fn set_close_on_exec(fd: RawFd, marked: bool) -> io::Result<()> {
    let flags = if marked { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: the call accepts any number, and changes only the flag of a descriptor of this
    // process, which is the child by now.
    let done = unsafe { libc::fcntl(fd, libc::F_SETFD, flags) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Resets all signals to their defaults and unblocks them. The program would inherit both settings,
/// including the signals that `nohup` or a shell ignores for the client.
fn default_signals() {
    for signal in 1..SIGNALS {
        default_signal(signal);
    }
    unblock_signals();
}

#[allow(unsafe_code, reason = "rustix has no call for it")]
fn default_signal(signal: libc::c_int) {
    // SAFETY: SIG_DFL installs no code of this crate. The call rejects numbers that are not
    // signals, and signals whose handling cannot be changed.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

#[allow(unsafe_code, reason = "rustix has no call for it")]
fn unblock_signals() {
    let mut none = std::mem::MaybeUninit::uninit();
    // SAFETY: `none` is a place for a set, which the call fills.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was filled just before. The call accepts null for the previous set, which is
    // not needed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
}

/// Reports whether an attempt to wait for a child failed because its exit status was taken already:
/// the program ignores SIGCHLD, or something else in it waits for all children.
pub(crate) fn is_reaped(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECHILD)
}

/// Detaches from a child. A thread waits for its end, because it would stay as a zombie otherwise.
pub(crate) fn leave(mut child: Child) {
    // If no thread can be created, the child stays as a zombie until this process ends.
    let waiting = thread::Builder::new().name("sockpipe-wait".to_owned());
    let _ = waiting.stack_size(64 * 1024).spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    fn keeps_what_is_written(mut file: File) {
        file.try_clone().expect("a handle").write_all(b"said").expect("a write");
        file.rewind().expect("a place");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "said");
    }

    #[test]
    fn a_nameless_file_leaves_nothing_in_its_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = [PathBuf::from("/nowhere"), dir.path().to_owned()];
        let file = nameless_file_in_first(dirs.into_iter()).expect("a file");
        assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
        keeps_what_is_written(file);
    }

    #[test]
    fn without_a_writable_directory_a_nameless_file_is_in_memory() {
        let file = nameless_file_in_first([PathBuf::from("/nowhere")].into_iter());
        if cfg!(all(target_os = "linux", not(sockpipe_posix))) {
            keeps_what_is_written(file.expect("a file"));
        } else {
            assert_eq!(file.expect_err("no file").kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn the_end_of_descriptors_is_above_every_open_one() {
        let file = File::open("/dev/null").expect("a file");
        assert!(end_of_descriptors() > std::os::fd::AsRawFd::as_raw_fd(&file));
    }
}
