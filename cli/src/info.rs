//! `sockpipe info`.

mod next;

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use sockpipe::{Candidate, ConnectOptions, Endpoint, ExpectServer, Occupancy, Stream};

use crate::exit::{DENIED, Exit, FAILED, NOBODY, TAKEN, USAGE, at_endpoint, at_output, what};
use crate::os::Access;
use crate::procfs::{self, Listening};
use crate::say::{self, shown};
use crate::{args, client, os};

/// How long a probe waits for a server that is too busy. It only checks whether the server lives.
const BUSY: Duration = Duration::from_millis(300);
/// How long a probe retries after a refusal. On some systems a full backlog refuses connections as
/// a dead socket does, but it is full only for a moment.
const REFUSED: Duration = Duration::from_millis(50);
/// Every system has room for a path of this length.
const SHORT: usize = 90;

pub async fn run(args: args::Info) -> Result<()> {
    let mut found = Vec::new();
    for candidate in args.endpoint.resolve().map_err(at_endpoint)? {
        found.push(Found::at(&candidate, args.connect).await);
    }
    let chosen = chosen(&found);
    let text = if args.json {
        format!("{:#}\n", as_json(&args.endpoint, &found, chosen))
    } else {
        say::for_terminal(&as_text(&args.endpoint, &found, chosen))
    };

    let mut out = os::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(at_output)?;
    let code = match found[chosen].state {
        State::Live => return Ok(()),
        State::Free | State::Stale | State::PassedOver => NOBODY,
        State::Foreign => TAKEN,
        State::Impossible => USAGE,
        State::Denied => DENIED,
        State::Unknown => FAILED,
    };
    Err(Exit::silent(code).into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Live,
    Stale,
    /// Something that is not a stream socket.
    Foreign,
    /// The directory does not exist, or is not fit for a portable name.
    PassedOver,
    /// An address that no socket can have, for example because it is too long.
    Impossible,
    /// This user has no permission to find out.
    Denied,
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Foreign => "foreign",
            Self::PassedOver | Self::Impossible => "unusable",
            Self::Denied | Self::Unknown => "unknown",
        }
    }

    fn of_error(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::PassedOver,
            ErrorKind::InvalidInput => Self::Impossible,
            ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Unknown,
        }
    }
}

/// What was found at one address.
struct Found {
    address: Endpoint,
    /// The target of a link at the address, if that is a socket.
    target: Option<Endpoint>,
    why: String,
    state: State,
    /// How the state is known.
    because: String,
    process: Option<u32>,
    /// The server's user and process, if a connection has reported them.
    server: Option<String>,
    server_uid: Option<u32>,
    access: Option<Access>,
    /// Why no server of this user could listen there, if a reason was found.
    no_server: Option<String>,
}

impl Found {
    async fn at(candidate: &Candidate, connect: bool) -> Self {
        let address = candidate.address();
        let mut found = Self {
            why: candidate.why().to_owned(),
            state: State::Unknown,
            because: String::new(),
            target: None,
            process: None,
            server: None,
            server_uid: None,
            access: None,
            no_server: None,
            address,
        };

        let mut stream = found.look(candidate).await;
        if connect && stream.is_none() && found.state == State::Live {
            match probe(found.place()).await {
                Ok(connected) => stream = Some(connected),
                Err(error) => found.server = Some(format!("cannot be asked: {}", what(&error))),
            }
        }

        if let Some(peer) = stream.as_ref().and_then(|stream| stream.peer_credentials().ok()) {
            found.server = Some(client::credentials(&peer));
            found.server_uid = peer.uid();
            found.process = found.process.or_else(|| peer.pid());
        }
        // Clients can connect only to a socket, whatever the mode of another file is.
        if found.state != State::Foreign {
            found.access = os::who_may_connect(found.place(), stream.as_ref());
        }
        found.no_server = os::why_no_server(found.place());
        found
    }

