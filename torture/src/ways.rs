//! What a process uses of the crate beside the defaults.

use std::sync::OnceLock;
use std::time::Duration;

use fastrand::Rng;
use sockpipe::{ConnectOptions, ListenOptions, SharedMemory, SpinPolicy};

/// How long a client of a server whose name is removed now and then waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

static OURS: OnceLock<Ways> = OnceLock::new();

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Streams move into shared memory from their first bytes on.
    pub(crate) memory: bool,
    /// Reads poll before they sleep.
    pub(crate) spin: bool,
    /// The process uses the blocking API.
    pub(crate) blocking: bool,
    /// The names of living servers are removed, so clients wait for them, and no connection stays
    /// for long at a server that another one has replaced.
    pub(crate) patient: bool,
}

impl Ways {
    /// Returns those of this process.
    pub(crate) fn ours() -> Self {
        OURS.get().copied().unwrap_or_default()
    }

    pub(crate) fn set(self) {
        OURS.get_or_init(|| self);
    }

    /// Returns those of the next process of a storm with everything on.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        Self { memory: rng.bool(), spin: rng.bool(), blocking: rng.u8(..3) == 0, patient: true }
    }

    /// Returns the options with which a process of this program has them.
    pub(crate) fn arguments(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (self.memory, "--shared-memory"),
            (self.spin, "--spin"),
            (self.blocking, "--blocking"),
            (self.patient, "--patient"),
        ];
        all.into_iter().filter_map(|(on, argument)| on.then_some(argument))
    }

    /// Returns the words by which jobs are counted.
    pub(crate) fn words(self) -> String {
        let mut words = String::from(if self.blocking { "blocking" } else { "async" });
        words += if self.memory { "+shared-memory" } else { "" };
        words += if self.spin { "+spin" } else { "" };
        words
    }

    /// Returns the options of a client.
    pub(crate) fn connecting(self) -> ConnectOptions {
        let options = ConnectOptions::new().shared_memory(self.shared_memory()).spin(self.policy());
        if self.patient { options.wait_for_server(PATIENCE) } else { options }
    }

    /// Returns the options of a server.
    pub(crate) fn listening(self) -> ListenOptions {
        ListenOptions::new().shared_memory(self.shared_memory()).spin(self.policy())
    }

    fn shared_memory(self) -> SharedMemory {
        if self.memory { SharedMemory::Eager } else { SharedMemory::Off }
    }

    fn policy(self) -> SpinPolicy {
        if self.spin { SpinPolicy::Auto } else { SpinPolicy::Off }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_each_of_its_ways() {
        assert_eq!(Ways::default().arguments().count(), 0);
        assert_eq!(Ways::default().words(), "async");
        let all = Ways { memory: true, spin: true, blocking: true, patient: true };
        assert_eq!(all.arguments().count(), 4);
        assert_eq!(all.words(), "blocking+shared-memory+spin");
    }
}
