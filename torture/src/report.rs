//! Compares observations with their bars.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

use crate::jobs::Job;
use crate::places::Server;

/// The most faults that are shown.
const SHOWN: usize = 20;

#[derive(Default)]
pub(crate) struct Report {
    /// How long the storm lasts.
    seconds: u64,
    rows: Vec<Row>,
    wrong: Vec<String>,
    /// How often each job was done, and with how many bytes.
    jobs: BTreeMap<String, (u64, u64)>,
    /// The same for each way in which a client used the crate.
    ways: BTreeMap<String, (u64, u64)>,
    pub(crate) lost: u64,
    /// The jobs that clients of the renewed server did, and the faults that they saw.
    pub(crate) renewed_jobs: u64,
    pub(crate) renewed_faults: u64,
    /// How long each client missed a killed server, in milliseconds.
    pub(crate) back: Vec<u64>,
    /// The longest time that a connect took, including the start of the server, in milliseconds.
    pub(crate) connect: Option<u64>,
    /// The descriptors of each client process at its start and at its end.
    pub(crate) client_descriptors: Vec<(u64, u64)>,
}

struct Row {
    what: String,
    bar: String,
    seen: String,
    verdict: Verdict,
}

enum Verdict {
    Right,
    Wrong,
    /// Nothing of the kind had to happen in this run, for this reason.
    NotJudged(String),
}

impl Report {
    pub(crate) fn new(seconds: u64) -> Self {
        Self { seconds, ..Self::default() }
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Adds a line with a bar and an observation.
    pub(crate) fn judge(&mut self, what: &str, bar: impl Display, seen: impl Display, right: bool) {
        let (bar, seen) = (bar.to_string(), seen.to_string());
        if !right {
            eprintln!("torture: WRONG: {what}: {seen}, and it is to be {bar}");
        }
        let verdict = if right { Verdict::Right } else { Verdict::Wrong };
        self.rows.push(Row { what: what.to_owned(), bar, seen, verdict });
    }

    /// The same for what a run of less than `seconds` may not show.
    pub(crate) fn judge_from(
        &mut self,
        seconds: u64,
        what: &str,
        bar: impl Display,
        seen: impl Display,
        right: bool,
    ) {
        if self.seconds >= seconds {
            self.judge(what, bar, seen, right);
        } else {
            self.not_judged(what, bar, seen, format!("below {seconds} s"));
        }
    }

    /// Adds a line that does not count.
    pub(crate) fn not_judged(
        &mut self,
        what: &str,
        bar: impl Display,
        seen: impl Display,
        why: String,
    ) {
        let (bar, seen) = (bar.to_string(), seen.to_string());
        let verdict = Verdict::NotJudged(why);
        self.rows.push(Row { what: what.to_owned(), bar, seen, verdict });
    }

    /// Judges the descriptors of a living process at its start and at its end.
    pub(crate) fn judge_descriptors(&mut self, what: &str, before: u64, after: u64) {
        // A process that has ended, or that cannot be looked into, has none.
        self.judge(what, before, after, after > 0 && after <= before);
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
                self.renewed_jobs += u64::from(server == Server::Renewed);
                if steady {
                    self.connect = self.connect.max(Some(number(3)));
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
        let missed = "a client without its server, longest";
        // A server whose name was removed binds it again within 10 s. A client whose connection
        // ended meanwhile waits for as long.
        let (connecting, limit) = if everything {
            ("connecting, a start or a removed name included, longest", 12_000)
        } else {
            ("connecting, starting a server included, longest", 2000)
        };
        let bar = format!("< {limit} ms");
        if servers_killed > 0 {
            self.back.sort_unstable();
            let longest = self.back.last().copied();
            let median = self.back.get(self.back.len() / 2).copied().unwrap_or(0);
            let times = self.back.len();
            let longest = longest.unwrap_or(u64::MAX);
            let seen = format!("{longest} ms, median {median} ms, {times} times");
            self.judge(missed, &bar, seen, longest < limit);
            let connect = self.connect.unwrap_or(u64::MAX);
            self.judge(connecting, bar, format!("{connect} ms"), connect < limit);
        } else {
            for what in [missed, connecting] {
                self.not_judged(what, &bar, "no server killed", "without a kill".to_owned());
            }
        }
        for (before, after) in std::mem::take(&mut self.client_descriptors) {
            self.judge_descriptors("descriptors of a client process", before, after);
        }
    }

    fn judge_done(&mut self, what: &str, done: Option<(u64, u64)>) {
        let (times, bytes) = done.unwrap_or_default();
        let seen = format!("{times} times, {:.1} MiB", bytes as f64 / (1 << 20) as f64);
        self.judge(what, "done", seen, times > 0);
    }

    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_empty() && !self.rows.iter().any(|row| matches!(row.verdict, Verdict::Wrong))
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
        for Row { what, bar, seen, verdict } in &self.rows {
            write!(text, "| {what} | {bar} | {seen} | ")?;
            match verdict {
                Verdict::Right => writeln!(text, "ok |")?,
                Verdict::Wrong => writeln!(text, "WRONG |")?,
                Verdict::NotJudged(why) => writeln!(text, "not judged {why} |")?,
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_from_its_length_of_a_run_on() {
        for (seconds, is_right) in [(15, true), (59, true), (60, false), (3600, false)] {
            let mut report = Report::new(seconds);
            report.judge_from(60, "things", "some", 0, false);
            assert_eq!(report.is_right(), is_right, "{seconds}");
            assert_eq!(report.to_string().contains("not judged below 60 s"), is_right, "{report}");
        }
    }

    #[test]
    fn rows_about_killed_servers_stay_in_the_table_without_a_kill() {
        for everything in [false, true] {
            let mut report = Report::new(15);
            report.judge_clients(0, everything);
            let text = report.to_string();
            assert_eq!(text.matches("not judged without a kill").count(), 2, "{text}");
        }
    }

    #[test]
    fn a_process_without_descriptors_is_wrong() {
        for (before, after, is_right) in [(9, 9, true), (9, 8, true), (9, 10, false), (0, 0, false)]
        {
            let mut report = Report::new(60);
            report.judge_descriptors("descriptors", before, after);
            assert_eq!(report.is_right(), is_right, "{before} {after}");
        }
    }
}
