//! Runs the checks and the storm, ends everything, and judges what is left.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getpid, set_child_subreaper};
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::checks;
use crate::places::{Places, Server};
use crate::process::{self, Running};
use crate::program::Options;
use crate::report::Report;
use crate::server::REPORT;
use crate::storm::Storm;
use crate::ways::Ways;

/// How much more memory the server may have after the storm.
const GROWTH: u64 = 16 << 20;

/// The server that lives for the whole run.
pub(crate) struct Steady {
    pub(crate) path: PathBuf,
    pub(crate) running: Running,
}

impl Steady {
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Returns a number from the server's report.
    pub(crate) async fn ask(&self, name: &str) -> Result<u64> {
        let mut stream = Stream::connect(self.path.as_path()).await?;
        stream.write_u8(REPORT).await?;
        let mut line = String::new();
        stream.read_to_string(&mut line).await?;
        let mut words = line.split(' ').skip_while(|word| *word != name);
        let number = words.nth(1).and_then(|word| word.parse().ok());
        number.with_context(|| format!("no {name} in {line:?}"))
    }
}

pub(crate) async fn run(options: &Options) -> Result<bool> {
    println!("torture: seed {}, {} s of mixed load", options.seed, options.seconds);
    // A server outlives the client that started it. It then becomes a child of this process, which
    // has to reap it.
    set_child_subreaper(Some(getpid()))?;
    let places = Places::new()?;
    let mut report = Report::new(options.seconds);
    let (path, log) = (places.socket(Server::Steady), places.log().to_string_lossy());
    let ways = Ways { spin: options.everything, ..Ways::ours() };
    let running = Running::start(ways, &["serve", &path.to_string_lossy(), &log])?;
    ensure!(running.line()? == "listening", "the server does not listen");
    let steady = Steady { path, running };
    // The first request makes the server allocate what it needs only once.
    steady.ask("pid").await?;
    let (descriptors, memory) = (process::settled(steady.id()).await, process::memory(steady.id()));

    // The rows about what is left are worth nothing if this process cannot see what is there.
    ensure!(memory > 0 && descriptors > 0, "this process cannot look into its server");
    ensure!(!process::files(places.sockets()).is_empty(), "the server's files cannot be seen");
    ensure!(!process::sockets(places.sockets()).is_empty(), "the server's socket cannot be seen");
    ensure!(process::children().contains(&steady.id()), "the server is not seen as a child");

    checks::clients_killed_in_a_frame(&steady, &mut report).await?;
    checks::suspended_clients(&steady, &mut report).await?;
    let mut storm = Storm::new(&places, options, steady, report).await?;
    storm.rage(Duration::from_secs(options.seconds)).await?;
    let (mut report, mut steady, highest) = storm.end().await?;

    if options.everything {
        let moved = steady.ask("in-memory").await?;
        report.judge("connections of the server in shared memory", "some", moved, moved > 0);
    }
    let after = process::settled(steady.id()).await;
    let what = "descriptors of the server after all";
    report.judge_descriptors(what, descriptors as u64, after as u64);
    let now = process::memory(steady.id());
    let grown = now.saturating_sub(memory);
    let (mib, high) = (grown as f64 / f64::from(1 << 20), highest.saturating_sub(memory));
    let seen = format!("{mib:.1} MiB more, at most {:.1} during", high as f64 / f64::from(1 << 20));
    // A server that has ended, or that cannot be looked into, has none.
    let right = now > 0 && grown < GROWTH;
    report.judge("memory of the server after all", "< 16 MiB more", seen, right);
    steady.running.signal(Signal::TERM);
    let ended = steady.running.ends_within(Duration::from_secs(10))?;
    report.judge("the server stops when asked, within 10 s", true, ended, ended);
    end_of_the_mortal(&places, &mut report).await?;
    leftovers(&places, &mut report).await;
    println!("\n{report}");
    Ok(report.is_right())
}

/// Starts a last server, which has to take over what the killed ones left, and leave nothing.
async fn end_of_the_mortal(places: &Places, report: &mut Report) -> Result<()> {
    let path = places.socket(Server::Mortal);
    if let Ok(stream) = Stream::connect(path.as_path()).await {
        let server = stream.peer_credentials()?.pid().context("no process id")?;
        process::signal(server, Signal::KILL);
        wait_for_death(server).await;
    }
    let mut server = process::program(Ways::ours())?;
    server.arg("serve").arg(&path).arg(places.log());
    let mut stream = sockpipe::connect_or_spawn(path.as_path(), server).await?;
    let server = stream.peer_credentials()?.pid().context("no process id")?;
    // Once it has answered, it has started and handles signals.
    stream.write_u8(REPORT).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(!answer.is_empty(), "the last server ends without an answer");
    drop(stream);
    process::signal(server, Signal::TERM);
    let stopped = wait_for_death(server).await;
    report.judge("the last of the killed servers' successors stops", "yes", stopped, stopped);
    Ok(())
}

/// Waits until a child is dead. Every server becomes a child of this process once the client that
/// started it is gone.
async fn wait_for_death(child: u32) -> bool {
    for _ in 0..2000 {
        if process::reap(child) {
            return true;
        }
        sleep(Duration::from_millis(5)).await;
    }
    false
}

async fn leftovers(places: &Places, report: &mut Report) {
    let files = process::files(places.sockets());
    report.judge("files left", "none", format!("{files:?}"), files.is_empty());
    let sockets = process::sockets(places.sockets());
    report.judge("sockets left", "none", format!("{sockets:?}"), sockets.is_empty());
    let mut children = Vec::new();
    for _ in 0..100 {
        children = process::children();
        children.retain(|child| !process::reap(*child));
        if children.is_empty() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    report.judge("processes left", "none", format!("{children:?}"), children.is_empty());
    let log = fs::read_to_string(places.log()).unwrap_or_default();
    let complaints = log.lines().count();
    report.judge("complaints of servers", 0, complaints, complaints == 0);
    log.lines().for_each(|line| report.wrong(line.to_owned()));
}
