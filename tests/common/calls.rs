//! The system calls of a process, as strace logs them, and what a test does at each of them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::process::Running;
use super::unix::{full, strace, until};

/// Longer than another process needs for what it does meanwhile, unless the machine is busy.
pub const PAUSE: &str = "delay_enter=300000";

/// A process's `nth` call of this name, which follows `before` calls of any name.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    pub nth: usize,
    pub before: usize,
}

impl Call {
    /// Returns strace's option that does `what` at this call.
    pub fn inject(&self, what: &str) -> String {
        format!("inject={}:{what}:when={}", self.name, self.nth)
    }

    /// Returns the errors that a run tries: all of them in a full run, otherwise one.
    pub fn errors(&self) -> &'static [&'static str] {
        let all = errors_of(&self.name);
        if full() || all.is_empty() {
            return all;
        }
        let one = (self.nth + std::process::id() as usize) % all.len();
        &all[one..=one]
    }

    /// Waits until the process whose calls are in `log` is at this call. It ends without it if it
    /// did not wait as often as before.
    #[track_caller]
    pub fn reached_or_ended(&self, log: &Path, running: &mut Running) {
        until("it is at that call", || {
            let ended = running.child.try_wait().expect("a child").is_some();
            ended || read(log).lines().count() >= self.before
        });
    }
}

/// Returns the log, which is empty before strace has created it.
pub fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// Returns the calls of a log of one process.
pub fn calls(log: &str) -> Vec<Call> {
    let (mut calls, mut counts) = (Vec::new(), HashMap::<&str, usize>::new());
    for (before, line) in log.lines().enumerate() {
        let Some((name, _)) = line.split_once('(') else { continue };
        let nth = counts.entry(name).or_default();
        *nth += 1;
        calls.push(Call { name: name.to_owned(), nth: *nth, before });
    }
    calls
}

/// Returns all calls in a full run, otherwise every `step`-th. Each run begins with another one.
pub fn sample(calls: Vec<Call>, step: usize) -> Vec<Call> {
    assert!(calls.len() > 5, "{calls:?}");
    let step = if full() { 1 } else { step.min(calls.len()) };
    let first = std::process::id() as usize % step;
    calls.into_iter().skip(first).step_by(step).collect()
}

/// Returns `command` under strace like [`strace`], without the processes and threads that it
/// starts.
pub fn traced(log: &Path, options: &[&str], command: &Command) -> Option<Command> {
    let following = strace(log, options, command)?;
    let mut traced = Command::new(following.get_program());
    traced.args(following.get_args().filter(|argument| *argument != "-f"));
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(traced)
}

/// Starts `command` under strace, with `what` done at `call`. All its calls are in a new `log`.
pub fn start_with(log: &Path, call: &Call, what: &str, command: &Command) -> Running {
    let _ = fs::remove_file(log);
    let inject = call.inject(what);
    let command = traced(log, &["-e", "trace=all", "-e", &inject], command);
    Running::start(command.expect("strace, as before"))
}

/// Reports whether a process was killed. strace ends as the process that it ran.
pub fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

/// Returns the errors that a call is tried with.
fn errors_of(call: &str) -> &'static [&'static str] {
    match call {
        "openat" => &["EMFILE", "ENFILE", "ENOMEM", "EIO", "EINTR", "EACCES", "ENOSPC"],
        "open" => &["EMFILE", "EOPNOTSUPP", "EISDIR", "ENOSPC", "EACCES"],
        "socket" | "socketpair" => &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"],
        "flock" => &["EIO", "EINTR", "ENOLCK", "ENOSYS"],
        "fcntl" | "fcntl64" => &["EINVAL", "ENOSYS", "EIO"],
        "newfstatat" | "fstat" | "statx" => &["EIO", "ENOMEM", "EACCES"],
        "fstatat64" | "fstat64" | "stat" | "lstat" => &["EIO", "ENOMEM", "EACCES"],
        "fchmod" | "fchmodat" | "fchmodat2" => &["EPERM", "EINVAL", "EROFS"],
        "read" | "readv" | "getdents64" => &["EIO", "EINTR"],
        "pread64" | "pwrite64" => &["EIO", "ENOSPC"],
        "ftruncate" | "ftruncate64" => &["EIO", "EINTR", "EPERM"],
        "readlink" | "readlinkat" => &["EACCES", "EIO"],
        "unlink" | "unlinkat" => &["EIO", "EROFS", "EPERM", "EBUSY"],
        "bind" => &["EACCES", "EROFS", "ENOSPC", "ENOMEM", "EIO"],
        "listen" => &["EOPNOTSUPP", "ENOMEM"],
        "connect" => &["EINTR", "EACCES", "ENOMEM"],
        "accept" | "accept4" => &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EINTR"],
        "send" | "sendto" | "sendmsg" | "recv" | "recvfrom" => &["ENOBUFS", "EINTR"],
        "recvmsg" => &["ECONNRESET", "EINTR", "ENOMEM"],
        "getsockopt" | "setsockopt" | "getpeername" => &["EINVAL", "ENOBUFS"],
        "ioctl" => &["EIO", "EINVAL"],
        "shutdown" => &["ENOTCONN"],
        "pidfd_open" => &["EMFILE", "ENOSYS"],
        "kill" => &["EPERM"],
        "clone" | "fork" | "vfork" => &["EAGAIN", "ENOMEM"],
        "wait4" | "waitpid" => &["ECHILD"],
        "close_range" => &["ENOSYS"],
        "memfd_create" => &["EMFILE", "ENOSYS"],
        "inotify_init1" | "inotify_add_watch" => &["EMFILE", "ENOSPC"],
        "epoll_ctl" => &["ENOMEM", "ENOSPC"],
        "epoll_wait" | "epoll_pwait" | "poll" | "ppoll" => &["EINTR"],

        // The system has no error for them here.
        "geteuid" | "geteuid32" | "getpid" | "gettid" | "prlimit64" | "ugetrlimit" => &[],
        "clock_gettime" | "clock_gettime64" => &[],
        // strace does not make a call that it lets fail. The descriptor would stay open, which
        // Linux closes even if it reports an error.
        "close" => &[],
        // Rust ends a program that has no memory.
        "brk" | "mmap" | "mmap2" | "munmap" | "mprotect" | "mremap" | "madvise" => &[],
        // The test helper starts a thread for its commands, and panics if it cannot.
        "clone3" => &[],
        // The standard library and libc make them for threads and signals, and panic or go on.
        "futex" | "futex_time64" | "rt_sigaction" | "rt_sigprocmask" | "sigaltstack" => &[],
        "sched_getaffinity" | "getrandom" | "clock_nanosleep" | "exit" | "exit_group" => &[],
        // tokio wakes its driver with one, and panics if it cannot. Others are the helper's output.
        "write" | "writev" => &[],
        other => panic!("there is no list of errors for {other}"),
    }
}
