//! Other processes of this user.
#![allow(unsafe_code, reason = "system calls")]

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{FILETIME, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE,
    PROCESS_TERMINATE, TerminateProcess, WaitForSingleObject,
};

/// `None` where there is none, or none that this user may end.
pub(super) fn open(pid: u32) -> Option<OwnedHandle> {
    let access = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE | PROCESS_TERMINATE;
    // SAFETY: the call takes numbers.
    let process = unsafe { OpenProcess(access, 0, pid) };
    // SAFETY: it is an open handle, and nobody else has it.
    (!process.is_null()).then(|| unsafe { OwnedHandle::from_raw_handle(process) })
}

/// In units of 100 ns.
pub(super) fn start_time(process: &OwnedHandle) -> Option<u64> {
    let mut times = [FILETIME::default(); 4];
    let [start, end, kernel, user] = &mut times;
    // SAFETY: the handle is open, and the others are places for times.
    let told = unsafe { GetProcessTimes(process.as_raw_handle(), start, end, kernel, user) };
    let since = u64::from(start.dwHighDateTime) << 32 | u64::from(start.dwLowDateTime);
    (told != 0).then_some(since)
}

pub(super) fn has_ended(process: &OwnedHandle) -> bool {
    // SAFETY: the handle is open.
    (unsafe { WaitForSingleObject(process.as_raw_handle(), 0) }) == WAIT_OBJECT_0
}

pub(super) fn kill(process: &OwnedHandle) -> bool {
    // SAFETY: the handle is open.
    (unsafe { TerminateProcess(process.as_raw_handle(), 1) }) != 0
}
