//! Compares observations with their bars.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

use crate::jobs::Job;
use crate::places::Server;

/// The most faults that are shown.
const SHOWN: usize = 20;

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    wrong: Vec<String>,
    /// How often each job was done, and with how many bytes.
    jobs: BTreeMap<String, (u64, u64)>,
    /// The same for each way in which a client used the crate.
    ways: BTreeMap<String, (u64, u64)>,
    pub(crate) lost: u64,
    /// The faults that clients of the renewed server saw.
    pub(crate) renewed_faults: u64,
    /// How long each client missed a killed server, in milliseconds.
    pub(crate) back: Vec<u64>,
    /// The longest time that a connect took, including the start of the server, in milliseconds.
    pub(crate) connect: u64,
    /// The descriptors of each client process at its start and at its end.
    pub(crate) client_descriptors: Vec<(u64, u64)>,
}

struct Row {
    what: String,
    bar: String,
    seen: String,
    right: bool,
}

impl Report {
    /// Adds a line with a bar and an observation.
    pub(crate) fn judge(&mut self, what: &str, bar: impl Display, seen: impl Display, right: bool) {
        let (bar, seen) = (bar.to_string(), seen.to_string());
        if !right {
            eprintln!("torture: WRONG: {what}: {seen}, and it is to be {bar}");
        }
        self.rows.push(Row { what: what.to_owned(), bar, seen, right });
    }

    pub(crate) fn wrong(&mut self, what: String) {
        eprintln!("torture: WRONG: {what}");
        self.wrong.push(what);
    }

    /// Takes a line of a client of `server`. Only the steady clients' connect times count, because
    /// the others are suspended now and then.
    pub(crate) fn take(&mut self, line: &str, steady: bool, server: Server) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(0);
        match words[0] {
            "did" => {
                let ways = words.get(4).into_iter().flat_map(|ways| ways.split('+'));
                for way in ways {
                    add(&mut self.ways, way, number(2));
                }
                add(&mut self.jobs, words[1], number(2));
                if steady {
                    self.connect = self.connect.max(number(3));
                }
            }
            "lost" => self.lost += 1,
            "back" => self.back.push(number(1)),
            "descriptors" => self.client_descriptors.push((number(1), number(2))),
            _ => {
                self.renewed_faults += u64::from(server == Server::Renewed);
                self.wrong(format!("{}: {line}", server.name()));
            }
        }
    }

    /// Judges the lines of all clients.
    pub(crate) fn judge_clients(&mut self, servers_killed: u64, everything: bool) {
        for job in Job::ALL {
            let done = self.jobs.get(job.name()).copied();
            self.judge_done(&format!("job {}", job.name()), done);
        }
        if everything {
            for way in ["async", "blocking", "shared-memory", "spin"] {
                let done = self.ways.get(way).copied();
                self.judge_done(&format!("jobs of clients with {way}"), done);
            }
        }
        let count = self.wrong.len();
        self.judge("wrong bytes, unexplained ends, other errors", "0", count, count == 0);
        if servers_killed > 0 {
            self.back.sort_unstable();
            let longest = self.back.last().copied();
            let median = self.back.get(self.back.len() / 2).copied().unwrap_or(0);
            let times = self.back.len();
            let longest = longest.unwrap_or(u64::MAX);
            let seen = format!("{longest} ms, median {median} ms, {times} times");
            self.judge("a client without its server, longest", "< 2000 ms", seen, longest < 2000);
            let connect = self.connect;
            let seen = format!("{connect} ms");
            // A server whose name was removed binds it again within 10 s.
            let (what, limit) = if everything {
                ("connecting, a start or a removed name included, longest", 12_000)
            } else {
                ("connecting, starting a server included, longest", 2000)
            };
            self.judge(what, format!("< {limit} ms"), seen, connect < limit);
        }
        for (before, after) in std::mem::take(&mut self.client_descriptors) {
            self.judge("descriptors of a client process", before, after, after <= before);
        }
    }

    fn judge_done(&mut self, what: &str, done: Option<(u64, u64)>) {
        let (times, bytes) = done.unwrap_or_default();
        let seen = format!("{times} times, {:.1} MiB", bytes as f64 / (1 << 20) as f64);
        self.judge(what, "done", seen, times > 0);
    }

    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.rows.iter().all(|row| row.right)
    }
}

/// Counts a job with `bytes`.
fn add(counts: &mut BTreeMap<String, (u64, u64)>, name: &str, bytes: u64) {
    let (times, all) = counts.entry(name.to_owned()).or_default();
    *times += 1;
    *all += bytes;
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::from("| what | is to be | seen | |\n|---|---|---|---|\n");
        for Row { what, bar, seen, right } in &self.rows {
            let verdict = if *right { "ok" } else { "WRONG" };
            writeln!(text, "| {what} | {bar} | {seen} | {verdict} |")?;
        }
        for what in self.wrong.iter().take(SHOWN) {
            writeln!(text, "\nWRONG: {what}")?;
        }
        if self.wrong.len() > SHOWN {
            writeln!(text, "\n… and {} more", self.wrong.len() - SHOWN)?;
        }
        f.write_str(&text)
    }
}
