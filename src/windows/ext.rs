//! Functions and options of Windows only.
//!
//! An async stream cannot be converted into an `OwnedHandle`. Its handle stays bound to the crate's
//! event loop, and a read is always in progress on it, whose data the new owner would miss.
//! [`StreamExt::into_handle`] converts a blocking stream; [`StreamExt::from_handle`] creates a
//! stream of either kind from a pipe that was made elsewhere.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};

use super::security;
use super::system::End;
#[cfg(feature = "blocking")]
use crate::blocking;
use crate::options::ListenOptions;
use crate::sealed::Sealed;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// Options of a listener on Windows.
pub trait ListenOptionsExt: Sealed {
    /// Sets the security descriptor of the pipe, in SDDL, in place of that of
    /// [`Access`](crate::Access).
    ///
    /// It is used unchanged, so:
    ///
    /// * clients of other machines need no entry, because the pipe refuses them. An entry that
    ///   denies the network, `(D;;GA;;;NU)`, also refuses users of this machine who logged on over
    ///   the network, as by SSH or WinRM, and such a server cannot add instances to its own pipe;
    /// * give your own user `GA`, or `bind` fails with `PermissionDenied`, because it cannot add
    ///   instances;
    /// * give others `0x12019b` (read and write) and not `GA` or `GW`, with which they could add an
    ///   instance to the pipe and receive its clients;
    /// * name the owner, `O:`, because clients check it. The owner of an elevated process is
    ///   otherwise the Administrators group.
    ///
    /// `bind` fails with `InvalidInput` if the text is not SDDL, or has no `D:` part that grants
    /// access.
    #[must_use]
    fn security_descriptor(self, sddl: impl Into<String>) -> Self;

    /// Sets how many bytes the system buffers in each direction of each connection. Default: 256
    /// KiB.
    ///
    /// A write waits when the peer is that far behind. The system allocates memory only for unread
    /// data, but from a pool that the whole machine shares.
    #[must_use]
    fn buffer_size(self, bytes: u32) -> Self;

    /// Sets how many instances of the pipe wait for clients at any time. Default: 4; at least 1.
    ///
    /// With few instances, clients that connect at the same time have to retry. The listener hands
    /// out the last instance only after it has created the next, so the name is never free.
    #[must_use]
    fn instances(self, count: usize) -> Self;

    /// Creates the pipe with byte type, which cannot carry the end of one direction. Default:
    /// `false`.
    ///
    /// `shutdown` of the listener's streams then fails with `Unsupported`, and each side reads end
    /// of file when the other closes.
    ///
    /// Use it for clients that do not treat the empty message as an end and might send one. A
    /// Node.js client does so with `socket.write('')`, and would appear to have ended.
    #[must_use]
    fn byte_type(self, byte_type: bool) -> Self;

    /// Allows apps that Windows runs in an AppContainer, such as UWP apps, to connect on behalf of
    /// the users who may connect. Default: `false`.
    ///
    /// It gives the group of all such apps the right to connect, and the pipe a low integrity
    /// level, so that sandboxed processes of those users can write to it: browsers' too. It changes
    /// nothing beside [`security_descriptor`](Self::security_descriptor), which is used as it is.
    ///
    /// An app that itself listens has to take a name that begins with `\\.\pipe\LOCAL\`.
    #[must_use]
    fn app_containers(self, allowed: bool) -> Self;
}

impl ListenOptionsExt for ListenOptions {
    fn security_descriptor(mut self, sddl: impl Into<String>) -> Self {
        self.os.security_descriptor = Some(sddl.into());
        self
    }

    fn buffer_size(mut self, bytes: u32) -> Self {
        self.os.buffer_size = Some(bytes);
        self
    }

    fn instances(mut self, count: usize) -> Self {
        self.os.instances = Some(count.max(1));
        self
    }

    fn byte_type(mut self, byte_type: bool) -> Self {
        self.os.byte_type = byte_type;
        self
    }

    fn app_containers(mut self, allowed: bool) -> Self {
        self.os.app_containers = allowed;
        self
    }
}

/// The integrity level of a process. A process cannot write to the objects of a process with a
/// higher level. Levels between the named ones exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntegrityLevel(u32);

