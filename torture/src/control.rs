//! Runs the storm: starts all processes, kills and suspends them, and judges the results.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rustix::process::{Signal, getpid, set_child_subreaper};
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::checks;
use crate::process::{self, Running};
use crate::program::Options;
use crate::report::Report;
use crate::server::REPORT;

/// The time between two kills of clients.
const CLIENT_KILL: Duration = Duration::from_millis(200);
/// The time between two kills of the mortal server.
const SERVER_KILL: Duration = Duration::from_secs(10);
/// How many client processes of each server are killed and suspended.
const MORTALS: usize = 3;
const GROWTH: u64 = 16 << 20;

/// The server that lives for the whole run.
pub(crate) struct Steady {
    pub(crate) path: PathBuf,
    running: Running,
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

/// The places of the sockets and of the log. The sockets have a directory of their own, so that
/// leftovers
/// show.
struct Places {
    _dir: tempfile::TempDir,
    sockets: PathBuf,
    steady: PathBuf,
    mortal: PathBuf,
    log: PathBuf,
}

impl Places {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("torture").tempdir()?;
        let sockets = dir.path().join("sockets");
        fs::create_dir(&sockets)?;
        let (steady, mortal) = (sockets.join("steady.sock"), sockets.join("mortal.sock"));
        let log = dir.path().join("log");
        Ok(Self { _dir: dir, sockets, steady, mortal, log })
    }
}

/// How many clients are neither killed nor suspended: one of each server.
const WITNESSES: usize = 2;

pub(crate) async fn run(options: &Options) -> Result<bool> {
    println!("torture: seed {}, {} s of mixed load", options.seed, options.seconds);
    // A server outlives the client that started it. It then becomes a child of this process, which
    // has to
    // reap it.
    set_child_subreaper(Some(getpid()))?;
    let places = Places::new()?;
    let mut report = Report::default();
    let log = places.log.to_string_lossy();
    let running = Running::start(&["serve", &places.steady.to_string_lossy(), &log])?;
    ensure!(running.line()? == "listening", "the server does not listen");
    let steady = Steady { path: places.steady.clone(), running };
    // The first request makes the server allocate what it needs only once.
    steady.ask("pid").await?;
    let (descriptors, memory) = (settled(&steady).await, process::memory(steady.id()));

    checks::clients_killed_in_a_frame(&steady, &mut report).await?;
    checks::suspended_clients(&steady, &mut report).await?;
    let mut storm = Storm::new(&places, options, steady, report)?;
    storm.rage(Duration::from_secs(options.seconds)).await?;
    let Storm { mut report, mut steady, highest, .. } = storm.end(options.seconds).await?;

    let after = settled(&steady).await;
    report.judge("descriptors of the server after all", descriptors, after, after <= descriptors);
    let grown = process::memory(steady.id()).saturating_sub(memory);
    let (mib, high) = (grown as f64 / f64::from(1 << 20), highest.saturating_sub(memory));
    let seen = format!("{mib:.1} MiB more, at most {:.1} during", high as f64 / f64::from(1 << 20));
    report.judge("memory of the server after all", "< 16 MiB more", seen, grown < GROWTH);
    steady.running.signal(Signal::TERM);
    let ended = steady.running.ends_within(Duration::from_secs(10))?;
    report.judge("the server stops when asked, within 10 s", true, ended, ended);
    end_of_the_mortal(&places, &mut report).await?;
    leftovers(&places, &mut report).await;
    println!("\n{report}");
    Ok(report.is_right())
}

