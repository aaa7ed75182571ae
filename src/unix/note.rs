//! The content of a name's lock file: the process that holds the lock, and the socket that was
//! bound under the name. Each part has a fixed place and length, so that a process that reads it
//! meanwhile finds it whole.

use std::os::fd::OwnedFd;
use std::process;

use rustix::fs::{Stat, stat};
use rustix::io::{Errno, pread, pwrite};
use rustix::process::{Pid, Resource, getrlimit, test_kill_process};

const HOLDER: usize = 32;
const SOCKET: usize = 64;
/// Written in place of a socket by a holder that is about to bind one.
const BINDING: &str = "binding";
/// Written after the process by a holder that is stopping.
const STOPPING: &str = "stopping";

/// What a lock file records about the socket under its name. The next holder of the lock reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketRecord {
    /// The previous holder bound this socket.
    Bound,
    /// The previous holder was killed while it bound a socket, which may be this one.
    MaybeBound,
    /// There is no record, or it describes another socket.
    Missing,
}

/// Records that this process holds the lock. The record of a socket stays. Errors are ignored: a
/// server can run without the record, for example on a full disk.
pub(super) fn write_holder(file: &OwnedFd) {
    write_first(file, &format!("{} {}", process::id(), pid_namespace()));
}

fn write_first(file: &OwnedFd, text: &str) {
    write(file, &format!("{text:<HOLDER$}"), 0);
}

/// Ignores errors: without the record, other processes only know less. Writes nothing if the limit
/// on file sizes is lower than the record, because the signal `SIGXFSZ` would end the process.
fn write(file: &OwnedFd, text: &str, at: usize) {
    let most = getrlimit(Resource::Fsize).current;
    if most.is_none_or(|most| most >= (HOLDER + SOCKET) as u64) {
        let _ = pwrite(file, text.as_bytes(), at as u64);
    }
}

/// Records that this process accepts no more clients.
#[cfg(feature = "tokio")]
pub(super) fn write_stopping(file: &OwnedFd) {
    write_first(file, &format!("{} {} {STOPPING}", process::id(), pid_namespace()));
}

/// Whether the holder accepts no more clients.
pub(super) fn is_stopping(file: &OwnedFd) -> bool {
    let text = read(file).unwrap_or_default();
    text.get(..HOLDER).and_then(|text| text.split_whitespace().nth(2)) == Some(STOPPING)
}

/// Records that this process is about to bind a socket.
pub(super) fn write_binding(file: &OwnedFd) {
    write_socket(file, BINDING);
}

/// Records that the socket of `stat` was bound.
pub(super) fn write_bound(file: &OwnedFd, stat: &Stat) {
    write_socket(file, &socket(stat));
}

fn write_socket(file: &OwnedFd, text: &str) {
    let width = SOCKET - 1;
    write(file, &format!("{text:<width$}\n"), HOLDER);
}

/// Returns the holder's process id, if it refers to a live process in this PID namespace.
pub(super) fn holder(file: &OwnedFd) -> Option<u32> {
    let text = read(file)?;
    let mut numbers = text.get(..HOLDER)?.split_whitespace();
    let process: u32 = numbers.next()?.parse().ok()?;
    let namespace: u64 = numbers.next()?.parse().ok()?;
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw)?;
    let is_here = pid_namespace() == namespace && test_kill_process(pid) != Err(Errno::SRCH);
    is_here.then_some(process)
}

pub(super) fn socket_record(file: &OwnedFd, stat: &Stat) -> SocketRecord {
    let text = read(file).unwrap_or_default();
    match text.get(HOLDER..).unwrap_or_default().trim() {
        BINDING => SocketRecord::MaybeBound,
        text if text == socket(stat) => SocketRecord::Bound,
        _ => SocketRecord::Missing,
    }
}

/// Returns the PID namespace that process ids belong to, or zero if the system reports none.
#[allow(clippy::unnecessary_cast, reason = "the types differ from system to system")]
fn pid_namespace() -> u64 {
    stat("/proc/self/ns/pid").map_or(0, |namespace| namespace.st_ino as u64)
}

fn read(file: &OwnedFd) -> Option<String> {
    let mut text = [0; HOLDER + SOCKET];
    let length = pread(file, &mut text, 0).ok()?;
    String::from_utf8(text[..length].to_vec()).ok()
}

/// Identifies a socket by its device, its inode number and its modification time. The number alone
/// may be reused. Connections and changes of mode leave the time unchanged.
fn socket(stat: &Stat) -> String {
    let (device, number) = (stat.st_dev, stat.st_ino);
    format!("{device:x}:{number:x}:{:x}.{:x}", stat.st_mtime, stat.st_mtime_nsec)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::fs::fstat;

    use super::*;

    fn empty() -> OwnedFd {
        tempfile::tempfile().expect("a file").into()
    }

    #[test]
    fn holder_and_socket_are_read_as_they_were_written() {
        let (file, here) = (empty(), Some(process::id()));
        let sockets = [empty(), empty()];
        let [one, other] = sockets.each_ref().map(|socket| fstat(socket).expect("its state"));
        assert_eq!((holder(&file), socket_record(&file, &one)), (None, SocketRecord::Missing));

        write_holder(&file);
        assert_eq!((holder(&file), socket_record(&file, &one)), (here, SocketRecord::Missing));
        write_binding(&file);
        assert_eq!(
            (socket_record(&file, &one), socket_record(&file, &other)),
            (SocketRecord::MaybeBound, SocketRecord::MaybeBound)
        );
        write_bound(&file, &one);
        assert_eq!(
            (socket_record(&file, &one), socket_record(&file, &other)),
            (SocketRecord::Bound, SocketRecord::Missing)
        );

        // Each part replaces its own old text and leaves the other parts alone.
        assert!(!is_stopping(&file));
        #[cfg(feature = "tokio")]
        {
            write_stopping(&file);
            assert!(is_stopping(&file));
            assert_eq!((holder(&file), socket_record(&file, &one)), (here, SocketRecord::Bound));
        }
        write_holder(&file);
        assert!(!is_stopping(&file));
        assert_eq!((holder(&file), socket_record(&file, &one)), (here, SocketRecord::Bound));
        assert_eq!(fstat(&file).expect("its state").st_size, (HOLDER + SOCKET) as i64);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pid_namespace_is_the_one_that_the_system_shows() {
        let shown = std::fs::read_link("/proc/self/ns/pid").expect("a namespace");
        assert_eq!(shown.to_str(), Some(&*format!("pid:[{}]", pid_namespace())));
    }

    #[test]
    fn holder_is_none_unless_its_number_means_a_process_here() {
        let here = pid_namespace();
        let mut child = Command::new("true").spawn().expect("a process");
        let gone = child.id();
        child.wait().expect("an end");

        for (text, expected) in [
            // Process 1 is alive, and belongs to another user.
            (format!("1 {here}"), Some(1)),
            (format!("1 {}", here + 1), None),
            (format!("{gone} {here}"), None),
            (format!("0 {here}"), None),
            (format!("-1 {here}"), None),
            (format!("{} {here}", u32::MAX), None),
            ("1".to_owned(), None),
            ("some text".to_owned(), None),
        ] {
            let file = empty();
            write_first(&file, &text);
            assert_eq!(holder(&file), expected, "{text:?}");
        }
    }
}
