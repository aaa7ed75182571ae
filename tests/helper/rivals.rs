//! Processes that bind one name at the same time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::id;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use sockpipe::os::unix::{ListenerExt, StreamExt};
use sockpipe::{Candidate, ConnectOptions, Endpoint, ListenOptions, Listener, Stream};
use tokio::io::AsyncWriteExt;

use crate::raw::wait_for_the_end;
use crate::server::Options;
use crate::shown;

/// Binds when standard input ends, which happens for all rivals at the same moment. The winner
/// holds the name until it is killed.
pub(crate) async fn once(path: &str) {
    println!("ready {}", id());
    wait_for_the_end();
    match Listener::bind(path) {
        Ok(mut listener) => {
            println!("won {}", id());
            // This outlasts the test. It ends a process that a failed test did not kill.
            let served = async {
                loop {
                    drop(listener.accept().await.expect("a connection"));
                }
            };
            let _: Result<(), _> = tokio::time::timeout(Duration::from_secs(120), served).await;
        }
        Err(error) => println!("lost {}", shown(&error)),
    }
}

/// Holds the name without accepting, until standard input ends.
pub(crate) fn hold(path: &str) {
    let listener = Listener::bind(path).expect("a free name");
    println!("listening {}", id());
    wait_for_the_end();
    drop(listener);
}

/// Removes the files that a crash has left.
pub(crate) fn clean(path: &str) {
    match place(path).remove_stale() {
        Ok(was_there) => println!("cleaned {was_there}"),
        Err(error) => println!("{}", shown(&error)),
    }
}

/// Prints whether the name is in use, and changes nothing.
pub(crate) fn occupancy(path: &str) {
    match place(path).occupancy() {
        Ok(occupancy) => println!("{occupancy:?}"),
        Err(error) => println!("{}", shown(&error)),
    }
}

fn place(path: &str) -> Candidate {
    let endpoint = Endpoint::try_from(Path::new(path)).expect("a path");
    endpoint.resolve().expect("a place").swap_remove(0)
}

/// Takes the name over from a dead socket, `count` times.
pub(crate) async fn takeovers(path: &str, count: u32) {
    for _ in 0..count {
        let options = ListenOptions::new();
        let listener = Listener::bind_wait(path, &options, Duration::from_secs(60)).await;
        let listener = listener.expect("the name of the dead");
        // The socket is closed and its name stays, as after a crash.
        drop(listener.into_fd().expect("a socket"));
    }
    println!("done");
}

/// Binds and drops, and prints the mode and the owner that the socket had at first.
pub(crate) async fn binds(path: &str, count: u32, options: &[&str]) {
    let options = Options::parse(options).listen;
    for turn in 0..count {
        match Listener::bind_with(path, &options) {
            Ok(listener) => {
                if turn == 0 {
                    let socket = fs::symlink_metadata(path).expect("a socket");
                    println!("mode {:o} group {}", socket.mode() & 0o7777, socket.gid());
                }
                drop(listener);
            }
            Err(error) => {
                println!("{}", shown(&error));
                return;
            }
        }
    }
    println!("done");
}

/// For `millis`, takes the name, checks whether it keeps it, and then releases it or crashes.
/// Prints a letter for each time that it had the name: `k` for kept, `l` for lost, `e` for an error
/// that rivals should not cause.
pub(crate) async fn churn(path: &str, millis: u32, seed: u32) {
    let end = Instant::now() + Duration::from_millis(millis.into());
    let mut random = u64::from(seed) * 7919 + u64::from(id());
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (random >> 33) as u32
    };
    while Instant::now() < end {
        let mut listener = match Listener::bind(path) {
            Ok(listener) => listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_micros(u64::from(next() % 1000))).await;
                continue;
            }
            Err(error) => {
                println!("e {}", shown(&error));
                continue;
            }
        };
        let first = inode(path);
        let client = clients_reach_us(&mut listener, path).await;
        tokio::time::sleep(Duration::from_micros(u64::from(next() % 2000))).await;
        let kept = client && first.is_some() && inode(path) == first && listener.is_published();
        println!("{}", if kept { 'k' } else { 'l' });
        if next() % 100 < 30 {
            kill_process(getpid(), Signal::KILL).expect("the end");
        }
    }
}

fn inode(path: &str) -> Option<u64> {
    fs::symlink_metadata(Path::new(path)).ok().map(|socket| socket.ino())
}

/// Reports whether a client of the name reaches this very listener.
async fn clients_reach_us(listener: &mut Listener, path: &str) -> bool {
    let connected = Stream::connect_with(path, &ConnectOptions::new()).await;
    let Ok(mut client) = connected else { return false };
    // The queue also holds clients of other processes, which are dropped as if they were served.
    let mark = random_mark();
    if client.write_all(&mark).await.is_err() {
        return false;
    }
    let found = async {
        loop {
            let mut server = listener.accept().await.expect("a connection");
            let mut got = [0; 16];
            let read = tokio::io::AsyncReadExt::read_exact(&mut server, &mut got).await;
            if read.is_ok() && got == mark {
                return server.into_fd().is_ok();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap_or(false)
}

fn random_mark() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};

    let half = |salt: u32| RandomState::new().hash_one((id(), salt)).to_ne_bytes();
    [half(0), half(1)].concat().try_into().expect("16 bytes")
}
