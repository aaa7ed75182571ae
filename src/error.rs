//! The error behind every [`io::Error`] of an endpoint operation, and the one place that composes
//! its message.

pub(crate) mod events;
mod situations;

use std::borrow::{Borrow, Cow};
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};

pub(crate) use self::situations::*;
use crate::endpoint::{Endpoint, ParseEndpointError};

/// The reason why an operation on an endpoint failed. Every [`io::Error`] of such an operation
/// carries one, and [`Error::of`] returns it.
///
/// Match the [`Reason`]; the [`io::ErrorKind`] follows from it and is coarser. The message consists
/// of [`what`](Self::what) failed and an [`advice`](Self::advice) that names items of this crate. A
/// program with options of its own prints `what` and adds its own next step.
/// [Troubleshooting](crate::docs::troubleshooting) describes each reason.
///
/// ```no_run
/// use sockpipe::{Error, Reason};
///
/// # async fn run() -> std::io::Result<()> {
/// if let Err(error) = sockpipe::Listener::bind("org.example.tool") {
///     match Error::of(&error).map(Error::reason) {
///         Some(Reason::LiveServer { process: Some(pid), .. }) => eprintln!("running as {pid}"),
///         Some(Reason::UnsafeDirectory) => eprintln!("set XDG_RUNTIME_DIR"),
///         _ => eprintln!("{error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`io::Error::raw_os_error`] is `None` for every error that carries another one: use
/// [`raw_os_error`](Self::raw_os_error) of this type. The OS's error itself is the
/// [`source`](StdError::source). The message includes it already, so print errors with `{}`: the
/// `{:#}` of `anyhow` adds each source, and prints the OS's error twice.
#[derive(Debug)]
#[non_exhaustive]
pub struct Error {
    operation: Operation,
    endpoint: Option<Endpoint>,
    reason: Reason,
    /// The reason in words, with details such as the process id.
    cause: String,
    advice: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// An attempted operation, from [`Error::operation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Parsing a text as an [`Endpoint`].
    Parse,
    /// Finding the addresses of an endpoint on this OS.
    Resolve,
    /// Listening: `bind`, `bind_with` and `bind_wait`.
    Bind,
    /// Connecting.
    Connect,
    /// Making a stream of an existing socket, on Unix: `os::unix::StreamExt::from_fd` and the
    /// conversions that call it, `Stream::from_parent` and `Stream::pair`.
    Adopt,
    /// Accepting a connection.
    Accept,
    /// Inspecting an address: [`Candidate::occupancy`](crate::Candidate::occupancy).
    Inspect,
    /// Removing a stale socket: [`Candidate::remove_stale`](crate::Candidate::remove_stale).
    Clean,
    /// Starting a server: `connect_or_spawn`.
    Spawn,
    /// Handing over a launch to the first instance: `hand_over`.
    HandOver,
    /// Taking a running server's endpoint over: `os::unix::take_over`.
    TakeOver,
    /// Ending the write side of a stream, or closing it.
    Shutdown,
    /// Closing a listener: `Listener::close`.
    Release,
    /// Identifying the peer: `peer_credentials`.
    Identify,
}

