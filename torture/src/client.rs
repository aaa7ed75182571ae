//! Client processes. Each prints a line for each event: `did` for a job, `lost` for a failure that
//! a killed or suspended process explains, `back` for how long a connection was missing, and
//! `wrong` for a fault.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fastrand::Rng;
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connection::{Blocking, Connection};
use crate::jobs::{Fault, Job, ask, receive};
use crate::process;
use crate::server::{ECHO, FRAMES, GIVE};
use crate::ways::Ways;

/// The time limit of a job.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many bytes the greedy client asks for and does not read.
pub(crate) const GREED: u64 = 16 << 20;
const PING: u8 = 170;
/// How long a probe of a patient client keeps a connection, so that its server can be replaced.
const BRIEF: Duration = Duration::from_secs(3);
/// A pause this long means that the whole process was suspended.
const SUSPENDED: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) tasks: u32,
    /// The log of the server. If it is set, the client starts a missing server, and the server may
    /// be killed.
    pub(crate) log: Option<PathBuf>,
    /// Whether this client is never suspended or killed, and so can measure how long a server is
    /// missing.
    pub(crate) steady: bool,
}

pub(crate) async fn run(path: PathBuf, options: Options) -> Result<()> {
    watch_for_suspensions();
    let before = process::descriptors(id());
    let (stop, stopped) = watch::channel(false);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        stop.send_replace(true);
    });
    let target = Target { path, log: options.log, steady: options.steady };
    let mut running = JoinSet::new();
    for task in 0..options.tasks {
        let rng = Rng::with_seed(options.seed ^ u64::from(task) << 32);
        if Ways::ours().blocking {
            // A thread each, because their calls block it.
            let (handle, probing) = (Handle::current(), Handle::current());
            let work = work::<Blocking>(target.clone(), rng, stopped.clone());
            running.spawn_blocking(move || handle.block_on(work));
            if options.steady {
                let probe = probe::<Blocking>(target.clone(), stopped.clone());
                running.spawn_blocking(move || probing.block_on(probe));
            }
        } else {
            running.spawn(work::<Stream>(target.clone(), rng, stopped.clone()));
            if options.steady {
                running.spawn(probe::<Stream>(target.clone(), stopped.clone()));
            }
        }
    }
    drop(stopped);
    while let Some(done) = running.join_next().await {
        done?;
    }
    // A thread waits for each server that this client started, without a descriptor.
    println!("descriptors {before} {}", process::descriptors(id()));
    Ok(())
}

#[derive(Clone)]
struct Target {
    path: PathBuf,
    log: Option<PathBuf>,
    steady: bool,
}

impl Target {
    async fn connect<C: Connection>(&self) -> io::Result<C> {
        let options = Ways::ours().connecting().deadline(Duration::from_secs(5));
        let server = match &self.log {
            None => None,
            Some(log) => {
                let mut server = process::program(Ways::ours()).map_err(io::Error::other)?;
                server.arg("serve").arg(&self.path).arg(log);
                Some(server)
            }
        };
        C::connect(&self.path, server, &options).await
    }

    /// Reports whether a killed server, or a suspension of this process for longer than the server
    /// waits, explains that a connection ended or that a start failed.
    async fn explains(&self, server: Option<u32>, since: Instant) -> bool {
        for _ in 0..200 {
            let killed = self.log.is_some() && server.is_some_and(|server| !process::lives(server));
            if killed || !self.steady && was_suspended_since(since) {
                return true;
            }
            sleep(Duration::from_millis(5)).await;
        }
        false
    }

    async fn tell(&self, what: &str, error: Fault, server: Option<u32>, since: Instant) {
        match error {
            Fault::Wrong(why) => wrong(what, why),
            Fault::Ended(_) if self.explains(server, since).await => println!("lost {what}"),
            Fault::Ended(error) => {
                wrong(what, format_args!("it ended, and nobody was killed: {error}"));
            }
        }
    }

    /// Reports a failed connect, unless it failed because the server was killed.
    async fn tell_unconnected(&self, error: &io::Error, since: Instant) {
        // The server is the one that the client started, or the one that kept that from binding.
        let said = error.to_string();
        let rival = said.split_once("already listening there (pid ").and_then(|(_, after)| {
            after.split_once(')').and_then(|(process, _)| process.parse().ok())
        });
        let killed =
            said.contains("signal: 9") || rival.is_some_and(|rival| !process::lives(rival));
        if error.kind() == ErrorKind::Other && killed && self.log.is_some() {
            println!("lost start");
        } else if self.steady || !was_suspended_since(since) {
            wrong("connect", format_args!("{:?}: {error}", error.kind()));
        }
    }
}

fn wrong(what: &str, why: impl Display) {
    println!("wrong {what}: {why}");
}

