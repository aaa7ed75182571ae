//! What can be observed of a process from outside, and the processes that the storm starts.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::ways::Ways;

/// Reports whether a process is running and not just waiting to be reaped.
pub(crate) fn lives(process: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // The state follows the name, which is in brackets and may contain some.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

pub(crate) fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |entries| entries.count())
}

/// Returns a process's resident memory in bytes.
pub(crate) fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Returns a server's number of descriptors without clients, once it has not changed for half a
/// second. The last client may take a moment to leave, and the listener opens more descriptors when
/// it first waits.
pub(crate) async fn settled(server: u32) -> usize {
    let (mut seen, mut since) = (0, 0);
    for _ in 0..500 {
        let now = descriptors(server);
        since = if now == seen { since + 1 } else { 0 };
        seen = now;
        if since == 50 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    seen
}

pub(crate) fn signal(process: u32, signal: Signal) {
    if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(process, signal);
    }
}

/// Reaps a dead child, including one that became this process's when its parent died. Reports
/// whether it is gone with all of its threads: the first thread can be dead while another still has
/// the sockets.
pub(crate) fn reap(child: u32) -> bool {
    let Some(child) = i32::try_from(child).ok().and_then(Pid::from_raw) else { return true };
    match waitpid(Some(child), WaitOptions::NOHANG) {
        Ok(outcome) => outcome.is_some(),
        // Another process reaps it, and has done so once it has disappeared.
        Err(_) => !Path::new(&format!("/proc/{}", child.as_raw_nonzero())).exists(),
    }
}

/// Returns the children of this process, including those that it adopted when their parents died.
pub(crate) fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// Returns the sockets in `dir` that some process has open.
pub(crate) fn sockets(dir: &Path) -> Vec<String> {
    let all = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let dir = dir.to_string_lossy();
    let ours = all.lines().filter_map(|line| line.split_whitespace().nth(7));
    ours.filter(|path| path.starts_with(&*dir)).map(str::to_owned).collect()
}

pub(crate) fn files(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Returns this program as a command, with the options for `ways`.
pub(crate) fn program(ways: Ways) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(ways.arguments());
    Ok(command)
}

/// This program as a process that prints lines and ends with its input.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(ways: Ways, arguments: &[&str]) -> Result<Self> {
        let mut command = program(ways)?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a process")?;
        let out = child.stdout.take().context("no pipe")?;
        let (sender, lines) = channel();
        thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            // A line without its end was cut off when its process was killed.
            while out.read_line(&mut line).is_ok() && line.ends_with('\n') {
                if sender.send(line.trim_end().to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        })?;
        Ok(Self { child, lines })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn line(&self) -> Result<String> {
        self.lines.recv_timeout(Duration::from_secs(30)).context("a process said nothing for 30 s")
    }

    /// Returns the lines that the process has printed so far.
    pub(crate) fn printed(&self) -> impl Iterator<Item = String> {
        self.lines.try_iter()
    }

    /// Returns all the lines that the process has printed, once it has ended.
    pub(crate) fn rest(&self) -> impl Iterator<Item = String> {
        self.lines.iter()
    }

    pub(crate) fn signal(&self, what: Signal) {
        signal(self.id(), what);
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns how the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Reports whether the process exited successfully by itself within the limit.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Result<bool> {
        drop(self.child.stdin.take());
        let step = Duration::from_millis(5);
        for _ in 0..limit.as_millis() / step.as_millis() {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            thread::sleep(step);
        }
        Ok(false)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
