//! Replaces the socket behind a descriptor that other threads wait on.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::platform;

/// Makes `descriptor` refer to `socket`. From now on each use of the number reaches that socket.
pub(super) fn replace(descriptor: &OwnedFd, socket: &OwnedFd) -> io::Result<()> {
    Ok(platform::put_over(socket, &mut alias(descriptor))?)
}

#[allow(unsafe_code, reason = "the descriptor is shared, and stays what it is")]
fn alias(descriptor: &OwnedFd) -> ManuallyDrop<OwnedFd> {
    // SAFETY: the descriptor is borrowed for as long as the alias is used, so it is open. The alias
    // is never dropped, so only the owner closes the descriptor.
    ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(descriptor.as_raw_fd()) })
}
