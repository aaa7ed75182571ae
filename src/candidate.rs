//! The addresses of an endpoint: what there is at each, and the removal of what a crash has left there.

pub(crate) mod resolve;

use std::io;
use std::path::{Path, PathBuf};

use crate::endpoint::{Endpoint, Form};
use crate::error::{Operation, during};
use crate::imp;

impl Endpoint {
    /// The addresses it may have on this OS, for this process, best first, and why: what a server
    /// tries until one is usable, and a client until a server answers.
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
    /// `Unsupported` for a form that this OS does not have.
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
    /// The user wrote the path, or it is the system's.
    Path(PathBuf),
    /// In a directory that the system makes for the user: passed over where it is missing or
    /// another user's.
    UserDir {
        dir: PathBuf,
        file: String,
    },
    /// In a directory we make, mode 0700: an error where another user has it.
    PrivateDir {
        dir: PathBuf,
        file: String,
    },
    Abstract(Vec<u8>),
    /// What follows `\\.\pipe\`.
    Pipe(String),
}

/// What there is at one address, from [`Candidate::occupancy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupancy {
    /// Nothing: a server can take the address.
    Free,
    /// A server has it, whether it answers or not.
    ///
    /// # Platform-specific behavior
    ///
    /// Unix: a server of this crate holds the lock on the name, and has written its process id into
    /// the lock file. Windows: the pipe exists; who made it is told by a connection only.
    #[non_exhaustive]
    Held {
        /// The server's process, where that can be told.
        process: Option<u32>,
    },
    /// Windows: no server listens, but connections of a former one still hold the pipe's name, until the
    /// last is closed.
    HeldByConnections,
    /// Unix: a socket, and nobody is seen to hold the lock on its name. A server that crashed has
    /// left it, or it belongs to a server that knows no lock, or to another user's, whose lock this
    /// process may not look at: a connection tells. Also for every abstract socket, whether there
    /// is one or not, for they have no locks.
    Unclaimed,
    /// Unix: something that is no socket.
    #[non_exhaustive]
    Foreign {
        /// In words, such as `a directory`.
        what: &'static str,
    },
}

impl Candidate {
    /// The address: a path, a pipe or an abstract socket.
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

    /// Why it is one, and when it is passed over, in words.
    #[must_use]
    pub fn why(&self) -> &str {
        self.why
    }

    /// What there is at this address. It makes no connection and changes nothing, so no server
    /// notices; what it says may be over when it returns.
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
    /// `NotFound` where there is no such directory, or it is none that [`Listener::bind`] would use
    /// for a portable name; `PermissionDenied` where this user may not look; what else the OS
    /// reports.
    ///
    /// [`Listener::bind`]: crate::Listener::bind
    pub fn occupancy(&self) -> io::Result<Occupancy> {
        imp::occupancy(self).map_err(|error| during(Operation::Inspect, self.address(), error))
    }

    /// Removes what a server that crashed has left at this address, and nothing else, by the same
    /// steps and under the same lock as [`Listener::bind`], which does it by itself: it is for
    /// those who want the file gone without a new server. Gives whether there was a dead socket.
    ///
    /// A server without this crate's lock gets one connection, which is closed at once: it is
    /// living if it does not refuse it.
    ///
    /// # Errors
    ///
    /// As for [`Listener::bind`], and nothing is removed: `AddrInUse` for a living server,
    /// `AlreadyExists` for what is no socket, `PermissionDenied` for another user's socket.
    ///
    /// # Platform-specific behavior
    ///
    /// Windows: a pipe's name goes with its server, so there is never anything to remove. The same
    /// goes for abstract sockets.
    ///
    /// [`Listener::bind`]: crate::Listener::bind
    pub fn remove_stale(&self) -> io::Result<bool> {
        imp::remove_stale(self).map_err(|error| during(Operation::Clean, self.address(), error))
    }
}

/// As on Unix, whatever this OS joins with.
fn join(dir: &Path, file: &str) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    if !path.as_encoded_bytes().ends_with(b"/") {
        path.push("/");
    }
    path.push(file);
    path.into()
}
