//! The addresses of an endpoint: their states, and the removal of sockets that crashed servers
//! left.

pub(crate) mod resolve;

use std::io;
use std::path::{Path, PathBuf};

use crate::endpoint::{Endpoint, Form};
use crate::error::{Operation, during};
use crate::imp;

impl Endpoint {
    /// Returns the addresses that the endpoint may have on this OS for this process, the best one
    /// first.
    ///
    /// A server tries them until one is usable, and a client until a server answers. [Which address
    /// do I get?](crate::docs::which_address) has the table.
    ///
    /// ```
    /// # if cfg!(unix) {
    /// let found = sockpipe::Endpoint::try_from("system:tool")?.resolve()?;
    /// assert!(found[0].address().to_string().ends_with("run/tool.sock"));
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Unsupported` if this OS does not have that form of endpoint.
    pub fn resolve(&self) -> io::Result<Vec<Candidate>> {
        resolve::candidates(self, &imp::environment()?)
    }
}

/// One address that an endpoint may have, from [`Endpoint::resolve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub(crate) place: Candidacy,
    pub(super) why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Candidacy {
    /// A path that the user wrote, or the path of a system service.
    Path(PathBuf),
    /// In a directory that the system creates for the user: skipped if it is missing or belongs to
    /// another user.
    UserDir {
        dir: PathBuf,
        file: String,
    },
    /// In a directory that the crate creates with mode 0700: an error if it belongs to another
    /// user.
    PrivateDir {
        dir: PathBuf,
        file: String,
    },
    Abstract(Vec<u8>),
    /// The part of the name after `\\.\pipe\`.
    Pipe(String),
}

/// The state of one address, from [`Candidate::occupancy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupancy {
    /// Nothing is there: a server can bind the address.
    Free,
    /// A server holds the address, whether it answers or not.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: a server of this crate holds the lock on the name, and has written its process id into
    /// the lock file. Windows: the pipe exists; only a connection shows which process created it.
    #[non_exhaustive]
    Held {
        /// The server's process, if it is known.
        process: Option<u32>,
    },
    /// Windows: no server listens, but connections of a former one still hold the pipe's name,
    /// until the last is closed.
    HeldByConnections,
    /// Unix: a socket whose lock no process is seen to hold. A crashed server left it, or it
    /// belongs to a server without this crate's locks, or to another user whose lock this process
    /// may not read: a connection shows which. Also returned for every abstract socket, whether it
    /// exists or not, because these have no locks.
    Unclaimed,
    /// Unix: a file that is not a socket.
    #[non_exhaustive]
    Foreign {
        /// The type of the file in words, such as `a directory`.
        what: &'static str,
    },
}

impl Candidate {
    /// Returns the address: a path, a pipe or an abstract socket.
    #[must_use]
    pub fn address(&self) -> Endpoint {
        Endpoint(match &self.place {
            Candidacy::Path(path) => Form::Path(path.clone()),
            Candidacy::UserDir { dir, file } | Candidacy::PrivateDir { dir, file } => {
                Form::Path(join(dir, file))
            }
            Candidacy::Abstract(name) => Form::Abstract(name.clone()),
            Candidacy::Pipe(name) => Form::Pipe(name.clone()),
        })
    }

    /// Returns in words why the address is tried, and when it is skipped.
    #[must_use]
    pub fn why(&self) -> &str {
        self.why
    }

    /// Looks at this address without a connection and returns its state.
    ///
    /// No server notices, and nothing changes. The state may be out of date by the time this
    /// returns.
    ///
    /// ```no_run
    /// use sockpipe::{Endpoint, Occupancy};
    ///
    /// for candidate in Endpoint::try_from("org.example.tool")?.resolve()? {
    ///     if let Ok(Occupancy::Held { process, .. }) = candidate.occupancy() {
    ///         println!("{} is process {process:?}'s", candidate.address());
    ///     }
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound` if the directory does not exist, or is not one that [`Listener::bind`] would use
    /// for a portable name; `PermissionDenied` if this user may not look; else the OS's error.
    ///
    /// [`Listener::bind`]: crate::Listener::bind
    pub fn occupancy(&self) -> io::Result<Occupancy> {
        imp::occupancy(self).map_err(|error| during(Operation::Inspect, self.address(), error))
    }

    /// Removes the socket that a crashed server left at this address, and reports whether there was
    /// one.
    ///
    /// [`Listener::bind`] does the same by itself, with the same steps and under the same lock.
    /// Call this to remove the file without starting a new server.
    ///
    /// A server without this crate's lock receives one connection, which is closed at once. It
    /// counts as live if it does not refuse that connection.
    ///
    /// # Errors
    ///
    /// As for [`Listener::bind`], and nothing is removed: `AddrInUse` for a live server,
    /// `AlreadyExists` for a file that is not a socket, `PermissionDenied` for another user's
    /// socket.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: a pipe's name disappears with its server, so there is never anything to remove. The
    /// same is true of abstract sockets.
    ///
    /// [`Listener::bind`]: crate::Listener::bind
    pub fn remove_stale(&self) -> io::Result<bool> {
        imp::remove_stale(self).map_err(|error| during(Operation::Clean, self.address(), error))
    }
}

/// Joins with a slash on every OS, because these are paths of Unix.
fn join(dir: &Path, file: &str) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    if !path.as_encoded_bytes().ends_with(b"/") {
        path.push("/");
    }
    path.push(file);
    path.into()
}
