//! Who may open a pipe, and who is at its ends.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::c_void;
use std::io;
use std::mem::size_of;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::null_mut;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
    SDDL_REVISION_1, SE_KERNEL_OBJECT,
};
use windows_sys::Win32::Security::{
    GetTokenInformation, OWNER_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, RevertToSelf,
    SECURITY_ATTRIBUTES, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::System::Pipes::{
    GetNamedPipeClientProcessId, GetNamedPipeServerProcessId, ImpersonateNamedPipeClient,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, OpenProcessToken, OpenThreadToken,
};

use super::pipe::{raw, wide};
use crate::options::Access;

pub(super) const SYSTEM: &str = "S-1-5-18";
pub(super) const ADMINISTRATORS: &str = "S-1-5-32-544";

/// The SID of the user this process runs as.
pub(super) fn own_sid() -> io::Result<&'static str> {
    static OWN: OnceLock<String> = OnceLock::new();
    if let Some(sid) = OWN.get() {
        return Ok(sid);
    }
    // SAFETY: it returns a constant.
    let process = unsafe { GetCurrentProcess() };
    let mut token = null_mut();
    // SAFETY: `token` is a place for a handle.
    check(unsafe { OpenProcessToken(process, TOKEN_QUERY, &mut token) })?;
    // SAFETY: the call succeeded, so `token` is an open handle, and nobody else has it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let sid = token_user(&token)?;
    Ok(OWN.get_or_init(|| sid))
}

/// The SID of the client at the other end of a server's pipe.
pub(super) fn client_sid(pipe: &impl AsHandle) -> io::Result<String> {
    // While this thread impersonates, it must do nothing but open the token.
    // SAFETY: the handle is open as long as the pipe is borrowed.
    check(unsafe { ImpersonateNamedPipeClient(raw(pipe)) })?;
    // SAFETY: it returns a constant.
    let thread = unsafe { GetCurrentThread() };
    let mut token = null_mut();
    // "As self": an identification-level token may be looked at, not used.
    // SAFETY: `token` is a place for a handle.
    let opened = check(unsafe { OpenThreadToken(thread, TOKEN_QUERY, 1, &mut token) });
    // SAFETY: it has no preconditions.
    if unsafe { RevertToSelf() } == 0 {
        // Going on would be going on as somebody else.
        std::process::abort();
    }
    opened?;
    // SAFETY: the call succeeded, so `token` is an open handle, and nobody else has it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    token_user(&token)
}

/// The SID of a pipe's owner, which is its server's user; `None` where the pipe has no owner.
pub(super) fn owner_sid(pipe: &impl AsHandle) -> io::Result<Option<String>> {
    let mut owner: PSID = null_mut();
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the handle is open as long as the pipe is borrowed, and the places are pointers' or null,
    // which means not wanted.
    let code = unsafe {
        GetSecurityInfo(
            raw(pipe),
            SE_KERNEL_OBJECT,
            OWNER_SECURITY_INFORMATION,
            &mut owner,
            null_mut(),
            null_mut(),
            null_mut(),
            &mut descriptor,
        )
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code as i32));
    }
    let _descriptor = LocalMemory(descriptor);
    if owner.is_null() {
        return Ok(None);
    }
    // SAFETY: the call succeeded, so `owner` points to a SID in the descriptor, which lives.
    unsafe { sid_to_string(owner) }.map(Some)
}

pub(super) fn client_process(pipe: &impl AsHandle) -> Option<u32> {
    let mut process = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `process` is a place for a number.
    let known = unsafe { GetNamedPipeClientProcessId(raw(pipe), &mut process) };
    (known != 0).then_some(process)
}

pub(super) fn server_process(pipe: &impl AsHandle) -> Option<u32> {
    let mut process = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `process` is a place for a number.
    let known = unsafe { GetNamedPipeServerProcessId(raw(pipe), &mut process) };
    (known != 0).then_some(process)
}

/// What a pipe is created with.
pub(super) struct SecurityDescriptor(LocalMemory);

// SAFETY: the descriptor is never changed, and its memory belongs to no thread.
unsafe impl Send for SecurityDescriptor {}
// SAFETY: as above.
unsafe impl Sync for SecurityDescriptor {}

impl SecurityDescriptor {
    pub(super) fn new(access: Access) -> io::Result<Self> {
        let text = wide(&sddl(access, own_sid()?));
        let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
        // SAFETY: the text ends in NUL, `descriptor` is a place for a pointer, and a null place
        // for the size means that it is not wanted.
        check(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &mut descriptor,
                null_mut(),
            )
        })?;
        Ok(Self(LocalMemory(descriptor)))
    }

    /// To pass to the system while `self` lives. The handle will not be inherited.
    pub(super) fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.0.0,
            bInheritHandle: 0,
        }
    }
}

