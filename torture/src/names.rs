//! Removes the names of living servers, as people do who clean up, and waits until each is there
//! again.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::places::{Places, Server};
use crate::process;
use crate::report::Report;

/// A server binds its name again within this time.
const FOUND: Duration = Duration::from_secs(10);
/// When the storm no longer waits for that.
const LOST: Duration = Duration::from_secs(30);
/// From one removal to the next at least. A server that has just started is left alone.
const PAUSE: Duration = Duration::from_secs(3);

/// From this length of a run on, another server almost certainly takes a removed name. In a shorter
/// one the server itself may be faster each time.
const DISPLACED: u64 = 300;

/// What is removed of a name.
#[derive(Clone, Copy, Debug)]
enum Part {
    Socket,
    Both,
    Lock,
}

static PARTS: [Part; 3] = [Part::Socket, Part::Both, Part::Lock];

struct Name {
    server: Server,
    parts: std::iter::Cycle<std::slice::Iter<'static, Part>>,
    next: Instant,
    missing: Option<Missing>,
}

struct Missing {
    part: Part,
    files: Vec<PathBuf>,
    /// Whether the storm removed all of them. Otherwise one was not there, for another reason.
    is_removed: bool,
    since: Instant,
}

#[derive(Clone, Copy, Default)]
struct Found {
    times: u64,
    longest: Duration,
}

pub(crate) struct Names {
    names: Vec<Name>,
    /// For each of the parts.
    found: [Found; 3],
    /// Servers whose whole name was removed, so that another one could take it.
    displaced: Vec<u32>,
    ended: u64,
}

impl Names {
    pub(crate) fn new() -> Self {
        // An upgrade waits until the name is complete, so a lock alone would keep it too long. Each
        // part is removed early in a short run, and the whole name first where another server can
        // take it.
        let all = [
            (Server::Steady, &PARTS[..], 2),
            (Server::Mortal, &PARTS[..], 1),
            (Server::Renewed, &PARTS[..2], 0),
        ];
        let next = Instant::now() + PAUSE;
        let name = |(server, parts, first): (_, &'static [Part], usize)| {
            let mut parts = parts.iter().cycle();
            parts.by_ref().take(first).for_each(drop);
            Name { server, parts, next, missing: None }
        };
        let names = all.map(name).into();
        Self { names, found: [Found::default(); 3], displaced: Vec::new(), ended: 0 }
    }

    pub(crate) fn is_missing(&self, server: Server) -> bool {
        self.names.iter().any(|name| name.server == server && name.missing.is_some())
    }

    /// Takes note of what is there again, and removes the next name if that may be done now.
    pub(crate) fn step(
        &mut self,
        server: Server,
        may_remove: bool,
        places: &Places,
        rng: &mut Rng,
        report: &mut Report,
    ) {
        let Some(name) = self.names.iter_mut().find(|name| name.server == server) else { return };
        let Some(missing) = &name.missing else {
            if may_remove && Instant::now() >= name.next {
                self.remove(server, places, report);
            }
            return;
        };

        let (waited, part) = (missing.since.elapsed(), missing.part);
        if missing.files.iter().all(|file| file.exists()) {
            if missing.is_removed {
                let found = &mut self.found[part as usize];
                found.times += 1;
                found.longest = found.longest.max(waited);
            }
        } else if waited > LOST {
            report.wrong(format!("{part:?} of the {} server is not there again", server.name()));
        } else {
            return;
        }
        name.missing = None;
        name.next = Instant::now() + PAUSE + Duration::from_millis(rng.u64(..2000));
    }

    fn remove(&mut self, server: Server, places: &Places, report: &mut Report) {
        let Some(name) = self.names.iter_mut().find(|name| name.server == server) else { return };
        let Some(&part) = name.parts.next() else { return };
        let (socket, lock) = (places.socket(server), places.lock(server));
        let holder = places.lock_holder(server);
        let files = match part {
            Part::Socket => vec![socket],
            Part::Both => vec![lock, socket],
            Part::Lock => vec![lock],
        };
        let mut is_removed = true;
        for file in &files {
            match fs::remove_file(file) {
                // A cleaner was here, or the mortal server was just killed.
                Err(error) if error.kind() == ErrorKind::NotFound => is_removed = false,
                Err(error) => {
                    is_removed = false;
                    report.wrong(format!("{} cannot be removed: {error}", file.display()));
                }
                Ok(()) => {}
            }
        }
        if matches!((server, part), (Server::Mortal, Part::Both)) {
            self.displaced.extend(holder);
        }
        name.missing = Some(Missing { part, files, is_removed, since: Instant::now() });
    }

    /// Forgets the servers that have ended, after another one took their name or by a kill. Reports
    /// whether there are others.
    pub(crate) fn has_displaced(&mut self, places: &Places) -> bool {
        // One that has bound its name again before another server could is none of them.
        let holder = places.lock_holder(Server::Mortal);
        self.displaced.retain(|server| Some(*server) != holder);
        let before = self.displaced.len();
        self.displaced.retain(|server| !process::reap(*server));
        self.ended += (before - self.displaced.len()) as u64;
        !self.displaced.is_empty()
    }

    pub(crate) fn judge(&self, report: &mut Report) {
        let whats = ["sockets of living servers", "sockets and locks", "locks"];
        for (what, Found { times, longest }) in whats.into_iter().zip(self.found) {
            let seen = format!("{times} times, longest {} ms", longest.as_millis());
            let what = format!("{what} removed, and found again");
            report.judge(&what, "< 10 s", seen, times > 0 && longest < FOUND);
        }
        let (ended, left) = (self.ended, self.displaced.len());
        let seen = format!("{ended}, and {left} did not");
        let what = "servers that lost their name to another end";
        if ended == 0 && left == 0 {
            report.judge_from(DISPLACED, what, "all", seen, false);
        } else {
            report.judge(what, "all", seen, left == 0);
        }
    }
}
