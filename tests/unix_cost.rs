//! The byte path costs what tokio's own costs: by count, which does not depend on the machine.
#![cfg(unix)] // Counts by strace.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::unix::{helper, output, strace, with_linux_backend};
use common::{Backend, Os};

type Calls = BTreeMap<String, i64>;

/// The system calls of the helper by name. `None` where there is no strace.
fn calls(arguments: &[&str]) -> Option<Calls> {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    output(strace(&log, &["-c"], &helper(arguments))?);
    let table = fs::read_to_string(log).expect("a log");
    // % time, seconds, usecs/call, calls, errors if there were any, and the name.
    let lines = table.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (calls, name) = (words.get(3)?.parse().ok()?, *words.last()?);
        // What the allocator asks of the system is not what is counted here.
        let memory = ["brk", "mmap", "munmap", "total"].contains(&name);
        (!memory).then(|| (name.to_owned(), calls))
    });
    Some(lines.collect())
}

/// What `more` has beyond `less`.
fn beyond(more: &Calls, less: &Calls) -> Calls {
    let mut beyond = more.clone();
    for (name, calls) in less {
        *beyond.entry(name.clone()).or_default() -= calls;
    }
    beyond.retain(|_, calls| *calls != 0);
    beyond
}

/// The calls of `count` operations, without those of the start.
fn calls_of(verb: &str, whose: &str, count: u32) -> Option<Calls> {
    let run = |count: u32| {
        let os = Os::new();
        calls(&[verb, whose, os.endpoint(), &count.to_string()])
    };
    Some(beyond(&run(2 * count)?, &run(count)?))
}

#[test]
fn reads_and_writes_make_the_system_calls_that_tokio_makes() {
    let Some(tokio) = calls_of("bytes", "tokio", 160) else { return };
    let sockpipe = calls_of("bytes", "sockpipe", 160).expect("strace");
    println!("160 rounds: {tokio:?}");
    let sent: i64 =
        ["sendto", "writev", "sendmsg"].iter().filter_map(|name| tokio.get(*name)).sum();
    assert!(sent >= 160 * 4, "{tokio:?}");
    // Vectored writes are sendmsg, which can be told to raise no signal; std's are writev. Reads are
    // recvmsg, which reports that descriptors came; tokio's are recvfrom.
    let renamed = |calls: Calls| -> Calls {
        let mut renamed = Calls::new();
        for (name, calls) in calls {
            let name = match name.as_str() {
                "writev" => "sendmsg",
                "read" | "recvfrom" => "recvmsg",
                name => name,
            };
            *renamed.entry(name.to_owned()).or_default() += calls;
        }
        renamed
    };
    assert_eq!(renamed(sockpipe), renamed(tokio));
}

#[test]
fn a_connect_asks_who_the_server_is_and_no_more() {
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

/// The credentials of the server, and our own user to compare them with. In a debug build tokio
/// makes sure that a socket which it did not make does not block.
fn allowed(name: &str) -> bool {
    ["getsockopt", "geteuid"].contains(&name) || (cfg!(debug_assertions) && name == "fcntl")
}