/// Returns the server's number of descriptors without clients, once it has not changed for half a
/// second.
/// The last client may take a moment to leave, and the listener opens more descriptors when it
/// first
/// waits.
async fn settled(server: &Steady) -> usize {
    let (mut seen, mut since) = (0, 0);
    for _ in 0..500 {
        let now = process::descriptors(server.id());
        since = if now == seen { since + 1 } else { 0 };
        seen = now;
        if since == 50 {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    seen
}

/// Starts a last server, which has to take over what the killed ones left, and leave nothing.
async fn end_of_the_mortal(places: &Places, report: &mut Report) -> Result<()> {
    if let Ok(stream) = Stream::connect(places.mortal.as_path()).await {
        let server = stream.peer_credentials()?.pid().context("no process id")?;
        process::signal(server, Signal::KILL);
        wait_for_death(server).await;
    }
    let mut server = process::program()?;
    server.arg("serve").arg(&places.mortal).arg(&places.log);
    let mut stream = sockpipe::connect_or_spawn(places.mortal.as_path(), server).await?;
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
/// started
/// it is gone.
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
    let files = process::files(&places.sockets);
    report.judge("files left", "none", format!("{files:?}"), files.is_empty());
    let sockets = process::sockets(&places.sockets);
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
    let log = fs::read_to_string(&places.log).unwrap_or_default();
    let complaints = log.lines().count();
    report.judge("complaints of servers", 0, complaints, complaints == 0);
    log.lines().for_each(|line| report.wrong(line.to_owned()));
}

struct Client {
    running: Running,
    /// Whether its server is the mortal one.
    mortal_server: bool,
    resume: Option<Instant>,
}

struct Storm<'a> {
    places: &'a Places,
    rng: Rng,
    steady: Steady,
    report: Report,
    /// One client of each server that is never killed or suspended.
    witnesses: Vec<Running>,
    clients: Vec<Client>,
    clients_killed: u64,
    suspensions: u64,
    servers_killed: u64,
    killed_at_start: u64,
    /// The most memory that the steady server had.
    highest: u64,
}

impl<'a> Storm<'a> {
    fn new(places: &'a Places, options: &Options, steady: Steady, report: Report) -> Result<Self> {
        let mut rng = Rng::with_seed(options.seed);
        let witnesses: [_; WITNESSES] =
            [true, false].map(|mortal| start(places, &mut rng, mortal, true));
        let mut storm = Self {
            places,
            rng,
            steady,
            report,
            witnesses: witnesses.into_iter().collect::<Result<_>>()?,
            clients: Vec::new(),
            clients_killed: 0,
            suspensions: 0,
            servers_killed: 0,
            killed_at_start: 0,
            highest: 0,
        };
        for number in 0..MORTALS * 2 {
            storm.start_client(number % 2 == 0)?;
        }
        Ok(storm)
    }

    fn start_client(&mut self, mortal_server: bool) -> Result<()> {
        let running = start(self.places, &mut self.rng, mortal_server, false)?;
        self.clients.push(Client { running, mortal_server, resume: None });
        Ok(())
    }

    async fn rage(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let (mut next_kill, mut next_suspension) = (Instant::now(), Instant::now());
        let mut next_server_kill = Instant::now() + SERVER_KILL;
        while Instant::now() < end {
            let now = Instant::now();
            if now >= next_kill {
                next_kill += CLIENT_KILL;
                self.kill_a_client()?;
            }
            if now >= next_suspension {
                next_suspension += Duration::from_millis(700);
                self.suspend_a_client();
            }
            if now >= next_server_kill && end - now > Duration::from_secs(3) {
                next_server_kill += SERVER_KILL;
                self.kill_the_server().await;
            }
            for client in &mut self.clients {
                if client.resume.is_some_and(|resume| resume <= now) {
                    client.resume = None;
                    client.running.signal(Signal::CONT);
                }
            }
            self.listen();
            self.highest = self.highest.max(process::memory(self.steady.id()));
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Takes the lines that the clients have printed so far.
    fn listen(&mut self) {
        for witness in &self.witnesses {
            witness.printed().for_each(|line| self.report.take(&line, true));
        }
        for client in &self.clients {
            client.running.printed().for_each(|line| self.report.take(&line, false));
        }
    }

    fn kill_a_client(&mut self) -> Result<()> {
        let victim = self.rng.usize(..self.clients.len());
        let mut client = self.clients.swap_remove(victim);
        client.running.kill();
        client.running.rest().for_each(|line| self.report.take(&line, false));
        self.clients_killed += 1;
        self.start_client(client.mortal_server)
    }

    fn suspend_a_client(&mut self) {
        let client = self.rng.usize(..self.clients.len());
        let client = &mut self.clients[client];
        client.running.signal(Signal::STOP);
        let time = Duration::from_millis(self.rng.u64(50..6000));
        client.resume = Some(Instant::now() + time);
        self.suspensions += 1;
    }

    /// Kills the mortal server, and every other time also its successor while that starts.
    async fn kill_the_server(&mut self) {
        let Some(server) = self.lock_holder() else { return };
        process::signal(server, Signal::KILL);
        self.servers_killed += 1;
        process::reap(server);
        if self.rng.bool() {
            return;
        }
        let limit = Instant::now() + Duration::from_secs(1);
        while Instant::now() < limit {
            match self.lock_holder() {
                Some(next) if next != server && process::lives(next) => {
                    std::thread::sleep(Duration::from_micros(self.rng.u64(..300)));
                    process::signal(next, Signal::KILL);
                    self.killed_at_start += 1;
                    process::reap(next);
                    return;
                }
                _ => std::hint::spin_loop(),
            }
        }
    }

    /// Returns the process that the lock file names.
    fn lock_holder(&self) -> Option<u32> {
        let lock = self.places.sockets.join(".mortal.sock.lock");
        fs::read_to_string(lock).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// Ends the mortal clients first; then the others finish their jobs.
    async fn end(mut self, seconds: u64) -> Result<Self> {
        for mut client in std::mem::take(&mut self.clients) {
            client.running.kill();
            client.running.rest().for_each(|line| self.report.take(&line, false));
        }
        let report = &mut self.report;
        for mut witness in std::mem::take(&mut self.witnesses) {
            let memory = process::memory(witness.id());
            let ended = witness.ends_within(Duration::from_secs(30))?;
            if !ended {
                report.wrong("a client does not finish within 30 s".to_owned());
                witness.kill();
            }
            witness.rest().for_each(|line| report.take(&line, true));
            println!("torture: a client that lived for the whole run had {} KiB", memory / 1024);
        }
        let (clients, at_start) = (self.clients_killed, self.killed_at_start);
        // A busy machine kills fewer clients, but the load has to stay a storm.
        report.judge("clients killed", "5 a second", clients, clients >= seconds * 4);
        let what = "clients suspended for 0.05 to 6 s";
        report.judge(what, "some", self.suspensions, self.suspensions > 0);
        let (killed, due) = (self.servers_killed + at_start, seconds.saturating_sub(3) / 10);
        let seen = format!("{}, and {at_start} while they started", self.servers_killed);
        report.judge("servers killed", "1 in 10 s", seen, killed + 1 >= due.max(1));
        report.judge("jobs ended by a kill or a suspension", "any", report.lost, true);
        let told = report.client_descriptors.len();
        report.judge("clients that lived for the whole run", WITNESSES, told, told == WITNESSES);
        report.judge_clients(self.servers_killed);
        Ok(self)
    }
}

/// Starts a client process: a witness, or one that will be killed.
fn start(places: &Places, rng: &mut Rng, mortal_server: bool, steady: bool) -> Result<Running> {
    let (seed, log) = (rng.u64(..).to_string(), places.log.to_string_lossy().into_owned());
    let path = if mortal_server { &places.mortal } else { &places.steady };
    let path = path.to_string_lossy();
    let mut arguments = vec!["client", &path, "--seed", &seed, "--tasks", "4"];
    if mortal_server {
        arguments.extend(["--log", &log]);
    }
    if steady {
        arguments.push("--steady");
    }
    Running::start(&arguments)
}
