//! The backend that blocks.
//!
//! Its sockets block, so that a call that waits is one system call. With a time limit, a call does
//! not wait in the kernel: `SO_RCVTIMEO` counts in ticks of up to 10 ms, and on a write
//! `SO_SNDTIMEO` starts again for each part that the kernel takes. If the kernel has no flag for
//! that in a single call, a stream's socket is in nonblocking mode, and calls that would wait poll
//! first.

mod listener;
mod stream;

pub(crate) use listener::Listener;
pub(crate) use stream::Stream;
