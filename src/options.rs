//! What can be chosen when listening and connecting. Shared by every API of the crate, so no type
//! of a runtime appears here.

use std::time::Duration;

use crate::imp;
use crate::peer::UserId;
#[cfg(feature = "shared-memory")]
use crate::shared_memory::SharedMemory;

/// Who may connect to a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// The user the server runs as; on Unix also root.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the socket has mode 0600 from its first instant, and the peer's user id is checked
    /// again at `accept`. Windows: a security descriptor that names the user alone.
    #[default]
    Owner,
    /// Every local user. Decide by [`PeerCredentials`](crate::PeerCredentials) what each may do.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: mode 0666. Windows: every local user may connect, none may add an instance of the
    /// pipe; clients from the network are refused.
    Everyone,
}

/// Who must be at the other end for a client to go on.
///
/// It is the running server that is checked, not the file, and before the first byte is sent: a
/// server of somebody else that holds the name gets nothing but the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExpectServer {
    /// A server of the client's own effective user, or of the system: uid 0 on Unix; SYSTEM or the
    /// Administrators group on Windows.
    #[default]
    Default,
    /// A server of this user, or one whose socket the system made for it: uid 0 on Unix; SYSTEM or
    /// the Administrators group on Windows.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: the OS reports who called listen(2). For a service that systemd starts with its socket,
    /// and for one that listens first and then gives up root, that is root, unless the service
    /// calls `listen_as_current_user` of `os::unix::ListenerExt`.
    User(UserId),
    /// A server of this user alone.
    ///
    /// The strict form, for a path at which others can put a link: with [`User`](Self::User) a link
    /// can lead to any server of root's.
    Exactly(UserId),
    /// Whoever holds the name.
    Anyone,
}

/// Whether a reader watches for the peer's answer before its thread goes to sleep.
///
/// When two processes that run on different cores talk in turns, most of a round trip is the waking
/// of a sleeping core. A reader that looks again for a moment has the answer without it: in a
/// fraction of the time, and with less processor time in all. The price is that the core is not idle
/// in that moment, which shows in `top`, counts against a quota and takes power.
///
/// [Performance](crate::docs::performance) has the numbers, and says when it is worth it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpinPolicy {
    /// A read that finds nothing sleeps until something comes.
    #[default]
    Off,
    /// A read that finds nothing watches for up to 50 microseconds where that has paid lately, and
    /// then sleeps. It costs other tasks nothing: they, their timers and their I/O come first, and
    /// at most one stream of a thread watches at a time, if no more than four are busy on it. Where
    /// it does not pay (a peer that is slower, or on the same core) it ends by itself, and is tried
    /// again ever more rarely.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix only. Windows: it changes nothing, as what comes over a pipe is received by a thread of
    /// the crate and not by the reader.
    Auto,
}

/// How the streams of a listener, or of a connect, are to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamOptions {
    pub(crate) spin: imp::Spin,
    pub(crate) send_buffer_size: Option<u32>,
    #[cfg(feature = "shared-memory")]
    pub(crate) shared_memory: imp::Memory,
}

/// How to listen. The default is safe: own user only.
#[derive(Clone, Debug, Default)]
pub struct ListenOptions {
    pub(crate) access: Access,
    pub(crate) stream: StreamOptions,
    pub(crate) os: imp::OsListenOptions,
}

impl ListenOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Who may connect. Default: [`Access::Owner`].
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Whether reads of the listener's streams watch for the peer's answer before they sleep. Default:
    /// [`SpinPolicy::Off`].
    #[must_use]
    pub fn spin(mut self, policy: SpinPolicy) -> Self {
        self.stream.spin = imp::spin(policy);
        self
    }

    /// How many bytes the system takes from a writer that its peer has not read yet: more lets bulk
    /// data flow with fewer waits, and 1 MiB is a good choice for it.
    /// Default: the system's. What is written in turns gains nothing.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: `SO_SNDBUF`, see socket(7). Linux cuts it to `net.core.wmem_max` without a word, which
    /// is often no more than its default. Windows: the buffers of the pipe, for both
    /// directions, unless `os::windows` sets them; the default is 256 KiB.
    #[must_use]
    pub fn send_buffer_size(mut self, bytes: u32) -> Self {
        self.stream.send_buffer_size = Some(bytes);
        self
    }

    /// Sets whether the listener's streams may move into memory that they share with their clients.
    /// Default: [`SharedMemory::Off`].
    ///
    /// A stream that may is more than its socket: it cannot be converted into one, and it passes no
    /// file descriptors. Both fail with [`Unsupported`](std::io::ErrorKind::Unsupported) from the
    /// stream's first byte on.
    #[cfg(feature = "shared-memory")]
    #[must_use]
    pub fn shared_memory(mut self, policy: SharedMemory) -> Self {
        self.stream.shared_memory = imp::memory(policy);
        self
    }
}

