//! How Linux behaves, including Android. The files of the other systems list the same items.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::cmsg_space;
use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, StatxAttributes, StatxFlags, fchmod, memfd_create,
    open, statx,
};
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{SendFlags, SocketAddrUnix};
#[cfg(feature = "tokio")]
use tokio::io::{Interest, unix::AsyncFd};

pub(super) use super::diag::{has_peer, is_bound};
pub(super) use super::epoll::{Heard, watch_for_hangup};
#[cfg(feature = "blocking")]
pub(super) use super::flags::put_over;
pub(super) use super::flags::{CLOSE_ON_EXEC, accept, close_on_exec, socket};
pub(super) use super::group::has_only_the_owner as is_private_group;
#[cfg(feature = "tokio")]
pub(super) use super::name_events::of as name_events;
use super::peer::Peer;
use super::sockopt::get;
use crate::endpoint::{Endpoint, Form};
use crate::error::too_long;

cfg_if::cfg_if! {
    if #[cfg(target_os = "android")] {
        // Values from the kernel's headers: libc does not export them on Android.
        const SO_PEERGROUPS: libc::c_int = 59;
        const SO_PEERPIDFD: libc::c_int = 77;
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    } else {
        use libc::{CLOSE_RANGE_CLOEXEC, SO_PEERGROUPS, SO_PEERPIDFD};
    }
}

/// The system whose rules for names and directories apply.
pub(super) const SYSTEM: &str = "linux";
/// The length of `sun_path` without its NUL, see unix(7).
pub(super) const PATH_LIMIT: usize = 107;
pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// The flags to open a directory whose entries are not listed.
pub(super) const DIRECTORY: OFlags = OFlags::PATH;
/// A refused connection means that no server listens: a full backlog fails with `EAGAIN`.
pub(super) const REFUSED_MAY_BE_BUSY: bool = false;
/// Whether setsockopt(2) fails with `EINVAL` for any option once the peer is gone.
pub(super) const OPTIONS_FAIL_WITHOUT_PEER: bool = false;
/// Whether shutting down the socket ends accept(2) in every thread.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_ENDS_AT_SHUTDOWN: bool = true;
/// Whether a call with `MSG_DONTWAIT` never waits.
#[cfg(feature = "blocking")]
pub(super) const DONTWAIT_IS_HONORED: bool = true;
/// The events that the reactor watches a stream for. Out-of-band bytes are priority data, see
/// unix(7).
#[cfg(feature = "tokio")]
pub(super) const STREAM_INTEREST: Interest =
    Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// The most bytes that one call takes. Linux accepts any length, and takes a part.
pub(super) const MOST: usize = isize::MAX as usize;
/// The most descriptors in one message: `SCM_MAX_FD`.
pub(super) const FDS_IN_A_MESSAGE: usize = 253;
/// Bytes of control data for the sender's credentials, which come before the descriptors if
/// `SO_PASSCRED` is set on the socket.
pub(super) const ROOM_FOR_CREDENTIALS: usize = cmsg_space!(ScmCredentials(1));
/// Whether a read installs the descriptors that came with its bytes even if its caller has no room
/// for them.
pub(super) const READS_INSTALL_DESCRIPTORS: bool = false;
/// Whether accept(2) drops the client if the process has no free descriptor.
#[cfg(feature = "blocking")]
pub(super) const ACCEPT_DROPS_CLIENTS: bool = false;
/// Whether sendmsg(2) with descriptors fails with `EMSGSIZE` where one without them fails with
/// `EAGAIN`.
pub(super) const A_FULL_SOCKET_IS_EMSGSIZE: bool = false;
/// Whether a socket whose peer is gone reports no peer name, as if it had never been connected.
pub(super) const A_GONE_PEER_HAS_NO_NAME: bool = false;
/// Whether the system silently caps a buffer size above its maximum.
pub(super) const SIZES_ARE_CUT: bool = false;
/// The error of open(2) with `O_NOFOLLOW` for a symbolic link.
pub(super) const NOT_FOLLOWED: Errno = Errno::LOOP;
/// The most descriptors that one send takes.
pub(super) const FDS_TO_SEND: usize = 253;

pub(super) fn user_temp_dir() -> Option<PathBuf> {
    None
}

/// Whether the socket listens.
pub(super) fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(socket_acceptconn(socket)?)
}

/// Nothing to do: each call has a flag for it.
pub(super) fn no_signals(_: BorrowedFd<'_>) -> Result<(), Errno> {
    Ok(())
}

/// Whether the peer has ever sent an out-of-band byte. Reads end at the place of that byte in the
/// stream, and give no sign of it.
#[cfg(feature = "tokio")]
pub(super) fn may_have_marks(socket: &AsyncFd<OwnedFd>) -> bool {
    // The reactor remembers this readiness until it is cleared, which never happens.
    socket.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
}

