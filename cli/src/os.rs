//! The parts that differ between the operating systems. `unix.rs` and `windows.rs` list the same
//! items.

mod chunk;
mod moved;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as imp;

pub use chunk::Chunk;
pub use imp::{
    Attached, Group, Socket, asked_to_stop, bear_file_limit, check_passed, check_room,
    closed_directory, give_back_memory, is_first_process, is_own, is_stranger, keep_name, leads_to,
    listen_options, passed_is_connected, passed_listener, passed_stream, program,
    refuse_descriptors, restore_passed, stdin, stdout, stdout_unread, take_orphans, user, user_id,
    who_may_connect, why_no_server,
};
pub use moved::Moved;

/// What is done with file descriptors that a local peer passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// They are passed on with the bytes they came with.
    PassedOn,
    /// The system keeps the sender from passing any, if it can.
    Refused,
    /// They are closed, and the session goes on: the other side is not a socket.
    Closed,
}

/// The owner of an address, and the users that may connect.
pub struct Access {
    pub owner: String,
    pub uid: Option<u32>,
    /// In the system's own terms: permission bits, or a security descriptor.
    pub rights: String,
    /// The rights in words, if they can be put briefly.
    pub meaning: Option<&'static str>,
    /// Whether this user may connect, as far as that is known without a connection.
    pub admits: bool,
}
