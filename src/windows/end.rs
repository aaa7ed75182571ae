//! The end of each direction of a stream: what the system's results mean for it, and when ours is
//! sent again. The drivers, on the reactor and with threads, make the calls.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "tokio")]
use std::time::Duration;

use windows_sys::Win32::Foundation::ERROR_NO_DATA;

use super::{broken_pipe, pipe, system};
#[cfg(feature = "tokio")]
use crate::wait::Backoff;

/// The end of what the peer sends. Once it was read, later reads must not wait for another.
#[derive(Debug, Default)]
pub(super) struct PeerEnd(AtomicBool);

impl PeerEnd {
    pub(super) fn is_read(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Interprets the result of a read: bytes, or none at the end. The end is an empty message, or
    /// a peer that is gone.
    pub(super) fn read(&self, outcome: io::Result<usize>) -> io::Result<usize> {
        match outcome {
            Ok(length @ 1..) => Ok(length),
            Err(error) if !pipe::is_gone(&error) => Err(error),
            Ok(0) | Err(_) => {
                self.0.store(true, Ordering::Relaxed);
                Ok(0)
            }
        }
    }
}

/// Interprets the result of writing our end, an empty message. The system takes it only after all
/// earlier data, so success also proves the earlier writes.
pub(super) fn sent(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        // This write itself met a closed pipe. If an earlier write was under way when the peer
        // left, that write's error comes first, and it is another one.
        Err(error) if system::code(&error) == Some(ERROR_NO_DATA) => Ok(()),
        Err(error) if pipe::is_gone(&error) => Err(broken_pipe()),
        outcome => outcome,
    }
}

/// The pauses before our end is sent again.
///
/// Repeating it serves peers that read in byte mode, as go-winio and .NET do. If the end is behind
/// data when such a peer reads that data, the end is lost in the read. An end that comes later is
/// not lost. Peers that have read the end read no further, and one more empty message takes no room
/// in the pipe.
#[cfg(feature = "tokio")]
pub(super) struct Again {
    backoff: Backoff,
    left: u32,
}

#[cfg(feature = "tokio")]
impl Again {
    /// The last pause ends about eleven minutes after the first send.
    pub(super) fn new() -> Self {
        let longest = Duration::from_millis(10 << 15);
        Self { backoff: Backoff::new(Duration::from_millis(10), longest), left: 16 }
    }
}

#[cfg(feature = "tokio")]
impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        Some(self.backoff.pause())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use windows_sys::Win32::Foundation::{
        ERROR_ACCESS_DENIED, ERROR_BROKEN_PIPE, ERROR_PIPE_NOT_CONNECTED,
    };

    use super::*;

    fn system(code: u32) -> io::Error {
        io::Error::from_raw_os_error(code as i32)
    }

    #[test]
    fn an_empty_message_or_an_absent_peer_ends_reading_for_good() {
        for outcome in [Ok(0), Err(system(ERROR_BROKEN_PIPE))] {
            let end = PeerEnd::default();
            assert_eq!(end.read(Ok(7)).expect("bytes"), 7);
            assert!(!end.is_read());
            assert_eq!(end.read(outcome).expect("an end"), 0);
            assert!(end.is_read());
        }
        let end = PeerEnd::default();
        let error = end.read(Err(system(ERROR_ACCESS_DENIED))).expect_err("no end");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(!end.is_read());
    }

    #[test]
    fn an_end_that_was_sent_proves_the_writes_before_it() {
        sent(Ok(())).expect("taken");
        sent(Err(system(ERROR_NO_DATA))).expect("the peer had all that it wanted");
        for (code, kind) in [
            (ERROR_BROKEN_PIPE, ErrorKind::BrokenPipe),
            (ERROR_PIPE_NOT_CONNECTED, ErrorKind::BrokenPipe),
            (ERROR_ACCESS_DENIED, ErrorKind::PermissionDenied),
        ] {
            let error = sent(Err(system(code))).expect_err("a write was under way");
            assert_eq!(error.kind(), kind, "{code}");
        }
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn our_end_is_sent_again_for_eleven_minutes() {
        let pauses: Vec<_> = Again::new().collect();
        assert_eq!(pauses[..3], [10, 20, 40].map(Duration::from_millis));
        let all = pauses.iter().sum::<Duration>();
        assert_eq!((pauses.len(), all.as_secs() / 60), (16, 10));
    }
}