/// Returns the credentials that the peer had when it connected or listened: `SO_PEERCRED`, a
/// `struct ucred` of three numbers.
pub(super) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut numbers = [0; 3];
    get(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut numbers)?;
    let [pid, uid, gid] = numbers;
    // The number is zero if the peer's process is not visible from here.
    Ok(Peer { uid, gid, pid: NonZeroU32::new(pid) })
}

/// Returns all groups that the peer had when it connected: `SO_PEERGROUPS`, since Linux 4.13.
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 32];
    loop {
        match get(socket, libc::SOL_SOCKET, SO_PEERGROUPS, &mut groups) {
            Ok(length) => {
                groups.truncate(length);
                return Ok(groups);
            }
            // The peer has more groups. The kernel's limit is 65,536.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < 65_536 => {
                let more = groups.len() * 2;
                groups.resize(more, 0);
            }
            Err(error) => return Err(unsupported(error)),
        }
    }
}

/// Returns a descriptor of the peer's process: `SO_PEERPIDFD`, since Linux 6.5. Like every pidfd,
/// it is close-on-exec.
pub(super) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut number = [0];
    match get(socket, libc::SOL_SOCKET, SO_PEERPIDFD, &mut number) {
        Ok(_) => i32::try_from(number[0]).map(adopt).map_err(io::Error::other),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ESRCH | libc::ENODATA) => {
                io::Error::new(io::ErrorKind::NotFound, "the peer's process is gone")
            }
            _ => unsupported(error),
        }),
    }
}

fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EINVAL) => {
            io::Error::new(io::ErrorKind::Unsupported, "this kernel does not report it for a peer")
        }
        _ => error,
    }
}

#[allow(unsafe_code, reason = "the option's value is the number of a descriptor")]
fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just created this descriptor for the caller of getsockopt, which is
    // this crate.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Sets the mode that the file gets when `bind` creates it, less the umask. If that fails, the mode
/// is set before any client can connect, as on the other systems.
pub(super) fn set_mode_to_be(socket: &OwnedFd, mode: Mode) {
    let _ = fchmod(socket, mode);
}

/// Why there may be no [`short_path`].
pub(super) const NO_SHORT_PATH: &str = "; /proc, by which a longer one is reached, is not mounted";

/// Returns a path to `name` in `dir` that is short, however long the directory's path is.
pub(super) fn short_path(dir: &OwnedFd, name: &OsStr) -> Option<PathBuf> {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
    // Without /proc, as in a chroot or a bare container, the path leads nowhere.
    path.exists().then(|| {
        path.push(name);
        path
    })
}

pub(super) fn abstract_address(name: &[u8]) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new_abstract_name(name).map_err(|_| {
        let length = name.len();
        let reason =
            format!("abstract name of {length} bytes exceeds the limit of {PATH_LIMIT} bytes");
        too_long(&Endpoint(Form::Abstract(name.to_owned())), reason)
    })
}

/// Whether something is mounted at `path`. The kernel reports it since Linux 5.8.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let asked = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    asked.is_ok_and(|told| told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether `uid` stands for users that have no id in this user namespace. See
/// user_namespaces(7), "Unmapped user and group IDs".
pub(super) fn is_unmapped(uid: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    if uid != OVERFLOW {
        return false;
    }
    // Lines of `first-inside first-outside count`. A kernel without user namespaces has no file.
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else { return false };
    !map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u64>().ok());
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(first), Some(_), Some(count)) => {
                (first..first.saturating_add(count)).contains(&u64::from(uid))
            }
            _ => false,
        }
    })
}

/// Sets the sticky bit, which tells cleaners to leave the file alone (XDG base directory
/// specification). A failure is ignored, because the file works without the bit.
pub(super) fn keep(file: &OwnedFd) {
    let _ = fchmod(file, Mode::RUSR | Mode::WUSR | Mode::SVTX);
}

/// Marks all open descriptors of `first..=last` as close-on-exec, in one call: since Linux 5.11.
/// Called in a child between fork and exec.
#[allow(unsafe_code, reason = "rustix has no call for it")]
pub(super) fn close_on_exec_from(first: RawFd, last: RawFd) -> Result<(), Errno> {
    // SAFETY: the call takes three numbers, and changes only flags of descriptors of this process,
    // which is the child by now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(Errno::NOSYS) }
}

/// Creates a file that never has a name. Returns `None` if the file system does not support that.
pub(super) fn unlinked_file(dir: &Path) -> Option<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
    open(dir, flags, Mode::RUSR | Mode::WUSR).ok()
}

/// Creates a file that exists only in memory.
pub(super) fn memory_file() -> io::Result<OwnedFd> {
    Ok(memfd_create("sockpipe", MemfdFlags::CLOEXEC)?)
}
