//! The options for listening and connecting. The async and the blocking API share them, so they
//! have no types of a runtime.

use std::time::Duration;

use crate::imp;
use crate::peer::UserId;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::options::SharedMemory;

/// The users who may connect to a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// The user that the server runs as; on Unix also root.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the socket has mode 0600 from its first instant, and `accept` checks the peer's user
    /// id again. Windows: the security descriptor names this user only.
    #[default]
    Owner,
    /// Every local user. Decide by [`PeerCredentials`](crate::PeerCredentials) what each of them
    /// may do.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the socket has mode 0666. Windows: every local user may connect, no other user may add
    /// an instance of the pipe, and clients from the network are refused.
    Everyone,
}

/// The users whose servers a client accepts.
///
/// The client checks the running server, not the file, before it sends the first byte. A server of
/// another user that holds the name receives a connection and no data. [Access and
/// trust](crate::docs::access_and_trust) describes the attacks that this prevents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExpectServer {
    /// A server of the client's own effective user, or of the system: uid 0 on Unix; SYSTEM or the
    /// Administrators group on Windows.
    #[default]
    Default,
    /// A server of this user, or one whose socket the system created for it: uid 0 on Unix; SYSTEM
    /// or the Administrators group on Windows.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the OS reports the user that called listen(2). That is root for a service that systemd
    /// starts with its socket, and for a service that listens first and then drops root's rights,
    /// unless the service calls `listen_as_current_user` of `os::unix::ListenerExt`.
    User(UserId),
    /// A server of this user and no other.
    ///
    /// Use this strict form for a path at which other users can create a link: with
    /// [`User`](Self::User) a link can lead to any server of root.
    Exactly(UserId),
    /// Any server that holds the name.
    Anyone,
}

/// The choice whether a reader polls for the peer's answer before its thread sleeps.
///
/// When two processes on different cores exchange requests and responses, most of a round trip is
/// the time to wake a sleeping core. A reader that polls for a moment receives the answer without
/// that wait, in a fraction of the time and with less processor time in total. The price is that
/// the core is not idle in that moment, which shows in `top`, counts against a quota and uses
/// power.
///
/// [Performance](crate::docs::performance) has the measurements, and describes when polling is
/// worth it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpinPolicy {
    /// A read without data sleeps until data arrives.
    #[default]
    Off,
    /// A read without data polls for up to 50 microseconds if that has paid off lately, and then
    /// sleeps. Other tasks lose nothing: they, their timers and their I/O come first. At most one
    /// stream of a thread polls at a time, and none while more than four streams are busy on that
    /// thread. If polling does not pay off, because the peer is slower or on the same core, it
    /// stops, and is tried again at longer and longer intervals.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix only. On Windows it changes nothing, because a thread of the crate receives the data of
    /// a pipe, not the reader.
    Auto,
}

/// The options of the streams of a listener or of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamOptions {
    pub(crate) spin: imp::Spin,
    pub(crate) send_buffer_size: Option<u32>,
    #[cfg(feature = "shared-memory")]
    pub(crate) shared_memory: imp::Memory,
}

/// Options for a listener. With the defaults, only this process's user may connect.
#[derive(Clone, Debug, Default)]
pub struct ListenOptions {
    pub(crate) access: Access,
    pub(crate) stream: StreamOptions,
    pub(crate) os: imp::OsListenOptions,
}

impl ListenOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the users who may connect. Default: [`Access::Owner`].
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets whether reads of the listener's streams poll before they sleep. Default:
    /// [`SpinPolicy::Off`].
    #[must_use]
    pub fn spin(mut self, policy: SpinPolicy) -> Self {
        self.stream.spin = imp::spin(policy);
        self
    }

    /// Sets the send buffer size: how much unread data the OS holds before a write blocks.
    ///
    /// Default: the system's. Bulk data flows with fewer waits if the buffer is larger, and 1 MiB
    /// is a good choice. Request/response traffic does not benefit.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: `SO_SNDBUF`, see socket(7). Linux silently caps it at `net.core.wmem_max`, which is
    /// often no more than its default. Windows: the buffers of the pipe for both directions, unless
    /// `os::windows` sets them. The default is 256 KiB.
    #[must_use]
    pub fn send_buffer_size(mut self, bytes: u32) -> Self {
        self.stream.send_buffer_size = Some(bytes);
        self
    }

    /// Sets whether the listener's streams may move into memory that they share with their clients.
    /// Default: [`SharedMemory::Off`]. See [shared memory](crate::docs::shared_memory).
    ///
    /// Such a stream cannot be converted into a socket and passes no file descriptors: both fail
    /// with [`Unsupported`](std::io::ErrorKind::Unsupported) from the stream's first byte on.
    #[cfg(feature = "shared-memory")]
    #[must_use]
    pub fn shared_memory(mut self, policy: SharedMemory) -> Self {
        self.stream.shared_memory = imp::memory(policy);
        self
    }
}

