//! The process that made something, told from its children by fork(2), who have copies.
//!
//! A number is not enough: a child in a PID namespace of its own may have its parent's, and does not
//! see whether its parent lives. On Linux a descriptor of the process tells, which a child inherits.

use std::process;

use super::platform;

#[derive(Debug)]
pub(super) struct Maker {
    id: u32,
    process: platform::Process,
}

impl Maker {
    pub(super) fn this() -> Self {
        Self { id: process::id(), process: platform::Process::this() }
    }

    /// Whether what was made is this process's to end: its own, or its parent's who went and left it
    /// to this one, as those do that become daemons after they have bound.
    pub(super) fn is_this_or_gone(&self) -> bool {
        let same_number = self.id == process::id();
        (same_number && self.process.may_be_this()) || self.process.is_gone(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_gone(id: u32) -> bool {
        Maker { id, process: platform::Process::default() }.is_this_or_gone()
    }

    #[test]
    fn what_a_process_made_is_its_own_or_its_successor_s() {
        assert!(Maker::this().is_this_or_gone());
        // It is there, and nobody's child here.
        assert!(!is_gone(1));
        let mut child = process::Command::new("true").spawn().expect("a process");
        let id = child.id();
        child.wait().expect("an end");
        assert!(is_gone(id));
    }
}
