//! Two of Linux's socket options that rustix does not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// All groups of the peer when it connected: `SO_PEERGROUPS`, since Linux 4.13.
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 32];
    loop {
        match get(socket, libc::SO_PEERGROUPS, &mut groups) {
            Ok(length) => {
                groups.truncate(length);
                return Ok(groups);
            }
            // There are more. The limit of the kernel is 65,536.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < 65_536 => {
                let more = groups.len() * 2;
                groups.resize(more, 0);
            }
            Err(error) => return Err(unsupported(error)),
        }
    }
}

/// The peer's process: `SO_PEERPIDFD`, since Linux 6.5. Close-on-exec, as all of its kind.
pub(super) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut number = [0];
    match get(socket, libc::SO_PEERPIDFD, &mut number) {
        Ok(_) => i32::try_from(number[0]).map(adopt).map_err(io::Error::other),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ESRCH | libc::ENODATA) => {
                io::Error::new(io::ErrorKind::NotFound, "the peer's process is gone")
            }
            _ => unsupported(error),
        }),
    }
}

fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EINVAL) => {
            io::Error::new(io::ErrorKind::Unsupported, "this kernel does not tell that of a peer")
        }
        _ => error,
    }
}

/// Fills `values` with the option, and gives how many there are.
#[allow(unsafe_code, reason = "rustix does not have these options")]
fn get(socket: BorrowedFd<'_>, option: libc::c_int, values: &mut [u32]) -> io::Result<usize> {
    let mut bytes = libc::socklen_t::try_from(size_of_val(values)).map_err(io::Error::other)?;
    let to = values.as_mut_ptr().cast();
    // SAFETY: the descriptor is borrowed, so it is open. `to` and `bytes` are the start and size of
    // one live, writable slice, and the kernel writes no more than that; any bytes are a `u32`.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, to, &raw mut bytes)
    };
    if done == 0 { Ok(bytes as usize / size_of::<u32>()) } else { Err(io::Error::last_os_error()) }
}

#[allow(unsafe_code, reason = "the option's value is the number of a descriptor")]
fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for the caller of getsockopt, which is us.
    unsafe { OwnedFd::from_raw_fd(number) }
}
