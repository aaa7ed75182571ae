//! The system calls on pipes, independent of the event loop that completes their I/O.
#![allow(unsafe_code, reason = "system calls")]

use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::time::Duration;

use windows_sys::Wdk::Storage::FileSystem::{
    FILE_PIPE_CLOSING_STATE, FILE_PIPE_CONNECTED_STATE, FILE_PIPE_LOCAL_INFORMATION,
    FilePipeLocalInformation, NtQueryInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_FILE_NOT_FOUND, ERROR_HANDLES_CLOSED, ERROR_NO_DATA, ERROR_PIPE_BUSY,
    ERROR_PIPE_NOT_CONNECTED, ERROR_SEM_TIMEOUT, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, PIPE_ACCESS_DUPLEX,
    SECURITY_IDENTIFICATION,
};
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
#[cfg(feature = "tokio")]
use windows_sys::Win32::System::Pipes::GetNamedPipeHandleStateW;
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, GetNamedPipeInfo, PIPE_READMODE_MESSAGE, PIPE_REJECT_REMOTE_CLIENTS,
    PIPE_SERVER_END, PIPE_TYPE_BYTE, PIPE_TYPE_MESSAGE, PIPE_UNLIMITED_INSTANCES,
    SetNamedPipeHandleState, WaitNamedPipeW,
};

use super::process;
use super::security::{SecurityDescriptor, descriptor};
use super::system::{End, check, code, raw, wide};
use crate::endpoint::{Endpoint, Form};
use crate::options::{Access, ListenOptions};

/// The default number of instances that wait for clients. With fewer, clients that connect at the
/// same time meet `PIPE_BUSY` more often and have to retry; more make little difference.
pub(super) const ARMED: usize = 4;
/// The most clients that are connected but not accepted yet, beyond those in the armed instances.
pub(super) const BACKLOG: usize = 128;
/// The default size of the buffer of each direction: what the system takes before a write has to
/// wait.
const QUOTA: u32 = 256 * 1024;

/// The pause between two checks whether the peer is gone.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The properties that all instances of a pipe share.
pub(super) struct Kind {
    security: SecurityDescriptor,
    messages: bool,
    quota: u32,
}

impl Kind {
    pub(super) fn new(access: Access) -> io::Result<Self> {
        Ok(Self { security: SecurityDescriptor::new(access)?, messages: true, quota: QUOTA })
    }

    pub(super) fn chosen(options: &ListenOptions) -> io::Result<Self> {
        let chosen = &options.os;
        let security = match &chosen.security_descriptor {
            Some(sddl) => SecurityDescriptor::from_sddl(sddl),
            None => SecurityDescriptor::chosen(options.access, chosen.app_containers),
        };
        let quota = chosen.buffer_size.or(options.stream.send_buffer_size).unwrap_or(QUOTA);
        Ok(Self { security: security?, messages: !chosen.byte_type, quota })
    }

    pub(super) fn has_messages(&self) -> bool {
        self.messages
    }
}

/// The instance of a pipe to create.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Instance {
    /// Fails if the pipe exists.
    First,
    /// Like `First`, and the pipe can have no other instance.
    Only,
    Further,
}

