//! Windows.
#![allow(unsafe_code, reason = "system calls")]

mod listen;
mod socket;

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sockpipe::{Endpoint, Listener, Stream, UserId, shutdown_signal};
use windows_sys::Win32::Foundation::{HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1,
    SE_KERNEL_OBJECT,
};
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GROUP_SECURITY_INFORMATION, OWNER_SECURITY_INFORMATION,
    PSECURITY_DESCRIPTOR,
};
use windows_sys::Win32::System::Threading::{
    OpenProcess, PROCESS_NAME_WIN32, PROCESS_QUERY_LIMITED_INFORMATION, QueryFullProcessImageNameW,
};

pub use self::listen::{
    check_passed, closed_directory, listen_options, passed_is_connected, passed_listener,
    passed_stream, user_id,
};
pub use self::socket::{Attached, Socket};
use super::Access;

/// Completes at the first event of the console that asks the process to stop. They are heard from
/// now on.
pub fn asked_to_stop() -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    Box::pin(shutdown_signal())
}

/// There is no such limit.
pub fn check_room() -> io::Result<()> {
    Ok(())
}

/// There is no such limit.
pub fn bear_file_limit() -> io::Result<()> {
    Ok(())
}

/// A command. It learns by its pipes alone that its client has left.
pub struct Group {
    child: Mutex<Option<Child>>,
    ends: Mutex<Option<(ChildStdout, ChildStdin)>>,
}

impl Group {
    /// Starts the command.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let ends = child.stdout.take().zip(child.stdin.take());
        Ok(Self { child: Mutex::new(Some(child)), ends: Mutex::new(ends) })
    }

    /// Only the first process of a Unix system asks.
    pub fn is_led_by(&self, _: u32) -> bool {
        false
    }

    /// What it prints, and what it reads; once.
    pub fn ends(&self) -> Option<(ChildStdout, ChildStdin)> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the command's end; once.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        child.ok_or(ErrorKind::NotFound)?.wait()
    }

    /// There is no such signal.
    pub fn tell(&self) {}

    /// It is left to end by itself.
    pub fn kill(&self) {}

    /// It was not told to end, so nothing is waited for.
    pub fn wait_until(&self, _: Instant) {}
}

/// Standard input.
pub fn stdin() -> impl Read + Send + 'static {
    io::stdin()
}

/// Standard output, without the line buffer of std where it is no console.
pub fn stdout() -> Box<dyn Write + Send> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        if let Ok(file) = stdout.as_handle().try_clone_to_owned() {
            return Box::new(File::from(file));
        }
    }
    Box::new(stdout)
}

/// It is seen by a write only.
pub async fn stdout_unread() {
    std::future::pending::<()>().await;
}

/// Nobody can remove it.
pub fn keep_name(_: &mut Listener) -> io::Result<()> {
    Ok(())
}

/// Pipes pass none.
pub fn refuse_descriptors(_: &Listener) -> bool {
    true
}

/// There is no such process.
pub fn is_first_process() -> bool {
    false
}

/// The system takes them.
pub fn take_orphans(_: impl Fn(u32) -> bool) {}

/// The allocator decides.
pub fn give_back_memory() {}

/// The program that a process runs, where this user may know.
pub fn program(pid: u32) -> Option<String> {
    let process = open_process(pid)?;
    let mut path = [0_u16; 1024];
    let mut length = path.len() as u32;
    let (to, process) = (path.as_mut_ptr(), process.as_raw_handle());
    // SAFETY: the handle is open, and the buffer as long as is said.
    let done = unsafe { QueryFullProcessImageNameW(process, PROCESS_NAME_WIN32, to, &mut length) };
    (done != 0).then(|| String::from_utf16_lossy(&path[..length as usize]))
}

fn open_process(pid: u32) -> Option<OwnedHandle> {
    // SAFETY: it has no preconditions.
    let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    if process.is_null() {
        return None;
    }
    // SAFETY: the call succeeded, so it is an open handle, and nobody else has it.
    Some(unsafe { OwnedHandle::from_raw_handle(process) })
}

/// Names would have to be asked of the domain, which can take seconds.
pub fn user(id: &UserId) -> String {
    id.to_string()
}

/// By the pipe's security descriptor, for which there has to be a connection.
pub fn who_may_connect(_: &Endpoint, stream: Option<&Stream>) -> Option<Access> {
    let stream = stream?;
    let owner = stream.peer_credentials().ok()?.user().to_string();
    let rights = security_descriptor(stream.as_handle().as_raw_handle())?;
    // This connection was accepted.
    Some(Access { owner, uid: None, rights, meaning: None, admits: true })
}

/// A pipe has no directory that could be in the way.
pub fn why_no_server(_: &Endpoint) -> Option<String> {
    None
}

/// There are no links to pipes.
pub fn leads_to(_: &Endpoint) -> Option<PathBuf> {
    None
}

/// No user here has such a number.
pub fn is_own(_: u32) -> bool {
    false
}

/// As above.
pub fn is_stranger(_: u32) -> bool {
    false
}

fn security_descriptor(pipe: HANDLE) -> Option<String> {
    const PARTS: u32 =
        OWNER_SECURITY_INFORMATION | GROUP_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the handle is one of a stream that the caller borrows; `descriptor` is a place for a
    // pointer, and null means not wanted.
    let code = unsafe {
        GetSecurityInfo(
            pipe,
            SE_KERNEL_OBJECT,
            PARTS,
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            &mut descriptor,
        )
    };

    if code != 0 {
        return None;
    }
    let (mut text, mut length) = (null_mut(), 0);
    // SAFETY: the call succeeded, so `descriptor` is one; the others are places for what is asked.
    let done = unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor,
            SDDL_REVISION_1,
            PARTS,
            &mut text,
            &mut length,
        )
    };
    // SAFETY: the descriptor is from a call whose result is to be freed so, and not used again.
    unsafe { LocalFree(descriptor) };
    if done == 0 {
        return None;
    }
    // SAFETY: the call succeeded, so `text` points to that many characters.
    let characters = unsafe { std::slice::from_raw_parts(text, length as usize) };
    let sddl = String::from_utf16_lossy(characters);
    // SAFETY: the text is from a call whose result is to be freed so, and not used again.
    unsafe { LocalFree(text.cast()) };
    Some(sddl.trim_end_matches('\0').to_owned())
}
