//! The places of an endpoint: where it is bound, and where else clients look for it.

use std::io;

use rustix::io::Errno;

use super::place::Place;
use super::{environment, is_transient};
use crate::candidate::Candidacy;
use crate::candidate::resolve::candidates;
use crate::endpoint::Endpoint;
use crate::error::{Error, Reason};
use crate::options::ListenOptions;

/// Returns the first usable candidate, with its place unless it is an abstract socket.
pub(super) fn place_to_bind(
    endpoint: &Endpoint,
    options: &ListenOptions,
) -> io::Result<(Option<Place>, Endpoint)> {
    let mut refused = None;
    for candidate in candidates(endpoint, &environment()?)? {
        let opened = match &candidate.place {
            Candidacy::Path(path) => Place::of_path(path)
                .and_then(|place| place.safe(options.os.unsafe_directory))
                .map(Some),
            Candidacy::UserDir { dir, file } => match Place::in_user_dir(dir, file) {
                Ok(None) => continue,
                opened => opened,
            },
            Candidacy::PrivateDir { dir, file } => Place::in_private_dir(dir, file).map(Some),
            Candidacy::Abstract(_) => Ok(None),
            Candidacy::Pipe(_) => continue,
        };

        match opened {
            Ok(place) => return Ok((place, candidate.address())),
            // A client that can look in this place would not find a server in the next one.
            Err(error) if is_transient_error(&error) => return Err(error),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Error::new(Reason::NoDirectory, "this system has no directory for this name")
            .at(endpoint)
            .into()
    }))
}

/// Returns the other places where clients look for `endpoint`, as far as they exist. A server that
/// was started with another environment may live in one of them. An earlier server may also live in
/// a directory that is passed over by now.
pub(super) fn other_places(endpoint: &Endpoint, chosen: &Endpoint) -> io::Result<Vec<Place>> {
    let mut others = Vec::new();
    for candidate in candidates(endpoint, &environment()?)? {
        if candidate.address() == *chosen {
            continue;
        }

        let place = match &candidate.place {
            Candidacy::UserDir { dir, file } => match Place::in_user_dir(dir, file) {
                Ok(None) => Ok(Place::in_passed_over_dir(dir, file)),
                place => place,
            },
            Candidacy::PrivateDir { dir, file } => Place::in_existing_private_dir(dir, file),
            Candidacy::Path(_) | Candidacy::Abstract(_) | Candidacy::Pipe(_) => Ok(None),
        };

        match place {
            Ok(place) => others.extend(place),
            Err(error) if is_transient_error(&error) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(others)
}

fn is_transient_error(error: &io::Error) -> bool {
    let code = Error::of(error).map_or_else(|| error.raw_os_error(), Error::raw_os_error);
    code.is_some_and(|code| is_transient(Errno::from_raw_os_error(code)))
}
