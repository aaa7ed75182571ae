//! The load: starts the clients, and kills, suspends and replaces what it may.

use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use rustix::process::Signal;
use sockpipe::Stream;
use tokio::time::{sleep, timeout};

use crate::control::Steady;
use crate::everything::{Everything, Moment};
use crate::places::{Places, Server};
use crate::process::{self, Running};
use crate::program::Options;
use crate::report::Report;
use crate::ways::Ways;

/// The time between two kills of clients.
const CLIENT_KILL: Duration = Duration::from_millis(200);
/// The time between two kills of the mortal server.
const SERVER_KILL: Duration = Duration::from_secs(10);
/// From this length of a run on, servers are killed for certain.
const KILLS: u64 = 20;
/// From this length on, servers are also killed while they start.
const KILLS_AT_START: u64 = 60;
/// Nothing is begun that late.
const CALM: Duration = Duration::from_secs(3);
/// How many client processes are killed and suspended.
const MORTALS: usize = 6;

struct Client {
    running: Running,
    server: Server,
    resume: Option<Instant>,
}

pub(crate) struct Storm<'a> {
    places: &'a Places,
    rng: Rng,
    steady: Steady,
    report: Report,
    /// The servers that have clients, each one that is never killed or suspended among them.
    servers: &'static [Server],
    witnesses: Vec<Running>,
    clients: Vec<Client>,
    everything: Option<Everything>,
    clients_killed: u64,
    suspensions: u64,
    servers_killed: u64,
    killed_at_start: u64,
    last_kill: Instant,
    /// The most memory that the steady server had.
    highest: u64,
}

impl<'a> Storm<'a> {
    pub(crate) async fn new(
        places: &'a Places,
        options: &Options,
        steady: Steady,
        report: Report,
    ) -> Result<Self> {
        let mut storm = Self {
            places,
            rng: Rng::with_seed(options.seed),
            steady,
            report,
            servers: &[Server::Mortal, Server::Steady],
            witnesses: Vec::new(),
            clients: Vec::new(),
            everything: None,
            clients_killed: 0,
            suspensions: 0,
            servers_killed: 0,
            killed_at_start: 0,
            last_kill: Instant::now(),
            highest: 0,
        };
        if options.everything {
            storm.everything = Some(Everything::start(places).await?);
            storm.servers = &[Server::Mortal, Server::Steady, Server::Renewed];
        }
        for &server in storm.servers {
            let witness = storm.start(server, true)?;
            storm.witnesses.push(witness);
        }
        for number in 0..MORTALS {
            storm.start_client(storm.servers[number % storm.servers.len()])?;
        }
        Ok(storm)
    }

    fn start_client(&mut self, server: Server) -> Result<()> {
        let running = self.start(server, false)?;
        self.clients.push(Client { running, server, resume: None });
        Ok(())
    }

    /// Starts a client process: a witness, or one that will be killed.
    fn start(&mut self, server: Server, steady: bool) -> Result<Running> {
        let (seed, log) = (self.rng.u64(..).to_string(), self.places.log().to_string_lossy());
        let path = self.places.socket(server);
        let path = path.to_string_lossy();
        let mut arguments = vec!["client", &path, "--seed", &seed, "--tasks", "4"];
        if server == Server::Mortal {
            arguments.extend(["--log", &log]);
        }
        if steady {
            arguments.push("--steady");
        }
        let ways = match (&self.everything, steady, server) {
            (None, ..) => Ways::ours(),
            // One of those that live for the whole run blocks.
            (Some(_), true, server) => {
                let blocking = server == Server::Steady;
                Ways { blocking, spin: !blocking, ..Ways::ours() }
            }
            (Some(_), false, _) => Ways::any(&mut self.rng),
        };
        Running::start(ways, &arguments)
    }