/// A reason why an operation failed, from [`Error::reason`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A live server holds the name.
    #[non_exhaustive]
    LiveServer {
        /// The server's process, if the name's lock file specifies it.
        process: Option<u32>,
    },
    /// A crashed server left its socket behind.
    StaleSocket,
    /// No server listens at any address of the endpoint.
    NoServer,
    /// The directory of the socket does not exist, or was replaced meanwhile.
    NoDirectory,
    /// A file, a directory, or a socket of another type is at the path.
    NotASocket,
    /// The socket or the name's lock file belongs to another user.
    ForeignOwner,
    /// Other users could replace a socket in the directory.
    UnsafeDirectory,
    /// The directory that holds the sockets of portable names belongs to another user, or is open
    /// to other users.
    PrivateDirectory,
    /// This user may not create files in the directory.
    NotWritable,
    /// The server runs as another user than expected.
    UnexpectedServer,
    /// The server does not accept connections of this user.
    PeerRefused,
    /// The address is too long for the OS.
    NameTooLong,
    /// The text is not an endpoint. The [`source`](StdError::source) is the [`ParseEndpointError`].
    InvalidEndpoint,
    /// A descriptor from elsewhere is not a listening or a connected Unix domain stream socket.
    UnusableDescriptor,
    /// The file system has no locks.
    NoLocks,
    /// A process holds the name but does not listen there: it is stopped while it starts or ends,
    /// or its socket was removed.
    #[non_exhaustive]
    NameWithoutServer {
        /// The process, if the name's lock file specifies it.
        process: Option<u32>,
    },
    /// No server listens, but connections of a former one still hold the pipe's name (Windows).
    HeldByConnections,
    /// A socket refuses connections. On macOS and the BSDs the socket of a live server with a full
    /// backlog does so too. On Linux a server that does not listen yet looks like a dead one
    /// where the kernel does not report it, as in a sandbox without `AF_NETLINK`.
    UnprovenSocket,
    /// The server is shutting down: it finishes its last connections, and holds its name until
    /// then.
    #[non_exhaustive]
    Stopping {
        /// The process, if the name's lock file specifies it.
        process: Option<u32>,
    },
    /// The listener's name was removed, and the listener is set to stop in that case.
    NameLost,
    /// The time limit expired.
    Deadline,
    /// The listener was stopped: `blocking::Listener::unblock`.
    Stopped,
    /// Another process has taken the listener over: `os::unix::take_over`.
    #[non_exhaustive]
    TakenOver {
        /// That process, if the OS reports it.
        process: Option<u32>,
    },
    /// There is no tokio runtime, or it lacks I/O or timers.
    NoRuntime,
    /// The server that was started exited before it listened.
    ServerExited,
    /// The first instance did not accept the launch, or the server did not hand its name over: that
    /// process is suspended or hangs.
    #[non_exhaustive]
    NoAnswer {
        /// Its process, if the OS reports it.
        process: Option<u32>,
    },
    /// The process that holds the name speaks another protocol than `hand_over` or `take_over`.
    #[non_exhaustive]
    NotUnderstood {
        /// Its process, if the OS reports it.
        process: Option<u32>,
    },
    /// The OS does not report the client's user yet: the client connected without an impersonation
    /// level, and the server has read nothing from it (Windows).
    #[non_exhaustive]
    PeerNotToldYet {
        /// Its process, if the OS reports it.
        process: Option<u32>,
    },
    /// The client connected anonymously, so the OS never reports its user (Windows).
    #[non_exhaustive]
    AnonymousPeer {
        /// Its process, if the OS reports it.
        process: Option<u32>,
    },
    /// The pipe cannot carry the end of one direction (Windows).
    NoHalfClose,
    /// The OS or the peer does not support the operation.
    Unsupported,
    /// The OS reported an error, which is the [`source`](StdError::source).
    Os,
}

