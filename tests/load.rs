//! `serve` under load: with slow clients, with suspended ones, and with many.
//!
//! Each server is a separate process, whose memory and descriptors the test can count.
#![cfg(target_os = "linux")] // Suspends processes, and reads /proc.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Backend, Os, argument, spawn_helper, within};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sockpipe::{Listener, Stream, TimedListener, TimedStream, echo, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// Raises the limit of descriptors as far as the system allows, and returns it.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })
        .expect("the limit that the system gave");
    most
}

/// Tests that measure hold this lock, so that they run one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const FIRST_BYTE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(3);

/// The program of the server: an echo service. Its argument is the kind of service and the path.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn helper_server() {
    let Some(argument) = argument() else { return };
    descriptors();
    let (how, path) = argument.split_once(' ').expect("two words");
    let listener = Listener::bind(path).expect("a free name");
    println!("\nlistening");
    let ended = match how {
        "timed" => {
            let listener =
                TimedListener::new(listener).first_byte_deadline(FIRST_BYTE).idle_deadline(IDLE);
            serve(listener, timed).await
        }
        "shared" => serve(listener, plain).max_connections_per_user(50).await,
        _ => serve(listener, plain).await,
    };
    panic!("{ended:?}");
}

async fn plain(stream: Stream) -> io::Result<u64> {
    echo::echo(stream, |_| ()).await
}

/// Echoes. After a `!` it sends 16 MiB instead, which the client may not read.
async fn timed(mut stream: TimedStream<Stream>) {
    let Ok(first) = stream.read_u8().await else { return };
    if first != b'!' {
        let _ = stream.write_u8(first).await;
        let _ = echo::echo(stream, |_| ()).await;
        return;
    }
    let started = Instant::now();
    let error = stream.write_all(&vec![0; 16 << 20]).await.expect_err("the client takes no more");
    println!("\ngave up {:?} {}", error.kind(), started.elapsed().as_millis());
}

struct Server {
    os: Os,
    child: Child,
}

impl Server {
    fn start(how: &str) -> Self {
        let os = Os::new();
        let mut child = spawn_helper("helper_server", &format!("{how} {}", os.endpoint()));
        wait_for_line(&mut child, "listening");
        Self { os, child }
    }

    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib * 1024
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a process").count()
    }

    async fn connect(&self) -> Stream {
        within(self.os.connect()).await.expect("a connection")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_line(child: &mut Child, start: &str) -> String {
    let out = child.stdout.as_mut().expect("a pipe");
    let mut line = String::new();
    loop {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).expect("a read"), 1, "it ended; it said {line:?}");
        match byte[0] {
            b'\n' if line.starts_with(start) => return line,
            b'\n' => line.clear(),
            byte => line.push(byte as char),
        }
    }
}

