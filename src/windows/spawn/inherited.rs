//! Makes sure that a daemon has the handles that it was given, and no others.
//!
//! A child inherits every inheritable handle of this process, including those of another thread or
//! of the parent. If one is a build's pipe, the build would not see its end while the daemon lives.
//! The standard library has no stable way to list the handles that a child inherits
//! (`PROC_THREAD_ATTRIBUTE_HANDLE_LIST`). Changing this process's handles for a moment would affect
//! the children of other threads. Starting the program without the standard library would lose what
//! a `Command` does not reveal, such as that its environment is cleared.
//!
//! So the child starts suspended, the handles that it was not given are closed in it, and then it
//! runs. An inherited handle has the same number in the child.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::process::{Child, Command};
use std::ptr::{null_mut, without_provenance_mut};

use windows_sys::Win32::Foundation::{
    DUPLICATE_CLOSE_SOURCE, DUPLICATE_SAME_ACCESS, DuplicateHandle, GetHandleInformation, HANDLE,
    HANDLE_FLAG_INHERIT, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::Threading::{
    CREATE_SUSPENDED, GetCurrentProcess, GetProcessHandleCount, GetProcessMitigationPolicy,
    OpenThread, ProcessStrictHandleCheckPolicy, ResumeThread, THREAD_SUSPEND_RESUME,
};

use super::super::system::check;

/// Numbers of handles are multiples of this.
const STEP: usize = 4;
/// The most numbers to check. The search goes this far only if handles that were counted are closed
/// meanwhile, and so are not found.
const MOST: usize = 1 << 16;
/// The same where the system does not count the handles, as in Wine 8.
const UNCOUNTED: usize = 1 << 12;

/// Starts `command` without the handles that it was not given. If this process is killed before the
/// child is resumed, which takes milliseconds, it leaves a process that never runs.
pub(super) fn spawn(command: &mut Command, flags: u32) -> io::Result<Child> {
    let before = inheritable();
    let mut child = command.creation_flags(flags | CREATE_SUSPENDED).spawn()?;
    // The standard library creates the child's own handles after the first list, and has closed
    // them here by now. So they are not in both lists, and stay open in the child.
    for handle in inheritable() {
        if before.contains(&handle) {
            close_in(&child, handle);
        }
    }
    if let Err(error) = resume(child.id()) {
        let _ = child.kill();
        return Err(error);
    }
    Ok(child)
}

/// The numbers of this process's handles that a child would inherit.
fn inheritable() -> Vec<usize> {
    let (mut found, (mut left, most)) = (Vec::new(), how_many());
    for number in (1..=most).map(|number| number * STEP) {
        if left == 0 {
            break;
        }
        let mut flags = 0;
        // SAFETY: the call takes any number; `flags` is a place for a number.
        if unsafe { GetHandleInformation(numbered(number), &mut flags) } != 0 {
            left -= 1;
            if flags & HANDLE_FLAG_INHERIT != 0 {
                found.push(number);
            }
        }
    }
    found
}

/// Returns how many handles this process has, and how many numbers to check for them. Both are zero
/// if the system ends a process that queries an unused number.
fn how_many() -> (u32, usize) {
    // SAFETY: it returns a constant.
    let process = unsafe { GetCurrentProcess() };
    let (mut policy, length) = (0_u32, size_of::<u32>());
    let (to, which) = ((&raw mut policy).cast(), ProcessStrictHandleCheckPolicy);
    // SAFETY: `policy` is a place for the flags, which are one number, and has the given length.
    let told = unsafe { GetProcessMitigationPolicy(process, which, to, length) };
    if told != 0 && policy != 0 {
        return (0, 0);
    }
    let mut count = 0;
    // SAFETY: `count` is a place for a number.
    let told = unsafe { GetProcessHandleCount(process, &mut count) };
    if told != 0 && count != 0 { (count, MOST) } else { (u32::MAX, UNCOUNTED) }
}

fn numbered(handle: usize) -> HANDLE {
    without_provenance_mut(handle)
}

/// Moves a handle out of a child that does not run yet, and closes it. The child may have no handle
/// with this number.
fn close_in(child: &Child, handle: usize) {
    let (process, handle) = (child.as_raw_handle(), numbered(handle));
    // SAFETY: it returns a constant.
    let here = unsafe { GetCurrentProcess() };
    let (mut taken, options) = (null_mut(), DUPLICATE_CLOSE_SOURCE | DUPLICATE_SAME_ACCESS);
    // SAFETY: the child's handle is open, and `taken` is a place for a handle. The system looks the
    // other number up in the child, which has run no code that could use it.
    let done = unsafe { DuplicateHandle(process, handle, here, &mut taken, 0, 0, options) };
    if done != 0 && !taken.is_null() {
        // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
        drop(unsafe { OwnedHandle::from_raw_handle(taken) });
    }
}

/// Resumes the threads of a new process. It has one, and a second if a monitoring program added
/// one.
fn resume(process: u32) -> io::Result<()> {
    // SAFETY: it takes numbers.
    let threads = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
    if threads == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
    let threads = unsafe { OwnedHandle::from_raw_handle(threads) };
    let handle = threads.as_raw_handle();
    let dw_size = size_of::<THREADENTRY32>() as u32;
    let mut entry = THREADENTRY32 { dwSize: dw_size, ..THREADENTRY32::default() };
    let mut resumed = Err(io::Error::other("the new process has no thread"));
    // SAFETY: the handle is open, and `entry` is a place for an entry, with its length set.
    let mut more = unsafe { Thread32First(handle, &mut entry) };
    while more != 0 {
        if entry.th32OwnerProcessID == process {
            resumed = resume_thread(entry.th32ThreadID);
        }
        // SAFETY: as above.
        more = unsafe { Thread32Next(handle, &mut entry) };
    }
    resumed
}

fn resume_thread(thread: u32) -> io::Result<()> {
    // SAFETY: it takes numbers.
    let thread = unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, thread) };
    check(i32::from(!thread.is_null()))?;
    // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
    let thread = unsafe { OwnedHandle::from_raw_handle(thread) };
    // SAFETY: the handle is open.
    let before = unsafe { ResumeThread(thread.as_raw_handle()) };
    check(i32::from(before != u32::MAX))
}
