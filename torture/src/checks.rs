//! Checks two faults one at a time, before the storm: many clients are killed at the same time in
//! the middle of a frame, and clients are suspended while the server sends to them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::control::Steady;
use crate::process::{self, Running};
use crate::report::Report;
use crate::server::{ECHO, IDLE, PIECE};
use crate::ways::Ways;

const KILLED: usize = 500;
const SUSPENDED: usize = 10;
const OTHERS: usize = 100;
/// The memory of a stream in shared memory.
const RINGS: usize = 516 * 1024;

async fn echoing(server: &Steady, count: usize) -> Result<Vec<Stream>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream =
            Stream::connect_with(server.path.as_path(), &Ways::ours().connecting()).await?;
        // Once it has answered, the server has accepted the stream.
        stream.write_all(&[ECHO, 1]).await?;
        stream.read_u8().await?;
        streams.push(stream);
    }
    Ok(streams)
}

/// Makes round trips over all streams at the same time, and returns the 99th percentile.
async fn round_trips(streams: Vec<Stream>, count: usize) -> Result<(Vec<Stream>, Duration)> {
    let mut running = JoinSet::new();
    for mut stream in streams {
        running.spawn(async move {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let started = Instant::now();
                stream.write_u8(7).await?;
                stream.read_u8().await?;
                times.push(started.elapsed());
            }
            anyhow::Ok((stream, times))
        });
    }
    let (mut streams, mut times) = (Vec::new(), Vec::new());
    while let Some(done) = running.join_next().await {
        let (stream, its) = done?.context("another connection was disturbed")?;
        streams.push(stream);
        times.extend(its);
    }
    times.sort_unstable();
    Ok((streams, times[times.len() * 99 / 100]))
}

/// Makes round trips until `stopped` says so, and returns how many each stream made.
async fn keep_trying(mut streams: Vec<Stream>, stopped: watch::Receiver<bool>) -> Result<u64> {
    let mut made = 0;
    while !*stopped.borrow() {
        (streams, _) = round_trips(streams, 1).await?;
        made += 1;
        sleep(Duration::from_millis(5)).await;
    }
    Ok(made)
}

pub(crate) async fn clients_killed_in_a_frame(server: &Steady, report: &mut Report) -> Result<()> {
    let others = echoing(server, 20).await?;
    let (stop, stopped) = watch::channel(false);
    let others = tokio::spawn(keep_trying(others, stopped));
    let (before, cut) = (process::descriptors(server.id()), server.ask("cut").await?);
    let path = server.path.to_string_lossy();
    let victims: Result<Vec<_>> =
        (0..KILLED).map(|_| Running::start(Ways::ours(), &["victim", &path])).collect();
    let mut victims = victims?;
    for victim in &victims {
        anyhow::ensure!(victim.line()? == "writing", "a client could not write");
    }
    let during = process::descriptors(server.id());
    victims.iter().for_each(|victim| victim.signal(Signal::KILL));
    // Waits until each of them is dead.
    victims.iter_mut().for_each(Running::kill);
    let dead = Instant::now();
    while process::descriptors(server.id()) > before && dead.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(2)).await;
    }
    let (took, after) = (dead.elapsed(), process::descriptors(server.id()));
    let what = "clients killed in a frame (19): cut off";
    report.judge(what, KILLED, server.ask("cut").await? - cut, {
        server.ask("cut").await? - cut == KILLED as u64
    });
    let seen = format!("{after} after {took:.1?}, {during} before the kills");
    let right = after <= before && took < Duration::from_secs(1) && during >= before + KILLED;
    report.judge("… descriptors of the server", format!("{before} within 1 s"), seen, right);
    stop.send_replace(true);
    let (seen, right) = match others.await? {
        Ok(made) => (format!("undisturbed in {made} round trips each"), made > 0),
        Err(error) => (error.to_string(), false),
    };
    report.judge("… 20 other connections", "undisturbed", seen, right);
    Ok(())
}

pub(crate) async fn suspended_clients(server: &Steady, report: &mut Report) -> Result<()> {
    let mut others = echoing(server, OTHERS).await?;
    let (gave_up, memory) = (server.ask("gave-up").await?, process::memory(server.id()));
    let path = server.path.to_string_lossy();
    let greedy = || -> Result<Running> {
        let client = Running::start(Ways::ours(), &["greedy", &path, "--seed", "20"])?;
        anyhow::ensure!(client.line()? == "asked", "a client could not ask");
        client.signal(Signal::STOP);
        // Once it is resumed, the client reads this line and goes on by itself.
        client.child.stdin.as_ref().map(|mut input| std::io::Write::write_all(&mut input, b"\n"));
        Ok(client)
    };

    // The best of three rounds counts, because other programs can delay a round.
    let (mut without, mut with) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let (streams, p99) = round_trips(others, 50).await?;
        (others, without) = (streams, without.min(p99));
    }
    let briefly = greedy()?;
    let started = Instant::now();
    let suspended: Result<Vec<_>> = (0..SUSPENDED).map(|_| greedy()).collect();
    let mut suspended = suspended?;
    for _ in 0..3 {
        let (streams, p99) = round_trips(others, 50).await?;
        (others, with) = (streams, with.min(p99));
    }
    let grown = process::memory(server.id()).saturating_sub(memory);
    // They are idle from now on, and the server would give up on them too.
    drop(others);
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    let seen = format!("{with:.1?} with, {without:.1?} without");
    let what = format!("p99 of {OTHERS} others while {SUSPENDED} are suspended (20)");
    report.judge(&what, "< 5 times as long", seen, ratio < 5.0);
    // Two pieces for each client, its rings if it has some, and a MiB that an allocator keeps.
    let rings = if Ways::ours().memory { RINGS } else { 0 };
    let limit = ((SUSPENDED + 1) * (2 * PIECE + rings) + (1 << 20)) as u64;
    let bar = format!("< {} KiB", limit / 1024);
    report.judge(
        "… memory of the server",
        bar,
        format!("{} KiB more", grown / 1024),
        grown < limit,
    );

    // One client is resumed before its deadline and receives everything; the others are resumed
    // after theirs.
    briefly.signal(Signal::CONT);
    let line = briefly.line()?;
    report.judge("… one that is resumed in time gets", "whole", &line, line == "whole");
    let all = async {
        while server.ask("gave-up").await? < gave_up + SUSPENDED as u64 {
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let all = timeout(IDLE * 3, all).await.is_ok();
    let count = server.ask("gave-up").await? - gave_up;
    let (soonest, latest) = (server.ask("soonest").await?, server.ask("latest").await?);
    let bounds = (IDLE.as_millis() as u64, (IDLE * 2).as_millis() as u64);
    let seen = format!("{count} after {soonest} to {latest} ms, {:.1?} in all", started.elapsed());
    let bar = format!("{SUSPENDED} after {} to {} ms", bounds.0, bounds.1);
    let right = all && count == SUSPENDED as u64 && soonest >= bounds.0 && latest < bounds.1;
    report.judge("… the server gives up on the others", bar, seen, right);
    let mut short = 0;
    for client in &mut suspended {
        client.signal(Signal::CONT);
        short += usize::from(client.line()? == "short");
    }
    report.judge("… who then read a part and the end", SUSPENDED, short, short == SUSPENDED);
    Ok(())
}
