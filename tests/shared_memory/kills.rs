//! A peer is killed at each step of the way into memory.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use common::unix::{on_linux, strace, until};

pub(crate) fn pattern(at: usize) -> u8 {
    // The product may not fit into 32 bits.
    (at.wrapping_mul(31).wrapping_add(at / 251)) as u8
}

/// Writes the pattern and checks the peer's, until both directions have ended. It leaves a peer
/// that has sent `most` bytes.
pub(crate) async fn talk(stream: &Stream, most: usize) -> (usize, usize) {
    let writing = async {
        let (mut at, mut step) = (0, 1);
        loop {
            step = step * 7 % 5003;
            let part: Vec<u8> = (at..at + step).map(pattern).collect();
            match (&*stream).write_all(&part).await {
                Ok(()) => at += part.len(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
                    return at;
                }
            }
        }
    };
    let reading = async {
        let (mut at, mut buffer) = (0, vec![0; 10_000]);
        while at < most {
            let length = (&*stream).read(&mut buffer).await.expect("bytes or the end");
            if length == 0 {
                break;
            }
            assert!(buffer[..length].iter().zip(at..).all(|(byte, at)| *byte == pattern(at)));
            at += length;
        }
        at
    };
    let mut writing = Box::pin(writing);
    // In a fixed order, the first would use up the task's budget where it always has something to
    // do, and the second would have none.
    let read = tokio::select! {
        read = reading => read,
        written = &mut writing => return (written, 0),
    };
    if read >= most {
        return (most, read);
    }
    (writing.await, read)
}

/// The helper is one side of a conversation.
#[tokio::test]
async fn helper_talks_until_killed() {
    let Some(argument) = argument() else { return };
    let (role, endpoint) = argument.split_once(' ').expect("a role and a name");
    let stream = if role == "server" {
        let options = listening(SharedMemory::Eager);
        Listener::bind_with(endpoint, &options).expect("a name").accept().await
    } else {
        Stream::connect_with(endpoint, &connecting(SharedMemory::Eager)).await
    };
    talk(&stream.expect("a peer"), usize::MAX).await;
}

/// Starts the helper. Returns the process and a stream to it, or no stream if it died before.
async fn meet(role: &str, endpoint: &str, mut command: Command) -> (Option<Stream>, Child) {
    let options = listening(SharedMemory::Eager);
    let listener = (role == "client").then(|| Listener::bind_with(endpoint, &options));
    let mut listener = listener.transpose().expect("a name");
    let mut child = command.spawn().expect("a process");
    let moment = Duration::from_millis(20);
    let stream = within(async {
        loop {
            let dead = child.try_wait().expect("a child").is_some();
            let stream = match &mut listener {
                Some(listener) => timeout(moment, listener.accept()).await.ok(),
                None => {
                    let options = connecting(SharedMemory::Eager).wait_for_server(moment);
                    Some(Stream::connect_with(endpoint, &options).await)
                }
            };
            if let Some(Ok(stream)) = stream {
                return Some(stream);
            }
            if dead {
                return None;
            }
        }
    });
    (stream.await, child)
}

/// The calls that a side makes on its way into memory, and the most times that it makes them.
const STEPS: [(&str, &str, u32); 14] = [
    ("client", "bind", 1),
    ("client", "recvmsg", 6),
    ("client", "fstatfs", 2),
    ("client", "getsockopt", 5),
    ("client", "madvise", 9),
    ("client", "sendto", 4),
    ("client", "munmap", 2),
    ("server", "getpeername", 2),
    ("server", "memfd_create", 1),
    ("server", "ftruncate", 1),
    ("server", "madvise", 9),
    ("server", "sendmsg", 2),
    ("server", "sendto", 4),
    ("server", "recvmsg", 3),
];

pub(crate) fn mapped() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("the process's memory");
    maps.lines().filter(|line| line.contains("memfd:sockpipe")).count()
}

pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