/// Does one job after another, each on its own connection.
async fn work<C: Connection>(target: Target, mut rng: Rng, stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let started = Instant::now();
        // Now and then drops a connect before it is done.
        if rng.u8(..8) == 0 {
            let _ = timeout(Duration::from_micros(rng.u64(..500)), target.connect::<C>()).await;
        }
        let stream = match target.connect::<C>().await {
            Ok(stream) => stream,
            Err(error) => {
                target.tell_unconnected(&error, started).await;
                sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let connected = started.elapsed().as_millis();
        let server = stream.server();
        let job = Job::choose(&mut rng);
        match timeout(PATIENCE, job.run(stream, &mut rng)).await {
            Ok(Ok(bytes)) => {
                println!("did {} {bytes} {connected} {}", job.name(), Ways::ours().words());
            }
            Ok(Err(fault)) => target.tell(job.name(), fault, server, started).await,
            Err(_) => wrong(job.name(), format_args!("no end after {PATIENCE:?}")),
        }
        sleep(Duration::from_millis(rng.u64(..20))).await;
    }
}

/// Sends bytes and waits for each, and measures how long it could not.
async fn probe<C: Connection>(target: Target, stopped: watch::Receiver<bool>) {
    let mut last = Instant::now();
    let mut missed = false;
    while !*stopped.borrow() {
        let started = Instant::now();
        let mut stream = match target.connect::<C>().await {
            Ok(stream) => stream,
            Err(error) => {
                target.tell_unconnected(&error, started).await;
                sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let server = stream.server();
        let mut first = true;
        let ended = loop {
            if *stopped.borrow() {
                return;
            }
            if Ways::ours().patient && started.elapsed() > BRIEF {
                break None;
            }
            let pinged = async {
                if first {
                    stream.write_u8(ECHO).await?;
                }
                stream.write_u8(PING).await?;
                stream.read_u8().await
            };
            match timeout(PATIENCE, pinged).await {
                Ok(Ok(PING)) => first = false,
                Ok(Ok(other)) => break Some(Fault::Wrong(format!("a byte became {other}"))),
                Ok(Err(error)) => break Some(error.into()),
                Err(_) => break Some(Fault::Wrong(format!("no answer after {PATIENCE:?}"))),
            }
            if missed {
                println!("back {}", last.elapsed().as_millis());
                missed = false;
            }
            last = Instant::now();
            sleep(Duration::from_millis(5)).await;
        };
        let Some(ended) = ended else { continue };
        missed = true;
        let told = target.clone();
        // The time it takes to find that the server is dead does not count as missing it.
        tokio::spawn(async move { told.tell("probe", ended, server, started).await });
    }
}

/// When this process last found that it had not run for a while, in milliseconds after [`start`].
static SUSPENDED_AT: AtomicU64 = AtomicU64::new(0);

fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn watch_for_suspensions() {
    start();
    thread::spawn(|| {
        loop {
            let before = Instant::now();
            thread::sleep(Duration::from_millis(20));
            if before.elapsed() > SUSPENDED {
                let now = u64::try_from(start().elapsed().as_millis()).unwrap_or(u64::MAX);
                SUSPENDED_AT.store(now, Ordering::Relaxed);
            }
        }
    });
}

fn was_suspended_since(since: Instant) -> bool {
    let at = SUSPENDED_AT.load(Ordering::Relaxed);
    at > 0 && u128::from(at) >= since.duration_since(start()).as_millis()
}

/// Announces a frame of 1 MiB, sends half of it, and then single bytes until it is killed.
pub(crate) async fn victim(path: &Path) -> Result<()> {
    let mut stream = Stream::connect_with(path, &Ways::ours().connecting()).await?;
    stream.write_u8(FRAMES).await?;
    stream.write_u32(1 << 20).await?;
    stream.write_all(&vec![1; 512 * 1024]).await?;
    println!("writing");
    for _ in 0..PATIENCE.as_secs() {
        stream.write_u8(1).await?;
        sleep(Duration::from_secs(1)).await;
    }
    bail!("nobody killed it")
}

/// Asks for 16 MiB, and reads them only once standard input says so.
pub(crate) async fn greedy(path: &Path, seed: u64) -> Result<()> {
    let mut stream = Stream::connect_with(path, &Ways::ours().connecting()).await?;
    ask(&mut stream, GIVE, seed, GREED).await?;
    println!("asked");
    io::stdin().read_line(&mut String::new())?;
    match receive(&mut stream, seed, GREED).await {
        Ok(()) => println!("whole"),
        Err(Fault::Ended(_)) => println!("short"),
        Err(Fault::Wrong(why)) => wrong("greedy", why),
    }
    Ok(())
}