impl Error {
    /// Returns the error that `error` carries, if it comes from an operation on an endpoint.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns the operation that failed.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the endpoint: the address that was tried, or the endpoint as the caller wrote it if
    /// the failure has no single address.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Returns why the operation failed.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Returns the OS's error code, if the OS reported the failure.
    ///
    /// [`io::Error::raw_os_error`] of the [`io::Error`] that carries this error is always `None`.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        let source: &io::Error = self.source.as_deref()?.downcast_ref()?;
        source.raw_os_error().or_else(|| Self::of(source)?.raw_os_error())
    }

    /// Returns the message without the advice: operation, endpoint and reason.
    ///
    /// ```
    /// # #[cfg(feature = "blocking")] {
    /// # let name = format!("system:docs.{}", std::process::id());
    /// let error = sockpipe::blocking::Stream::connect(name).expect_err("no server");
    /// let error = sockpipe::Error::of(&error).expect("an operation on an endpoint");
    /// assert!(error.what().starts_with("no server at "));
    /// assert!(error.advice().expect("advice").starts_with("start it first"));
    /// # }
    /// ```
    #[must_use]
    pub fn what(&self) -> String {
        let cause = &self.cause;
        let Some(endpoint) = &self.endpoint else {
            return match self.operation {
                Operation::Parse => cause.clone(),
                operation => format!("cannot {}: {cause}", operation.verb().0),
            };
        };

        match self.reason {
            Reason::NoServer | Reason::StaleSocket => format!("no server at {endpoint}{cause}"),
            Reason::UnexpectedServer => format!("refused the server at {endpoint}: {cause}"),
            _ => {
                let (verb, preposition) = self.operation.verb();
                format!("cannot {verb}{preposition} {endpoint}: {cause}")
            }
        }
    }

    /// Returns the next step for the user, in terms of this crate's items.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        Some(&*self.advice).filter(|advice| !advice.is_empty())
    }

    /// Creates an error without an endpoint. [`during`] sets its operation.
    pub(crate) fn new(reason: Reason, cause: impl Into<String>) -> Self {
        let advice = match reason {
            Reason::LiveServer { .. } => "stop it, or choose another endpoint",
            Reason::NoServer | Reason::StaleSocket => {
                "start it first, or wait for it with ConnectOptions::wait_for_server"
            }
            _ => "",
        };
        Self {
            operation: Operation::Bind,
            endpoint: None,
            reason,
            cause: cause.into(),
            advice: advice.into(),
            source: None,
        }
    }

    pub(crate) fn in_operation(self, operation: Operation) -> Self {
        Self { operation, ..self }
    }

    pub(crate) fn at(mut self, endpoint: impl Borrow<Endpoint>) -> Self {
        self.endpoint = Some(endpoint.borrow().clone());
        self
    }

    pub(crate) fn advising(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.advice = advice.into();
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of the [`io::Error`] that carries this error.
    fn kind(&self) -> ErrorKind {
        match self.reason {
            Reason::LiveServer { .. } | Reason::UnprovenSocket | Reason::HeldByConnections => {
                ErrorKind::AddrInUse
            }
            Reason::StaleSocket | Reason::Stopping { .. } => ErrorKind::ConnectionRefused,
            Reason::NoServer | Reason::NoDirectory | Reason::NameLost => ErrorKind::NotFound,
            Reason::NotASocket => ErrorKind::AlreadyExists,

            Reason::ForeignOwner
            | Reason::UnsafeDirectory
            | Reason::PrivateDirectory
            | Reason::NotWritable
            | Reason::UnexpectedServer
            | Reason::PeerRefused => ErrorKind::PermissionDenied,

            Reason::NameTooLong | Reason::InvalidEndpoint | Reason::UnusableDescriptor => {
                ErrorKind::InvalidInput
            }
            Reason::NoLocks | Reason::NoHalfClose | Reason::Unsupported => ErrorKind::Unsupported,
            Reason::Deadline | Reason::NameWithoutServer { .. } | Reason::NoAnswer { .. } => {
                ErrorKind::TimedOut
            }

            Reason::NotUnderstood { .. } => ErrorKind::InvalidData,
            Reason::NoRuntime
            | Reason::PeerNotToldYet { .. }
            | Reason::AnonymousPeer { .. }
            | Reason::ServerExited
            | Reason::Stopped
            | Reason::TakenOver { .. } => ErrorKind::Other,
            Reason::Os => {
                let source = self.source.as_deref().and_then(|source| source.downcast_ref());

                source.map_or(ErrorKind::Other, io::Error::kind)
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        self.advice().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<ParseEndpointError> for io::Error {
    fn from(error: ParseEndpointError) -> Self {
        let parse = Error::new(Reason::InvalidEndpoint, error.to_string()).caused_by(error);
        parse.in_operation(Operation::Parse).into()
    }
}

impl Operation {
    /// Returns the verb that follows "cannot", and the preposition before the endpoint.
    fn verb(self) -> (&'static str, &'static str) {
        match self {
            Self::Parse => ("parse", ""),
            Self::Resolve => ("use", ""),
            Self::Bind => ("listen", " on"),
            Self::Connect => ("connect", " to"),
            Self::Adopt => ("make a stream", " of"),
            Self::Accept => ("accept", " on"),
            Self::Inspect => ("look", " at"),
            Self::Clean => ("clean", ""),

            Self::Spawn => ("start the server", " at"),
            Self::HandOver => ("hand over", " to"),
            Self::TakeOver => ("take over", ""),
            Self::Shutdown => ("end the write side", " of"),
            Self::Release => ("release", ""),
            Self::Identify => ("identify the peer", " at"),
        }
    }
}

/// Sets the operation that an error belongs to, and its endpoint unless the error has one. An error
/// of another type, such as one of the OS, becomes the source of an [`Error`].
///
/// Steps that several operations share do not know which one they are part of, so each public
/// function calls this. An error of parsing or resolving keeps its operation.
pub(crate) fn during(
    operation: Operation,
    endpoint: impl Borrow<Endpoint>,
    error: io::Error,
) -> io::Error {
    let mut error = match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::from_foreign(error),
    };
    if matches!(error.operation, Operation::Parse | Operation::Resolve) {
        return error.into();
    }
    error.operation = operation;
    error.endpoint.get_or_insert_with(|| endpoint.borrow().clone());
    error.into()
}

impl Error {
    fn from_foreign(error: io::Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::Unsupported if error.raw_os_error().is_none() => Reason::Unsupported,
            _ => Reason::Os,
        };
        Self::new(reason, error.to_string()).caused_by(error)
    }
}

/// Creates an error of the OS about `endpoint`.
pub(crate) fn os(endpoint: impl Borrow<Endpoint>, error: impl Into<io::Error>) -> io::Error {
    Error::from_foreign(error.into()).at(endpoint).into()
}
