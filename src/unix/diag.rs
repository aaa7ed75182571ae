//! Asks the kernel whether a socket is bound to a file, and whether a socket still has its peer:
//! sock_diag(7). No connection is made, so a server does not notice even if it serves only one
//! client, or does not listen yet.

use std::iter;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Stat, major, minor};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// From linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_REQUEST_DUMP: u16 = NLM_F_REQUEST | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_NAME_VFS: u32 = 0x1 | 0x2;
const UDIAG_SHOW_PEER: u32 = 0x4;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
/// `TCP_CLOSE`, the state of a socket that is only bound, and `TCP_LISTEN`. An accepted socket has
/// the file of its listener too, but does not keep the name in use.
const STATES: u32 = 1 << 7 | 1 << 10;
/// The lengths of the headers of a message, and of an attribute in it.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// Whether a socket that listens, or may listen later, is bound to the file that `path` leads to
/// and that `stat` describes. `None` if the kernel does not report it. `false` proves nothing:
/// sockets in other network namespaces are not listed.
pub(super) fn is_bound(path: &Path, stat: &Stat) -> Option<bool> {
    let request = request(NLM_F_REQUEST_DUMP, [STATES, 0, UDIAG_SHOW_NAME_VFS, 0, 0]);
    let kernel = ask(&request)?;
    let mut buffer = vec![0; 64 * 1024];

    loop {
        let (length, _) = recv(&kernel, &mut buffer[..], RecvFlags::empty()).ok()?;
        let mut rest = &buffer[..length];

        while rest.len() >= HEADER {
            let size = number(rest, 0)? as usize;
            let message = rest.get(HEADER..size)?;
            match half(rest, 4)? {
                NLMSG_ERROR => return None,
                NLMSG_DONE => return Some(false),
                SOCK_DIAG_BY_FAMILY if is_of(message, path, stat) => return Some(true),
                _ => {}
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Whether the socket with that inode number still has a peer. The kernel keeps a closed socket for
/// as long as its peer has it, but a closed socket has no file, and so no number. If the kernel
/// does not report the peer, it counts as gone.
pub(super) fn has_peer(socket: u64) -> bool {
    peer_of(socket).is_some_and(|peer| peer != 0)
}

/// Returns the inode number of the peer's file, or 0 if the peer was closed.
fn peer_of(socket: u64) -> Option<u32> {
    // Any state and any cookie match.
    let what = [u32::MAX, socket as u32, UDIAG_SHOW_PEER, u32::MAX, u32::MAX];
    let kernel = ask(&request(NLM_F_REQUEST, what))?;
    let mut buffer = [0; 1024];
    let (length, _) = recv(&kernel, &mut buffer[..], RecvFlags::empty()).ok()?;
    let answer = &buffer[..length];
    if half(answer, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let message = answer.get(HEADER..number(answer, 0)? as usize)?;
    attributes(message).find(|(kind, _)| *kind == UNIX_DIAG_PEER).and_then(|(_, at)| number(at, 0))
}

fn ask(request: &[u8]) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::RAW;
    let kernel = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG)).ok()?;
    send(&kernel, request, SendFlags::empty()).ok()?;
    Some(kernel)
}

/// Builds a `struct nlmsghdr` and a `struct unix_diag_req`: the states, the inode number, what to
/// show, and the two halves of the cookie.
fn request(flags: u16, what: [u32; 5]) -> Vec<u8> {
    let family = libc::AF_UNIX as u32;
    let mut request = Vec::new();
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    // The family is one byte, and three zero bytes follow.
    request.extend([family as u8, 0, 0, 0]);
    for number in what {
        request.extend(number.to_ne_bytes());
    }
    request
}

/// Returns the attributes of a `struct unix_diag_msg`: kind and value.
fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(HEADER..).unwrap_or_default();
    iter::from_fn(move || {
        let (size, kind) = (usize::from(half(rest, 0)?), half(rest, 2)?);
        let value = rest.get(ATTRIBUTE..size)?;
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Whether the socket of a `struct unix_diag_msg` is bound to the file. The kernel reports the low
/// half of the inode number, and the device by its own numbering. On some file systems that number
/// differs from the one of stat(2). Then the path that the socket was bound to decides.
fn is_of(message: &[u8], path: &Path, stat: &Stat) -> bool {
    let mut file = None;
    let mut name: &[u8] = &[];
    for (kind, value) in attributes(message) {
        match kind {
            UNIX_DIAG_VFS => file = number(value, 0).zip(number(value, 4)),
            UNIX_DIAG_NAME => name = value,
            _ => {}
        }
    }
    let Some((number, device)) = file else { return false };
    let same_device = (device >> 20, device & 0xF_FFFF) == (major(stat.st_dev), minor(stat.st_dev));
    let same_name = name.strip_suffix(&[0]).unwrap_or(name) == path.as_os_str().as_bytes();
    number == stat.st_ino as u32 && (same_device || same_name)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn asked(path: &Path) -> Option<bool> {
        is_bound(path, &rustix::fs::stat(path).expect("a file"))
    }

    #[test]
    fn a_bound_file_has_a_socket_until_that_is_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("a free name");
        let Some(bound) = asked(&path) else {
            println!("not run: this kernel does not tell");
            return;
        };
        assert!(bound);
        // The kernel finds the socket by its file, which may have been renamed.
        let moved = dir.path().join("moved");
        fs::rename(&path, &moved).expect("another name");
        assert_eq!(asked(&moved), Some(true));
        // An accepted socket does not count as a socket of the file.
        let _client = UnixStream::connect(&moved).expect("a server");
        let _accepted = listener.accept().expect("a client");
        drop(listener);
        assert_eq!(asked(&moved), Some(false));
        let file = dir.path().join("file");
        fs::write(&file, "").expect("a file");
        assert_eq!(asked(&file), Some(false));
    }

    #[test]
    fn a_socket_that_does_not_listen_has_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let _socket = UnixDatagram::bind(&path).expect("a free name");
        assert_ne!(asked(&path), Some(false));
    }
}
