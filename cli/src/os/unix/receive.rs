//! Receiving bytes with the file descriptors that come with them.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::socket::MOST_DESCRIPTORS;

/// What one call received.
pub struct Received {
    pub length: usize,
    pub descriptors: Vec<OwnedFd>,
    /// Whether descriptors came that there was no room for.
    pub lost: bool,
}

impl Received {
    /// Receives without room for descriptors.
    pub fn bytes_only(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Self, Errno> {
        let (length, lost) = look(socket, room, RecvFlags::empty())?;
        Ok(Self { length, descriptors: Vec::new(), lost })
    }

    pub fn with_descriptors(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Self, Errno> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [IoSliceMut::new(room)];
        let message = recvmsg(socket, &mut bytes, &mut control, RecvFlags::DONTWAIT)?;
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        for descriptor in &descriptors {
            fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
        }
        let lost = message.flags.contains(ReturnFlags::CTRUNC);
        Ok(Self { length: message.bytes, descriptors, lost })
    }
}

/// Receives without room for descriptors, and returns whether some came with the bytes.
pub fn look(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, bool), Errno> {
    let mut bytes = [IoSliceMut::new(room)];
    let flags = flags | RecvFlags::DONTWAIT;
    let message = recvmsg(socket, &mut bytes, &mut RecvAncillaryBuffer::default(), flags)?;
    Ok((message.bytes, message.flags.contains(ReturnFlags::CTRUNC)))
}
