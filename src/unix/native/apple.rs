//! What only XNU has.

use std::ffi::OsString;
use std::io;
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

/// Whose names and directories are used.
pub(in crate::unix) const SYSTEM: &str = "macos";
/// How to open a directory in which nothing is listed.
pub(in crate::unix) const DIRECTORY: OFlags = OFlags::from_bits_retain(libc::O_SEARCH as u32);
/// Nobody else's control data comes before descriptors.
pub(in crate::unix) const ROOM_FOR_CREDENTIALS: usize = 0;

/// For a socket that was made elsewhere. One whose peer is gone does not take the option; one that
/// was accepted has it from the socket that listens.
pub(in crate::unix) fn no_signals(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    unless_gone(set_socket_nosigpipe(socket, true))
}

/// Who connected or listened, when that was. The process is the last that used the peer's socket
/// (`LOCAL_PEERPID`), and is not told once the peer is gone.
pub(in crate::unix) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = Credentials::of(socket)?;
    let mut process = [0];
    let process = get(socket, LEVEL, libc::LOCAL_PEERPID, &mut process).map(|_| process[0]);
    let pid = process.ok().filter(|pid| *pid != 0);
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid()?, pid })
}

/// At most 16.
pub(in crate::unix) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    Ok(Credentials::of(socket)?.groups().to_vec())
}

/// The user's own temporary directory, mode 0700: confstr(3), `_CS_DARWIN_USER_TEMP_DIR`. `$TMPDIR`
/// and others stand in for it where it cannot be had, as in a strict sandbox, and then only one
/// that is the user's own is used.
pub(in crate::unix) fn user_temp_dir() -> Option<PathBuf> {
    let mut buffer = vec![0_u8; libc::PATH_MAX as usize];
    let length = confstr(libc::_CS_DARWIN_USER_TEMP_DIR, &mut buffer);
    // The length counts the NUL, and what would not fit.
    buffer.truncate(length.min(buffer.len()).saturating_sub(1));
    (!buffer.is_empty()).then(|| OsString::from_vec(buffer).into())
}

#[allow(unsafe_code, reason = "rustix has no confstr")]
fn confstr(name: libc::c_int, buffer: &mut [u8]) -> usize {
    // SAFETY: the pointer and the length are those of one live, writable slice, and `confstr`
    // writes at most that many bytes.
    unsafe { libc::confstr(name, buffer.as_mut_ptr().cast(), buffer.len()) }
}

/// Not told here: this system has access control lists of its own.
pub(in crate::unix) fn is_private_group(_: &OwnedFd, _: &Stat) -> bool {
    false
}
