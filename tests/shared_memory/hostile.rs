//! A peer that follows the protocol and then writes random words into the memory.
//!
//! The peer uses the crate's own stream, which maps the memory. A thread of the peer finds the
//! mapping in `/proc/self/maps` and writes into it.

use std::fs;
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

/// The helper: connects, moves into memory, and writes random words into it until it is killed.
#[tokio::test]
async fn helper_scribbles_until_killed() {
    let Some(endpoint) = argument() else { return };
    let options = connecting(SharedMemory::Eager);
    let mut stream = Stream::connect_with(endpoint, &options).await.expect("a server");
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

/// The peer's own stream may end in any way. Others are not affected, and no call outlasts its
/// deadline.
#[tokio::test]
async fn a_peer_that_writes_random_words_harms_its_own_stream_only() {
    let os = Os::new();
    let mut listener =
        Listener::bind_with(os.endpoint(), &listening(SharedMemory::Eager)).expect("a free name");
    let (mut one, mut other) = in_memory_pair().await;
    let (started, mut peers) = (Instant::now(), 0);
    while started.elapsed() < time() {
        let mut child =
            spawn_helper("shared_memory::hostile::helper_scribbles_until_killed", os.endpoint());
        let mut stream = within(listener.accept()).await.expect("a client");
        let until = Instant::now() + Duration::from_millis(300);
        let mut buffer = vec![0; 4096];
        let mut ended = None;
        while Instant::now() < until {
            let limit = Duration::from_millis(5);
            let read = tokio::time::timeout(limit, stream.read(&mut buffer)).await;
            let length = match read {
                Ok(Ok(0)) => break,
                Ok(Ok(length)) => length,
                Ok(Err(error)) => {
                    ended = Some(error);
                    break;
                }
                Err(_) => 64,
            };
            let write = tokio::time::timeout(limit, stream.write_all(&buffer[..length])).await;
            if let Ok(Err(error)) = write {
                ended = Some(error);
                break;
            }
        }
        if let Some(error) = ended {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::InvalidData | ErrorKind::BrokenPipe), "{error}");
        }
        within(exchange(&mut one, &mut other, 1000)).await;
        child.kill().expect("a kill");
        child.wait().expect("an end");
        peers += 1;
    }
    println!("{peers} hostile peers");
    assert!(peers > 2);
}
