//! The addresses of a socket, as bytes.
//!
//! Neither end's address can be trusted. So the bytes that the system returns are kept unchanged,
//! and read one by one.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An address of any family.
pub(super) struct SockName(Vec<u8>);

impl SockName {
    /// Returns the socket's own address. See getsockname(2).
    pub(super) fn own(socket: BorrowedFd<'_>) -> io::Result<Self> {
        read(socket, own)
    }

    /// Returns the address of the peer, or an error if there is no peer. See getpeername(2).
    pub(super) fn peer(socket: BorrowedFd<'_>) -> io::Result<Self> {
        read(socket, peer)
    }

    pub(super) fn is_unix(&self) -> bool {
        let start = offset_of!(libc::sockaddr, sa_family);
        let family = self.0.get(start..start + size_of::<libc::sa_family_t>());
        family == Some(&(libc::AF_UNIX as libc::sa_family_t).to_ne_bytes()[..])
    }

    /// Returns the path, if the address has one.
    pub(super) fn path(&self) -> Option<&[u8]> {
        let name = self.name();
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        (end > 0).then(|| &name[..end])
    }

    /// Returns what follows the NUL of an abstract socket's name, if the address has one.
    pub(super) fn after_nul(&self) -> Option<&[u8]> {
        self.name().strip_prefix(&[0]).filter(|name| !name.is_empty())
    }

    fn name(&self) -> &[u8] {
        self.0.get(offset_of!(libc::sockaddr_un, sun_path)..).unwrap_or_default()
    }
}

/// Room for any address, aligned for any.
type Room = [u64; 32];
type Call = fn(BorrowedFd<'_>, &mut Room, &mut libc::socklen_t) -> libc::c_int;

fn read(socket: BorrowedFd<'_>, call: Call) -> io::Result<SockName> {
    let mut room = Room::default();
    let mut length = size_of::<Room>() as libc::socklen_t;
    if call(socket, &mut room, &mut length) != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut bytes: Vec<u8> = room.iter().flat_map(|part| part.to_ne_bytes()).collect();
    bytes.truncate(length as usize);
    Ok(SockName(bytes))
}

#[allow(unsafe_code, reason = "the safe wrappers parse what they read")]
fn own(socket: BorrowedFd<'_>, room: &mut Room, length: &mut libc::socklen_t) -> libc::c_int {
    // SAFETY: the descriptor is borrowed, so it is open. `room` is live and writable, `length` is
    // its size in bytes, and the system writes no more than that. Any bytes are valid numbers.
    unsafe { libc::getsockname(socket.as_raw_fd(), room.as_mut_ptr().cast(), length) }
}

#[allow(unsafe_code, reason = "the safe wrappers parse what they read")]
fn peer(socket: BorrowedFd<'_>, room: &mut Room, length: &mut libc::socklen_t) -> libc::c_int {
    // SAFETY: as in `own`.
    unsafe { libc::getpeername(socket.as_raw_fd(), room.as_mut_ptr().cast(), length) }
}