/// The owner is named because that of an elevated process would be a group; clients compare it.
/// The network is refused first. Everyone may read and write, and not create another instance of
/// the pipe (0x4), with which to receive the server's clients.
pub(super) fn sddl(access: Access, own: &str) -> String {
    let owned = format!("O:{own}G:{own}D:P(D;;GA;;;NU)");
    match access {
        Access::Owner => format!("{owned}(A;;GA;;;{own})"),
        Access::Everyone => format!("{owned}(A;;GA;;;SY)(A;;GA;;;{own})(A;;0x0012019b;;;WD)"),
    }
}

/// Memory that the system allocated for us.
struct LocalMemory(*mut c_void);

impl Drop for LocalMemory {
    fn drop(&mut self) {
        // SAFETY: the pointer is from a call whose result is to be freed so, and only here.
        unsafe { LocalFree(self.0) };
    }
}

fn token_user(token: &OwnedHandle) -> io::Result<String> {
    // A TOKEN_USER with the largest SID, 68 bytes, takes 84; `u64` for the alignment.
    let mut buffer = [0_u64; 16];
    let mut length = 0;
    let token: HANDLE = token.as_raw_handle();
    // SAFETY: the token is open, and the buffer as long as is said.
    check(unsafe {
        GetTokenInformation(
            token,
            TokenUser,
            buffer.as_mut_ptr().cast(),
            size_of::<[u64; 16]>() as u32,
            &mut length,
        )
    })?;
    // SAFETY: the call succeeded, so the buffer, which is aligned, begins with a TOKEN_USER.
    let user = unsafe { buffer.as_ptr().cast::<TOKEN_USER>().read() };
    // SAFETY: the SID stands behind the TOKEN_USER, in the buffer.
    unsafe { sid_to_string(user.User.Sid) }
}

/// # Safety
///
/// `sid` points to a SID.
unsafe fn sid_to_string(sid: PSID) -> io::Result<String> {
    let mut text = null_mut();
    // SAFETY: the caller's promise; `text` is a place for a pointer.
    check(unsafe { ConvertSidToStringSidW(sid, &mut text) })?;
    let _text = LocalMemory(text.cast());
    // SAFETY: the call succeeded, so `text` ends in NUL.
    Ok(unsafe { from_wide(text) })
}

/// # Safety
///
/// `text` points to UTF-16 that ends in NUL.
unsafe fn from_wide(text: *const u16) -> String {
    let mut units = Vec::new();
    loop {
        // SAFETY: the caller's promise, and no unit before this one was NUL.
        let unit = unsafe { text.wrapping_add(units.len()).read() };
        if unit == 0 {
            return String::from_utf16_lossy(&units);
        }
        units.push(unit);
    }
}

/// The error of a call that returned a BOOL.
pub(super) fn check(success: i32) -> io::Result<()> {
    if success == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::Security::Authorization::ConvertSecurityDescriptorToStringSecurityDescriptorW;
    use windows_sys::Win32::Security::{DACL_SECURITY_INFORMATION, GROUP_SECURITY_INFORMATION};

    use super::*;

    /// As the system writes it: what was left out of our text would show here.
    fn text(descriptor: &SecurityDescriptor) -> String {
        let parts =
            OWNER_SECURITY_INFORMATION | GROUP_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
        let mut text = null_mut();
        // SAFETY: the descriptor is one; `text` is a place for a pointer, null means not wanted.
        check(unsafe {
            ConvertSecurityDescriptorToStringSecurityDescriptorW(
                descriptor.0.0,
                SDDL_REVISION_1,
                parts,
                &mut text,
                null_mut(),
            )
        })
        .expect("a text");
        let _text = LocalMemory(text.cast());
        // SAFETY: the call succeeded, so `text` ends in NUL.
        unsafe { from_wide(text) }
    }

    #[test]
    fn owner_only_names_the_user_alone_and_everyone_may_not_create() {
        let own = own_sid().expect("a user");
        assert!(own.starts_with("S-1-5-"), "{own}");
        let owned = format!("O:{own}G:{own}D:P(D;;GA;;;NU)");
        let owner = SecurityDescriptor::new(Access::Owner).expect("a descriptor");
        assert_eq!(text(&owner), format!("{owned}(A;;GA;;;{own})"));
        let everyone = SecurityDescriptor::new(Access::Everyone).expect("a descriptor");
        let expected = format!("{owned}(A;;GA;;;SY)(A;;GA;;;{own})(A;;0x12019b;;;WD)");
        assert_eq!(text(&everyone), expected);
        assert_eq!(everyone.attributes().bInheritHandle, 0);
    }
}
