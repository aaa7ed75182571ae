//! Socket options that rustix lacks, or reads with assumptions that a peer can break.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Fills `values` with the option, and returns how many there are.
#[allow(unsafe_code, reason = "rustix does not have these options")]
pub(super) fn get(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    values: &mut [u32],
) -> io::Result<usize> {
    let mut bytes = libc::socklen_t::try_from(size_of_val(values)).map_err(io::Error::other)?;
    let (socket, to) = (socket.as_raw_fd(), values.as_mut_ptr().cast());
    // SAFETY: the descriptor is borrowed, so it is open. `to` and `bytes` are the start and size of
    // one live, writable slice, and the kernel writes no more than that. Any bytes are a valid
    // `u32`.
    let done = unsafe { libc::getsockopt(socket, level, option, to, &raw mut bytes) };
    if done == 0 { Ok(bytes as usize / size_of::<u32>()) } else { Err(io::Error::last_os_error()) }
}
