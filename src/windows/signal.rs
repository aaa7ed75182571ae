//! Waits on a thread for the events that ask the process to end. Windows calls the handler in a
//! thread of its own.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_LOGOFF_EVENT, SetConsoleCtrlHandler,
};
use windows_sys::core::BOOL;

use super::system::check;

static HEARD: Mutex<bool> = Mutex::new(false);
static TELL: Condvar = Condvar::new();

pub(crate) fn listen() -> io::Result<()> {
    static LISTENING: Mutex<bool> = Mutex::new(false);
    let mut listening = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
    if !*listening {
        // SAFETY: `handle` is a function, which is valid for as long as the process lives.
        check(unsafe { SetConsoleCtrlHandler(Some(handle), 1) })?;
        *listening = true;
    }
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(crate) fn wait() -> io::Result<()> {
    let heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    drop(TELL.wait_while(heard, |heard| !*heard).unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

/// Handles the first Ctrl-C or Ctrl-Break, and passes later ones to the handlers that were there
/// before, by returning zero. It never returns from the console's closing and from shutdown.
unsafe extern "system" fn handle(event: u32) -> BOOL {
    // Only services receive it, when any user logs off.
    if event == CTRL_LOGOFF_EVENT {
        return 0;
    }
    let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    let first = !std::mem::replace(&mut *heard, true);
    drop(heard);
    TELL.notify_all();
    if !matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT) {
        // The process ends when this handler returns, or when it exits by itself. The handler
        // leaves it the time to do so.
        loop {
            thread::park();
        }
    }
    first.into()
}
