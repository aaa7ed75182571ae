//! How NetBSD behaves. Together with `posix.rs` this lists the same items as `linux.rs`.

use rustix::io::Errno;
use rustix::net::SendFlags;

#[cfg(feature = "blocking")]
pub(super) use super::flags::put_over;
pub(super) use super::flags::{CLOSE_ON_EXEC, accept, close_on_exec, socket};
pub(super) use super::posix::*;

pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// Whether a call with `MSG_DONTWAIT` never waits. Older kernels ignore the flag when they send.
#[cfg(feature = "blocking")]
pub(super) const DONTWAIT_IS_HONORED: bool = false;
/// An upper bound for the descriptors in one message, whose control data is limited to 2048 bytes.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;
/// Whether a read installs the descriptors that came with its bytes even if its caller has no room
/// for them.
pub(super) const READS_INSTALL_DESCRIPTORS: bool = false;
/// Whether accept(2) drops the client if the process has no free descriptor.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_DROPS_CLIENTS: bool = false;
/// Whether sendmsg(2) with descriptors fails with `EMSGSIZE` where one without them fails with
/// `EAGAIN`. NetBSD compares the descriptors' size with a limit that the protocol lowers by the
/// bytes that the peer has not read.
pub(super) const A_FULL_SOCKET_IS_EMSGSIZE: bool = true;
/// Whether the system silently caps a buffer size above its maximum.
pub(super) const SIZES_ARE_CUT: bool = false;
/// The error of open(2) with `O_NOFOLLOW` for a symbolic link: `EFTYPE`, which Linux does not have.
pub(super) const NOT_FOLLOWED: Errno = Errno::from_raw_os_error(79);
/// The most descriptors that one send takes: NetBSD would take 254, and Linux takes 253.
pub(super) const FDS_TO_SEND: usize = 253;