/// Creates an instance of the pipe at `path`, for overlapped I/O. Clients can open it at once.
pub(super) fn create(path: &str, instance: Instance, kind: &Kind) -> io::Result<OwnedHandle> {
    let (access, mode, most) = modes(instance, kind.messages);
    let (path, quota) = (wide(path), kind.quota);
    let attributes = kind.security.attributes();
    // SAFETY: the path ends in NUL, the attributes are valid, and the descriptor in them outlives
    // the call.
    let handle = unsafe {
        CreateNamedPipeW(path.as_ptr(), access, mode, most, quota, quota, 0, &attributes)
    };
    if handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it is an open handle, and nothing else owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Returns how the pipe can be opened, what it carries, and how many instances it can have.
pub(super) fn modes(instance: Instance, messages: bool) -> (u32, u32, u32) {
    let mut access = PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED;
    if instance != Instance::Further {
        access |= FILE_FLAG_FIRST_PIPE_INSTANCE;
    }
    // Type and read mode. In byte read mode Windows joins what was written, and the empty message
    // that marks the end of the stream is lost.
    let kind = if messages { PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE } else { PIPE_TYPE_BYTE };
    let most = if instance == Instance::Only { 1 } else { PIPE_UNLIMITED_INSTANCES };
    (access, PIPE_REJECT_REMOTE_CLIENTS | kind, most)
}

/// Takes over the pipe that a crashed server left behind, by adding an instance. Returns `None` if
/// a server has the pipe, or if the pipe differs from the one that we would create: a new instance
/// changes none of its properties.
///
/// A client may open the instance before these checks are done. If they fail, the client reads end
/// of file.
pub(super) fn take_over(path: &str, kind: &Kind) -> Option<OwnedHandle> {
    // If two processes did this at once, each could count the other's instance.
    let name = path.rsplit('\\').next()?.to_lowercase();
    let _alone = process::alone(&format!("sockpipe-takeover.{name}")).ok()??;
    if presence(path) != Presence::Orphaned {
        return None;
    }
    let taken = create(path, Instance::Further, kind).ok()?;
    // If the last client has just closed the old pipe, this instance is of a new pipe: ours, or
    // that of another server.
    let is_alone = state(&taken).ok()?.CurrentInstances == 1;
    let fresh = create(&unique(), Instance::First, kind).ok()?;
    (is_alone && same(&taken, &fresh).ok()?).then_some(taken)
}

/// Whether two pipes have the same owner, rights, type and limit.
fn same(one: &OwnedHandle, other: &OwnedHandle) -> io::Result<bool> {
    let (one_state, other_state) = (state(one)?, state(other)?);
    let fixed = |state: &FILE_PIPE_LOCAL_INFORMATION| {
        (state.NamedPipeType, state.NamedPipeConfiguration, state.MaximumInstances)
    };
    Ok(fixed(&one_state) == fixed(&other_state) && descriptor(one)? == descriptor(other)?)
}

fn unique() -> String {
    let name = format!("sockpipe.{}.{:016x}", std::process::id(), random());
    Endpoint(Form::Pipe(name)).to_string()
}

/// Creates a server's end with its client, and the client's end.
pub(super) fn pair() -> io::Result<(OwnedHandle, Opened)> {
    let path = unique();
    let server = create(&path, Instance::Only, &Kind::new(Access::Owner)?)?;
    Ok((server, open(&path)?))
}

/// A client's end, for overlapped I/O.
pub(super) struct Opened {
    pub(super) handle: OwnedHandle,
    pub(super) messages: bool,
}

/// Opens the pipe at `path`. The server can identify this user, but not impersonate it.
pub(super) fn open(path: &str) -> io::Result<Opened> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .share_mode(0)
        .custom_flags(FILE_FLAG_OVERLAPPED)
        .security_qos_flags(SECURITY_IDENTIFICATION)
        .open(path)?;
    let messages = is_of_message_type(&file)?;
    if messages {
        read_messages(&file)?;
    }
    Ok(Opened { handle: file.into(), messages })
}

/// Sets message read mode. This must precede the registration with a reactor, which reads from the
/// pipe at once.
fn read_messages(pipe: &impl AsHandle) -> io::Result<()> {
    // SAFETY: the handle is open as long as the pipe is borrowed, the mode is valid, and null means
    // unchanged.
    check(unsafe { SetNamedPipeHandleState(raw(pipe), &PIPE_READMODE_MESSAGE, null(), null()) })
}

/// Prepares an end that was made elsewhere. Returns which end it is, and whether it carries
/// messages.
pub(super) fn check_adopted(handle: &OwnedHandle) -> io::Result<(End, bool)> {
    let Ok(flags) = flags(handle) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the handle is not a pipe's"));
    };
    let messages = flags & PIPE_TYPE_MESSAGE != 0;
    if messages {
        read_messages(handle)?;
    }
    Ok((if flags & PIPE_SERVER_END == 0 { End::Client } else { End::Server }, messages))
}

/// Whether an end that other code has read from already can recognize an empty message.
#[cfg(feature = "tokio")]
pub(super) fn reads_messages(pipe: &impl AsHandle) -> io::Result<bool> {
    let mut mode = 0;
    let (none, nobody) = (null_mut(), null_mut());
    // SAFETY: the handle is open as long as the pipe is borrowed; `mode` is a place for a number,
    // and null means not wanted.
    check(unsafe {
        GetNamedPipeHandleStateW(raw(pipe), &mut mode, none, null_mut(), null_mut(), nobody, 0)
    })?;
    Ok(mode & PIPE_READMODE_MESSAGE != 0 && is_of_message_type(pipe)?)
}

/// Whether a server's end has a client, or had one that is gone. This is only a query:
/// `ConnectNamedPipe` on such a pipe would make NT forget who the client is (`NpListen` in its pipe
/// driver).
pub(super) fn has_client(pipe: &impl AsHandle) -> io::Result<bool> {
    Ok(matches!(state(pipe)?.NamedPipeState, FILE_PIPE_CONNECTED_STATE | FILE_PIPE_CLOSING_STATE))
}

/// Whether the peer closed its end, or was disconnected. Data that it wrote may still be unread.
pub(super) fn peer_is_gone(pipe: &impl AsHandle) -> io::Result<bool> {
    Ok(state(pipe)?.NamedPipeState != FILE_PIPE_CONNECTED_STATE)
}

fn state(pipe: &impl AsHandle) -> io::Result<FILE_PIPE_LOCAL_INFORMATION> {
    let mut status = IO_STATUS_BLOCK::default();
    let mut local = FILE_PIPE_LOCAL_INFORMATION::default();
    let (handle, to) = (raw(pipe), (&raw mut local).cast());
    let length = size_of::<FILE_PIPE_LOCAL_INFORMATION>() as u32;
    // SAFETY: the handle is open as long as the pipe is borrowed; `local` is a place for the
    // result, with the given length, and `status` is a place for the outcome.
    let outcome = unsafe {
        NtQueryInformationFile(handle, &mut status, to, length, FilePipeLocalInformation)
    };
    if outcome < 0 {
        let what = format!("cannot query the state of the pipe (status {outcome:#x})");
        return Err(io::Error::other(what));
    }
    Ok(local)
}

