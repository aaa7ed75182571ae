//! A stream that a child gets as its standard input: the one handle that reaches a program without
//! further arrangement, and reaches no other child.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::process::Stdio;
use std::ptr;

use windows_sys::Win32::System::Console::{STD_INPUT_HANDLE, SetStdHandle};

use super::pipe;

/// This process's end, and the child's.
pub(crate) fn pair() -> io::Result<(OwnedHandle, Stdio)> {
    let (server, client) = pipe::pair()?;
    Ok((server, client.handle.into()))
}

/// The end that this process has from its parent.
pub(crate) fn from_parent() -> io::Result<OwnedHandle> {
    let end = io::stdin().as_handle().try_clone_to_owned()?;
    pipe::check_adopted(&end)?;
    Ok(end)
}

/// Empties standard input, so that the stream ends with its owner and no child of this process
/// inherits it.
pub(crate) fn empty_stdin() -> io::Result<()> {
    let before = io::stdin().as_raw_handle();
    // SAFETY: the call takes a number, and accepts null as no handle.
    if unsafe { SetStdHandle(STD_INPUT_HANDLE, ptr::null_mut()) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle was this process's standard input. No code closes that, and none can find
    // it any more.
    drop(unsafe { OwnedHandle::from_raw_handle(before) });
    Ok(())
}

#[cfg(feature = "tokio")]
pub(crate) fn into_async(end: OwnedHandle) -> io::Result<super::Stream> {
    Ok(super::Stream::adopted(super::registered::adopt(end)?))
}

#[cfg(feature = "blocking")]
pub(crate) fn into_blocking(end: OwnedHandle) -> io::Result<super::blocking::Stream> {
    super::blocking::Stream::adopted(end)
}
