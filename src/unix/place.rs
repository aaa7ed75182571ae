//! The place of a socket: a name in an open directory.
//!
//! All operations on the name use the directory's descriptor, so they apply to one directory from
//! the first check to the last change, even if the path changes meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::process::geteuid;

use super::{bound, platform};
use crate::endpoint::{Endpoint, Form};
use crate::error::{self, Error, Reason};

pub(super) const SOCKET: &str = "a socket";

#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    dir_path: PathBuf,
    /// The path that stays valid when the process changes its working directory. If that directory
    /// has no known path, this is the path as it was given.
    absolute: PathBuf,
    name: OsString,
    origin: Origin,
}

/// The origin of the directory.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// The user specified it.
    Written,
    /// The system provides it for this user.
    User,
    /// This crate creates it.
    Private,
}

/// Identifies a file for as long as it is open or its socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

#[cfg(feature = "tokio")]
impl FileId {
    /// Encodes the id, to send it to another process on this machine.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0) << 64 | u128::from(self.1)).to_ne_bytes()
    }
}

impl Place {
    /// Returns the place at a path that the user specified.
    pub(super) fn of_path(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self::open(parent, name, Origin::Written)
    }

    /// Returns a place in a directory that the system creates for each user. Returns `None` if
    /// there is no such directory, if it belongs to another user, as under `su`, or if others can
    /// write to it.
    pub(super) fn in_user_dir(dir: &Path, file: &str) -> io::Result<Option<Self>> {
        let place = match Self::open(dir, file.into(), Origin::User) {
            Ok(place) => place,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let stat = fstat(&place.dir)?;
        let ours = stat.st_uid == geteuid().as_raw() && !place.is_writable_by_others(&stat);
        Ok(ours.then_some(place))
    }

    /// Returns the place in such a directory even if others can write to it by now: a server may
    /// have been bound there before. Files that others put there do not count as this user's.
    pub(super) fn in_passed_over_dir(dir: &Path, file: &str) -> Option<Self> {
        let place = Self::open(dir, file.into(), Origin::User).ok()?;
        let stat = fstat(&place.dir).ok()?;
        (stat.st_uid == geteuid().as_raw()).then_some(place)
    }

    /// Explains why such a directory is skipped, unless that is obvious.
    pub(super) fn why_passed_over(dir: &Path) -> Option<String> {
        let place = Self::open(dir, OsString::new(), Origin::User).ok()?;
        let stat = fstat(&place.dir).ok()?;
        let (mode, own) = (stat.st_mode as u32 & 0o7777, geteuid().as_raw());
        if stat.st_uid != own {
            return Some(format!("it belongs to uid {}, not to uid {own}", stat.st_uid));
        }
        let writable = place.is_writable_by_others(&stat);
        writable.then(|| format!("others can write to it (mode {mode:04o})"))
    }

    /// Explains in a sentence why [`in_user_dir`](Self::in_user_dir) found no place.
    pub(super) fn why_no_user_dir(dir: &Path) -> String {
        let shown = dir.display();
        match Self::why_passed_over(dir) {
            Some(why) => format!("the directory {shown} is passed over, as {why}"),
            None if dir.is_dir() => format!("this user cannot enter the directory {shown}"),
            None => format!("there is no directory {shown}"),
        }
    }

    /// Whether users other than its owner may write to the directory.
    fn is_writable_by_others(&self, stat: &Stat) -> bool {
        let by_group = || !platform::is_private_group(&self.dir, stat);
        let mode = Mode::from_raw_mode(stat.st_mode);
        mode.contains(Mode::WOTH) || mode.contains(Mode::WGRP) && by_group()
    }

    /// Returns a place in a directory that this crate creates, and that no other user can enter.
    pub(super) fn in_private_dir(dir: &Path, file: &str) -> io::Result<Self> {
        match mkdirat(CWD, dir, Mode::RWXU) {
            // The umask may have removed bits of the mode, or the process that created the
            // directory was killed before it set the mode.
            Ok(()) | Err(Errno::EXIST) => bound::restore_dir_mode(dir),
            Err(errno) => return Err(failed(dir, "cannot make the directory", errno)),
        }
        match Self::in_existing_private_dir(dir, file)? {
            Some(place) => Ok(place),
            None => Err(failed(dir, "cannot use the directory", Errno::NOENT)),
        }
    }

    /// Returns the same place if the directory exists already, else `None`.
    pub(super) fn in_existing_private_dir(dir: &Path, file: &str) -> io::Result<Option<Self>> {
        let flags = platform::DIRECTORY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = match openat(CWD, dir, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            // Some systems have to open it for reading.
            Err(Errno::ACCESS) => {
                return Err(not_private(dir, &statat(CWD, dir, AtFlags::SYMLINK_NOFOLLOW)?));
            }
            Err(errno) => return Err(failed(dir, "cannot use the directory", errno)),
        };

        let stat = fstat(&opened)?;
        if stat.st_uid != geteuid().as_raw() || stat.st_mode as u32 & 0o077 != 0 {
            return Err(not_private(dir, &stat));
        }
        Ok(Some(Self::new(opened, dir, file.into(), Origin::Private)))
    }

    fn open(dir: &Path, name: OsString, origin: Origin) -> io::Result<Self> {
        let flags = platform::DIRECTORY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, dir, flags, Mode::empty()).map_err(|errno| {
            let shown = dir.display();
            let missing = |what: &str, advice: &'static str| {
                let what = format!("there is no directory {shown}{what}");
                let error = Error::new(Reason::NoDirectory, what).caused_by(io::Error::from(errno));
                error.advising(advice).into()
            };
            match errno {
                Errno::NOENT => missing("", "create it first, or choose another path"),
                Errno::NOTDIR => missing(", but something else", "choose another path"),
                errno => failed(dir, "cannot use the directory", errno),
            }
        })?;
        Ok(Self::new(opened, dir, name, origin))
    }

    fn new(dir: OwnedFd, path: &Path, name: OsString, origin: Origin) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { dir, dir_path: path.to_owned(), absolute, name, origin }
    }

    /// Refuses a directory in which another user could replace the socket, unless it is `allowed`.
    pub(super) fn safe(self, allowed: bool) -> io::Result<Self> {
        let Some(why) = self.why_unsafe()?.filter(|_| !allowed) else { return Ok(self) };
        let dir = self.dir_path.display();
        let what = format!("the directory {dir} {why}, so that others could replace the socket");
        let error = Error::new(Reason::UnsafeDirectory, what).at(self.endpoint());
        let own = fstat(&self.dir)?.st_uid == geteuid().as_raw();
        let choose = if own {
            format!("take that away with chmod go-w {dir}")
        } else {
            "choose a directory of your own".to_owned()
        };
        let allow = "os::unix::ListenOptionsExt::unsafe_directory";
        Err(error.advising(format!("{choose}, or allow this one with {allow}")).into())
    }

    /// Returns why another user could replace files in the directory, or `None` if none could.
    pub(super) fn why_unsafe(&self) -> io::Result<Option<String>> {
        let stat = fstat(&self.dir)?;
        let (uid, mode) = (stat.st_uid, stat.st_mode as u32 & 0o7777);
        let writable = mode & 0o1000 == 0 && self.is_writable_by_others(&stat);
        Ok(if uid != 0 && uid != geteuid().as_raw() {
            Some(format!("belongs to uid {uid}"))
        } else if writable {
            Some(format!("can be written by others (mode {mode:04o}, without the sticky bit)"))
        } else {
            None
        })
    }

    /// Whether no other user can enter the directory.
    pub(super) fn is_private(&self) -> bool {
        let Ok(stat) = fstat(&self.dir) else { return false };
        let mode = Mode::from_raw_mode(stat.st_mode);
        stat.st_uid == geteuid().as_raw() && !mode.intersects(Mode::RWXG | Mode::RWXO)
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let (dir_path, absolute) = (self.dir_path.clone(), self.absolute.clone());
        let (dir, name) = (self.dir.try_clone()?, self.name.clone());
        Ok(Self { dir, dir_path, absolute, name, origin: self.origin })
    }

    /// Returns the place in the directory that is now at the path, if this crate chose that path:
    /// for example, the directory of a session that ended and began again. A directory that the
    /// user specified is left alone. A user who removed it and created it again does not want the
    /// old server there.
    pub(super) fn reopened(&self) -> io::Result<Self> {
        let file = self.name.to_string_lossy();
        let opened = match self.origin {
            Origin::Written => None,
            Origin::User => Self::in_user_dir(&self.absolute, &file)?,
            Origin::Private => Some(Self::in_private_dir(&self.absolute, &file)?),
        };
        opened.ok_or_else(|| {
            let what = format!("the directory {} was removed or replaced", self.dir_path.display());
            let error = Error::new(Reason::NoDirectory, what).at(self.endpoint());
            error.advising("bind a new listener").into()
        })
    }

    /// Whether [`reopened`](Self::reopened) may return another directory.
    #[cfg(feature = "tokio")]
    pub(super) fn may_be_reopened(&self) -> bool {
        !matches!(self.origin, Origin::Written)
    }

    /// The path of the socket. It stays valid if the process changes its working directory.
    pub(super) fn absolute_path(&self) -> PathBuf {
        self.absolute.join(&self.name)
    }

    /// Looks up the name by its path, which stays valid if the process changes its working
    /// directory.
    pub(super) fn stat_by_path(&self) -> Result<Stat, Errno> {
        statat(CWD, self.absolute_path(), AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(super) fn dir_path(&self) -> &Path {
        &self.dir_path
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir_path.join(&self.name)
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint(Form::Path(self.path()))
    }

    /// Returns the address of `name` in the directory: its path, or a shorter way to the same file.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if neither fits; `NotFound` if no path leads to the directory any more.
    pub(super) fn address(&self, name: &OsStr) -> io::Result<SocketAddrUnix> {
        let fits = |path: &PathBuf| path.as_os_str().len() <= platform::PATH_LIMIT;
        let by_path = [&self.dir_path, &self.absolute].map(|dir| (dir, dir.join(name)));
        let by_path = by_path.into_iter().filter(|(_, path)| fits(path));
        let mut by_path = by_path.filter(|(dir, _)| self.is_at(dir)).map(|(_, path)| path);
        let short = || platform::short_path(&self.dir, name);
        match by_path.next().or_else(short).filter(fits) {
            Some(path) => Ok(SocketAddrUnix::new(path)?),
            None => Err(self.too_long(name)),
        }
    }

    /// Returns the address to bind. If it fits, it is the path that leads through no symbolic link,
    /// because the system shows it to users, and cleaners compare it with what they find.
    pub(super) fn address_to_bind(&self) -> io::Result<SocketAddrUnix> {
        let fits = |path: &PathBuf| path.as_os_str().len() <= platform::PATH_LIMIT;
        match self.resolved().filter(fits) {
            Some(path) => Ok(SocketAddrUnix::new(path)?),
            None => self.address(&self.name),
        }
    }

    /// The path of the name that leads through no symbolic link, if it is known.
    pub(super) fn resolved(&self) -> Option<PathBuf> {
        let dir = fs::canonicalize(&self.dir_path).ok().filter(|dir| self.is_at(dir));
        dir.map(|dir| dir.join(&self.name))
    }

    fn too_long(&self, name: &OsStr) -> io::Error {
        let whole = self.dir_path.join(name).as_os_str().len();
        let limit = platform::PATH_LIMIT;
        if whole <= limit {
            let what = format!("{} was replaced by another directory", self.dir_path.display());
            return Error::new(Reason::NoDirectory, what).at(self.endpoint()).into();
        }

        let mut reason =
            format!("the path is too long for a socket: {whole} bytes, and the limit is {limit}");
        match platform::short_path(&self.dir, name) {
            Some(short) => {
                let last = limit.saturating_sub(short.as_os_str().len() - name.len());
                reason += &format!(", or {last} for its last part alone, which has {}", name.len());
            }
            None => reason += platform::NO_SHORT_PATH,
        }
        error::too_long(&self.endpoint(), reason)
    }

    /// Whether `path` still leads to the directory.
    fn is_at(&self, path: &Path) -> bool {
        let (Ok(open), Ok(there)) = (fstat(&self.dir), statat(CWD, path, AtFlags::empty())) else {
            return false;
        };
        file_id(&open) == file_id(&there)
    }

    /// Whether both are in one directory, which may have two paths.
    pub(super) fn is_in(&self, other: &Self) -> bool {
        let (Ok(one), Ok(two)) = (fstat(&self.dir), fstat(&other.dir)) else { return false };
        file_id(&one) == file_id(&two)
    }

    /// Whether the path still leads to the directory. The working directory does not matter.
    pub(super) fn is_where_it_was(&self) -> bool {
        self.is_at(&self.absolute)
    }

    /// Returns the state of the file with this name in the directory. It follows no link.
    pub(super) fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match self.stat_there(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            // The operation's own message has this path.
            Err(errno) if name == self.name() => Err(error::os(self.endpoint(), errno)),
            Err(errno) => Err(failed(&self.dir_path.join(name), "cannot look at", errno)),
        }
    }

    pub(super) fn stat_there(&self, name: &OsStr) -> Result<Stat, Errno> {
        statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Returns the kind of file that a client finds under the name. It follows links.
    pub(super) fn what_stands_there(&self) -> io::Result<Option<&'static str>> {
        match statat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(stat) => Ok(Some(what(&stat))),
            Err(_) => Ok(None),
        }
    }
}

