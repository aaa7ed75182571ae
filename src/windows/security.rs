//! Controls who may open a pipe, and identifies its peers.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::c_void;
use std::io::{self, ErrorKind};
use std::mem::size_of;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::slice;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{
    ERROR_CANNOT_IMPERSONATE, ERROR_CANT_OPEN_ANONYMOUS, ERROR_NO_TOKEN, HANDLE, LocalFree,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
    SDDL_REVISION_1, SE_KERNEL_OBJECT,
};
use windows_sys::Win32::Security::{
    CheckTokenMembership, CreateWellKnownSid, DACL_SECURITY_INFORMATION,
    GROUP_SECURITY_INFORMATION, GetSecurityDescriptorDacl, GetSecurityDescriptorLength,
    GetSidSubAuthority, GetSidSubAuthorityCount, GetTokenInformation, LABEL_SECURITY_INFORMATION,
    OWNER_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, RevertToSelf, SECURITY_ATTRIBUTES,
    SECURITY_MAX_SID_SIZE, TOKEN_ACCESS_MASK, TOKEN_IMPERSONATE, TOKEN_INFORMATION_CLASS,
    TOKEN_MANDATORY_LABEL, TOKEN_QUERY, TOKEN_USER, TokenIntegrityLevel, TokenUser, WinNetworkSid,
};
use windows_sys::Win32::System::Pipes::{
    GetNamedPipeClientProcessId, GetNamedPipeClientSessionId, GetNamedPipeServerProcessId,
    GetNamedPipeServerSessionId, ImpersonateNamedPipeClient,
};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, OpenProcessToken, OpenThreadToken, SetThreadToken,
};

use super::system::{End, check, code, raw, wide};
use crate::error::{Error, Operation, Reason};
use crate::options::Access;
use crate::peer::{PeerCredentials, UserId};

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
    // SAFETY: the call succeeded, so `token` is an open handle, and nothing else owns it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let sid = token_user(&token)?;
    Ok(OWN.get_or_init(|| sid))
}

/// The number of the session this process runs in.
pub(super) fn own_session() -> Option<String> {
    let mut session = 0;
    // SAFETY: it takes a number, and `session` is a place for one.
    let found = unsafe { ProcessIdToSessionId(std::process::id(), &mut session) };
    check(found).ok().map(|()| session.to_string())
}

/// The SID of the client at the other end of a server's pipe.
fn client_sid(pipe: &impl AsHandle) -> io::Result<String> {
    token_user(&client_token(pipe)?)
}

/// The integrity level of the client at the other end of a server's pipe.
pub(super) fn client_integrity(pipe: &impl AsHandle) -> io::Result<u32> {
    token_integrity(&client_token(pipe)?)
}

/// Returns the access token of the client at the other end of a server's pipe.
fn client_token(pipe: &impl AsHandle) -> io::Result<OwnedHandle> {
    impersonated_token(pipe).map_err(|error| not_told(error, client_process(pipe)))
}

/// Replaces the system's error for a client that it does not identify.
///
/// If a client opened the pipe without an impersonation level (`SECURITY_SQOS_PRESENT`), NT
/// identifies it only once the server has read data that the client wrote.
fn not_told(error: io::Error, process: Option<u32>) -> io::Error {
    let (reason, cause, advice) = match code(&error) {
        Some(ERROR_CANNOT_IMPERSONATE) => (
            Reason::PeerNotToldYet { process },
            "Windows identifies this client only once data from it has been read",
            "ask again after the first read",
        ),
        Some(ERROR_CANT_OPEN_ANONYMOUS) => (
            Reason::AnonymousPeer { process },
            "the client connected at the anonymous level, which hides its user",
            "",
        ),
        _ => return error,
    };
    let told = Error::new(reason, cause).advising(advice).caused_by(error);
    told.in_operation(Operation::Identify).into()
}