    /// The address that the state describes.
    fn place(&self) -> &Endpoint {
        self.target.as_ref().unwrap_or(&self.address)
    }

    /// Finds out the state. Returns a stream if only a connection could show it.
    async fn look(&mut self, candidate: &Candidate) -> Option<Stream> {
        let mut occupancy = candidate.occupancy();
        if matches!(occupancy, Ok(Occupancy::Foreign { .. })) {
            if let Some(target) = target(&self.address) {
                occupancy = target.occupancy();
                self.target = Some(target.address());
            }
        }

        let listening = listening(self.place());
        let (state, because) = match occupancy {
            Ok(Occupancy::Free) => match self.too_long().await {
                Some(why) => (State::Impossible, why),
                None => (State::Free, "nothing is there".to_owned()),
            },
            Ok(Occupancy::Held { process, .. }) => {
                self.process = process;
                let how = if cfg!(windows) { "the pipe exists" } else { "its lock is held" };
                (State::Live, how.to_owned())
            }

            Ok(Occupancy::Foreign { what, .. }) => (State::Foreign, format!("{what} exists there")),
            Ok(Occupancy::Unclaimed) => {
                self.process = listening.iter().find_map(procfs::process_of);
                if self.process.is_none() {
                    return self.ask(!listening.is_empty()).await;
                }
                if listening.iter().all(|socket| !socket.is_stream) {
                    (State::Foreign, "a server with a socket of another type is there".to_owned())
                } else {
                    (State::Live, "a socket listens there".to_owned())
                }
            }

            Ok(_) => {
                (State::Unknown, "this version of sockpipe does not know this state".to_owned())
            }
            Err(error) => match self.too_long().await {
                Some(why) => (State::Impossible, why),
                None => (State::of_error(&error), what(&error)),
            },
        };
        (self.state, self.because) = (state, because);
        None
    }

    /// Finds out the state with a connection, when nothing else shows it for sure. `listed` means
    /// that the system's table of sockets has such a name.
    async fn ask(&mut self, listed: bool) -> Option<Stream> {
        let (state, because) = match probe(self.place()).await {
            Ok(stream) => {
                (self.state, self.because) = (State::Live, "it took a connection".to_owned());
                return Some(stream);
            }

            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => {
                    (State::Stale, "a socket is there, and no server behind it".to_owned())
                }
                ErrorKind::NotFound => (State::Free, "nothing is there".to_owned()),
                ErrorKind::TimedOut => (State::Live, "too busy for a connection".to_owned()),
                ErrorKind::AlreadyExists => {
                    (State::Foreign, "a socket of another type is there".to_owned())
                }
                // Only the list shows a server that refuses connections of this user.
                ErrorKind::PermissionDenied if listed => (
                    State::Live,
                    "by the system's list of sockets, because it refuses connections of this user"
                        .to_owned(),
                ),
                _ => (State::of_error(&error), what(&error)),
            },
        };

        (self.state, self.because) = (state, because);
        None
    }

    /// Returns why the path does not fit into an address. This needs no server, because the crate
    /// reports it before it connects.
    async fn too_long(&self) -> Option<String> {
        let place = self.place();
        if place.as_path()?.as_os_str().len() <= SHORT {
            return None;
        }
        let at_once = ConnectOptions::new().deadline(Duration::ZERO);
        match Stream::connect_with(place, &at_once).await {
            Err(error) if error.kind() == ErrorKind::InvalidInput => Some(what(&error)),
            _ => None,
        }
    }

    fn process(&self) -> Option<String> {
        self.process.map(client::process)
    }
}

/// Returns the target of a link, if that is a socket. A client follows the link, and a server does
/// not.
fn target(address: &Endpoint) -> Option<Candidate> {
    let path = os::leads_to(address)?;
    Endpoint::try_from(path).ok()?.resolve().ok()?.into_iter().next()
}

