//! How a waiting listener looks after its name. Cleaners and people remove sockets, and whole
//! directories. Other servers bind a name that they find free.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::access::Permission;
use super::claim::Claim;
use super::lock::{self, Held};
use super::options::OnNameLost;
use super::place::{Place, SOCKET, what};
use super::platform;
use super::stale::Probes;
use crate::endpoint::Form;
use crate::error::{Error, Reason};

/// The pause between looks, so that a removed name is bound again within 10 seconds.
pub(super) const LOOK: Duration = Duration::from_secs(9);
/// The interval at which a lock file is touched where cleaners go by age. Their limits are days.
const TOUCH: Duration = Duration::from_secs(60 * 60);

impl Claim {
    /// Checks the name, and binds it again with a new socket if it was removed. Returns `None` if
    /// there is nothing to do, or if that failed for now.
    ///
    /// # Errors
    ///
    /// The errors are permanent: another server has the name, or the listener has to stop without
    /// it.
    pub(super) fn look(&mut self, permission: Permission) -> io::Result<Option<OwnedFd>> {
        if self.on_lost == OnNameLost::Ignore || !self.is_ours_to_keep() {
            return Ok(None);
        }
        if self.is_found() {
            self.watch.reported = false;
            self.keep_lock();
            return Ok(None);
        }
        if self.on_lost == OnNameLost::Stop {
            let cause = "its name was removed";
            let error = Error::new(Reason::NameLost, cause).at(self.place().endpoint());
            return Err(error.advising("bind a new listener").into());
        }

        match self.republish(permission, Probes::AtOnce) {
            Ok(socket) => {
                self.watch.reported = false;
                republished();
                Ok(Some(socket))
            }
            Err(error) if is_taken(&error) => Err(error),
            // This user may no longer write there, the directory is gone, or another process is
            // just about to take the name. Connected clients are served all the same.
            Err(error) => {
                if !std::mem::replace(&mut self.watch.reported, true) {
                    lost(&error);
                }
                Ok(None)
            }
        }
    }

    /// Looks after the lock of a name that is still there. Takes the lock again if its file was
    /// removed, so that other processes find this server. Touches the file where that keeps
    /// cleaners away.
    fn keep_lock(&mut self) {
        if matches!(self.is_locked(), Ok(false)) {
            self.lock_again();
        }
        let is_due = self.watch.touched.is_none_or(|last| last.elapsed() >= TOUCH);
        if is_due && is_cleaned_by_age(self.place().dir_path()) {
            self.watch.touched = Some(Instant::now());
            self.touch();
        }
    }
}

/// Whether another server has the name. A process that is just taking it, or cleans up, does not
/// count.
fn is_taken(error: &io::Error) -> bool {
    let Some(error) = Error::of(error) else { return false };
    let Some(Form::Path(path)) = error.endpoint().map(|endpoint| &endpoint.0) else { return false };
    let live = matches!(error.reason(), Reason::LiveServer { .. });
    let has_socket = |place: &Place| {
        let stat = place.stat(place.name()).ok().flatten();
        stat.is_some_and(|stat| what(&stat) == SOCKET)
    };
    let held = |place: &Place| matches!(lock::holding(place), Ok(Held::By(_)));
    live && Place::of_path(path).is_ok_and(|place| has_socket(&place) && held(&place))
}

fn is_cleaned_by_age(dir: &Path) -> bool {
    let users = platform::user_temp_dir();
    let shared = ["/tmp", "/var/tmp", "/private/tmp", "/private/var/tmp"].map(Path::new);
    shared.into_iter().chain(users.as_deref()).any(|cleaned| dir.starts_with(cleaned))
}

/// Logs that the listener's name was removed, and is bound again.
fn republished() {
    #[cfg(feature = "tracing")]
    tracing::warn!("the listener's name was removed, and is bound again");
}

/// Logs that the listener's name was removed, and cannot be bound again.
fn lost(error: &io::Error) {
    #[cfg(feature = "tracing")]
    tracing::error!(%error, "the listener's name was removed, and cannot be bound again");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}
