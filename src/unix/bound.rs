//! The file that `bind` made. Its group and mode are set on that very file, never on one that
//! another process put in its place, which may be a link to anything if others can write to the
//! directory.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::access::Permission;
use super::place::{FileId, Place, file_id};
use crate::error::{self, Error, Reason};

/// Sets the group and mode of the socket's file if the umask or the system kept `bind` from doing
/// so.
///
/// # Errors
///
/// `PermissionDenied` if another file has this `name` by now. That file is left as it is.
pub(super) fn settle(place: &Place, name: &OsStr, permission: Permission) -> io::Result<Stat> {
    let cannot = |errno| error::os(place.endpoint(), errno);
    let file = BoundFile::open(place, name).map_err(cannot)?;
    if !is_our_socket(&file.stat) {
        return Err(replaced(place));
    }

    if let Some(group) = permission.group() {
        file.set_group(Gid::from_raw(group)).map_err(cannot)?;
    }

    let (now, wanted) = (Mode::from_raw_mode(file.stat.st_mode), permission.mode());
    if now != wanted {
        if let Err(errno) = file.set_mode(wanted) {
            // Connecting takes write permission, so no other user gets in then, and `accept` checks
            // the peer too.
            let is_private = !now.intersects(Mode::WGRP | Mode::WOTH) || place.is_private();
            if !permission.is_owner_only() || !is_private {
                return Err(no_mode(place, wanted, errno));
            }
        }
    }
    Ok(file.stat)
}

/// Checks the same as `settle` later: that the name still leads to this file.
pub(super) fn is_there(place: &Place, name: &OsStr, id: FileId) -> io::Result<()> {
    match place.stat(name)? {
        Some(stat) if file_id(&stat) == id => Ok(()),
        _ => Err(replaced(place)),
    }
}

/// Whether this may be the file that this process has just bound. `bind` makes one link, so a file
/// with a second name is not trusted.
pub(super) fn is_our_socket(stat: &Stat) -> bool {
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    is_socket && stat.st_uid == geteuid().as_raw() && stat.st_nlink == 1
}

/// Restores the mode of this user's directory if it is too strict, even for this user.
pub(super) fn restore_dir_mode(path: &Path) {
    let Ok(dir) = BoundFile::open_at(path) else { return };
    let mode = Mode::from_raw_mode(dir.stat.st_mode);
    let is_ours = FileType::from_raw_mode(dir.stat.st_mode) == FileType::Directory
        && dir.stat.st_uid == geteuid().as_raw();
    if is_ours && !mode.contains(Mode::RWXU) && !mode.intersects(Mode::RWXG | Mode::RWXO) {
        let _ = dir.set_mode(Mode::RWXU);
    }
}

fn replaced(place: &Place) -> io::Error {
    let cause = "another process replaced the socket while it was made";
    let error = Error::new(Reason::UnsafeDirectory, cause).at(place.endpoint());
    error.advising("choose a directory of your own").into()
}

fn no_mode(place: &Place, wanted: Mode, errno: Errno) -> io::Error {
    let (error, mode) = (io::Error::from(errno), wanted.as_raw_mode());
    let cause = format!("the mode of the socket cannot be set to {mode:04o}: {error}");
    let error = Error::new(Reason::Os, cause).at(place.endpoint()).caused_by(error);
    error.advising("choose a directory on another file system").into()
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        use std::os::fd::{AsRawFd, OwnedFd};
        use std::path::PathBuf;

        use rustix::fs::{AtFlags, CWD, OFlags, chmodat, chownat, fstat, openat};

        /// Opened without following a link, so that the check and the change apply to one file.
        pub(super) struct BoundFile {
            file: OwnedFd,
            pub(super) stat: Stat,
        }

        impl BoundFile {
            pub(super) fn open(place: &Place, name: &OsStr) -> Result<Self, Errno> {
                Self::open_in(place.dir().as_fd(), Path::new(name))
            }

            pub(super) fn open_at(path: &Path) -> Result<Self, Errno> {
                Self::open_in(CWD, path)
            }

            fn open_in(dir: BorrowedFd<'_>, path: &Path) -> Result<Self, Errno> {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(dir, path, flags, Mode::empty())?;
                let stat = fstat(&file)?;
                Ok(Self { file, stat })
            }

            fn set_group(&self, group: Gid) -> Result<(), Errno> {
                chownat(&self.file, "", None, Some(group), AtFlags::EMPTY_PATH)
            }

            /// fchmod(2) refuses such a descriptor, but its entry in /proc leads to the same file.
            pub(super) fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
                let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
                chmodat(CWD, &path, mode, AtFlags::empty())
            }
        }
    } else {
        use rustix::fs::{AtFlags, CWD, chmodat, chownat, statat};

        /// Works by name: on these systems a socket's file cannot be opened, but the calls can be
        /// told not to follow links.
        pub(super) struct BoundFile<'a> {
            dir: BorrowedFd<'a>,
            path: &'a Path,
            pub(super) stat: Stat,
        }

        impl<'a> BoundFile<'a> {
            pub(super) fn open(place: &'a Place, name: &'a OsStr) -> Result<Self, Errno> {
                Self::open_in(place.dir().as_fd(), Path::new(name))
            }

            pub(super) fn open_at(path: &'a Path) -> Result<Self, Errno> {
                Self::open_in(CWD, path)
            }

            fn open_in(dir: BorrowedFd<'a>, path: &'a Path) -> Result<Self, Errno> {
                let stat = statat(dir, path, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(Self { dir, path, stat })
            }

            fn set_group(&self, group: Gid) -> Result<(), Errno> {
                chownat(self.dir, self.path, None, Some(group), AtFlags::SYMLINK_NOFOLLOW)
            }

            pub(super) fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
                chmodat(self.dir, self.path, mode, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }
}
