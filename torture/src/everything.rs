//! What the storm does besides with everything on: it removes names, cleans up and upgrades.

use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use tokio::time::sleep;

use crate::cleaner::Cleaner;
use crate::flat::Flat;
use crate::names::Names;
use crate::places::{Places, Server};
use crate::process::{self, Running};
use crate::renewed::Renewed;
use crate::report::Report;

/// After a kill the mortal server's name is left alone for a while, and before the next one.
const SETTLED: std::ops::Range<Duration> = Duration::from_secs(3)..Duration::from_secs(8);

pub(crate) struct Everything {
    names: Names,
    cleaner: Cleaner,
    renewed: Renewed,
    memory: [Flat; 2],
    descriptors: [Flat; 2],
}

/// What the storm does at the moment.
pub(crate) struct Moment {
    /// It begins nothing new.
    pub(crate) is_calm: bool,
    pub(crate) last_kill: Instant,
}

impl Everything {
    pub(crate) async fn start(places: &Places) -> Result<Self> {
        let memory = ["memory of the server, highest, MiB", "memory of a client, highest, MiB"];
        let descriptors = ["descriptors of the server, most", "descriptors of a client, most"];
        Ok(Self {
            renewed: Renewed::start(places).await?,
            names: Names::new(),
            cleaner: Cleaner::new(places.sockets())?,
            memory: memory.map(|what| Flat::new(what, 1 << 20, 6)),
            descriptors: descriptors.map(|what| Flat::new(what, 1, 24)),
        })
    }

    pub(crate) async fn step(
        &mut self,
        moment: &Moment,
        places: &Places,
        rng: &mut Rng,
        report: &mut Report,
    ) -> Result<()> {
        let may = !moment.is_calm;
        let is_settled = SETTLED.contains(&moment.last_kill.elapsed());
        let is_upgrading = self.renewed.is_upgrading();
        let names = &mut self.names;
        names.step(Server::Steady, may, places, rng, report);
        names.step(Server::Mortal, may && is_settled, places, rng, report);
        names.step(Server::Renewed, may && !is_upgrading, places, rng, report);
        names.has_displaced(places);

        let is_there = !names.is_missing(Server::Renewed);
        self.renewed.step(may && is_there, rng, report).await?;

        let mut kept = Vec::new();
        for server in [Server::Steady, Server::Renewed] {
            if !names.is_missing(server) {
                kept.extend([places.socket(server), places.lock(server)]);
            }
        }
        self.cleaner.step(&kept, report)
    }

    /// Takes the numbers of the steady server and of the clients that live for the whole run, at a
    /// time between the start, 0, and the end, 1.
    pub(crate) fn see(&mut self, time: f64, server: u32, clients: &[Running]) {
        let ids = clients.iter().map(Running::id);
        let ids = std::iter::once((0, server)).chain(ids.map(|id| (1, id)));
        for (which, id) in ids {
            self.memory[which].see(time, process::memory(id));
            self.descriptors[which].see(time, process::descriptors(id) as u64);
        }
    }

    /// Reports whether it waits for nothing any more.
    pub(crate) fn is_settled(&self) -> bool {
        let servers = [Server::Steady, Server::Mortal, Server::Renewed];
        !self.renewed.is_upgrading() && !servers.into_iter().any(|it| self.names.is_missing(it))
    }

    /// Ends it, once the clients have ended.
    pub(crate) async fn end(mut self, places: &Places, report: &mut Report) -> Result<()> {
        for _ in 0..3000 {
            if !self.names.has_displaced(places) {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.names.judge(report);
        self.cleaner.judge(report);
        self.renewed.end(report).await?;
        self.memory.iter().chain(&self.descriptors).for_each(|flat| flat.judge(report));
        Ok(())
    }
}
