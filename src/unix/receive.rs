//! Receives bytes, and reports whether others came with them that end a read early.
#![allow(unsafe_code, reason = "rustix receives messages into initialized memory only")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use tokio::io::ReadBuf;

/// More is refused whole on some systems.
const MOST: usize = i32::MAX as usize;

/// What one call received.
pub(super) struct Received {
    /// There was room for more, and nothing ended the read but the want of bytes. Control data ends
    /// one: file descriptors, or the credentials of a sender where the socket reports them.
    pub(super) is_short: bool,
}

/// Receives into the unfilled part of `buf`. Descriptors that came with the bytes are closed by the
/// kernel, for there is no room for them.
pub(super) fn receive(socket: impl AsFd, buf: &mut ReadBuf<'_>) -> Result<Received, Errno> {
    let room = buf.remaining().min(MOST);
    let mut message = no_message();
    let mut bytes = libc::iovec { iov_base: unfilled(buf), iov_len: room };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;

    let socket = socket.as_fd();
    // SAFETY: the descriptor is open as long as the socket is borrowed. `message` has one buffer, the
    // unfilled part of `buf`, which is at least `room` bytes long and borrowed here, and no place for
    // an address or for control data.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
    let Ok(length) = usize::try_from(length) else { return Err(last_error()) };

    // SAFETY: the call initialized that many bytes of the unfilled part.
    unsafe { buf.assume_init(length) };
    buf.advance(length);
    let has_control_data = message.msg_flags & libc::MSG_CTRUNC != 0;
    // None at all is the end, which stays.
    Ok(Received { is_short: (1..room).contains(&length) && !has_control_data })
}

#[cold]
fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn no_message() -> libc::msghdr {
    // SAFETY: null pointers, lengths of zero and no flags are a valid message header.
    unsafe { mem::zeroed() }
}

fn unfilled(buf: &mut ReadBuf<'_>) -> *mut libc::c_void {
    // SAFETY: the pointer is given to the kernel, which writes initialized bytes only.
    unsafe { buf.unfilled_mut() }.as_mut_ptr().cast()
}
