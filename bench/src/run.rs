//! Runs one workload between two processes.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::competitors::Competitor;
use crate::measure::Outcome;
use crate::work::{IDLE, Work};

/// The cores on which the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    Anywhere,
    Same,
    Cross,
    /// Anywhere, beside two processes that each use a core fully.
    Hogs,
    /// Anywhere, beside three pairs that run the same workload.
    Pairs,
}

/// One run of one competitor.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub outcome: Outcome,
    /// Processor time of both processes, in microseconds per operation.
    pub cpu: f64,
    /// Memory of the server for each connection, in bytes, if the workload measures it.
    pub memory: f64,
}

/// Prints that clients can connect to the server.
pub fn say_listening(address: &str) {
    allow_descriptors();
    println!("listening {address}");
    thread::spawn(|| {
        // The runner ends the server by closing its standard input.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Uses a core fully until standard input ends.
pub fn hog() {
    thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    let _ = io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

/// Prints that all connections of a client are open and idle.
pub fn say_idle() {
    println!("idle");
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

#[cfg(unix)]
pub fn allow_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer leads to one limit, which is live and writable.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above, and the call only reads the limit.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}

#[cfg(windows)]
pub fn allow_descriptors() {}

/// The runner's folder for sockets, which is removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sockpipe-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn address(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if cfg!(windows) {
            return format!(r"\\.\pipe\sockpipe-bench-{}-{number}", std::process::id());
        }
        self.0.join(format!("{number}.sock")).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with this one.
pub struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    fn start(who: Competitor, core: Option<&str>, arguments: &[&str]) -> io::Result<Self> {
        let command = who.command().unwrap_or_else(|| {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.arg(arguments[0]).arg(who.name());
            command
        });
        let arguments = if who.command().is_some() { arguments } else { &arguments[1..] };
        let mut pinned = match core {
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", core]).arg(command.get_program()).args(command.get_args());
                pinned
            }
            None => command,
        };
        pinned.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pinned.spawn()?;
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Ok(Self { child, out })
    }

    /// Starts a server, and returns it with its address.
    pub fn serve(
        who: Competitor,
        work: Work,
        core: Option<&str>,
        address: &str,
    ) -> io::Result<(Self, String)> {
        let mut server = Self::start(who, core, &["server", work.name(), address])?;
        let ready = server.line()?;
        match ready.strip_prefix("listening ") {
            Some(address) => Ok((server, address.to_owned())),
            None => Err(io::Error::other(ready)),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.out.read_line(&mut line)? == 0 {
            return Err(io::Error::other("it ended without a word"));
        }
        Ok(line.trim().to_owned())
    }

    /// Kills the process, and does not wait until it has ended.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Ends the process, and returns its processor time in microseconds.
    #[cfg(unix)]
    pub fn end(mut self) -> f64 {
        drop(self.child.stdin.take());
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let mut status = 0;
        // SAFETY: all zeroes are a valid `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers lead to live and writable values, and this process has not waited
        // for its child yet.
        unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
        let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
        micros(usage.ru_utime) + micros(usage.ru_stime)
    }

    #[cfg(windows)]
    pub fn end(mut self) -> f64 {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        f64::NAN
    }

    fn memory(&self) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        kib.unwrap_or(f64::NAN) * 1024.0
    }
}

pub fn sample(
    folder: &Folder,
    who: Competitor,
    work: Work,
    pin: Pin,
    millis: u64,
) -> io::Result<Sample> {
    let (server_core, client_core) = match pin {
        Pin::Anywhere | Pin::Hogs | Pin::Pairs => (None, None),
        Pin::Same => (Some("0"), Some("0")),
        Pin::Cross => (Some("0"), Some("1")),
    };
    let hogs = if pin == Pin::Hogs { 2 } else { 0 };
    let hogs: Vec<_> =
        (0..hogs).map(|_| Process::start(Competitor::Sockpipe, None, &["hog"])).collect();
    let pairs = if pin == Pin::Pairs { 3 } else { 0 };
    let pairs = (0..pairs).map(|_| {
        let (server, address) = Process::serve(who, work, None, &folder.address())?;
        // These pairs run longer than the measured one, and are stopped with it.
        let millis = (millis * 20).to_string();
        Ok((server, Process::start(who, None, &["client", work.name(), &address, &millis])?))
    });
    let pairs: Vec<_> = pairs.collect::<io::Result<_>>()?;
    let (server, address) = Process::serve(who, work, server_core, &folder.address())?;
    let before = server.memory();
    let millis = millis.to_string();
    let mut client = Process::start(who, client_core, &["client", work.name(), &address, &millis])?;
    let mut memory = f64::NAN;
    if work == Work::Idle {
        client.line()?;
        // The server has freed its temporary memory by now.
        thread::sleep(Duration::from_millis(100));
        memory = (server.memory() - before) / IDLE as f64;
        if let Some(mut input) = client.child.stdin.take() {
            input.flush()?;
        }
    }
    let line = client.line()?;
    let outcome = Outcome::parse(&line).ok_or_else(|| io::Error::other(line))?;
    for hog in hogs {
        hog?.end();
    }
    for (server, mut client) in pairs {
        if client.child.try_wait()?.is_some() {
            return Err(io::Error::other("a pair beside it ended first"));
        }
        client.kill()?;
        client.end();
        server.end();
    }
    let cpu = (client.end() + server.end()) / outcome.ops;
    Ok(Sample { outcome, cpu, memory })
}
