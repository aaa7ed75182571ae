//! Finds out what prevents a server from listening.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;
use sockpipe::{Endpoint, UserId};

use super::system::is_mount_point;
use super::{is_stranger, user};

/// Returns why the crate would refuse to bind there, as far as the directory shows.
pub fn why_no_server(address: &Endpoint) -> Option<String> {
    let path = address.as_path()?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or_else(|| Path::new("."));
    let data = fs::metadata(dir).ok().filter(fs::Metadata::is_dir)?;
    let (shown, mode) = (dir.display(), data.mode() & 0o7777);

    if is_stranger(data.uid()) {
        let owner = user(&UserId::Uid(data.uid()));
        return Some(format!(
            "the directory {shown} belongs to {owner}, who could replace the socket; choose one of \
             your own, or allow it with --unsafe-directory"
        ));
    }
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Some(format!(
            "others can write to the directory {shown} (mode {mode:04o}, without the sticky bit), \
             and could replace the socket; choose one of your own, or allow it with \
             --unsafe-directory"
        ));
    }

    if access(dir, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        Some(format!("this user cannot write to the directory {shown}; choose another one"))
    } else if is_mount_point(path) {
        Some(format!("{} is a mount point; unmount it first", path.display()))
    } else {
        unusual_lock(dir, path.file_name()?)
    }
}

/// Reports an existing lock file that no server of this user would take.
fn unusual_lock(dir: &Path, name: &OsStr) -> Option<String> {
    let mut file = OsString::from(".");
    file.push(name);
    file.push(".lock");
    let lock = dir.join(file);

    let data = fs::symlink_metadata(&lock).ok()?;
    let usual = data.is_file() && data.uid() == geteuid().as_raw() && data.nlink() == 1;
    (!usual).then(|| {
        format!(
            "its lock file {} is not a plain file of this user; remove it first",
            lock.display()
        )
    })
}
