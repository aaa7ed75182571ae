//! What Linux tells of Unix domain sockets in /proc; nothing on other systems, which have no such
//! files.
//!
//! Names in the table are what the users who bound them chose, line breaks included, so a line may be
//! made up. Who listens is believed of a process that has the socket open.

use std::fs;
use std::path::{Path, PathBuf};

/// A socket that listens.
#[derive(Debug, PartialEq, Eq)]
pub struct Listening {
    /// As it was bound, which for a server of sockpipe is a temporary name.
    pub path: String,
    /// Its number, by which its process can be found.
    inode: u64,
    /// Of a server of sockpipe: the process that its temporary name gives.
    pub claimed_by: Option<u32>,
}

/// The sockets that listen under `path`, an absolute one or `@NAME`, by themselves or by a temporary
/// name of sockpipe: `.NAME.PID.RANDOM` in the same directory. Names that are not UTF-8 are left out.
pub fn listening_at(path: &str) -> Vec<Listening> {
    listening_in(&table(), path, |socket| process_of(socket).and_then(working_directory))
}

/// The temporary name of the socket `path` that the process bound, whatever it calls the directory.
pub fn temporary_name(path: &Path, pid: u32) -> Option<String> {
    let table = table();
    let mut sockets = sockets(&table);
    sockets.find(|socket| temporary(&socket.path, path) == Some(pid)).map(|socket| socket.path)
}

fn table() -> Vec<u8> {
    fs::read("/proc/net/unix").unwrap_or_default()
}

/// Of the lines, those that are UTF-8: one socket with another name must not hide the rest.
fn sockets(table: &[u8]) -> impl Iterator<Item = Listening> {
    let lines = table.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(|line| std::str::from_utf8(line).ok()).filter_map(listening)
}

fn working_directory(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// The process that has the socket open, if this user may see it: the one that the name gives, if
/// that is so.
pub fn process_of(socket: &Listening) -> Option<u32> {
    if let Some(pid) = socket.claimed_by.filter(|&pid| has_open(pid, socket.inode)) {
        return Some(pid);
    }
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids =
        processes.flatten().filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.find(|&pid| has_open(pid, socket.inode))
}

fn has_open(pid: u32, inode: u64) -> bool {
    let link = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_it = |to: PathBuf| to.as_os_str() == link.as_str();
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(is_it))
}

/// `bound_in` gives the working directory of a socket's process.
fn listening_in(
    table: &[u8],
    path: &str,
    bound_in: impl Fn(&Listening) -> Option<PathBuf>,
) -> Vec<Listening> {
    let wanted = Path::new(path);
    let right = |mut socket: Listening| {
        if socket.path == path {
            return Some(socket);
        }
        let found = Path::new(&socket.path);
        let claimed_by = temporary(&socket.path, wanted);
        if claimed_by.is_none() && found.file_name() != wanted.file_name() {
            return None;
        }
        let dir = found.parent()?;
        let same = if dir.is_absolute() {
            Some(dir) == wanted.parent()
        } else {
            let bound_in = bound_in(&socket)?.join(dir).canonicalize().ok()?;
            Some(&*bound_in) == wanted.parent()
        };
        socket.claimed_by = claimed_by;
        same.then_some(socket)
    };
    sockets(table).filter_map(right).collect()
}

/// The socket of a line, if it listens. `Num RefCount Protocol Flags Type St Inode Path`, see
/// proc(5).
fn listening(line: &str) -> Option<Listening> {
    // `__SO_ACCEPTCON` of the kernel.
    const LISTENS: u32 = 0x1_0000;
    // The path is the rest of the line, blanks included.
    let mut rest = line;
    let mut fields = [""; 7];
    for field in &mut fields {
        (*field, rest) = rest.trim_start().split_once(' ')?;
    }
    let flags = u32::from_str_radix(fields[3], 16).ok()?;
    let inode = fields[6].parse().ok()?;
    let listens = flags & LISTENS != 0;
    listens.then(|| Listening { path: rest.to_owned(), inode, claimed_by: None })
}

/// The process id, if `found` is a temporary name for the socket `path`, in whatever directory.
fn temporary(found: &str, path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let found = Path::new(found).file_name()?.to_str()?;
    let rest = found.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.')?;
    let (pid, random) = rest.split_once('.')?;
    let hex = random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    pid.parse().ok().filter(|_| hex)
}

// Windows has other paths.
#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 17001 /run/x/.s.sock.42.0a1b2c3d
0000000000000000: 00000002 00000000 00010000 0001 01 17002 /run/x/s.sock
0000000000000000: 00000003 00000000 00000000 0001 03 17003 /run/x/s.sock
0000000000000000: 00000003 00000000 00000000 0001 03 17004
0000000000000000: 00000002 00000000 00010000 0001 01 17005 /run/y/.s.sock.42.0a1b2c3d
0000000000000000: 00000002 00000000 00010000 0001 01 17006 @echo
0000000000000000: 00000002 00000000 00010000 0001 01 17007 /run/x/with a blank
0000000000000000: 00000002 00000000 00010000 0001 01 17008 /run/x/.s.sock.backup
0000000000000000: 00000002 00000000 00010000 0001 01 17009 ./here
0000000000000000: 00000002 00000000 00010000 0001 01 17010 /run/x/\xff
0000000000000000: 00000002 00000000 00010000 0001 01 17011 /run/x/last
";

    #[test]
    fn the_table() {
        let inodes = |path| -> Vec<_> {
            let found = listening_in(TABLE, path, |_| Some("/".into()));
            found.iter().map(|socket| (socket.inode, socket.claimed_by)).collect()
        };
        assert_eq!(inodes("/run/x/s.sock"), [(17001, Some(42)), (17002, None)]);
        assert_eq!(inodes("/run/y/s.sock"), [(17005, Some(42))]);
        assert_eq!(inodes("@echo"), [(17006, None)]);
        assert_eq!(inodes("/run/x/with a blank"), [(17007, None)]);
        assert_eq!(inodes("/run/z/s.sock"), []);
        assert_eq!(inodes("/run/x/here"), []);
        assert_eq!(inodes("/here"), [(17009, None)]);
        assert_eq!(inodes("/run/x/last"), [(17011, None)]);
        assert_eq!(inodes("/run/x/\u{fffd}"), []);
        for table in ["", "Num\nnonsense\n", "Num\na b c d e f g nonsense\n"] {
            assert_eq!(listening_in(table.as_bytes(), "nonsense", |_| None), []);
        }
    }
}