    pub(crate) async fn rage(&mut self, limit: Duration) -> Result<()> {
        let (start, end) = (Instant::now(), Instant::now() + limit);
        let (mut next_kill, mut next_suspension) = (start, start);
        let mut next_server_kill = start + SERVER_KILL;
        self.last_kill = start;
        while Instant::now() < end || self.everything.as_ref().is_some_and(|it| !it.is_settled()) {
            let now = Instant::now();
            let is_calm = end.saturating_duration_since(now) <= CALM;
            if now >= next_kill && now < end {
                next_kill += CLIENT_KILL;
                self.kill_a_client()?;
            }
            if now >= next_suspension && now < end {
                next_suspension += Duration::from_millis(700);
                self.suspend_a_client();
            }
            if now >= next_server_kill && !is_calm && self.kill_the_server().await {
                next_server_kill += SERVER_KILL;
            }
            for client in &mut self.clients {
                if client.resume.is_some_and(|resume| resume <= now) {
                    client.resume = None;
                    client.running.signal(Signal::CONT);
                }
            }

            self.listen();
            self.highest = self.highest.max(process::memory(self.steady.id()));
            if let Some(everything) = &mut self.everything {
                let time = (now - start).as_secs_f64() / limit.as_secs_f64();
                let moment = Moment { is_calm, last_kill: self.last_kill };
                let (places, report) = (self.places, &mut self.report);
                everything.step(&moment, places, &mut self.rng, report).await?;
                everything.see(time, self.steady.id(), &self.witnesses);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Takes the lines that the clients have printed so far.
    fn listen(&mut self) {
        for (witness, server) in self.witnesses.iter().zip(self.servers) {
            witness.printed().for_each(|line| self.report.take(&line, true, *server));
        }
        for client in &self.clients {
            client.running.printed().for_each(|line| self.report.take(&line, false, client.server));
        }
    }

    fn kill_a_client(&mut self) -> Result<()> {
        let victim = self.rng.usize(..self.clients.len());
        let mut client = self.clients.swap_remove(victim);
        client.running.kill();
        client.running.rest().for_each(|line| self.report.take(&line, false, client.server));
        self.clients_killed += 1;
        self.start_client(client.server)
    }

    fn suspend_a_client(&mut self) {
        let client = self.rng.usize(..self.clients.len());
        let client = &mut self.clients[client];
        client.running.signal(Signal::STOP);
        let time = Duration::from_millis(self.rng.u64(50..6000));
        client.resume = Some(Instant::now() + time);
        self.suspensions += 1;
    }

    /// Kills the mortal server, and every second time also its successor while that starts. Returns
    /// `false` if the server cannot be found at the moment.
    async fn kill_the_server(&mut self) -> bool {
        let Some(server) = self.mortal_server().await else { return false };
        process::signal(server, Signal::KILL);
        self.servers_killed += 1;
        self.last_kill = Instant::now();
        process::reap(server);
        if self.killed_at_start >= self.servers_killed / 2 {
            return true;
        }
        let limit = Instant::now() + Duration::from_secs(1);
        while Instant::now() < limit {
            match self.places.lock_holder(Server::Mortal) {
                Some(next) if next != server && process::lives(next) => {
                    std::thread::sleep(Duration::from_micros(self.rng.u64(..300)));
                    process::signal(next, Signal::KILL);
                    self.killed_at_start += 1;
                    process::reap(next);
                    break;
                }
                _ => std::hint::spin_loop(),
            }
        }
        true
    }

    /// Returns the process that the lock file names, or the one that answers if the file is gone.
    async fn mortal_server(&self) -> Option<u32> {
        if let Some(holder) = self.places.lock_holder(Server::Mortal) {
            return Some(holder);
        }
        self.everything.as_ref()?;
        let path = self.places.socket(Server::Mortal);
        let connecting = Stream::connect(path.as_path());
        let stream = timeout(Duration::from_millis(100), connecting).await.ok()?.ok()?;
        stream.peer_credentials().ok()?.pid()
    }

    /// Ends the mortal clients first; then the others finish their jobs. Returns the report, the
    /// steady server, and the most memory that it had.
    pub(crate) async fn end(mut self) -> Result<(Report, Steady, u64)> {
        for mut client in std::mem::take(&mut self.clients) {
            client.running.kill();
            let server = client.server;
            client.running.rest().for_each(|line| self.report.take(&line, false, server));
        }
        let report = &mut self.report;
        let seconds = report.seconds();
        for (mut witness, server) in
            std::mem::take(&mut self.witnesses).into_iter().zip(self.servers)
        {
            let memory = process::memory(witness.id());
            let ended = witness.ends_within(Duration::from_secs(30))?;
            if !ended {
                report.wrong("a client does not finish within 30 s".to_owned());
                witness.kill();
            }
            witness.rest().for_each(|line| report.take(&line, true, *server));
            println!("torture: a client that lived for the whole run had {} KiB", memory / 1024);
        }
        let (clients, at_start) = (self.clients_killed, self.killed_at_start);
        // A busy machine kills fewer clients, but the load has to stay a storm.
        report.judge("clients killed", "5 a second", clients, clients >= (seconds * 4).max(1));
        let what = "clients suspended for 0.05 to 6 s";
        report.judge(what, "some", self.suspensions, self.suspensions > 0);
        let due = seconds.saturating_sub(3) / 10;
        let right = self.servers_killed >= due.saturating_sub(1).max(1);
        report.judge_from(KILLS, "servers killed", "1 in 10 s", self.servers_killed, right);
        let what = "… their successors killed while they started";
        report.judge_from(KILLS_AT_START, what, "some", at_start, at_start > 0);
        let lost = report.lost;
        report.judge_from(KILLS, "jobs ended by a kill or a suspension", "some", lost, lost > 0);
        let (told, witnesses) = (report.client_descriptors.len(), self.servers.len());
        report.judge("clients that lived for the whole run", witnesses, told, told == witnesses);
        report.judge_clients(self.servers_killed, self.everything.is_some());
        if let Some(everything) = self.everything {
            everything.end(self.places, report).await?;
        }
        Ok((self.report, self.steady, self.highest))
    }
}
