//! What each call to the system needs: handles, texts and outcomes.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle};

use windows_sys::Win32::Foundation::HANDLE;

/// Which end of a pipe one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Server,
    Client,
}

pub(super) fn raw(pipe: &impl AsHandle) -> HANDLE {
    pipe.as_handle().as_raw_handle()
}

/// As the system wants text: UTF-16 that ends in NUL.
pub(super) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// The error of a call that returned a BOOL.
pub(super) fn check(success: i32) -> io::Result<()> {
    if success == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The system's number of an error.
pub(super) fn code(error: &io::Error) -> Option<u32> {
    error.raw_os_error().map(|code| code as u32)
}
