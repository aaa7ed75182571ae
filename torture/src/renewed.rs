//! The server that its next version takes over again and again while clients come and go.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use rustix::process::Signal;
use sockpipe::Stream;
use sockpipe::os::unix::AsyncPassFds;
use tokio::time::{sleep, timeout};

use crate::places::{Places, Server};
use crate::process::{self, Running};
use crate::report::Report;
use crate::ways::Ways;

/// From one upgrade to the next.
const PAUSE: Duration = Duration::from_secs(3);
/// A version that has taken over within this time is in time.
const TAKING: Duration = Duration::from_secs(30);
/// How long an old version may take to finish its connections.
const FINISHING: Duration = Duration::from_secs(80);

pub(crate) struct Renewed {
    arguments: [String; 3],
    /// The socket by which the next version takes over.
    offer: PathBuf,
    current: Running,
    next: Option<(Running, Instant)>,
    old: Vec<(Running, Instant)>,
    due: Instant,
    upgrades: u64,
    given_up: u64,
    longest: Duration,
    finished: u64,
    cut: u64,
    /// The descriptors of the first version before its first client.
    descriptors: usize,
}

impl Renewed {
    pub(crate) async fn start(places: &Places) -> Result<Self> {
        let socket = places.socket(Server::Renewed);
        let arguments = ["serve".into(), text(&socket), text(places.log())];
        let offer = places.sockets().join(".renewed.sock.upgrade");
        let ways = Ways { memory: true, ..Ways::ours() };
        let current = start(ways, &arguments)?;
        ensure!(current.line()? == "listening", "the server does not listen");
        let descriptors = process::settled(current.id()).await;
        Ok(Self {
            arguments,
            offer,
            current,
            next: None,
            old: Vec::new(),
            due: Instant::now() + PAUSE,
            upgrades: 0,
            given_up: 0,
            longest: Duration::ZERO,
            finished: 0,
            cut: 0,
            descriptors,
        })
    }

    pub(crate) fn is_upgrading(&self) -> bool {
        self.next.is_some()
    }

    /// Takes note of versions that have begun and ended, and starts the next one if that may be
    /// done now.
    pub(crate) async fn step(
        &mut self,
        may_begin: bool,
        rng: &mut Rng,
        report: &mut Report,
    ) -> Result<()> {
        self.old_versions(report)?;
        if let Some((mut next, since)) = self.next.take() {
            if next.printed().any(|line| line == "listening") {
                self.upgrades += 1;
                self.longest = self.longest.max(since.elapsed());
                self.due = Instant::now() + PAUSE;
                let old = std::mem::replace(&mut self.current, next);
                self.old.push((old, Instant::now()));
            } else if next.ended()?.is_some() || since.elapsed() > TAKING {
                report.wrong("the next version of a server does not take over".to_owned());
                self.due = Instant::now() + PAUSE;
            } else {
                self.next = Some((next, since));
            }
        } else if may_begin && Instant::now() >= self.due {
            // Before every second upgrade, and again if the process did not get what it needs.
            if self.given_up <= self.upgrades / 2 {
                self.give_up().await;
            }
            // A blocking listener cannot be taken over.
            let ways = Ways { blocking: false, ..Ways::any(rng) };
            self.next = Some((start(ways, &self.arguments)?, Instant::now()));
        }
        Ok(())
    }

    /// A next version that receives all that it needs, and goes no further.
    async fn give_up(&mut self) {
        let limit = Duration::from_secs(5);
        let Ok(successor) = Stream::connect(self.offer.as_path()).await else { return };
        let received = timeout(limit, successor.recv_with_fds(&mut [0; 64], 3)).await;
        self.given_up += u64::from(matches!(received, Ok(Ok((_, fds))) if fds.len() == 3));
    }

    fn old_versions(&mut self, report: &mut Report) -> Result<()> {
        for (mut old, since) in std::mem::take(&mut self.old) {
            match old.ended()? {
                Some(status) => {
                    old.rest().for_each(|line| self.count(&line));
                    if !status.success() {
                        report.wrong(format!("a server that was taken over ended with {status}"));
                    }
                }
                None if since.elapsed() > FINISHING => {
                    report.wrong("a server that was taken over does not end".to_owned());
                }
                None => self.old.push((old, since)),
            }
        }
        Ok(())
    }

    /// Takes how many connections finished after a version was taken over, and how many were cut.
    fn count(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        if let ["finished", finished, cut] = words[..] {
            self.finished += finished.parse().unwrap_or(0);
            self.cut += cut.parse().unwrap_or(0);
        }
    }

    /// Stops the last version, once there are no more clients.
    pub(crate) async fn end(mut self, report: &mut Report) -> Result<()> {
        for _ in 0..1000 {
            self.old_versions(report)?;
            if self.old.is_empty() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let (upgrades, given_up, left) = (self.upgrades, self.given_up, self.old.len());
        let due = (report.seconds() / 20).max(1);
        report.judge("upgrades of a server", "1 in 20 s", upgrades, upgrades >= due);
        report.judge("… given up half-way before that", "some", given_up, given_up > 0);
        let seen = format!("{} ms", self.longest.as_millis());
        let right = upgrades > 0 && self.longest < TAKING;
        report.judge("… start and takeover of one, longest", "< 30 s", seen, right);
        let (faults, jobs) = (report.renewed_faults, report.renewed_jobs);
        let seen = format!("{faults}, and {jobs} jobs done");
        report.judge("… clients refused or lost", 0, seen, faults == 0 && jobs > 0);
        let (finished, cut) = (self.finished, self.cut);
        let seen = format!("{cut}, and {finished} finished");
        report.judge("… connections of old versions cut", 0, seen, cut == 0 && finished > 0);
        let seen = format!("{left} of {upgrades}");
        report.judge("… old versions left", 0, seen, left == 0 && upgrades > 0);

        let (before, after) = (self.descriptors, process::settled(self.current.id()).await);
        report.judge_descriptors("… descriptors of the last version", before as u64, after as u64);
        self.current.signal(Signal::TERM);
        let ended = self.current.ends_within(Duration::from_secs(10))?;
        report.judge("… it stops when asked, within 10 s", true, ended, ended);
        Ok(())
    }
}

fn start(ways: Ways, arguments: &[String; 3]) -> Result<Running> {
    let [verb, path, log] = arguments.each_ref().map(String::as_str);
    Running::start(ways, &["--upgradable", verb, path, log])
}

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}
