//! Reads what Linux reports about Unix domain sockets in /proc. On other systems, which have no
//! such files, it finds nothing.
//!
//! The users who bound the sockets chose the names in the table, and may have put line breaks into
//! them, so a line may be forged. A process counts as the server only if it has the socket open.

use std::fs;
use std::path::{Path, PathBuf};

/// A listening socket.
#[derive(Debug, PartialEq, Eq)]
pub struct Listening {
    /// The path, as it was bound.
    pub path: String,
    /// Whether the client of a stream can connect to this type of socket.
    pub is_stream: bool,
    /// Its inode number, by which its process can be found.
    inode: u64,
}

/// Returns the sockets that listen under `path`, which is absolute or `@NAME`. Names that are not
/// UTF-8 are left out.
pub fn listening_at(path: &str) -> Vec<Listening> {
    listening_in(&table(), path, |socket| process_of(socket).and_then(working_directory))
}

fn table() -> Vec<u8> {
    fs::read("/proc/net/unix").unwrap_or_default()
}

/// Parses the lines that are UTF-8. A socket with another name must not hide the rest.
fn sockets(table: &[u8]) -> impl Iterator<Item = Listening> {
    let lines = table.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(|line| std::str::from_utf8(line).ok()).filter_map(listening)
}

fn working_directory(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Returns the process that has the socket open, if this user may see it.
pub fn process_of(socket: &Listening) -> Option<u32> {
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

/// `bound_in` returns the working directory of a socket's process.
fn listening_in(
    table: &[u8],
    path: &str,
    bound_in: impl Fn(&Listening) -> Option<PathBuf>,
) -> Vec<Listening> {
    let wanted = Path::new(path);
    let right = |socket: Listening| {
        if socket.path == path {
            return Some(socket);
        }
        let found = Path::new(&socket.path);
        if found.file_name() != wanted.file_name() {
            return None;
        }

        let dir = found.parent()?;
        let same = if dir.is_absolute() {
            Some(dir) == wanted.parent()
        } else {
            let bound_in = bound_in(&socket)?.join(dir).canonicalize().ok()?;
            Some(&*bound_in) == wanted.parent()
        };
        same.then_some(socket)
    };
    sockets(table).filter_map(right).collect()
}

/// Parses the socket of a line, if it listens. The fields of a line, see proc(5), are
/// `Num RefCount Protocol Flags Type St Inode Path`.
fn listening(line: &str) -> Option<Listening> {
    // `__SO_ACCEPTCON` of the kernel.
    const LISTENS: u32 = 0x1_0000;
    // `SOCK_STREAM`.
    const STREAM: &str = "0001";
    // The path is the rest of the line, blanks included.
    let mut rest = line;
    let mut fields = [""; 7];
    for field in &mut fields {
        (*field, rest) = rest.trim_start().split_once(' ')?;
    }
    let flags = u32::from_str_radix(fields[3], 16).ok()?;
    let inode = fields[6].parse().ok()?;
    let listens = flags & LISTENS != 0;
    let is_stream = fields[4] == STREAM;
    listens.then(|| Listening { path: rest.to_owned(), is_stream, inode })
}

// Windows has other paths.
#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 17001 /run/x/.s.sock.new
0000000000000000: 00000002 00000000 00010000 0001 01 17002 /run/x/s.sock
0000000000000000: 00000003 00000000 00000000 0001 03 17003 /run/x/s.sock
0000000000000000: 00000003 00000000 00000000 0001 03 17004
0000000000000000: 00000002 00000000 00010000 0001 01 17005 /run/y/.s.sock.new
0000000000000000: 00000002 00000000 00010000 0001 01 17006 @echo
0000000000000000: 00000002 00000000 00010000 0001 01 17007 /run/x/with a blank
0000000000000000: 00000002 00000000 00010000 0001 01 17008 /run/x/.s.sock.backup
0000000000000000: 00000002 00000000 00010000 0001 01 17009 ./here
0000000000000000: 00000002 00000000 00010000 0001 01 17010 /run/x/\xff
0000000000000000: 00000002 00000000 00010000 0001 01 17011 /run/x/last
";

    #[test]
    fn listening_sockets_are_found_by_their_exact_path() {
        let inodes = |path| -> Vec<_> {
            let found = listening_in(TABLE, path, |_| Some("/".into()));
            found.iter().map(|socket| socket.inode).collect()
        };
        assert_eq!(inodes("/run/x/s.sock"), [17002]);
        assert_eq!(inodes("@echo"), [17006]);
        assert_eq!(inodes("/run/x/with a blank"), [17007]);
        assert_eq!(inodes("/run/z/s.sock"), [0; 0]);
        assert_eq!(inodes("/run/x/here"), [0; 0]);
        assert_eq!(inodes("/here"), [17009]);
        assert_eq!(inodes("/run/x/last"), [17011]);
        assert_eq!(inodes("/run/x/\u{fffd}"), [0; 0]);
        for table in ["", "Num\nnonsense\n", "Num\na b c d e f g nonsense\n"] {
            assert_eq!(listening_in(table.as_bytes(), "nonsense", |_| None), []);
        }
    }
}