/// Options for a client. With the defaults, `connect` fails at once if no server is listening,
/// waits up to 5 seconds for a busy server, and refuses a server of another user.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub(crate) deadline: Duration,
    pub(crate) wait_for_server: Option<Duration>,
    pub(crate) expect_server: ExpectServer,
    pub(crate) stream: StreamOptions,
    pub(crate) end_on_close: imp::EndOnClose,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            wait_for_server: None,
            expect_server: ExpectServer::Default,
            stream: StreamOptions::default(),
            end_on_close: imp::end_on_close(false),
        }
    }
}

impl ConnectOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long to wait for a busy server: a full backlog on Unix, no free instance on
    /// Windows.
    ///
    /// Default: 5 seconds. After it, `connect` fails with
    /// [`TimedOut`](std::io::ErrorKind::TimedOut).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Waits up to `limit` for a server that has not started yet. Default: no wait.
    ///
    /// It can only extend the [`deadline`](Self::deadline).
    #[must_use]
    pub fn wait_for_server(mut self, limit: Duration) -> Self {
        self.wait_for_server = Some(limit);
        self
    }

    /// Sets whose server the client accepts. Default: [`ExpectServer::Default`].
    #[must_use]
    pub fn expect_server(mut self, expect: ExpectServer) -> Self {
        self.expect_server = expect;
        self
    }

    /// Sets whether reads of the stream poll before they sleep. Default: [`SpinPolicy::Off`].
    #[must_use]
    pub fn spin(mut self, policy: SpinPolicy) -> Self {
        self.stream.spin = imp::spin(policy);
        self
    }

    /// Sets the send buffer size: how much unread data the OS holds before a write blocks.
    ///
    /// Default: the system's. Bulk data flows with fewer waits if the buffer is larger, and 1 MiB
    /// is a good choice. Request/response traffic does not benefit.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: `SO_SNDBUF`, see socket(7). Linux silently caps it at `net.core.wmem_max`, which is
    /// often no more than its default. Windows: the option changes nothing, because the server
    /// creates the pipe with its buffers.
    #[must_use]
    pub fn send_buffer_size(mut self, bytes: u32) -> Self {
        self.stream.send_buffer_size = Some(bytes);
        self
    }

    /// Sets whether the stream may move into memory that it shares with the server. Default:
    /// [`SharedMemory::Off`]. See [shared memory](crate::docs::shared_memory).
    ///
    /// Such a stream cannot be converted into a socket and passes no file descriptors: both fail
    /// with [`Unsupported`](std::io::ErrorKind::Unsupported) from the stream's first byte on.
    #[cfg(feature = "shared-memory")]
    #[must_use]
    pub fn shared_memory(mut self, policy: SharedMemory) -> Self {
        self.stream.shared_memory = imp::memory(policy);
        self
    }

    /// Sets whether `shutdown` succeeds on a pipe that cannot carry the end of one direction.
    /// Default: `false`.
    ///
    /// If `allowed`, such a `shutdown` succeeds and further writes fail with
    /// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe). The server reads end of file only when the
    /// stream is closed or dropped, so it cannot answer then. If not `allowed`, `shutdown`
    /// fails with [`Unsupported`](std::io::ErrorKind::Unsupported).
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: this concerns servers whose pipe is of byte type, the default of Node and .NET.
    /// With any other server, and on Unix, it changes nothing: `shutdown` carries the end.
    #[must_use]
    pub fn end_on_close(mut self, allowed: bool) -> Self {
        self.end_on_close = imp::end_on_close(allowed);
        self
    }

    /// Returns these options for one attempt, which does not wait for a server to start.
    pub(crate) fn at_once(&self, deadline: Duration) -> Self {
        Self { deadline, wait_for_server: None, ..self.clone() }
    }

    /// Returns the longest time that `connect` may take.
    pub(crate) fn limit(&self) -> Duration {
        self.wait_for_server.map_or(self.deadline, |wait| wait.max(self.deadline))
    }
}
