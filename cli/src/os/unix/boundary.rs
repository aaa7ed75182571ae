//! Finds the place in the bytes that wait on a socket at which the next bytes with file descriptors
//! begin.
//!
//! The kernel would return earlier bytes and these in one read, and the descriptors would be passed
//! on with bytes that they did not come with. A peer that reads the first of those bytes in a call
//! without room for descriptors would lose them. So each read looks ahead first.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};

use super::super::receive::{Received, look};

/// How many bytes a look before a splice covers.
const LOOK: usize = 256 * 1024;

/// Receives what comes next: either bytes without descriptors, or descriptors and the bytes they
/// came with.
pub fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Received, Errno> {
    match Next::of(socket, room)? {
        Next::Plain(length) => plain(socket, &mut room[..length]),
        Next::Descriptors => Received::with_descriptors(socket, room),
        Next::Either => {
            let mut received = Received::with_descriptors(socket, &mut room[..1])?;
            if received.length == 1 && !received.descriptors.is_empty() && !received.lost {
                received.length += rest(socket, &mut room[1..])?;
            }
            Ok(received)
        }
    }
}

/// Returns how many bytes come before the next descriptors, or zero if the look finds descriptors.
///
/// The bytes are not kept, so all parts of the message go to the same memory. That memory stays in
/// the fastest cache, and its size does not limit the look.
#[allow(unsafe_code, reason = "several parts of a message in the same memory")]
pub fn bytes_ahead(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, Errno> {
    const PARTS: usize = 16;

    let part =
        libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len().min(LOOK / PARTS) };
    let mut parts = [part; PARTS];
    // SAFETY: null pointers, lengths of zero and no flags are a valid message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = PARTS as _;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open while it is borrowed. Each part is memory of `room`, which is
    // borrowed mutably and holds bytes of any value. The kernel does not mind that the parts
    // overlap.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(length) = usize::try_from(length) else {
        return match std::io::Error::last_os_error().raw_os_error() {
            Some(code) => Err(Errno::from_raw_os_error(code)),
            None => Err(Errno::IO),
        };
    };
    Ok(if message.msg_flags & libc::MSG_CTRUNC != 0 { 0 } else { length })
}

/// What comes next on the socket.
enum Next {
    /// This many bytes without descriptors. Zero at end of file, or if nothing has arrived.
    Plain(usize),
    Descriptors,
    /// Descriptors, or one byte followed by descriptors.
    Either,
}

impl Next {
    fn of(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Self, Errno> {
        let (length, some_come) = look(socket, room, RecvFlags::PEEK)?;
        if !some_come || length == 0 {
            return Ok(Self::Plain(length));
        }
        // Search for the shortest look that finds descriptors.
        let (mut without, mut with) = (0, length);
        // Usually they come first.
        let mut next = 1;
        while with - without > 1 {
            if look(socket, &mut room[..next], RecvFlags::PEEK)?.1 {
                with = next;
            } else {
                without = next;
            }
            next = without + (with - without) / 2;
        }
        Ok(match (with, looks_beyond()?) {
            (1, true) => Self::Either,
            (1, false) => Self::Descriptors,
            (with, beyond) => Self::Plain(with - usize::from(!beyond)),
        })
    }
}

/// Receives more of the bytes that descriptors came with. The descriptors have been received with
/// the first byte.
fn rest(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, Errno> {
    if room.is_empty() {
        return Ok(0);
    }
    match Next::of(socket, room) {
        Ok(Next::Plain(length)) if length > 0 => Ok(plain(socket, &mut room[..length])?.length),
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(error) => Err(error),
    }
}

fn plain(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Received, Errno> {
    if room.is_empty() {
        // This is the end of file, unless more has arrived meanwhile. Then the caller looks again.
        let mut one = [0];
        return match recv(socket, &mut one, RecvFlags::DONTWAIT | RecvFlags::PEEK)? {
            (0, _) => Ok(Received { length: 0, descriptors: Vec::new(), lost: false }),
            _ => Err(Errno::INTR),
        };
    }
    let (length, _) = recv(socket, room, RecvFlags::DONTWAIT)?;
    Ok(Received { length, descriptors: Vec::new(), lost: false })
}

/// Whether a look at all bytes of one message also finds the descriptors of the next message. All
/// kernels from 4.4 to today's do that, but none promises it.
fn looks_beyond() -> Result<bool, Errno> {
    static KNOWN: OnceLock<bool> = OnceLock::new();

    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (from, to) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    for descriptors in [&[][..], &[to.as_fd()]] {
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(&from, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    }
    let (_, beyond) = look(to.as_fd(), &mut [0], RecvFlags::PEEK)?;
    Ok(*KNOWN.get_or_init(|| beyond))
}
