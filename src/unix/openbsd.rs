//! How OpenBSD behaves. Together with `posix.rs` this lists the same items as `linux.rs`.

use rustix::io::Errno;
use rustix::net::SendFlags;

#[cfg(feature = "blocking")]
pub(super) use super::flags::put_over;
pub(super) use super::flags::{CLOSE_ON_EXEC, accept, close_on_exec, socket};
pub(super) use super::posix::*;

pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// Whether a call with `MSG_DONTWAIT` never waits.
#[cfg(feature = "blocking")]
pub(super) const DONTWAIT_IS_HONORED: bool = true;
/// An upper bound for the descriptors in one message, whose control data is limited to 2048 bytes.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;
/// Whether a read installs the descriptors that came with its bytes even if its caller has no room
/// for them.
pub(super) const READS_INSTALL_DESCRIPTORS: bool = false;
/// Whether accept(2) drops the client if the process has no free descriptor.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_DROPS_CLIENTS: bool = false;
/// Whether sendmsg(2) with descriptors fails with `EMSGSIZE` where one without them fails with
/// `EAGAIN`.
pub(super) const A_FULL_SOCKET_IS_EMSGSIZE: bool = false;
/// Whether the system silently caps a buffer size above its maximum.
pub(super) const SIZES_ARE_CUT: bool = false;
/// The error of open(2) with `O_NOFOLLOW` for a symbolic link.
pub(super) const NOT_FOLLOWED: Errno = Errno::LOOP;
/// The most descriptors that one send takes. In the kernel each descriptor is a `struct fdpass` of
/// 16 bytes, and all descriptors of a message are in one cluster of 2048 bytes.
pub(super) const FDS_TO_SEND: usize = 127;