pub(super) fn what(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => SOCKET,
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        _ => "a device",
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types differ from system to system")]
pub(super) fn file_id(stat: &Stat) -> FileId {
    FileId(stat.st_dev as u64, stat.st_ino as u64)
}

/// The error for a private directory that another user owns or can enter.
fn not_private(dir: &Path, stat: &Stat) -> io::Error {
    let (uid, mode, own) = (stat.st_uid, stat.st_mode & 0o7777, geteuid().as_raw());
    let shown = dir.display();
    let what = format!(
        "the directory {shown} belongs to uid {uid} and has mode {mode:04o}, and must be uid \
         {own}'s and 0700"
    );
    let advice = "remove it, or set XDG_RUNTIME_DIR to a directory of your own";
    Error::new(Reason::PrivateDirectory, what).advising(advice).into()
}

pub(super) fn failed(path: &Path, what: &str, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    let what = format!("{what} {}: {error}", path.display());
    Error::new(Reason::Os, what).caused_by(error).into()
}

/// Returns a number that differs between calls and between processes: the standard library's hash
/// seeds are random, and no two in a process are equal.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Removes a file of this crate. It may be gone already.
pub(super) fn remove(place: &Place, name: &OsStr) {
    let _ = unlinkat(place.dir(), name, AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_and_file_ids_differ() {
        assert_ne!(random(), random());
        #[cfg(feature = "tokio")]
        for other in [FileId(1, 3), FileId(3, 2), FileId(2, 1)] {
            assert_ne!(FileId(1, 2).to_bytes(), other.to_bytes());
        }
    }
}
