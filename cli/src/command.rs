//! The commands of `listen --exec`. None outlives this process.

use std::process::{ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::os::Group;
use crate::side::{Exited, Side};

/// How long a command may take to end by itself at the end of its input, once its client has left.
const LAST_STEPS: Duration = Duration::from_secs(1);
/// How long a command that was asked to end may take.
const GRACE: Duration = Duration::from_secs(2);
/// How long the system may take to remove a killed command.
const KILLED: Duration = Duration::from_secs(1);

static RUNNING: Mutex<Running> = Mutex::new(Running { groups: Vec::new(), ending: false });

struct Running {
    groups: Vec<Arc<Group>>,
    /// This process is ending, and starts no more commands.
    ending: bool,
}

/// A running command.
pub struct Joined {
    group: Arc<Group>,
    exited: Exited,
}

impl Joined {
    /// Starts a command whose input and output are pipes, and returns it with these.
    pub fn start(command: &mut Command) -> Result<(Self, Side)> {
        let group = {
            let mut running = running();
            if running.ending {
                bail!("this process ends");
            }
            let program = command.get_program().to_string_lossy().into_owned();
            let group = Group::spawn(command).with_context(|| format!("cannot run {program}"))?;
            let group = Arc::new(group);
            running.groups.push(Arc::clone(&group));
            group
        };

        // Taken before the thread waits for the command, because waiting closes the command's
        // input.
        let ends = group.ends();
        let (tell, exited) = watch::channel(None);
        let waiter = Arc::clone(&group);
        let wait = move || {
            let status = waiter.wait();
            running().groups.retain(|group| !Arc::ptr_eq(group, &waiter));
            // Its client's task may have ended.
            let _ = tell.send(Some(status));
        };

        if let Err(error) = thread::Builder::new().name("command".to_owned()).spawn(wait) {
            group.kill();
            let _ = group.wait();
            running().groups.retain(|other| !Arc::ptr_eq(other, &group));
            return Err(error).context("cannot start a thread that waits for the command");
        }
        let joined = Self { group, exited };
        match joined.side(ends) {
            Ok(side) => Ok((joined, side)),
            Err(error) => {
                joined.group.kill();
                Err(error)
            }
        }
    }

    fn side(&self, ends: Option<(ChildStdout, ChildStdin)>) -> Result<Side> {
        let (output, input) = ends.context("the command has no input or output")?;
        Side::command(output, input, self.exited.clone()).context("cannot start a thread")
    }

    /// Waits for the command, whose client has left and whose pipes are closed. A command that
    /// still does not end is asked to end, and then killed.
    pub async fn finish(mut self) -> Result<ExitStatus> {
        if timeout(LAST_STEPS, self.has_exited()).await.is_err() {
            self.group.tell();
            if timeout(GRACE, self.has_exited()).await.is_err() {
                self.group.kill();
            }
        }
        self.has_exited().await;
        match &*self.exited.borrow() {
            Some(Ok(status)) => Ok(*status),
            Some(Err(error)) => bail!("cannot wait for the command: {error}"),
            None => bail!("cannot wait for the command"),
        }
    }

    async fn has_exited(&mut self) {
        // The sender always sends before it is dropped.
        drop(self.exited.wait_for(Option::is_some).await);
    }
}

/// Whether `pid` is the process of a running command.
pub fn is_one(pid: u32) -> bool {
    running().groups.iter().any(|group| group.is_led_by(pid))
}

/// Ends all running commands, and starts no more.
pub fn end_all() {
    let groups = {
        let mut running = running();
        running.ending = true;
        running.groups.clone()
    };
    for group in &groups {
        group.tell();
    }
    let deadline = Instant::now() + GRACE;
    for group in &groups {
        group.wait_until(deadline);
    }

    for group in &groups {
        group.kill();
    }
    let deadline = Instant::now() + KILLED;
    for group in &groups {
        group.wait_until(deadline);
    }
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
