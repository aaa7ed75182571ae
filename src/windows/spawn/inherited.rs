//! Which handles a daemon has: what it was given, and nothing else.
//!
//! A child gets every handle of this process that can be inherited, also by another thread's doing
//! or from a parent: with a build's pipe, it would keep the build from seeing an end. The standard
//! library has no stable way to list what a child is to have (`PROC_THREAD_ATTRIBUTE_HANDLE_LIST`).
//! To change this process's handles for a moment would change other threads' children, and to start
//! the program without the standard library would lose what a `Command` does not tell, such as that
//! its environment is cleared.
//!
//! So the child starts suspended, what it got is closed in it, and then it runs. Handles that are
//! inherited have the same number in the child.

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
/// How many numbers are looked at, at most, where some that were counted are not found: they were
/// closed meanwhile.
const MOST: usize = 1 << 16;
/// The same where the system does not count them, as Wine 8.
const UNCOUNTED: usize = 1 << 12;

/// Starts `command` without the handles that it was not given. A client that is killed in between
/// leaves a process that never runs; that takes milliseconds.
pub(super) fn spawn(command: &mut Command, flags: u32) -> io::Result<Child> {
    let before = inheritable();
    let mut child = command.creation_flags(flags | CREATE_SUSPENDED).spawn()?;
    // The handles that the standard library made for the child alone were not there before, and are
    // gone by now. In the child they are open.
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

/// The numbers of this process's handles that a child would get.
fn inheritable() -> Vec<usize> {
    let (mut found, (mut left, most)) = (Vec::new(), how_many());
    for number in (1..=most).map(|number| number * STEP) {
        if left == 0 {
            break;
        }
        let mut flags = 0;
        // SAFETY: any number can be asked about; `flags` is a place for a number.
        if unsafe { GetHandleInformation(numbered(number), &mut flags) } != 0 {
            left -= 1;
            if flags & HANDLE_FLAG_INHERIT != 0 {
                found.push(number);
            }
        }
    }
    found
}

/// How many handles this process has, and how many numbers to look at for them. None where the
/// system ends a process that asks about a number of no handle.
fn how_many() -> (u32, usize) {
    // SAFETY: it returns a constant.
    let process = unsafe { GetCurrentProcess() };
    let (mut policy, length) = (0_u32, size_of::<u32>());
    let (to, which) = ((&raw mut policy).cast(), ProcessStrictHandleCheckPolicy);
    // SAFETY: `policy` is a place for what is asked, flags of one number, as long as is said.
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

/// Takes a handle from a child that does not run yet, and closes it. The child may have none of
/// this number.
fn close_in(child: &Child, handle: usize) {
    let (process, handle) = (child.as_raw_handle(), numbered(handle));
    // SAFETY: it returns a constant.
    let here = unsafe { GetCurrentProcess() };
    let (mut taken, options) = (null_mut(), DUPLICATE_CLOSE_SOURCE | DUPLICATE_SAME_ACCESS);
    // SAFETY: the child's handle is open, and `taken` a place for a handle. The other is a number
    // to look up in that process, which has run nothing that could use it.
    let done = unsafe { DuplicateHandle(process, handle, here, &mut taken, 0, 0, options) };
    if done != 0 && !taken.is_null() {
        // SAFETY: the call succeeded, so it is an open handle, and nobody else has it.
        drop(unsafe { OwnedHandle::from_raw_handle(taken) });
    }
}

/// Lets the only thread of a new process run. There may be a second one, of a program that watches.
fn resume(process: u32) -> io::Result<()> {
    // SAFETY: it takes numbers.
    let threads = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
    if threads == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it is an open handle, and nobody else has it.
    let threads = unsafe { OwnedHandle::from_raw_handle(threads) };
    let handle = threads.as_raw_handle();
    let dw_size = size_of::<THREADENTRY32>() as u32;
    let mut entry = THREADENTRY32 { dwSize: dw_size, ..THREADENTRY32::default() };
    let mut resumed = Err(io::Error::other("the new process has no thread"));
    // SAFETY: the handle is open, and `entry` a place for an entry that says how long it is.
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
    // SAFETY: the call succeeded, so it is an open handle, and nobody else has it.
    let thread = unsafe { OwnedHandle::from_raw_handle(thread) };
    // SAFETY: the handle is open.
    let before = unsafe { ResumeThread(thread.as_raw_handle()) };
    check(i32::from(before != u32::MAX))
}
