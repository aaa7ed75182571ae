//! Peers that are suspended, and processes that may not use memory.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sockpipe::{Listener, SharedMemory, SpinPolicy, Stream, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::by_hand::*;
use super::kills::{descriptors, mapped};
use super::offers::{bell, between_data, client_and_socket};
use crate::common::unix::strace;
use crate::common::{Backend, Os, argument, helper_command, run_alone, spawn_helper, within};
use crate::{connected, exchange, listening};

#[tokio::test]
async fn a_suspended_peer_makes_a_writer_wait_and_loses_nothing() {
    let os = Os::new();
    let mut listener =
        Listener::bind_with(os.endpoint(), &listening(SharedMemory::Eager)).expect("a name");
    let mut child = spawn_helper("helper_echoes_until_killed", os.endpoint());
    let pid = Pid::from_child(&child);
    let mut stream = within(listener.accept()).await.expect("a client");
    let mut byte = [7; 64];
    while stream.transport() != Transport::SharedMemory {
        within(stream.write_all(&byte)).await.expect("a write");
        within(stream.read_exact(&mut byte)).await.expect("a read");
    }

    kill_process(pid, Signal::STOP).expect("a suspension");
    let block: Vec<u8> = (0..4096_u32).map(|at| (at * 7 / 3) as u8).collect();
    let mut sent = Vec::new();
    // The ring holds 256 KiB. Then the writer waits.
    let full = within(async {
        while let Ok(written) = timeout(Duration::from_millis(200), stream.write(&block)).await {
            sent.extend_from_slice(&block[..written.expect("a write")]);
        }
        sent.len()
    });
    assert!(full.await >= 256 * 1024);
    let (mut one, mut other) = connected(SharedMemory::Eager, SpinPolicy::Off).await;
    within(exchange(&mut one, &mut other, 64)).await;

    kill_process(pid, Signal::CONT).expect("it goes on");
    let mut got = vec![0; sent.len()];
    within(stream.read_exact(&mut got)).await.expect("what it echoes");
    assert!(got == sent, "other bytes");
    child.kill().expect("a kill");
    child.wait().expect("an end");
}

/// The limits apply to a whole process, so each runs in its own.
#[test]
fn a_process_that_may_have_no_memory_stays_on_its_sockets() {
    for (limit, transport) in [
        ("none", Transport::SharedMemory),
        ("files", Transport::Socket),
        ("descriptors", Transport::Socket),
        ("addresses", Transport::Socket),
    ] {
        let helper = helper_command("shared_memory::pressure::helper_talks_without_memory", limit);
        assert_eq!(ended_on(helper), transport, "{limit}");
    }
}

/// Runs the helper, and returns the transport that [`say`] printed.
fn ended_on(mut helper: Command) -> Transport {
    let output = helper.output().expect("a process");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {out} {err}", output.status);
    if out.contains(IN_MEMORY) {
        return Transport::SharedMemory;
    }
    assert!(out.contains(ON_SOCKETS), "{out} {err}");
    Transport::Socket
}

const IN_MEMORY: &str = "both ends are in memory";
const ON_SOCKETS: &str = "both ends are on their sockets";

fn say(client: &Stream, server: &Stream) {
    match (client.transport(), server.transport()) {
        (Transport::SharedMemory, Transport::SharedMemory) => println!("{IN_MEMORY}"),
        (Transport::Socket, Transport::Socket) => println!("{ON_SOCKETS}"),
        transports => panic!("{transports:?}"),
    }
}

/// The helper of the test above.
#[tokio::test]
async fn helper_talks_without_memory() {
    let Some(limit) = argument() else { return };
    let (mut client, mut server) = connected(SharedMemory::Auto, SpinPolicy::Off).await;
    within(exchange(&mut client, &mut server, 1)).await;
    match &*limit {
        "none" => {}
        "files" => restrict(Resource::Fsize, 64 * 1024),
        "descriptors" => restrict(Resource::Nofile, 3),
        _ => restrict(Resource::As, addresses() + 128 * 1024),
    }
    for _ in 0..64 {
        within(exchange(&mut client, &mut server, 64)).await;
    }
    say(&client, &server);
}

/// The calls on the way into memory that fail, with the error and the first call that fails. The
/// server's calls come first, and each side maps its memory in nine slices.
const FAILURES: [(&str, &str, u32); 8] = [
    ("memfd_create", "EMFILE", 1),
    ("ftruncate", "ENOMEM", 1),
    ("madvise", "ENOMEM", 1),
    ("madvise", "ENOMEM", 9),
    ("sendmsg", "ETOOMANYREFS", 1),
    ("fstatfs", "EPERM", 1),
    ("madvise", "ENOMEM", 10),
    ("madvise", "ENOMEM", 18),
];

#[test]
fn a_call_that_fails_on_the_way_into_memory_leaves_the_stream_on_its_socket() {
    let logs = tempfile::tempdir().expect("a directory");
    let run = |options: &[&str]| {
        let helper =
            helper_command("shared_memory::pressure::helper_talks_without_calls", "traced");
        let mut command = strace(&logs.path().join("log"), options, &helper)?;
        command.env("SOCKPIPE_TEST_HELPER", "traced");
        Some(ended_on(command))
    };
    let Some(transport) = run(&["-e", "trace=madvise"]) else { return };
    assert_eq!(transport, Transport::SharedMemory, "nothing fails");
    for (call, error, from) in FAILURES {
        // On a processor of 32 bits some names end in 64.
        let calls = format!("/^{call}(64)?$");
        let (trace, inject) =
            (format!("trace={calls}"), format!("inject={calls}:error={error}:when={from}+"));
        let transport = run(&["-e", &trace, "-e", &inject]);
        assert_eq!(transport, Some(Transport::Socket), "{call} {from}");
    }
}

/// The helper of the test above. It leaves nothing behind, whichever call fails.
#[tokio::test]
async fn helper_talks_without_calls() {
    if argument().is_none() {
        return;
    }
    let before = descriptors();
    let (mut client, mut server) = connected(SharedMemory::Eager, SpinPolicy::Off).await;
    for _ in 0..64 {
        within(exchange(&mut client, &mut server, 64)).await;
    }
    say(&client, &server);
    drop((client, server));
    assert_eq!((mapped(), descriptors()), (0, before));
}

#[test]
fn an_offer_without_room_for_its_descriptors_leaves_no_byte_in_the_data() {
    run_alone("shared_memory::pressure::helper_has_no_room_for_an_offer");
}

/// The helper of the test above.
#[tokio::test]
async fn helper_has_no_room_for_an_offer() {
    if argument().is_none() {
        return;
    }
    for room in [0, 1] {
        let (mut client, mut socket) = client_and_socket().await;
        let (_here, there) = bell();
        let fds = (memory(SIZE, SEALS), there.into());
        let free = std::fs::File::open("/").expect("a directory").as_raw_fd();
        let before = getrlimit(Resource::Nofile).current.expect("a limit");
        restrict(Resource::Nofile, free as u64 + room);
        let got = between_data(&mut client, &mut socket, &fds).await;
        restrict(Resource::Nofile, before);
        assert_eq!(got, b"beforeafter", "room for {room}");
    }
}

fn restrict(resource: Resource, most: u64) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: Some(most), maximum }).expect("a limit");
}

/// Returns how many bytes of address space this process uses.
fn addresses() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
