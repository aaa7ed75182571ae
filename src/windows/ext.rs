//! What only Windows has; `sockpipe::os::windows` to users.
//!
//! There is no way from an async stream to an `OwnedHandle`: its handle stays bound to the crate's
//! event loop, and a read is always under way on it, whose bytes the new owner would miss. A blocking
//! stream has one, [`StreamExt::into_handle`]; an end that is made elsewhere becomes a stream of
//! either kind with [`StreamExt::from_handle`].

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

/// What a listener can be told on Windows only.
pub trait ListenOptionsExt: Sealed {
    /// The security descriptor of the pipe, in SDDL, in place of that of [`Access`](crate::Access).
    /// It is used as it is, so:
    ///
    /// * clients of other machines need no entry: the pipe itself refuses them in any case. One that
    ///   denies the network, `(D;;GA;;;NU)`, also refuses whoever was logged on over it, as by SSH or
    ///   WinRM, on this machine, and a server that was can then not add instances to its own pipe;
    /// * give your own user `GA`, or `bind` fails with `PermissionDenied`, for it cannot add instances;
    /// * give others `0x12019b` (read and write) and not `GA` or `GW`, with which they could add an
    ///   instance to the pipe and receive its clients;
    /// * name the owner, `O:`, for clients check it; that of an elevated process is otherwise the
    ///   Administrators group.
    ///
    /// What is not SDDL, or has no `D:` part and so would not say who may connect, makes `bind` fail
    /// with `InvalidInput`.
    #[must_use]
    fn security_descriptor(self, sddl: impl Into<String>) -> Self;

    /// How many bytes the system buffers in each direction of each connection. Default: 256 KiB. It
    /// is what the peer can be behind before a write waits; the system takes the memory only for
    /// what is in it, but from a pool that the whole machine shares.
    #[must_use]
    fn buffer_size(self, bytes: u32) -> Self;

    /// How many instances of the pipe wait for clients at any time. Default: 4; at least 1. With
    /// few, clients that come together have to retry. The last is handed out only when the next
    /// exists, so the name is never free.
    #[must_use]
    fn instances(self, count: usize) -> Self;

    /// Make the pipe of byte type, which cannot carry the end of one direction: `shutdown` of the
    /// listener's streams is `Unsupported`, and both sides read end of file when the other closes.
    /// Default: `false`.
    ///
    /// For clients that do not know the empty message as an end, and might send one: a Node.js
    /// client does, with `socket.write('')`, and would be taken to have ended.
    #[must_use]
    fn byte_type(self, byte_type: bool) -> Self;

    /// Lets also those apps connect that Windows runs in an AppContainer, such as UWP apps, for the
    /// users who may connect. Default: `false`.
    ///
    /// It gives the group of all such apps the right to connect, and the pipe a low integrity level, so
    /// that sandboxed processes of those users can write to it: browsers' too. It changes nothing
    /// beside [`security_descriptor`](Self::security_descriptor), which is used as it is.
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

/// How much a process is trusted: one with a lower level cannot write to the objects of one with a
/// higher. Levels between the named ones exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntegrityLevel(u32);

impl IntegrityLevel {
    /// Anonymous processes.
    pub const UNTRUSTED: Self = Self(0);
    /// Sandboxes, such as those of browsers.
    pub const LOW: Self = Self(0x1000);
    /// What users run.
    pub const MEDIUM: Self = Self(0x2000);
    /// What users run as administrator.
    pub const HIGH: Self = Self(0x3000);
    /// Services of the system.
    pub const SYSTEM: Self = Self(0x4000);

    /// The number of the level, which stands last in its SID `S-1-16-…`.
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

/// What a stream can do on Windows only. The handle, to ask the system about, is in its `AsHandle`.
pub trait StreamExt: Sealed + Sized {
    /// The terminal session of the process at the other end: of the client that opened the pipe, or
    /// of the server that created its first instance.
    ///
    /// # Errors
    ///
    /// What the system reports, as when the peer is gone.
    fn peer_session(&self) -> io::Result<u32>;

    /// The integrity level of the client, as it was when it connected.
    ///
    /// # Errors
    ///
    /// `Unsupported` on the client's side: a server's level could be asked only of the process with
    /// its id, which may be another by then. What the system reports, as when the peer is gone.
    fn peer_integrity(&self) -> io::Result<IntegrityLevel>;

    /// A stream from either end of a named pipe, made elsewhere and opened for overlapped I/O, in
    /// both directions. For the async stream, the crate's event loop has it from here on. A pipe of
    /// message type is read in message mode, and has a half-close; one of byte type has none.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is not a pipe's, has no peer, is not for overlapped I/O, or, for the
    /// async stream, is used with another event loop (completion port) already.
    fn from_handle(pipe: OwnedHandle) -> io::Result<Self>;

    /// The end of the pipe, for use elsewhere: overlapped, in message mode if the pipe is of message
    /// type, and bound to no completion port. It waits for a write that is still under way.
    ///
    /// # Errors
    ///
    /// `Unsupported` for the async stream: the crate's event loop has a read under way on the
    /// handle, whose bytes the new owner would miss. The same for a blocking stream that was an
    /// async one. `ResourceBusy` when the blocking stream has other handles.
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
            "the system does not tell clients the integrity level of a pipe's server",
        )),
    }
}
