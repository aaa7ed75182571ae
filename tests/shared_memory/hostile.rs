//! A peer that follows the protocol and then writes random words into the memory.
//!
//! The peer uses the crate's own stream, which maps the memory. A thread of the peer finds the
//! mapping in `/proc/self/maps` and writes into it.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use super::*;

/// Returns where this process has mapped the memory of lanes.
fn mappings() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").expect("the process's memory");
    let lines = maps.lines().filter(|line| line.contains("/memfd:sockpipe"));
    let range = |line: &str| {
        let (start, rest) = line.split_once('-').expect("a range");
        let end = rest.split_once(' ').expect("a range").0;
        let number = |text| usize::from_str_radix(text, 16).expect("a number");
        (number(start), number(end))
    };
    lines.map(range).collect()
}

/// The helper: moves into memory as one of the sides, and writes random words into it until it is
/// killed.
#[tokio::test]
async fn helper_scribbles_until_killed() {
    let Some(argument) = argument() else { return };
    let (role, endpoint) = argument.split_once(' ').expect("a role and a name");
    let stream = if role == "server" {
        let options = listening(SharedMemory::Eager);
        Listener::bind_with(endpoint, &options).expect("a name").accept().await
    } else {
        Stream::connect_with(endpoint, &connecting(SharedMemory::Eager)).await
    };
    let mut stream = stream.expect("a peer");
    let mut buffer = [7; 64];
    while stream.transport() != Transport::SharedMemory {
        stream.write_all(&buffer).await.expect("a write");
        stream.read_exact(&mut buffer).await.expect("a read");
    }
    let (start, end) = mappings()[0];
    let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem").expect("own memory");
    std::thread::spawn(move || {
        use std::os::unix::fs::FileExt;
        let mut random = u64::from(std::process::id()) | 1;
        loop {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Most writes go to the header. Small numbers are as frequent as large ones.
            let length = if random & 7 == 0 { end - start } else { 2432 };
            let at = start as u64 + (random >> 20) % (length as u64 - 8);
            let word = if random & 8 == 0 { random >> 50 } else { random };
            memory.write_all_at(&word.to_ne_bytes(), at & !7).expect("a write");
        }
    });
    loop {
        let _ = tokio::time::timeout(Duration::from_millis(1), stream.write(&buffer)).await;
        let _ = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut buffer)).await;
    }
}

/// Returns how long to run: two seconds, or a minute with `SOCKPIPE_FULL` set.
fn time() -> Duration {
    Duration::from_secs(if std::env::var_os("SOCKPIPE_FULL").is_some() { 60 } else { 2 })
}

/// Starts the helper, and returns a stream to it. The directory of `os` has to outlive the call,
/// because a server listens before its bind returns.
async fn meet(role: &str, os: &Os) -> (Child, Stream) {
    let mut listener = (role == "client").then(|| {
        let options = listening(SharedMemory::Eager);
        Listener::bind_with(os.endpoint(), &options).expect("a free name")
    });
    let argument = format!("{role} {}", os.endpoint());
    let child = spawn_helper("shared_memory::hostile::helper_scribbles_until_killed", &argument);
    let stream = match &mut listener {
        Some(listener) => within(listener.accept()).await,
        None => {
            let options = connecting(SharedMemory::Eager).wait_for_server(common::PATIENCE);
            within(Stream::connect_with(os.endpoint(), &options)).await
        }
    };
    (child, stream.expect("a peer"))
}

/// Reads and writes for a while. Returns whether the stream moved into memory, and the error that
/// ended it, if any.
async fn talk(stream: &mut Stream) -> (bool, Option<std::io::Error>) {
    let until = Instant::now() + Duration::from_millis(300);
    let limit = Duration::from_millis(5);
    let (mut buffer, mut moved) = (vec![0; 4096], false);
    while Instant::now() < until {
        moved |= stream.transport() == Transport::SharedMemory;
        let read = tokio::time::timeout(limit, stream.read(&mut buffer)).await;
        let length = match read {
            Ok(Ok(0)) => break,
            Ok(Ok(length)) => length,
            Ok(Err(error)) => return (moved, Some(error)),
            Err(_) => 64,
        };
        let write = tokio::time::timeout(limit, stream.write_all(&buffer[..length])).await;
        if let Ok(Err(error)) = write {
            return (moved, Some(error));
        }
    }
    (moved, None)
}

/// The peer's own stream may end in any way. Others are not affected, and no call outlasts its
/// deadline.
async fn peers_harm_their_own_streams_only(role: &str) {
    let (mut one, mut other) = in_memory_pair().await;
    let (started, mut peers, mut in_memory) = (Instant::now(), 0, 0);
    while started.elapsed() < time() {
        let os = Os::new();
        let (mut child, mut stream) = meet(role, &os).await;
        let (moved, ended) = within(talk(&mut stream)).await;
        in_memory += u32::from(moved);
        if let Some(error) = ended {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::InvalidData | ErrorKind::BrokenPipe), "{error}");
        }

        within(exchange(&mut one, &mut other, 1000)).await;
        child.kill().expect("a kill");
        child.wait().expect("an end");
        peers += 1;
    }
    println!("{peers} hostile peers as {role}, {in_memory} in memory");
    assert!(peers > 2 && in_memory > 0);
}

/// The server of each stream creates the memory, so both roles are tested.
#[tokio::test]
async fn a_peer_that_writes_random_words_harms_its_own_stream_only() {
    let client = peers_harm_their_own_streams_only("client");
    let server = peers_harm_their_own_streams_only("server");
    tokio::join!(client, server);
}
