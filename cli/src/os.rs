//! What the operating systems tell each in its own way. Both files list the same items.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as imp;

pub use imp::{
    Group, asked_to_stop, bear_file_limit, is_gone, is_own, is_stranger, leads_to, program, stdin,
    stdout, user, who_may_connect, why_no_server,
};

/// Whose it is, and who may connect.
pub struct Access {
    pub owner: String,
    pub uid: Option<u32>,
    /// In the system's own terms: permission bits, or a security descriptor.
    pub rights: String,
    /// In words, where there are short ones.
    pub meaning: Option<&'static str>,
    /// Whether this user may, as far as can be told without a connection.
    pub admits: bool,
}
