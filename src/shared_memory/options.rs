//! The options and the state of shared memory.

/// The choice whether a connection may move from its socket into memory that both processes map.
///
/// The stream and its contract stay the same, but its data no longer needs a system call for each
/// read and write. Both ends have to allow it. With any other peer nothing changes: it receives no
/// additional byte and no file descriptor.
///
/// [Shared memory](crate::docs::shared_memory) describes when it pays, and what it costs.
///
/// # Platform-specific behavior
///
/// Works on Linux 5.14 or newer. Elsewhere it changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SharedMemory {
    /// The stream uses its socket only.
    #[default]
    Off,
    /// The stream moves once it is hot. That takes 16 answers within 10 ms, or 1 MiB or 4,096 calls
    /// within 100 ms, which short connections never reach. At most 64 streams of a process use
    /// memory at a time. The others stay on their sockets.
    Auto,
    /// Like `Auto`, but the stream moves from the first bytes on. Use it for connections that are
    /// known to become hot.
    Eager,
}

/// The transport that carries the bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// A socket, or a named pipe on Windows.
    Socket,
    /// Memory that both processes map, in both directions.
    SharedMemory,
}

impl Transport {
    pub(crate) const fn of(uses_memory: bool) -> Self {
        if uses_memory { Self::SharedMemory } else { Self::Socket }
    }
}