fn impersonated_token(pipe: &impl AsHandle) -> io::Result<OwnedHandle> {
    // The thread may impersonate a user already, and goes on doing so afterwards.
    let former = thread_token(TOKEN_IMPERSONATE);
    let former = match former {
        Err(error) if code(&error) == Some(ERROR_NO_TOKEN) => None,
        former => Some(former?),
    };
    // While this thread impersonates, it must do nothing but open the token.
    // SAFETY: the handle is open as long as the pipe is borrowed.
    check(unsafe { ImpersonateNamedPipeClient(raw(pipe)) })?;
    let client = thread_token(TOKEN_QUERY);
    // A thread that cannot revert would go on as another user.
    // SAFETY: it has no preconditions.
    if unsafe { RevertToSelf() } == 0 {
        std::process::abort();
    }
    if let Some(former) = former {
        // SAFETY: null is the calling thread, and the token is open.
        if unsafe { SetThreadToken(null(), former.as_raw_handle()) } == 0 {
            std::process::abort();
        }
    }
    client
}

/// Returns the token of the user that this thread impersonates.
///
/// # Errors
///
/// `ERROR_NO_TOKEN` if the thread impersonates no user.
fn thread_token(access: TOKEN_ACCESS_MASK) -> io::Result<OwnedHandle> {
    // SAFETY: it returns a constant.
    let thread = unsafe { GetCurrentThread() };
    let mut token = null_mut();
    // "As self" uses the rights of the process: an identification-level token may be queried, but
    // grants no access.
    // SAFETY: `token` is a place for a handle.
    check(unsafe { OpenThreadToken(thread, access, 1, &mut token) })?;
    // SAFETY: the call succeeded, so `token` is an open handle, and nothing else owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(token) })
}

/// Whether this thread acts for a user who was logged on over the network, as by SSH or WinRM.
fn over_network() -> io::Result<bool> {
    let mut sid = [0_u32; SECURITY_MAX_SID_SIZE as usize / size_of::<u32>()];
    let (place, mut length) = (sid.as_mut_ptr().cast(), SECURITY_MAX_SID_SIZE);
    // SAFETY: null means that no domain is wanted, and the place is aligned and has the given
    // length.
    check(unsafe { CreateWellKnownSid(WinNetworkSid, null_mut(), place, &mut length) })?;
    let mut member = 0;
    // SAFETY: null is the thread's own token, the SID was made above, and `member` is a place for a
    // BOOL.
    check(unsafe { CheckTokenMembership(null_mut(), place, &mut member) })?;
    Ok(member != 0)
}

/// The SID of a pipe's owner, which is its server's user; `None` where the pipe has no owner.
pub(super) fn owner_sid(pipe: &impl AsHandle) -> io::Result<Option<String>> {
    let (owner, _descriptor) = security_of(pipe, OWNER_SECURITY_INFORMATION)?;
    if owner.is_null() {
        return Ok(None);
    }
    // SAFETY: the call succeeded, so `owner` points to a SID in the descriptor, which is not freed
    // yet.
    unsafe { sid_to_string(owner) }.map(Some)
}

/// Returns the owner, group, rights and integrity level of a pipe, as the system stores them.
pub(super) fn descriptor(pipe: &impl AsHandle) -> io::Result<Vec<u8>> {
    let parts = OWNER_SECURITY_INFORMATION
        | GROUP_SECURITY_INFORMATION
        | DACL_SECURITY_INFORMATION
        | LABEL_SECURITY_INFORMATION;
    let (_, descriptor) = security_of(pipe, parts)?;
    // SAFETY: the call succeeded, so the descriptor is valid, and it is not freed yet.
    let length = unsafe { GetSecurityDescriptorLength(descriptor.0) } as usize;
    // SAFETY: the descriptor is self-relative, so all of it is within this length.
    Ok(unsafe { slice::from_raw_parts(descriptor.0.cast::<u8>(), length) }.to_vec())
}

