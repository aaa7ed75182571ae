//! Reads and writes cost as much as tokio's. The tests count system calls and instructions, which
//! do not depend on the machine.
#![cfg(unix)] // strace counts the calls.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::process::is_here;
use common::unix::{helper, output, strace, through, with_linux_backend};
use common::{Backend, Os};
use sockpipe::Stream;
use tokio::net::UnixStream;

type Calls = BTreeMap<String, i64>;

/// The system calls of the helper by name. `None` where there is no strace.
fn calls(arguments: &[&str]) -> Option<Calls> {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    strace(&log, &[], &helper(arguments))?;
    // The helper has one thread. Under qemu there is another, whose calls are qemu's own.
    let log_file = log.to_str().expect("UTF-8");
    output(through("strace", &["-c", "-qq", "-o", log_file], &helper(arguments)));
    let table = fs::read_to_string(log).expect("a log");
    // The columns are % time, seconds, usecs/call, calls, errors (only if any), and the name.
    let lines = table.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (calls, name) = (words.get(3)?.parse().ok()?, *words.last()?);
        // Calls of the allocator do not count, and neither does how qemu wakes its thread. The
        // helper itself never waits for a lock.
        let others = ["brk", "mmap", "munmap", "futex", "total"].contains(&name);
        (!others).then(|| (name.to_owned(), calls))
    });
    Some(lines.collect())
}

/// The calls that `more` has in excess of `less`.
fn beyond(more: &Calls, less: &Calls) -> Calls {
    let mut beyond = more.clone();
    for (name, calls) in less {
        *beyond.entry(name.clone()).or_default() -= calls;
    }
    beyond.retain(|_, calls| *calls != 0);
    beyond
}

/// The calls of `count` operations, without those that start the program.
fn calls_of(verb: &str, whose: &str, count: u32) -> Option<Calls> {
    let run = |count: u32| {
        let os = Os::new();
        calls(&[verb, whose, os.endpoint(), &count.to_string()])
    };
    Some(beyond(&run(2 * count)?, &run(count)?))
}

#[test]
fn reads_and_writes_make_as_many_system_calls_as_tokio() {
    let Some(tokio) = calls_of("bytes", "tokio", 160) else { return };
    let sockpipe = calls_of("bytes", "sockpipe", 160).expect("strace");
    println!("160 rounds: {tokio:?}");
    let writes = ["write", "send", "sendto", "writev", "sendmsg"];
    let sent: i64 = writes.iter().filter_map(|name| tokio.get(*name)).sum();
    assert!(sent >= 160 * 4, "{tokio:?}");
    // sockpipe writes vectored by sendmsg, which can suppress SIGPIPE, and tokio by writev.
    // tokio writes by write where the Rust is old.
    // sockpipe reads by recvmsg, which reports descriptors, and tokio by recvfrom.
    let renamed = |calls: Calls| -> Calls {
        let mut renamed = Calls::new();
        for (name, calls) in calls {
            let name = match name.as_str() {
                "writev" => "sendmsg",
                "write" | "send" => "sendto",
                "read" | "recv" | "recvfrom" => "recvmsg",
                name => name,
            };
            *renamed.entry(name.to_owned()).or_default() += calls;
        }
        renamed
    };
    let (ours, theirs) = (renamed(sockpipe), renamed(tokio));
    if cfg!(sockpipe_posix) {
        // This backend tries a read before it waits, so it reads more often and waits less.
        let total = |calls: &Calls| calls.values().sum::<i64>();
        assert!(total(&ours) <= total(&theirs), "{ours:?}, {theirs:?}");
    } else {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn messages_of_a_known_length_are_read_by_the_cheaper_call() {
    if !with_linux_backend("a read that does not try before it waits") {
        return;
    }
    let Some(tokio) = calls_of("exact", "tokio", 50) else { return };
    let sockpipe = calls_of("exact", "sockpipe", 50).expect("strace");
    println!("50 rounds: {sockpipe:?}");
    // Each of the 100 reads tries once more than it reads.
    let reads = |calls: &Calls, name| calls.get(name).copied().unwrap_or_default();
    assert!(reads(&tokio, "recvfrom") >= 200, "{tokio:?}");
    assert_eq!(reads(&sockpipe, "recvfrom"), reads(&tokio, "recvfrom"));
    assert_eq!(reads(&sockpipe, "recvmsg"), 0);
}

/// The number of instructions in a round of `whose`. `None` where there is no valgrind.
fn instructions(whose: &str) -> Option<u64> {
    if !with_linux_backend("what is counted here") || !is_here("valgrind") {
        return None;
    }
    let run = |count: u32| {
        let os = Os::new();
        let log = os.dir().join("log");
        let option = format!("--log-file={}", log.display());
        let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", &option];
        let helper = helper(&["bytes", whose, os.endpoint(), &count.to_string()]);
        output(through("valgrind", &options, &helper));
        let log = fs::read_to_string(log).expect("a log");
        let (_, counted) = log.split_once("Collected : ").expect("a count");
        let counted = counted.split_whitespace().next().expect("a number");
        counted.parse::<u64>().expect("a number")
    };
    Some((run(96) - run(32)) / 64)
}

/// `scripts/instructions.sh` counts the instructions of a release build. A debug build, which
/// inlines nothing, may take `debug` times as many.
fn assert_as_few_instructions(other: &str, ours: &str, debug: f64) {
    let Some(others) = instructions(other) else { return };
    let count = instructions(ours).expect("valgrind");
    let ratio = count as f64 / others as f64;
    println!("{other}: {others} instructions a round, {ours}: {count}, {ratio:.3} times as many");
    let most = if cfg!(debug_assertions) { debug } else { 1.03 };
    assert!(ratio <= most, "{ratio:.3} times as many instructions");
}

#[test]
fn reads_and_writes_take_as_many_instructions_as_tokio() {
    assert_as_few_instructions("tokio", "sockpipe", 1.15);
}

/// The standard library is always a release build, so this test needs one too.
#[cfg(all(feature = "blocking", not(debug_assertions)))]
#[test]
fn reads_and_writes_that_block_take_as_many_instructions_as_std() {
    assert_as_few_instructions("std", "blocking", 1.03);
}

/// The state for busy polling is allocated apart, so that other streams do not pay for it.
#[test]
fn a_stream_is_at_most_32_bytes_larger_than_tokio() {
    let [ours, tokio] = [size_of::<Stream>(), size_of::<UnixStream>()];
    println!("a stream has {ours} bytes, tokio's {tokio}");
    assert!(ours <= tokio + 32);
}

#[test]
fn connect_adds_only_the_calls_that_check_the_server() {
    const COUNT: u32 = 50;
    if !with_linux_backend("a socket that is made as it is to be") {
        return;
    }
    let Some(tokio) = calls_of("connect-cost", "tokio", COUNT) else { return };
    let sockpipe = calls_of("connect-cost", "sockpipe", COUNT).expect("strace");
    let more = beyond(&sockpipe, &tokio);
    println!("{COUNT} connects: {tokio:?} by tokio, and beyond it {more:?}");
    let unexpected: Vec<_> =
        more.iter().filter(|(name, calls)| !allowed(name) && **calls > 0).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

/// Whether `connect` may make this call: it reads the server's credentials and its own user id. In
/// a debug build tokio also checks that a socket made elsewhere does not block.
fn allowed(name: &str) -> bool {
    // 32-bit systems have other names for some calls.
    ["getsockopt", "geteuid", "geteuid32"].contains(&name)
        || (cfg!(debug_assertions) && ["fcntl", "fcntl64"].contains(&name))
}
