//! The constants and calls that only XNU has.

use std::ffi::OsString;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_nosigpipe;

use super::super::peer::Peer;
use super::super::sockopt::get;
use super::super::unless_gone;
use super::xucred::{Credentials, LEVEL};

/// The system whose rules for names and directories apply.
pub(in crate::unix) const SYSTEM: &str = "macos";
/// The flags to open a directory whose entries are not listed.
pub(in crate::unix) const DIRECTORY: OFlags = OFlags::from_bits_retain(libc::O_SEARCH as u32);
/// No other control data comes before descriptors.
pub(in crate::unix) const ROOM_FOR_CREDENTIALS: usize = 0;

/// Used for a socket that was made elsewhere. A socket whose peer is gone rejects the option. An
/// accepted socket inherits it from the listening one.
pub(in crate::unix) fn no_signals(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    unless_gone(set_socket_nosigpipe(socket, true))
}

/// Returns the credentials that the peer had when it connected or listened. The process is the last
/// one that used the peer's socket (`LOCAL_PEERPID`), and is not reported once the peer is gone.
pub(in crate::unix) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = Credentials::of(socket)?;
    let mut process = [0];
    let process = get(socket, LEVEL, libc::LOCAL_PEERPID, &mut process).map(|_| process[0]);
    let pid = process.ok().and_then(NonZeroU32::new);
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid()?, pid })
}

/// Returns at most 16 groups.
pub(in crate::unix) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    Ok(Credentials::of(socket)?.groups().to_vec())
}

/// Returns the user's own temporary directory, mode 0700: confstr(3), `_CS_DARWIN_USER_TEMP_DIR`.
/// If that is not available, as in a strict sandbox, confstr returns `$TMPDIR` or another
/// directory, which is used only if it belongs to the user.
pub(in crate::unix) fn user_temp_dir() -> Option<PathBuf> {
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    let length = confstr(libc::_CS_DARWIN_USER_TEMP_DIR, &mut buffer);
    // The length includes the NUL, and the part that did not fit.
    buffer.truncate(length.min(buffer.len()).saturating_sub(1));
    (!buffer.is_empty()).then(|| OsString::from_vec(buffer).into())
}

#[allow(unsafe_code, reason = "rustix has no confstr")]
fn confstr(name: libc::c_int, buffer: &mut [u8]) -> usize {
    // SAFETY: the pointer and the length are those of one live, writable slice, and `confstr`
    // writes at most that many bytes.
    unsafe { libc::confstr(name, buffer.as_mut_ptr().cast(), buffer.len()) }
}

/// Always `false`: this system has access control lists of its own.
pub(in crate::unix) fn is_private_group(_: &OwnedFd, _: &Stat) -> bool {
    false
}