/// Returns the owner of a pipe, and a self-relative descriptor with the given parts. The owner is
/// null or points into the descriptor.
fn security_of(pipe: &impl AsHandle, parts: u32) -> io::Result<(PSID, LocalMemory)> {
    let mut owner: PSID = null_mut();
    let mut descriptor: PSECURITY_DESCRIPTOR = null_mut();
    // SAFETY: the handle is open as long as the pipe is borrowed. Each place is one for a pointer,
    // or null, which means not wanted.
    let code = unsafe {
        GetSecurityInfo(
            raw(pipe),
            SE_KERNEL_OBJECT,
            parts,
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
    Ok((owner, LocalMemory(descriptor)))
}

/// The credentials of the peer of `pipe`.
pub(super) fn peer(pipe: &impl AsHandle, end: End) -> io::Result<PeerCredentials> {
    let (sid, process) = match end {
        End::Server => (client_sid(pipe)?, client_process(pipe)),
        End::Client => {
            let Some(owner) = owner_sid(pipe)? else {
                let what = "the server's pipe does not name its owner";
                return Err(io::Error::new(ErrorKind::Unsupported, what));
            };
            (owner, server_process(pipe))
        }
    };
    Ok(PeerCredentials::new(UserId::Sid(sid), None, process))
}

fn client_process(pipe: &impl AsHandle) -> Option<u32> {
    let mut process = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `process` is a place for a
    // number.
    let known = unsafe { GetNamedPipeClientProcessId(raw(pipe), &mut process) };
    (known != 0).then_some(process)
}

fn server_process(pipe: &impl AsHandle) -> Option<u32> {
    let mut process = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `process` is a place for a
    // number.
    let known = unsafe { GetNamedPipeServerProcessId(raw(pipe), &mut process) };
    (known != 0).then_some(process)
}

pub(super) fn client_session(pipe: &impl AsHandle) -> io::Result<u32> {
    let mut session = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `session` is a place for a
    // number.
    check(unsafe { GetNamedPipeClientSessionId(raw(pipe), &mut session) })?;
    Ok(session)
}

pub(super) fn server_session(pipe: &impl AsHandle) -> io::Result<u32> {
    let mut session = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `session` is a place for a
    // number.
    check(unsafe { GetNamedPipeServerSessionId(raw(pipe), &mut session) })?;
    Ok(session)
}

/// Who may open a pipe and what they may do with it, in the system's format.
pub(super) struct SecurityDescriptor(LocalMemory);

// SAFETY: the descriptor is never changed, and its memory is not tied to a thread.
unsafe impl Send for SecurityDescriptor {}
// SAFETY: as above.
unsafe impl Sync for SecurityDescriptor {}

impl SecurityDescriptor {
    pub(super) fn new(access: Access) -> io::Result<Self> {
        Self::chosen(access, false)
    }

    pub(super) fn chosen(access: Access, app_containers: bool) -> io::Result<Self> {
        let mut sddl = sddl(access, own_sid()?, over_network()?);
        if app_containers {
            sddl.push_str(APP_CONTAINERS);
        }
        Self::from_sddl(&sddl)
    }

    /// # Errors
    ///
    /// `InvalidInput` if the text is not a descriptor, or has no access list: such a descriptor
    /// keeps no one out.
    pub(super) fn from_sddl(sddl: &str) -> io::Result<Self> {
        let invalid = |what: &str| {
            let what = format!("{sddl:?} cannot be a pipe's security descriptor: {what}");
            io::Error::new(ErrorKind::InvalidInput, what)
        };
        // The system would read the text only up to the NUL.
        if sddl.contains('\0') {
            return Err(invalid("it contains NUL"));
        }
        let text = wide(sddl);
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
        })
        .map_err(|error| invalid(&error.to_string()))?;
        let descriptor = Self(LocalMemory(descriptor));
        if descriptor.has_dacl()? {
            return Ok(descriptor);
        }
        Err(invalid("it has no D: part that grants access"))
    }

    fn has_dacl(&self) -> io::Result<bool> {
        let (mut present, mut defaulted, mut dacl) = (0, 0, null_mut());
        // SAFETY: the descriptor is valid, and the others are places for the results.
        check(unsafe {
            GetSecurityDescriptorDacl(self.0.0, &mut present, &mut dacl, &mut defaulted)
        })?;
        // A list that is present but null allows everyone everything.
        Ok(present != 0 && !dacl.is_null())
    }

    /// Returns attributes for a call to the system, valid while `self` lives. They keep the handle
    /// from being inherited.
    pub(super) fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.0.0,
            bInheritHandle: 0,
        }
    }
}

/// Allows all application packages to connect, which the system checks in addition to the user's
/// rights. The label is needed because such apps run at a low integrity level, and could not write
/// otherwise.
const APP_CONTAINERS: &str = "(A;;0x0012019b;;;S-1-15-2-1)S:(ML;;NW;;;LW)";

