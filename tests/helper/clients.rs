//! Clients that use the crate.

use std::process::id;
use std::time::{Duration, Instant};

use sockpipe::{ConnectOptions, ExpectServer, Stream, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::raw::wait_for_the_end;
use crate::server::{commands, ignored_signals};
use crate::shown;

/// Connects several times, sends a payload and reads it back, and prints each outcome.
pub(crate) async fn connect(path: &str, options: &[&str]) {
    let (mut chosen, mut times) = (ConnectOptions::new(), 1);
    for option in options {
        match option.split_once('=').unwrap_or((*option, "")) {
            ("--anyone", _) => chosen = chosen.expect_server(ExpectServer::Anyone),
            ("--user", uid) => {
                let user = UserId::Uid(uid.parse().expect("a number"));
                chosen = chosen.expect_server(ExpectServer::User(user));
            }
            ("--exactly", uid) => {
                let user = UserId::Uid(uid.parse().expect("a number"));
                chosen = chosen.expect_server(ExpectServer::Exactly(user));
            }
            ("--times", count) => times = count.parse().expect("a number"),
            other => panic!("no such option: {other:?}"),
        }
    }
    for _ in 0..times {
        match Stream::connect_with(path, &chosen).await {
            Ok(stream) => println!("{}", talk(stream).await),
            Err(error) => println!("{}", shown(&error)),
        }
    }
}

/// Connects without a pause, and waits for a server each time, until standard input ends.
pub(crate) async fn hammer(path: &str) {
    println!("hammering");
    let options = ConnectOptions::new().wait_for_server(Duration::from_secs(60));
    let (mut connected, mut failed, mut longest) = (0, 0, Duration::ZERO);
    let stop = spawn_blocking(wait_for_the_end);
    while !stop.is_finished() {
        let started = Instant::now();
        match Stream::connect_with(path, &options).await {
            Ok(_) => connected += 1,
            Err(error) => {
                eprintln!("{}", shown(&error));
                failed += 1;
            }
        }
        longest = longest.max(started.elapsed());
    }
    println!("connected {connected} failed {failed} longest {longest:.1?}");
}

async fn talk(mut stream: Stream) -> String {
    let peer = stream.peer_credentials().expect("credentials");
    let by = format!("by uid {:?} pid {:?}", peer.uid(), peer.pid());
    let mut answer = Vec::new();
    let spoken = async {
        stream.write_all(b"epayload").await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut answer).await
    };
    match spoken.await {
        Ok(_) if answer == b"payload" => format!("served {by}"),
        Ok(0) => format!("closed {by}"),
        Ok(_) => format!("served wrongly {by}"),
        Err(error) => format!("cut off {by}, {}", shown(&error)),
    }
}

/// Makes echo round trips, each with its own number, while signals arrive.
pub(crate) async fn trips(path: &str, count: u32) {
    let mut alarms = signal(SignalKind::alarm()).expect("a handler");
    let mut stream = Stream::connect(path).await.expect("a connection");
    stream.write_all(b"e").await.expect("a write");
    println!("ready {}", id());
    let (mut right, mut wrong, mut errors, mut signals) = (0_u32, 0_u32, 0_u32, 0_u32);
    for trip in 0..count {
        let sent = u64::from(trip).to_be_bytes().repeat(8);
        let mut got = vec![0; sent.len()];
        let there_and_back = async {
            stream.write_all(&sent).await?;
            stream.read_exact(&mut got).await
        };
        match there_and_back.await {
            Ok(_) if got == sent => right += 1,
            Ok(_) => wrong += 1,
            Err(_) => errors += 1,
        }
        // One notification may stand for several signals.
        let notice = std::future::poll_fn(|cx| std::task::Poll::Ready(alarms.poll_recv(cx)));
        signals += u32::from(notice.await.is_ready());
    }
    println!("trips {right} wrong {wrong} errors {errors} signals {signals}");
}

/// Writes to a server that does not read, more than all buffers hold, until it is killed.
pub(crate) async fn fill_a_sink(path: &str) {
    let mut stream = Stream::connect(path).await.expect("a connection");
    stream.write_all(b"s").await.expect("a write");
    stream.read_u8().await.expect("a sink");
    println!("writing");
    let mut commands = commands();
    let bytes = vec![1; 1024 * 1024];
    tokio::select! {
        done = stream.write_all(&bytes) => println!("written: {done:?}"),
        _ = commands.recv() => {}
    }
}

/// Writes to peers that have closed. The first line prints which signals are ignored.
pub(crate) async fn write_to_closed_peers(way: &str, count: u32) {
    println!("{:x}", ignored_signals().unwrap_or(u64::MAX));
    let (mut broken, mut other) = (0, 0);
    for _ in 0..count {
        let (mut stream, peer) = Stream::pair().expect("a pair");
        drop(peer);
        let written = match way {
            #[cfg(feature = "blocking")]
            way if way.starts_with("blocking") => write_blocking(way),
            "plain" => stream.write_all(b"x").await,
            "vectored" => {
                let parts = [std::io::IoSlice::new(b"x"), std::io::IoSlice::new(b"y")];
                stream.write_vectored(&parts).await.map(drop)
            }
            "half" => {
                let (_from, mut to) = stream.into_split();
                to.write_all(b"x").await
            }
            other => panic!("no such way: {other}"),
        };
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => broken += 1,
            _ => other += 1,
        }
    }
    println!("broken {broken} other {other}");
}

#[cfg(feature = "blocking")]
fn write_blocking(way: &str) -> std::io::Result<()> {
    use std::io::Write;

    let (mut stream, peer) = sockpipe::blocking::Stream::pair()?;
    drop(peer);
    match way {
        "blocking" => stream.write_all(b"x"),
        "blocking-timed" => {
            stream.set_write_timeout(Some(Duration::from_secs(60)))?;
            stream.write_all(b"x")
        }
        "blocking-vectored" => {
            let parts = [std::io::IoSlice::new(b"x"), std::io::IoSlice::new(b"y")];
            stream.write_vectored(&parts).map(drop)
        }
        "blocking-descriptors" => {
            let fds = [std::os::fd::AsFd::as_fd(&stream)];
            sockpipe::os::unix::PassFds::send_with_fds(&stream, b"x", &fds).map(drop)
        }
        other => panic!("no such way: {other}"),
    }
}
