//! Reads the peer's credentials with `LOCAL_PEERCRED`: a `struct xucred`, whose length differs
//! between macOS, FreeBSD and DragonFly.

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use libc::xucred;

use super::super::sockopt::get;

/// `SOL_LOCAL`, getsockopt(2).
pub(super) const LEVEL: libc::c_int = 0;

const WORDS: usize = size_of::<xucred>() / size_of::<u32>();

/// The structure, as the words that it consists of.
pub(super) struct Credentials(pub(super) [u32; WORDS]);

impl Credentials {
    /// Fails for a socket that was never connected. The credentials stay when the peer is gone.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut words = [0; WORDS];
        get(socket, LEVEL, libc::LOCAL_PEERCRED, &mut words)?;
        let credentials = Self(words);
        if credentials.word(offset_of!(xucred, cr_version)) != libc::XUCRED_VERSION {
            let what = "the system describes the peer in a way that is not known here";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        Ok(credentials)
    }

    pub(super) fn uid(&self) -> u32 {
        self.word(offset_of!(xucred, cr_uid))
    }

    /// Returns the groups. The first one is the effective group.
    pub(super) fn groups(&self) -> &[u32] {
        let [a, b, ..] = self.word(offset_of!(xucred, cr_ngroups)).to_ne_bytes();
        let count = usize::try_from(i16::from_ne_bytes([a, b])).unwrap_or(0);
        let first = offset_of!(xucred, cr_groups) / size_of::<u32>();
        &self.0[first..first + count.min(16)]
    }

    pub(super) fn gid(&self) -> io::Result<u32> {
        let none = || io::Error::other("the system reports no group of the peer");
        self.groups().first().copied().ok_or_else(none)
    }

    pub(super) fn word(&self, offset: usize) -> u32 {
        self.0[offset / size_of::<u32>()]
    }
}