pub(super) fn is_of_message_type(pipe: &impl AsHandle) -> io::Result<bool> {
    Ok(flags(pipe)? & PIPE_TYPE_MESSAGE != 0)
}

fn flags(pipe: &impl AsHandle) -> io::Result<u32> {
    let mut flags = 0;
    // SAFETY: the handle is open as long as the pipe is borrowed; `flags` is a place for a number,
    // and null means not wanted.
    check(unsafe { GetNamedPipeInfo(raw(pipe), &mut flags, null_mut(), null_mut(), null_mut()) })?;
    Ok(flags)
}

impl AsHandle for Opened {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }
}

/// Whether a pipe exists, as far as the system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    /// The pipe has no server. What is left are connections of a former one, which hold the name on
    /// NT.
    Orphaned,
    Absent,
    /// The system returned this error instead.
    Unknown(Option<u32>),
}

/// Checks for a pipe without connecting, so that the server's clients are not disturbed.
pub(super) fn presence(path: &str) -> Presence {
    let text = wide(path);
    // Waits a millisecond for an instance to be free. Zero would mean the time that the server
    // chose.
    // SAFETY: the path ends in NUL.
    let waited = check(unsafe { WaitNamedPipeW(text.as_ptr(), 1) });
    tell_presence(waited.map_err(|error| code(&error)), || open_refused(path))
}

/// Interprets the results of the system: that of waiting for an instance to be free, and if none
/// was in time, that of [`open_refused`].
fn tell_presence(
    waited: Result<(), Option<u32>>,
    opened: impl FnOnce() -> Option<u32>,
) -> Presence {
    match waited {
        Ok(()) | Err(Some(ERROR_PIPE_BUSY)) => Presence::There,
        Err(Some(ERROR_SEM_TIMEOUT)) => match opened() {
            Some(ERROR_FILE_NOT_FOUND) => Presence::Orphaned,
            _ => Presence::There,
        },
        // If the pipe vanishes during the wait, Wine returns `ERROR_HANDLES_CLOSED`, and NT
        // `ERROR_FILE_NOT_FOUND`.
        Err(Some(ERROR_FILE_NOT_FOUND | ERROR_HANDLES_CLOSED)) => Presence::Absent,
        Err(code) => Presence::Unknown(code),
    }
}

/// `windows-sys` defines this value only under other names.
const ACCESS_SYSTEM_SECURITY: u32 = 0x0100_0000;

/// Tries an open that should be refused, and returns its error. NT checks first whether there is a
/// server's end at all, then whether the caller may ask for this access, and takes an instance
/// last. The open connects only if the caller has the privilege of auditors and an instance is free
/// just then.
fn open_refused(path: &str) -> Option<u32> {
    let opened = OpenOptions::new().access_mode(ACCESS_SYSTEM_SECURITY).open(path);
    opened.err().and_then(|error| code(&error))
}

/// Whether `error` means that the other end is closed.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(code(error), Some(ERROR_BROKEN_PIPE | ERROR_NO_DATA | ERROR_PIPE_NOT_CONNECTED))
}

/// Returns a random number: the standard library seeds its hashers from the system's source of
/// randomness.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_PRIVILEGE_NOT_HELD};

    use super::*;

    #[test]
    fn a_name_that_only_connections_hold_differs_from_a_busy_server() {
        let told = |waited, opened| tell_presence(Err(Some(waited)), || Some(opened));
        assert_eq!(told(ERROR_SEM_TIMEOUT, ERROR_FILE_NOT_FOUND), Presence::Orphaned);
        for refused in [ERROR_PRIVILEGE_NOT_HELD, ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY] {
            assert_eq!(told(ERROR_SEM_TIMEOUT, refused), Presence::There, "{refused}");
        }
        assert_eq!(tell_presence(Err(Some(ERROR_SEM_TIMEOUT)), || None), Presence::There);
    }

    /// Opening the pipe of a server that answers at once could take one of its instances.
    #[test]
    fn only_a_name_without_a_free_instance_is_opened() {
        let opened = || -> Option<u32> { panic!("opened") };
        assert_eq!(tell_presence(Ok(()), opened), Presence::There);
        assert_eq!(tell_presence(Err(Some(ERROR_PIPE_BUSY)), opened), Presence::There);
        for gone in [ERROR_FILE_NOT_FOUND, ERROR_HANDLES_CLOSED] {
            assert_eq!(tell_presence(Err(Some(gone)), opened), Presence::Absent, "{gone}");
        }
        assert_eq!(tell_presence(Err(None), opened), Presence::Unknown(None));
    }
}
