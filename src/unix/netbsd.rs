//! How NetBSD behaves. Lists the same items as `linux.rs`, with those of `posix.rs`.

use rustix::io::Errno;
use rustix::net::SendFlags;

#[cfg(feature = "blocking")]
pub(super) use super::flags::put_over;
pub(super) use super::flags::{CLOSE_ON_EXEC, accept, close_on_exec, socket};
pub(super) use super::posix::*;

pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// Whether a call with `MSG_DONTWAIT` never waits. Older kernels did not look at it when they send.
#[cfg(feature = "blocking")]
pub(super) const CALLS_CAN_BE_TOLD_NOT_TO_WAIT: bool = false;
/// More than the most descriptors that one message can have: its control data has 2048 bytes.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;
/// Whether a read puts descriptors that came with its bytes into the table, room for them or not.
pub(super) const READS_INSTALL_DESCRIPTORS: bool = false;
/// Whether accept(2) drops a client that it finds no descriptor for.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_DROPS_CLIENTS: bool = false;
/// Whether sendmsg(2) says `EMSGSIZE` of descriptors where it says `EAGAIN` of bytes: it compares
/// them with a size that the protocol lowers by what the peer has not read.
pub(super) const A_FULL_SOCKET_IS_EMSGSIZE: bool = true;
/// Whether a buffer that is larger than can be is made as large as can be, without an error.
pub(super) const SIZES_ARE_CUT: bool = false;
/// What open(2) says of a link where none is to be followed: `EFTYPE`, which Linux does not have.
pub(super) const NOT_FOLLOWED: Errno = Errno::from_raw_os_error(79);
/// The most descriptors that a message takes: 254, and as many as Linux's.
pub(super) const FDS_TO_SEND: usize = 253;