/// The round trips of one client, sorted.
async fn round_trips(stream: &mut Stream, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        stream.write_u8(7).await.expect("a write");
        assert_eq!(stream.read_u8().await.expect("an answer"), 7);
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_disconnected_and_do_not_slow_another() {
    let _alone = ALONE.lock().await;
    const SLOW: usize = 2000;
    assert!(descriptors() > SLOW as u64 + 100, "too few descriptors for this test");
    let server = Server::start("timed");
    // The twin has no slow clients. The test measures both in turn, so that other load on the
    // machine affects both alike.
    let twin = Server::start("timed");
    let (mut good, mut alone) = (server.connect().await, twin.connect().await);
    within(round_trips(&mut good, 500)).await;
    within(round_trips(&mut alone, 500)).await;
    let memory = server.memory();

    let started = Instant::now();
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let mut stream = server.connect().await;
        if number % 2 == 0 {
            stream.write_u8(1).await.expect("a write");
        }
        slow.push(stream);
    }
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let without = p99(&within(round_trips(&mut alone, 500)).await);
        let with = p99(&within(round_trips(&mut good, 500)).await);
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
    }
    let grown = server.memory().saturating_sub(memory);
    ratios.sort_by(f64::total_cmp);
    println!(
        "p99 among {SLOW} slow clients to p99 without: {ratios:.2?}; memory grew by {} KiB",
        grown / 1024
    );
    assert!(ratios[0] < 5.0, "{ratios:?}");
    assert!(grown < 64 << 20, "{grown} bytes");

    // The server closes each connection at its deadline, and not earlier.
    let mut ends = Vec::new();
    for (number, mut stream) in slow.into_iter().enumerate() {
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.expect("an end");
        assert_eq!(rest.len(), usize::from(number % 2 == 0));
        ends.push(started.elapsed());
    }
    let (first, last) = (ends[0], ends[SLOW - 1]);
    println!("the first was let go after {first:?}, the last after {last:?}");
    assert!(first >= FIRST_BYTE.mul_f64(0.8), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_client_is_disconnected_and_delays_no_other() {
    let _alone = ALONE.lock().await;
    let mut server = Server::start("timed");
    let mut others = Vec::new();
    for _ in 0..100 {
        others.push(server.connect().await);
    }
    let all = |clients: Vec<Stream>| async move {
        let mut running = JoinSet::new();
        for mut client in clients {
            running.spawn(async move {
                let times = round_trips(&mut client, 100).await;
                (client, times)
            });
        }
        let (mut clients, mut times) = (Vec::new(), Vec::new());
        while let Some(done) = running.join_next().await {
            let (client, some) = done.expect("an echo");
            clients.push(client);
            times.extend(some);
        }
        times.sort_unstable();
        (clients, p99(&times))
    };
    // The best of four runs counts, since another program may have slowed the others down.
    let best = |mut clients: Vec<Stream>| async move {
        let mut best = Duration::MAX;
        for _ in 0..4 {
            let (same, p99) = within(all(clients)).await;
            clients = same;
            best = best.min(p99);
        }
        (clients, best)
    };
    let (others, _) = within(all(others)).await;
    let (others, before) = best(others).await;
    let memory = server.memory();

    // This client asks for 16 MiB and is suspended before it reads them.
    let mut greedy = spawn_helper("helper_greedy_client", server.os.endpoint());
    wait_for_line(&mut greedy, "asked");
    let pid = Pid::from_child(&greedy);
    kill_process(pid, Signal::STOP).expect("a signal");
    let (others, first) = within(all(others)).await;
    let grown = server.memory().saturating_sub(memory);
    let (_others, during) = best(others).await;
    let during = during.min(first);
    let line = wait_for_line(&mut server.child, "gave up");
    kill_process(pid, Signal::CONT).expect("a signal");
    greedy.kill().expect("a kill");
    greedy.wait().expect("an end");

    let words: Vec<_> = line.split(' ').collect();
    let waited = Duration::from_millis(words[3].parse().expect("a number"));
    println!(
        "given up after {waited:?}; p99 of 100 others {before:?} before, {during:?} during; memory \
         grew by {} KiB",
        grown / 1024
    );
    assert_eq!(words[2], "TimedOut");
    assert!(waited >= IDLE && waited < IDLE * 2, "{waited:?}");
    // The handler itself allocates 16 MiB.
    assert!(grown < 32 << 20, "{grown} bytes");
    let ratio = during.as_secs_f64() / before.as_secs_f64();
    assert!(ratio < 5.0, "{before:?} became {during:?}");
}

/// A client that asks for 16 MiB and reads nothing.
#[tokio::test]
async fn helper_greedy_client() {
    let Some(path) = argument() else { return };
    let mut stream = Stream::connect(path).await.expect("a connection");
    stream.write_all(b"!").await.expect("a write");
    println!("\nasked");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_cannot_take_all_connections() {
    let server = Server::start("shared");
    let mut clients = Vec::new();
    for _ in 0..80 {
        clients.push(server.connect().await);
    }
    let mut outcomes = HashMap::new();
    for mut client in clients {
        let _ = client.write_u8(7).await;
        *outcomes.entry(within(client.read_u8()).await.is_ok()).or_insert(0) += 1;
        // The connection stays open, so that it keeps its place.
        std::mem::forget(client);
    }
    assert_eq!(outcomes, HashMap::from([(true, 50), (false, 30)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_take_little_time_and_memory() {
    let _alone = ALONE.lock().await;
    const WANTED: usize = 9500;
    let count = WANTED.min(descriptors() as usize - 500);
    let server = Server::start("plain");
    // One client is served first: a listener opens some descriptors at its first accept.
    let mut first = server.connect().await;
    within(round_trips(&mut first, 1)).await;
    let (memory, open) = (server.memory(), server.descriptors());
    let started = Instant::now();
    let clients = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let mut running = JoinSet::new();
    for number in 0..count {
        let (endpoint, clients) = (server.os.endpoint().to_owned(), clients.clone());
        running.spawn(async move {
            let mut stream = Stream::connect(&endpoint).await.expect("a connection");
            for _ in 0..10 {
                stream.write_all(&number.to_le_bytes()).await.expect("a write");
                let mut answer = [0; 8];
                stream.read_exact(&mut answer).await.expect("an answer");
                assert_eq!(usize::from_le_bytes(answer), number);
            }
            clients.lock().expect("no panic").push(stream);
        });
    }
    within(async {
        while let Some(client) = running.join_next().await {
            client.expect("an echo");
        }
    })
    .await;
    let elapsed = started.elapsed();
    let each = server.memory().saturating_sub(memory) / count as u64;
    println!("{count} connections, 10 echoes each, in {elapsed:?}; {each} bytes of memory each");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    // A waiting connection has a task and an entry in the reactor, and no buffer.
    let limit = if count >= 5000 { 1331 } else { 8 * 1024 };
    assert!(each <= limit, "{each} bytes each");
    clients.lock().expect("no panic").clear();
    within(async {
        while server.descriptors() > open {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
