//! The servers of a storm, and where their sockets and their log are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The one that lives for the whole run.
    Steady,
    /// The one that is killed, and that its clients start again.
    Mortal,
    /// The one that its next version takes over again and again.
    Renewed,
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Mortal => "mortal",
            Self::Renewed => "renewed",
        }
    }
}

/// The sockets have a directory of their own, so that leftovers show.
pub(crate) struct Places {
    _dir: tempfile::TempDir,
    sockets: PathBuf,
    log: PathBuf,
}

impl Places {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("torture").tempdir()?;
        let sockets = dir.path().join("sockets");
        fs::create_dir(&sockets)?;
        // A server binds its socket by the path without links, so the kernel lists it under that.
        let sockets = fs::canonicalize(sockets)?;
        let log = dir.path().join("log");
        Ok(Self { _dir: dir, sockets, log })
    }

    pub(crate) fn sockets(&self) -> &Path {
        &self.sockets
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn socket(&self, server: Server) -> PathBuf {
        self.sockets.join(format!("{}.sock", server.name()))
    }

    pub(crate) fn lock(&self, server: Server) -> PathBuf {
        self.sockets.join(format!(".{}.sock.lock", server.name()))
    }

    /// Returns the process that a server's lock file names.
    pub(crate) fn lock_holder(&self, server: Server) -> Option<u32> {
        fs::read_to_string(self.lock(server)).ok()?.split_whitespace().next()?.parse().ok()
    }
}