async fn probe(address: &Endpoint) -> io::Result<Stream> {
    let options = ConnectOptions::new()
        .deadline(BUSY)
        .wait_for_server(REFUSED)
        .expect_server(ExpectServer::Anyone);
    Stream::connect_with(address, &options).await
}

fn listening(address: &Endpoint) -> Vec<Listening> {
    let shown = address.to_string();
    if let Some(name) = shown.strip_prefix("abstract:") {
        return procfs::listening_at(&format!("@{name}"));
    }
    let Some(path) = address.as_path() else { return Vec::new() };
    let Ok(absolute) = std::path::absolute(path) else { return Vec::new() };
    let at = |path: &Path| path.to_str().map(procfs::listening_at).unwrap_or_default();
    let mut found = at(&absolute);
    // A server may have been started with another path to the same directory.
    let real = path.parent().map(|dir| if dir.as_os_str().is_empty() { ".".as_ref() } else { dir });
    let real = real.and_then(|dir| dir.canonicalize().ok()).zip(path.file_name());
    match real.map(|(dir, name)| dir.join(name)) {
        Some(real) if real != absolute => {
            found.extend(at(&real));
        }
        _ => {}
    }
    found
}

/// Chooses the address that clients reach, or else the one that a server would take.
fn chosen(found: &[Found]) -> usize {
    let first = |wanted: &dyn Fn(State) -> bool| found.iter().position(|found| wanted(found.state));
    first(&|state| state == State::Live)
        .or_else(|| first(&|state| state != State::PassedOver))
        .unwrap_or(0)
}

fn as_text(endpoint: &Endpoint, all: &[Found], chosen: usize) -> String {
    let found = &all[chosen];
    let mut lines =
        vec![("endpoint", endpoint.to_string()), ("address", found.address.to_string())];
    if let Some(target) = &found.target {
        let what = "a client follows the link, a server cannot listen at one";
        lines.push(("leads to", format!("{target} ({what})")));
    }
    lines.push(("state", format!("{}: {}", found.state.word(), found.because)));
    if let Some(process) = found.process() {
        lines.push(("process", process));
    }
    if let Some(server) = &found.server {
        lines.push(("server", server.clone()));
    }

    if let Some(access) = &found.access {
        let meaning = access.meaning.map(|meaning| format!(" ({meaning})")).unwrap_or_default();
        lines.push(("owner", access.owner.clone()));
        lines.push(("access", format!("{}{meaning}", access.rights)));
    }

    lines.push(("next", next::step(endpoint, found)));
    let mut text: String =
        lines.iter().map(|(label, value)| format!("{label:<9} {}\n", shown(value))).collect();
    if all.len() > 1 {
        text.push_str("\nA server takes the first usable one, a client tries all:\n");

        for (number, found) in all.iter().enumerate() {
            let (address, state) = (shown(&found.address.to_string()), found.state.word());
            let (why, because) = (shown(&found.why), shown(&found.because));
            text.push_str(&format!(
                "{:>3} {address}\n    {why}\n    {state}: {because}\n",
                number + 1
            ));
        }
    } else {
        text = text.replacen("state  ", &format!("why       {}\nstate  ", shown(&found.why)), 1);
    }
    text
}

fn as_json(endpoint: &Endpoint, all: &[Found], chosen: usize) -> Value {
    let candidates: Vec<_> = all.iter().map(found_as_json).collect();
    let mut object = found_as_json(&all[chosen]);
    object["endpoint"] = endpoint.to_string().into();
    object["candidates"] = candidates.into();
    object
}

fn found_as_json(found: &Found) -> Value {
    let access = found.access.as_ref();
    json!({
        "address": found.address.to_string(),
        "leads_to": found.target.as_ref().map(Endpoint::to_string),
        "why": found.why,
        "state": found.state.word(),
        "because": found.because,
        "pid": found.process,
        "program": found.process.and_then(os::program),
        "server": found.server,
        "owner": access.map(|access| access.owner.clone()),
        "access": access.map(|access| access.rights.clone()),
    })
}
