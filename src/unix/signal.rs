//! Lets threads wait for the signals that ask a process to end. A signal handler may do almost
//! nothing, so it writes a byte that the threads wait for.
#![allow(unsafe_code, reason = "signal handlers")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::event::PollFlags;
use rustix::net::{SendFlags, send};

use super::poll::wait_for;
use crate::wait::Deadline;

const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

static SIGNAL_PIPE: OnceLock<SignalPipe> = OnceLock::new();

/// The socket pair by which the signal handler wakes waiting threads (the self-pipe trick).
struct SignalPipe {
    reader: UnixStream,
    writer: UnixStream,
    /// The previous action of each signal.
    previous: [libc::sigaction; 2],
}

pub(crate) fn listen() -> io::Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if SIGNAL_PIPE.get().is_some() {
        return Ok(());
    }
    let (reader, writer) = UnixStream::pair()?;
    let previous = [action(SIGNALS[0])?, action(SIGNALS[1])?];
    // Set before the first signal can arrive.
    SIGNAL_PIPE.get_or_init(|| SignalPipe { reader, writer, previous });
    for signal in SIGNALS {
        set_action(signal, &ours())?;
    }
    Ok(())
}

pub(crate) fn wait() -> io::Result<()> {
    let Some(pipe) = SIGNAL_PIPE.get() else { return Ok(()) };
    // No thread reads the byte, so that every waiting thread finds it.
    wait_for(pipe.reader.as_fd(), PollFlags::IN, Deadline::after(None)).map(drop)
}

/// Handles one signal, and restores the previous actions, so that the next signal is handled as
/// before.
extern "C" fn handle(signal: libc::c_int) {
    let Some(pipe) = SIGNAL_PIPE.get() else { return };
    // The socket has room for the byte, so the call does not fail and leaves errno unchanged.
    let _ = send(&pipe.writer, b"!", SendFlags::DONTWAIT);
    for (ours, previous) in SIGNALS.into_iter().zip(&pipe.previous) {
        let _ = set_action(ours, previous);
        let was_handled = !matches!(previous.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        if ours == signal && was_handled {
            // SAFETY: a handler may call raise(3). The signal is blocked until this handler
            // returns.
            unsafe { libc::raise(signal) };
        }
    }
}

fn ours() -> libc::sigaction {
    // SAFETY: a `struct sigaction` is integers and at most a pointer, for which zeros are a value:
    // no flags, and an empty mask on these systems.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    action
}

fn action(signal: libc::c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: `action` has room for the result, and null changes nothing.
    if unsafe { libc::sigaction(signal, null(), action.as_mut_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has written `action`.
    Ok(unsafe { action.assume_init() })
}

fn set_action(signal: libc::c_int, action: &libc::sigaction) -> io::Result<()> {
    // SAFETY: `action` is either that of `handle`, which does only what a handler may do, or one
    // that the system reported.
    if unsafe { libc::sigaction(signal, action, null_mut()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