impl IntegrityLevel {
    /// Anonymous processes.
    pub const UNTRUSTED: Self = Self(0);
    /// Sandboxes, such as those of browsers.
    pub const LOW: Self = Self(0x1000);
    /// Programs of users.
    pub const MEDIUM: Self = Self(0x2000);
    /// Programs that users run as administrator.
    pub const HIGH: Self = Self(0x3000);
    /// Services of the system.
    pub const SYSTEM: Self = Self(0x4000);

    /// Returns the number of the level, the last part of its SID `S-1-16-…`.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for IntegrityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntegrityLevel({:#x})", self.0)
    }
}

/// Methods of a stream on Windows. `AsHandle` borrows the handle for other calls of the system.
pub trait StreamExt: Sealed + Sized {
    /// Returns the terminal session of the peer: of the client that opened the pipe, or of the
    /// server that created its first instance.
    ///
    /// # Errors
    ///
    /// The error that the system reports, for example if the peer is gone.
    fn peer_session(&self) -> io::Result<u32>;

    /// Returns the integrity level of the client, as it was when it connected.
    ///
    /// # Errors
    ///
    /// `Unsupported` on the client's side: the level of a server is known only by its process id,
    /// which may belong to another process by then. Else the error that the system reports, for
    /// example if the peer is gone.
    fn peer_integrity(&self) -> io::Result<IntegrityLevel>;

    /// Creates a stream from either end of a named pipe that was opened for overlapped I/O in both
    /// directions.
    ///
    /// An async stream is bound to the crate's event loop from here on. A pipe of message type is
    /// read in message mode and has a half-close; a pipe of byte type has none.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the handle is not a pipe's, has no peer, was not opened for overlapped
    /// I/O, or, for the async stream, is bound to another event loop (completion port).
    fn from_handle(pipe: OwnedHandle) -> io::Result<Self>;

    /// Converts the stream into the handle of its end of the pipe. It waits for a write that is in
    /// progress.
    ///
    /// The handle is overlapped, is in message mode if the pipe is of message type, and is not
    /// bound to a completion port.
    ///
    /// # Errors
    ///
    /// `Unsupported` for the async stream, and for a blocking stream that was an async one: the
    /// crate's event loop has a read in progress on the handle, whose data the new owner would
    /// miss. `ResourceBusy` if the blocking stream has other handles.
    fn into_handle(self) -> io::Result<OwnedHandle>;
}

#[cfg(feature = "tokio")]
impl StreamExt for Stream {
    fn peer_session(&self) -> io::Result<u32> {
        session(self, self.inner.pipe().end())
    }

    fn peer_integrity(&self) -> io::Result<IntegrityLevel> {
        integrity(self, self.inner.pipe().end())
    }

    fn from_handle(pipe: OwnedHandle) -> io::Result<Self> {
        let pipe = super::registered::adopt(pipe)?;
        Ok(Self::from_imp(super::Stream::adopted(pipe)))
    }

    fn into_handle(self) -> io::Result<OwnedHandle> {
        Err(io::Error::new(
            ErrorKind::Unsupported,
            "the crate's event loop completes the I/O of an async stream, and the system does not \
             let a pipe go that a read is under way on; use blocking::Stream for this",
        ))
    }
}

#[cfg(feature = "blocking")]
impl StreamExt for blocking::Stream {
    fn peer_session(&self) -> io::Result<u32> {
        session(self, self.inner().end())
    }

    fn peer_integrity(&self) -> io::Result<IntegrityLevel> {
        integrity(self, self.inner().end())
    }

    fn from_handle(pipe: OwnedHandle) -> io::Result<Self> {
        super::blocking::Stream::adopted(pipe).map(Self::from_imp)
    }

    fn into_handle(self) -> io::Result<OwnedHandle> {
        self.into_inner()?.into_handle()
    }
}

#[cfg(feature = "blocking")]
impl AsHandle for blocking::Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.inner().as_handle()
    }
}

#[cfg(feature = "tokio")]
impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.inner.pipe().as_handle()
    }
}

fn session(pipe: &impl AsHandle, end: End) -> io::Result<u32> {
    match end {
        End::Server => security::client_session(pipe),
        End::Client => security::server_session(pipe),
    }
}

fn integrity(pipe: &impl AsHandle, end: End) -> io::Result<IntegrityLevel> {
    match end {
        End::Server => security::client_integrity(pipe).map(IntegrityLevel),
        End::Client => Err(io::Error::new(
            ErrorKind::Unsupported,
            "the system does not report the integrity level of a pipe's server to clients",
        )),
    }
}
