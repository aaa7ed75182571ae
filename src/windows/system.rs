//! Helpers for calls to the system: handles, texts and outcomes.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle};

use windows_sys::Win32::Foundation::HANDLE;

/// The ends of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Server,
    Client,
}

pub(super) fn raw(pipe: &impl AsHandle) -> HANDLE {
    pipe.as_handle().as_raw_handle()
}

/// Converts text to the form that the system takes: UTF-16 that ends in NUL.
pub(super) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// Returns the last OS error if a call returned FALSE.
pub(super) fn check(success: i32) -> io::Result<()> {
    if success == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the system's code of an error, if it has one.
pub(super) fn code(error: &io::Error) -> Option<u32> {
    error.raw_os_error().map(|code| code as u32)
}
