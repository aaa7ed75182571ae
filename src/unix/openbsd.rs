//! How OpenBSD behaves. Lists the same items as `linux.rs`, with those of `posix.rs`.

use rustix::net::SendFlags;

pub(super) use super::flags::{CLOSE_ON_EXEC, accept, close_on_exec, socket};
pub(super) use super::posix::*;

pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// Whether a call with `MSG_DONTWAIT` never waits.
#[cfg(feature = "blocking")]
pub(super) const CALLS_CAN_BE_TOLD_NOT_TO_WAIT: bool = true;
/// More than the most descriptors that one message can have: its control data has 2048 bytes.
pub(super) const FDS_IN_A_MESSAGE: usize = 512;
