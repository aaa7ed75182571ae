//! A command in a process group of its own, so that signals reach the whole group.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long the processes that a command started may take to end, once the command was asked to end
/// and has ended.
const REST: Duration = Duration::from_millis(200);

/// A command, and the processes that it starts and leaves in its group.
///
/// The group has the number of its leader. The system does not reuse that number until the leader
/// is reaped. So a signal is sent only before that, under the lock under which the leader is
/// reaped.
pub struct Group {
    id: Pid,
    leader: Mutex<Leader>,
    ended: Condvar,
}

struct Leader {
    child: Child,
    told: bool,
    reaped: bool,
}

impl Group {
    /// Starts the command. A Ctrl-C at the terminal reaches only the group in its foreground, so it
    /// does not reach the command.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let leader = Leader { child, told: false, reaped: false };
        let id = Pid::from_child(&leader.child);
        Ok(Self { id, leader: Mutex::new(leader), ended: Condvar::new() })
    }

    /// Whether `pid` is the process of the command.
    pub fn is_led_by(&self, pid: u32) -> bool {
        self.id.as_raw_nonzero().get().unsigned_abs() == pid
    }

    /// Takes the pipes of its output and input. Returns them only once.
    pub fn ends(&self) -> Option<(ChildStdout, ChildStdin)> {
        let mut leader = self.leader();
        leader.child.stdout.take().zip(leader.child.stdin.take())
    }

    /// Waits for the command's end, and ends what is left of its group if it was told to end.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        if let Err(error) = self.await_exit() {
            // The command is gone, and another process may have its number.
            self.leader().reaped = true;
            self.ended.notify_all();
            return Err(error);
        }
        if self.leader().told {
            sleep(REST);
        }
        let mut leader = self.leader();
        if leader.told {
            self.signal(&leader, Signal::KILL);
        }
        let status = leader.child.wait();
        leader.reaped = true;
        self.ended.notify_all();
        status
    }

    /// Asks the group to end. A stopped command, such as one that reads the terminal from the
    /// background, is continued so that it can end.
    pub fn tell(&self) {
        let mut leader = self.leader();
        leader.told = true;
        self.signal(&leader, Signal::TERM);
        self.signal(&leader, Signal::CONT);
    }

    /// Kills the group.
    pub fn kill(&self) {
        let mut leader = self.leader();
        leader.told = true;
        self.signal(&leader, Signal::KILL);
    }

    /// Returns when the command has ended, and at `deadline` at the latest.
    pub fn wait_until(&self, deadline: Instant) {
        let mut leader = self.leader();
        while !leader.reaped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.ended.wait_timeout(leader, left);
            leader = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn signal(&self, leader: &Leader, signal: Signal) {
        if !leader.reaped {
            // A failure means that the group has ended meanwhile, which is the aim.
            let _ = kill_process_group(self.id, signal);
        }
    }

    /// Returns when the leader has ended, without reaping it.
    #[cfg(not(target_os = "openbsd"))]
    fn await_exit(&self) -> io::Result<()> {
        use rustix::io::Errno;
        use rustix::process::{WaitId, WaitIdOptions, waitid};

        loop {
            match waitid(WaitId::Pid(self.id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// This system cannot wait without reaping. So the leader is reaped at once, and its group is
    /// left alone.
    #[cfg(target_os = "openbsd")]
    fn await_exit(&self) -> io::Result<()> {
        loop {
            let mut leader = self.leader();
            if leader.child.try_wait()?.is_some() {
                leader.reaped = true;
                return Ok(());
            }
            drop(leader);
            sleep(Duration::from_millis(20));
        }
    }

    fn leader(&self) -> MutexGuard<'_, Leader> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
