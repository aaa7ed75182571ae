//! Suggests the next step for what was found, and never one that would fail.

use sockpipe::Endpoint;

use super::{Found, State};
use crate::os;

pub fn step(endpoint: &Endpoint, found: &Found) -> String {
    // The address at which a server would have to listen.
    let place = found.target.as_ref().unwrap_or(endpoint);
    let no_server =
        found.no_server.as_ref().map(|why| format!("no server can listen there: {why}"));

    match found.state {
        State::Free => no_server.unwrap_or_else(|| {
            format!("`sockpipe listen {place}` or `sockpipe echo {place}` starts a server")
        }),
        State::PassedOver if found.address == *endpoint => {
            "make the directory first, or choose another endpoint".to_owned()
        }
        State::PassedOver => see_to_it(),
        State::Impossible => "choose another endpoint".to_owned(),

        State::Live => with_a_server(endpoint, found),
        State::Stale => match stranger(found) {
            Some(owner) => format!(
                "only {owner} can start a server there, or remove it; choose another endpoint"
            ),
            None => no_server.unwrap_or_else(|| {
                format!(
                    "the next server at {place} takes it over; `sockpipe clean {place}` removes it"
                )
            }),
        },

        State::Foreign if found.target.is_some() || found.process.is_some() => {
            "choose another endpoint".to_owned()
        }
        State::Foreign => "choose another endpoint, or remove it yourself".to_owned(),
        // The directory of a portable name is at fault, and the state says what is wrong with it.
        State::Denied if found.access.is_none() && found.address != *endpoint => see_to_it(),
        State::Denied | State::Unknown => "ask as the user whose it is, or as root".to_owned(),
    }
}

fn see_to_it() -> String {
    "see to the directory first, or choose another endpoint".to_owned()
}

fn with_a_server(endpoint: &Endpoint, found: &Found) -> String {
    let access = found.access.as_ref();
    if access.is_some_and(|access| !access.admits) {
        return "the server refuses connections of this user: ask its owner".to_owned();
    }
    if found.server.is_none() && access.is_none() {
        return "`--connect` asks for the server's user and access".to_owned();
    }

    let uid = found.server_uid.or_else(|| access.and_then(|access| access.uid));
    match uid.filter(|&uid| os::is_stranger(uid)) {
        Some(uid) => {
            let not = if os::is_own(0) { "not root" } else { "neither you nor root" };
            format!(
                "`sockpipe connect --any-server {endpoint}` talks to it: it is run by uid {uid}, \
                 which is {not}"
            )
        }
        None => format!("`sockpipe connect {endpoint}` talks to it"),
    }
}

/// Returns the owner of what is there, if that is another user. Root counts as another user too.
fn stranger(found: &Found) -> Option<&str> {
    let access = found.access.as_ref()?;
    access.uid.is_some_and(|uid| !os::is_own(uid)).then_some(access.owner.as_str())
}
