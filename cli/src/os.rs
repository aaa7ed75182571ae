//! What the operating systems tell each in its own way. Both files list the same items.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as imp;

pub use imp::{is_gone, program, stdout, user, who_may_connect};

/// Whose it is, and who may connect.
pub struct Access {
    pub owner: String,
    /// In the system's own terms: permission bits, or a security descriptor.
    pub rights: String,
    /// In words, where there are short ones.
    pub meaning: Option<&'static str>,
}