/// The owner is explicit because an elevated process would have a group as its owner, and clients
/// compare it. The entry that denies the network comes first. It is a second safeguard, because the
/// pipe itself refuses remote clients. If this process was logged on over the network, the entry is
/// left out: it would deny us our own pipe. Everyone may read and write, but not create another
/// instance of the pipe (0x4), which would receive the server's clients.
fn sddl(access: Access, own: &str, over_network: bool) -> String {
    let network = if over_network { "" } else { "(D;;GA;;;NU)" };
    let owned = format!("O:{own}G:{own}D:P{network}");
    match access {
        Access::Owner => format!("{owned}(A;;GA;;;{own})"),
        Access::Everyone => format!("{owned}(A;;GA;;;SY)(A;;GA;;;{own})(A;;0x0012019b;;;WD)"),
    }
}

/// Memory that the system allocated for us.
struct LocalMemory(*mut c_void);

impl Drop for LocalMemory {
    fn drop(&mut self) {
        // SAFETY: the pointer comes from a call whose result `LocalFree` must free, and it is freed
        // only here.
        unsafe { LocalFree(self.0) };
    }
}

/// A TOKEN_USER or TOKEN_MANDATORY_LABEL with the largest SID, of 68 bytes, takes 84 bytes. The
/// elements are `u64` for the alignment.
type TokenInformation = [u64; 16];

/// Writes token information to `buffer`. It contains pointers into `buffer`, which must not be
/// moved.
fn token_information(
    token: &OwnedHandle,
    class: TOKEN_INFORMATION_CLASS,
    buffer: &mut TokenInformation,
) -> io::Result<()> {
    let mut length = 0;
    let token: HANDLE = token.as_raw_handle();
    // SAFETY: the token is open, and the buffer has the given length.
    check(unsafe {
        GetTokenInformation(
            token,
            class,
            buffer.as_mut_ptr().cast(),
            size_of::<TokenInformation>() as u32,
            &mut length,
        )
    })
}

fn token_user(token: &OwnedHandle) -> io::Result<String> {
    let mut buffer = TokenInformation::default();
    token_information(token, TokenUser, &mut buffer)?;
    // SAFETY: the call succeeded, so the buffer, which is aligned, begins with a TOKEN_USER.
    let user = unsafe { buffer.as_ptr().cast::<TOKEN_USER>().read() };
    // SAFETY: the SID follows the TOKEN_USER in the buffer.
    unsafe { sid_to_string(user.User.Sid) }
}

fn token_integrity(token: &OwnedHandle) -> io::Result<u32> {
    let mut buffer = TokenInformation::default();
    token_information(token, TokenIntegrityLevel, &mut buffer)?;
    // SAFETY: the call succeeded, so the buffer, which is aligned, begins with a
    // TOKEN_MANDATORY_LABEL.
    let label = unsafe { buffer.as_ptr().cast::<TOKEN_MANDATORY_LABEL>().read() };
    let sid = label.Label.Sid;
    // SAFETY: the SID follows the label in the buffer.
    let count = unsafe { GetSidSubAuthorityCount(sid) };
    // SAFETY: the call returned a pointer into the SID.
    let count = unsafe { count.read() };
    let Some(last) = count.checked_sub(1) else {
        return Err(io::Error::new(ErrorKind::InvalidData, "an integrity level without a number"));
    };
    // SAFETY: as above, and the SID has a part with this index.
    let level = unsafe { GetSidSubAuthority(sid, u32::from(last)) };
    // SAFETY: the call returned a pointer into the SID.
    Ok(unsafe { level.read() })
}

/// # Safety
///
/// `sid` points to a SID.
unsafe fn sid_to_string(sid: PSID) -> io::Result<String> {
    let mut text = null_mut();
    // SAFETY: the caller guarantees a valid SID; `text` is a place for a pointer.
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
        // SAFETY: the caller guarantees that the text ends in NUL, and no unit before this one was
        // NUL.
        let unit = unsafe { text.wrapping_add(units.len()).read() };
        if unit == 0 {
            return String::from_utf16_lossy(&units);
        }
        units.push(unit);
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests;
