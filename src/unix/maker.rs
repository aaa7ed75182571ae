//! Identifies the process that made something, as opposed to its children by fork(2), which have
//! copies.
//!
//! A process id is not enough: a child in a PID namespace of its own may have the same id as its
//! parent, and cannot see whether its parent lives. On Linux a descriptor of the process, which a
//! child inherits, answers both questions.

use std::process;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

#[derive(Debug)]
pub(super) struct Maker {
    id: u32,
    process: Process,
}

impl Maker {
    pub(super) fn this() -> Self {
        Self { id: process::id(), process: Process::this() }
    }

    /// Whether this process may end what was made. It may if it is the maker, or if the maker is
    /// gone, like a parent that binds and then leaves the listener to its daemon.
    pub(super) fn is_this_or_gone(&self) -> bool {
        let same_number = self.id == process::id();
        (same_number && self.process.may_be_this()) || self.process.is_gone(self.id)
    }
}

fn is_number_free(id: u32) -> bool {
    let other = i32::try_from(id).ok().and_then(Pid::from_raw);
    other.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

cfg_if::cfg_if! {
    if #[cfg(target_os = "linux")] {
        use std::os::fd::OwnedFd;

        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::fs::fstat;
        use rustix::process::{PidfdFlags, getpid, pidfd_open};

        /// A process. It is identified by a descriptor since Linux 5.3, and else by its number.
        #[derive(Debug, Default)]
        struct Process(Option<OwnedFd>);

        impl Process {
            fn this() -> Self {
                Self(pidfd_open(getpid(), PidfdFlags::empty()).ok())
            }

            /// Whether a process with this process's number may be this process. Since Linux 6.9
            /// the descriptors of each process have a file of their own.
            fn may_be_this(&self) -> bool {
                let file = |process: &Self| Some(fstat(process.0.as_ref()?).ok()?.st_ino);
                match (file(self), file(&Self::this())) {
                    (Some(one), Some(other)) => one == other,
                    _ => true,
                }
            }

            fn is_gone(&self, id: u32) -> bool {
                let Some(process) = &self.0 else { return is_number_free(id) };
                let mut ended = [PollFd::new(process, PollFlags::IN)];
                poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
            }
        }
    } else {
        /// A process, identified by its number alone, because there are no PID namespaces.
        #[derive(Debug, Default)]
        struct Process(());

        impl Process {
            fn this() -> Self {
                Self(())
            }

            fn may_be_this(&self) -> bool {
                true
            }

            fn is_gone(&self, id: u32) -> bool {
                is_number_free(id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_gone(id: u32) -> bool {
        Maker { id, process: Process::default() }.is_this_or_gone()
    }

    #[test]
    fn a_maker_is_gone_once_its_process_has_ended() {
        assert!(Maker::this().is_this_or_gone());
        // Process 1 is alive, and not a child of this process.
        assert!(!is_gone(1));
        let mut child = process::Command::new("true").spawn().expect("a process");
        let id = child.id();
        child.wait().expect("an end");
        assert!(is_gone(id));
    }
}