/// The helper that stays alive. It has its own process because it counts the process's resources.
#[tokio::test]
async fn helper_outlives_its_peers() {
    if argument().is_none() {
        return;
    }
    let logs = tempfile::tempdir().expect("a directory");
    let before = descriptors();
    let (mut met, mut killed, mut rounds) = (0, 0, 0);
    for (role, call, most) in STEPS {
        for number in 1..=most {
            let os = Os::new();
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let trace = format!("trace={call}");
            let name = format!("{role} {}", os.endpoint());
            let helper = helper_command("shared_memory::kills::helper_talks_until_killed", &name);
            let options = ["-e", &trace, "-e", &inject];
            let log = logs.path().join("log");
            let Some(mut command) = strace(&log, &options, &helper) else { return };
            command.env("SOCKPIPE_TEST_HELPER", &name).stdout(Stdio::null());
            let (stream, mut child) = meet(role, os.endpoint(), command).await;
            if let Some(stream) = stream {
                within(talk(&stream, 300_000)).await;
                met += 1;
            }
            killed += u32::from(!child.wait().expect("an end").success());
            rounds += 1;
        }
    }
    // Kills the peer at any moment while the stream is hot.
    for round in 0..20 {
        let os = Os::new();
        let role = if round % 2 == 0 { "client" } else { "server" };
        let name = format!("{role} {}", os.endpoint());
        let mut helper = helper_command("shared_memory::kills::helper_talks_until_killed", &name);
        helper.stdout(Stdio::null());
        let (stream, mut child) = meet(role, os.endpoint(), helper).await;
        let stream = stream.expect("a peer");
        let kill = async {
            tokio::time::sleep(Duration::from_micros(round * 300)).await;
            child.kill().expect("a kill");
        };
        within(async { tokio::join!(talk(&stream, usize::MAX), kill) }).await;
        child.wait().expect("an end");
    }
    println!("{rounds} runs: {met} connected, {killed} were killed at their step");
    assert!(met > rounds / 2 && killed > rounds / 2);
    until("no memory", || mapped() == 0);
    until("no descriptor", || descriptors() <= before);
}

#[tokio::test]
async fn a_peer_killed_at_any_step_is_an_end_and_leaves_nothing() {
    if !on_linux("strace") {
        return;
    }
    run_alone("shared_memory::kills::helper_outlives_its_peers");
}

/// Each send asks for no signal and for no wait. SIGPIPE would kill some programs, and a peer that
/// reads nothing would block the call.
#[tokio::test]
async fn sends_neither_raise_a_signal_nor_wait() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let mut bells = 0;
    for role in ["client", "server"] {
        let os = Os::new();
        let name = format!("{role} {}", os.endpoint());
        let helper = helper_command("shared_memory::kills::helper_talks_until_killed", &name);
        let options = ["-e", "trace=sendto,sendmsg,socketpair"];
        let Some(mut command) = strace(&log, &options, &helper) else { return };
        command.env("SOCKPIPE_TEST_HELPER", &name).stdout(Stdio::null());
        let (stream, mut child) = meet(role, os.endpoint(), command).await;
        within(talk(&stream.expect("a peer"), 300_000)).await;
        assert!(child.wait().expect("an end").success());

        let calls = fs::read_to_string(&log).expect("a log");
        let sends =
            calls.lines().filter(|call| call.contains("sendto(") || call.contains("sendmsg("));
        let (right, wrong): (Vec<_>, Vec<_>) =
            sends.partition(|call| call.contains("MSG_DONTWAIT") && call.contains("MSG_NOSIGNAL"));
        assert_eq!(wrong, [""; 0], "{role}");
        // A child program would keep the bell open, and a full one would block.
        let pairs = calls.lines().filter(|call| call.contains("socketpair("));
        let (_, wrong): (Vec<_>, Vec<_>) =
            pairs.partition(|call| call.contains("SOCK_CLOEXEC") && call.contains("SOCK_NONBLOCK"));
        assert_eq!(wrong, [""; 0], "{role}");
        bells += right.iter().filter(|call| call.contains("\"\\0\", 1,")).count();
    }
    assert!(bells > 0, "no bell was rung");
}