/// How to connect. The default fails at once when nobody listens, waits up to 5 seconds for a busy
/// server, and talks to no other user's server.
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
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait for a server that is there but busy: a full backlog on Unix, all instances
    /// taken on Windows. Default: 5 seconds. Past it, `connect` fails with
    /// [`TimedOut`](std::io::ErrorKind::TimedOut).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Also wait, up to `limit`, for a server that has not started yet. Default: not at all. It can
    /// only extend the [`deadline`](Self::deadline).
    #[must_use]
    pub fn wait_for_server(mut self, limit: Duration) -> Self {
        self.wait_for_server = Some(limit);
        self
    }

    /// Who must hold the name. Default: [`ExpectServer::Default`].
    #[must_use]
    pub fn expect_server(mut self, expect: ExpectServer) -> Self {
        self.expect_server = expect;
        self
    }

    /// Whether reads of the stream watch for the peer's answer before they sleep. Default:
    /// [`SpinPolicy::Off`].
    #[must_use]
    pub fn spin(mut self, policy: SpinPolicy) -> Self {
        self.stream.spin = imp::spin(policy);
        self
    }

    /// How many bytes the system takes from a writer that its peer has not read yet: more lets bulk
    /// data flow with fewer waits, and 1 MiB is a good choice for it.
    /// Default: the system's. What is written in turns gains nothing.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: `SO_SNDBUF`, see socket(7). Linux cuts it to `net.core.wmem_max` without a word, which
    /// is often no more than its default. Windows: nothing, as the server makes
    /// the pipe with its buffers.
    #[must_use]
    pub fn send_buffer_size(mut self, bytes: u32) -> Self {
        self.stream.send_buffer_size = Some(bytes);
        self
    }

    /// Sets whether the stream may move into memory that it shares with the server. Default: [`SharedMemory::Off`].
    ///
    /// A stream that may is more than its socket: it cannot be converted into one, and it passes no
    /// file descriptors. Both fail with [`Unsupported`](std::io::ErrorKind::Unsupported) from the
    /// stream's first byte on.
    #[cfg(feature = "shared-memory")]
    #[must_use]
    pub fn shared_memory(mut self, policy: SharedMemory) -> Self {
        self.stream.shared_memory = imp::memory(policy);
        self
    }

    /// Whether `shutdown` may leave the end to the closing of the stream, where the server's pipe
    /// cannot carry the end of one direction. `shutdown` then succeeds and further writes fail with
    /// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe), but the server reads end of file only when
    /// the stream is closed or dropped, so it cannot answer that end. Default: `false`, such a
    /// `shutdown` is [`Unsupported`](std::io::ErrorKind::Unsupported).
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: for servers whose pipe is of byte type, as Node's are and .NET's by default. To any
    /// other server, and on Unix, it changes nothing: `shutdown` carries the end.
    #[must_use]
    pub fn end_on_close(mut self, allowed: bool) -> Self {
        self.end_on_close = imp::end_on_close(allowed);
        self
    }

    /// The same, but for one try: a server that is not there is not waited for.
    pub(crate) fn at_once(&self, deadline: Duration) -> Self {
        Self { deadline, wait_for_server: None, ..self.clone() }
    }

    /// The whole time `connect` may take.
    pub(crate) fn limit(&self) -> Duration {
        self.wait_for_server.map_or(self.deadline, |wait| wait.max(self.deadline))
    }
}
