//! Receives bytes, and reports whether control data that came with them ended the read early.
//!
//! Descriptors that came with the bytes are discarded. If the call has no room for them, most
//! kernels close them. macOS installs them in this process, so there they are received and then
//! closed.
#![allow(unsafe_code, reason = "rustix receives messages into initialized memory only")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
#[cfg(feature = "tokio")]
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
#[cfg(feature = "tokio")]
use tokio::io::ReadBuf;

use super::pass::ROOM;
use super::platform;

/// The result of one call.
#[cfg(feature = "tokio")]
pub(super) enum Received {
    /// The buffer has room left, and the read ended only because there were no more bytes.
    Short,
    /// The buffer is full, the stream has ended, or control data may have ended the read. Control
    /// data is file descriptors, or the credentials of a sender if the socket reports them.
    Whole,
    Failed(Errno),
}

/// Whether the next read of a stream can do without a report of its control data.
///
/// Only `recvmsg` reports why a read was short, and it costs more than `recv`, because the kernel
/// copies a message header. A read that fills its buffer needs no report. So a stream whose reads
/// fill their buffers, such as one that reads messages of a known length, uses `recv`.
#[cfg(feature = "tokio")]
#[derive(Debug, Default)]
pub(super) struct Filled(AtomicU8);

#[cfg(feature = "tokio")]
impl Filled {
    /// How many reads in a row have to fill their buffers. If the next read by `recv` is short, the
    /// socket may not be empty, so finding that out costs one more call.
    const ENOUGH: u8 = 8;

    #[inline]
    pub(super) fn is_likely(&self) -> bool {
        !platform::READS_INSTALL_DESCRIPTORS && self.0.load(Relaxed) == Self::ENOUGH
    }

    /// If two tasks read at the same time, a read may not be counted. That does no harm.
    #[inline]
    pub(super) fn count(&self, is_full: bool) {
        let count = self.0.load(Relaxed);
        let next = if is_full { Self::ENOUGH.min(count + 1) } else { 0 };
        if next != count {
            self.0.store(next, Relaxed);
        }
    }
}

/// Receives into the unfilled part of `buf`.
#[cfg(feature = "tokio")]
#[inline]
pub(super) fn receive(socket: BorrowedFd<'_>, buf: &mut ReadBuf<'_>, filled: &Filled) -> Received {
    let room = buf.remaining().min(platform::MOST);
    // SAFETY: only initialized bytes are written there.
    let to = unsafe { &mut buf.unfilled_mut()[..room] };
    let received = if filled.is_likely() {
        recv(socket, to, RecvFlags::DONTWAIT).map(|(_, length)| (length, true))
    } else {
        let to = NonNull::from(to).cast();
        // SAFETY: the unfilled part of `buf` is at least `room` bytes long, and borrowed here.
        unsafe { receive_message(socket, to, room, libc::MSG_DONTWAIT) }
            .map(|(length, flags)| (length, flags & libc::MSG_CTRUNC != 0))
    };
    let (length, may_go_on) = match received {
        Ok((0, _)) => return Received::Whole,
        Ok(received) => received,
        Err(errno) => return Received::Failed(errno),
    };

    filled.count(length == room);
    // SAFETY: the call initialized that many bytes of the unfilled part.
    unsafe { buf.assume_init(length) };
    buf.advance(length);
    if length < room && !may_go_on { Received::Short } else { Received::Whole }
}

/// Receives into `buf`.
#[inline]
pub(super) fn receive_into(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: RecvFlags,
) -> Result<usize, Errno> {
    if !platform::READS_INSTALL_DESCRIPTORS {
        let room = buf.len().min(platform::MOST);
        return recv(socket, &mut buf[..room], flags).map(|(_, length)| length);
    }
    receive_noting_control(socket, buf, flags).map(|(length, _)| length)
}

/// Receives as [`receive_into`] does, and also reports whether control data ended the read.
#[inline]
pub(super) fn receive_noting_control(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, bool), Errno> {
    let room = buf.len().min(platform::MOST);
    let flags = flags.bits() as libc::c_int;
    // SAFETY: `buf` is at least `room` bytes long, and borrowed here.
    let received = unsafe { receive_message(socket, NonNull::from(buf).cast(), room, flags) };
    received.map(|(length, flags)| (length, flags & libc::MSG_CTRUNC != 0))
}

/// Returns the length and the flags of the message.
///
/// # Safety
///
/// `to` points to `room` bytes that no other code uses during the call.
#[inline]
unsafe fn receive_message(
    socket: BorrowedFd<'_>,
    to: NonNull<libc::c_void>,
    room: usize,
    flags: libc::c_int,
) -> Result<(usize, libc::c_int), Errno> {
    let mut bytes = libc::iovec { iov_base: to.as_ptr(), iov_len: room };
    let mut control = MaybeUninit::<Control>::uninit();
    let mut message = no_message();
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    if platform::READS_INSTALL_DESCRIPTORS {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
    }
    // SAFETY: `message` has one buffer, whose length the caller guarantees. It has room for control
    // data or none, and none for an address.
    let mut received = unsafe { receive_once(socket, &mut message, flags) };
    if platform::READS_INSTALL_DESCRIPTORS {
        if received == Err(Errno::MSGSIZE) {
            // The process had no free descriptors. The passed ones are gone, and the bytes are
            // still there.
            message.msg_controllen = size_of::<Control>() as _;
            // SAFETY: as above. The failed call has changed no pointer and no other length.
            received = unsafe { receive_once(socket, &mut message, flags) };
        }
        if received.is_ok() {
            close_descriptors(&message);
        }
    }
    received.map(|length| (length, message.msg_flags))
}

/// # Safety
///
/// All buffers of `message` are as long as it specifies, and no other code uses them during the
/// call.
#[inline]
unsafe fn receive_once(
    socket: BorrowedFd<'_>,
    message: &mut libc::msghdr,
    flags: libc::c_int,
) -> Result<usize, Errno> {
    // SAFETY: the descriptor is borrowed, so it is open. The caller guarantees the rest.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), message, flags) };
    usize::try_from(length).map_err(|_| last_error())
}

/// Room for as much control data as a message can have.
#[repr(C, align(8))]
struct Control([u8; ROOM]);

/// Closes the descriptors of a message that was received.
fn close_descriptors(message: &libc::msghdr) {
    // SAFETY: the kernel has filled the control data of `message`, or there is none.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a header that is not null is one in the control data.
    while let Some(header) = unsafe { part.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            close_all(header);
        }
        // SAFETY: `header` is one of `message`.
        part = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}

#[allow(clippy::unnecessary_cast, reason = "the type differs from system to system")]
fn close_all(header: &libc::cmsghdr) {
    // SAFETY: the call computes a length, and reads nothing.
    let before = unsafe { libc::CMSG_LEN(0) } as usize;
    // SAFETY: `header` is followed by its data.
    let first = unsafe { libc::CMSG_DATA(header) }.cast::<libc::c_int>();
    for index in 0..(header.cmsg_len as usize).saturating_sub(before) / size_of::<libc::c_int>() {
        // SAFETY: the data has as many numbers as the length says.
        let place = unsafe { first.add(index) };
        // SAFETY: the place is one in the data, which may have any alignment.
        let fd = unsafe { place.read_unaligned() };
        // SAFETY: the kernel has just created the descriptor for this process, and no other code
        // knows it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

#[cold]
fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn no_message() -> libc::msghdr {
    // SAFETY: null pointers, lengths of zero and no flags are a valid message header.
    unsafe { mem::zeroed() }
}
