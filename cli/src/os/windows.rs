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
    passed_stream, restore_passed, user_id,
};
pub use self::socket::{Attached, Socket};
use super::Access;

/// Completes at the first event of the console that asks the process to stop. Events are caught
/// from now on.
pub fn asked_to_stop() -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    Box::pin(shutdown_signal())
}

/// Nothing to do: Windows has no such limit.
pub fn check_room() -> io::Result<()> {
    Ok(())
}

/// Nothing to do: Windows has no such limit.
pub fn bear_file_limit() -> io::Result<()> {
    Ok(())
}

/// A command. Only its pipes show it that its client has left.
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

    /// Called only by the first process of a Unix system.
    pub fn is_led_by(&self, _: u32) -> bool {
        false
    }

    /// Takes the pipes of its output and input. Returns them only once.
    pub fn ends(&self) -> Option<(ChildStdout, ChildStdin)> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the command's end. Call it only once.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        child.ok_or(ErrorKind::NotFound)?.wait()
    }

    /// Nothing to do: Windows has no such signal.
    pub fn tell(&self) {}

    /// Nothing to do: the command is left to end by itself.
    pub fn kill(&self) {}

    /// Returns at once, because the command was not asked to end.
    pub fn wait_until(&self, _: Instant) {}
}

/// Standard input.
pub fn stdin() -> impl Read + Send + 'static {
    io::stdin()
}

/// Standard output, without the line buffer of std unless it is a console.
pub fn stdout() -> Box<dyn Write + Send> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        if let Ok(file) = stdout.as_handle().try_clone_to_owned() {
            return Box::new(File::from(file));
        }
    }
    Box::new(stdout)
}

/// Never completes: only a write notices that the reader is gone.
pub async fn stdout_unread() {
    std::future::pending::<()>().await;
}

/// Nothing to do: the name of a pipe cannot be removed.
pub fn keep_name(_: &mut Listener) -> io::Result<()> {
    Ok(())
}

/// Always `true`: pipes pass no descriptors.
pub fn refuse_descriptors(_: &Listener) -> bool {
    true
}

/// Always `false`: Windows has no such process.
pub fn is_first_process() -> bool {
    false
}

/// Nothing to do: the system takes care of them.
pub fn take_orphans(_: impl Fn(u32) -> bool) {}

/// Nothing to do: the allocator decides.
pub fn give_back_memory() {}

/// Returns the program that a process runs, if this user may know.
pub fn program(pid: u32) -> Option<String> {
    let process = open_process(pid)?;
    let mut path = [0_u16; 1024];
    let mut length = path.len() as u32;
    let (to, process) = (path.as_mut_ptr(), process.as_raw_handle());
    // SAFETY: the handle is open, and the buffer has the length that is passed.
    let done = unsafe { QueryFullProcessImageNameW(process, PROCESS_NAME_WIN32, to, &mut length) };
    (done != 0).then(|| String::from_utf16_lossy(&path[..length as usize]))
}

fn open_process(pid: u32) -> Option<OwnedHandle> {
    // SAFETY: the call has no preconditions.
    let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    if process.is_null() {
        return None;
    }
    // SAFETY: the call succeeded, so the handle is open, and no other code owns it.
    Some(unsafe { OwnedHandle::from_raw_handle(process) })
}

/// Returns the SID only: a name would need a query to the domain, which can take seconds.
pub fn user(id: &UserId) -> String {
    id.to_string()
}

/// Reads the pipe's security descriptor, which needs a connection.
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

/// Nothing to follow: there are no links to pipes.
pub fn leads_to(_: &Endpoint) -> Option<PathBuf> {
    None
}

/// Always `false`: Windows has no such numbers of users.
pub fn is_own(_: u32) -> bool {
    false
}

/// Always `false`, for the same reason.
pub fn is_stranger(_: u32) -> bool {
    false
}

fn security_descriptor(pipe: HANDLE) -> Option<String> {
    const PARTS: u32 =
        OWNER_SECURITY_INFORMATION | GROUP_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the handle is that of a stream which the caller borrows. `descriptor` has room for a
    // pointer, and null means that a result is not wanted.
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
    // SAFETY: the call succeeded, so `descriptor` is valid. The other pointers have room for the
    // results.
    let done = unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor,
            SDDL_REVISION_1,
            PARTS,
            &mut text,
            &mut length,
        )
    };
    // SAFETY: the descriptor comes from a call whose result has to be freed in this way, and it is
    // not used again.
    unsafe { LocalFree(descriptor) };
    if done == 0 {
        return None;
    }
    // SAFETY: the call succeeded, so `text` points to that many characters.
    let characters = unsafe { std::slice::from_raw_parts(text, length as usize) };
    let sddl = String::from_utf16_lossy(characters);
    // SAFETY: the text comes from a call whose result has to be freed in this way, and it is not
    // used again.
    unsafe { LocalFree(text.cast()) };
    Some(sddl.trim_end_matches('\0').to_owned())
}
