//! Other processes of this user.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, FILETIME, WAIT_OBJECT_0,
};
use windows_sys::Win32::System::Threading::{
    CreateMutexW, GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, TerminateProcess, WaitForSingleObject,
};

use super::security::SecurityDescriptor;
use super::system::{code, wide};
use crate::options::Access;

/// The longest name, in UTF-16 units. A mutex may have 260 of them and a file 255, including the
/// prefix and suffix.
const LONGEST: usize = 200;

/// Takes a lock that one process of the machine can hold at a time. Returns `None` while another
/// process holds it.
///
/// The lock is held as long as the mutex exists. Owning the mutex would tie the lock to a thread.
pub(super) fn alone(name: &str) -> io::Result<Option<OwnedHandle>> {
    let wide_name = wide(&format!(r"Global\{}", shortened(name)));
    let security = SecurityDescriptor::new(Access::Owner)?;
    let attributes = security.attributes();
    // SAFETY: the attributes are valid, the descriptor in them outlives the call, and the name
    // ends in NUL.
    let mutex = unsafe { CreateMutexW(&attributes, 0, wide_name.as_ptr()) };
    let error = io::Error::last_os_error();
    if mutex.is_null() {
        // The mutex belongs to another user.
        return if code(&error) == Some(ERROR_ACCESS_DENIED) { Ok(None) } else { Err(error) };
    }
    // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
    let mutex = unsafe { OwnedHandle::from_raw_handle(mutex) };
    Ok((code(&error) != Some(ERROR_ALREADY_EXISTS)).then_some(mutex))
}

/// Returns a name of at most [`LONGEST`] units. A longer one is cut and gets a hash (FNV-1a) that
/// all versions of a program have in common.
pub(super) fn shortened(name: &str) -> String {
    let length = |name: &str| name.encode_utf16().count();
    if length(name) <= LONGEST {
        return name.to_owned();
    }

    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut start = name.to_owned();
    while length(&start) > LONGEST - 17 {
        start.pop();
    }
    format!("{start}~{hash:016x}")
}

/// Opens a process. Returns `None` if it does not exist, or if this user may not end it.
pub(super) fn open(pid: u32) -> Option<OwnedHandle> {
    let access = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE | PROCESS_TERMINATE;
    // SAFETY: the call takes numbers.
    let process = unsafe { OpenProcess(access, 0, pid) };
    // SAFETY: it is an open handle, and nothing else owns it.
    (!process.is_null()).then(|| unsafe { OwnedHandle::from_raw_handle(process) })
}

/// Returns when the process started, in units of 100 ns.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_that_differ_at_the_end_have_two_locks() {
        let long = format!("sockpipe-unit.{}.{}", std::process::id(), "n".repeat(240));
        let [one, other] = ["a", "b"].map(|end| format!("{long}{end}"));
        for name in [&one, &other] {
            assert_eq!(shortened(name).encode_utf16().count(), LONGEST);
        }
        // The cut does not fall inside a character of two units.
        assert_eq!(shortened(&"\u{1f600}".repeat(124)).encode_utf16().count(), LONGEST - 1);
        let held = alone(&one).expect("a lock").expect("it is free");
        assert!(alone(&one).expect("a lock").is_none(), "it is held");
        drop(alone(&other).expect("a lock").expect("it is another one"));
        drop(held);
        assert!(alone(&one).expect("a lock").is_some(), "it is free again");
        assert_eq!(shortened("short"), "short");
    }
}
