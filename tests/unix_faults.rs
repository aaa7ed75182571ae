//! Connections survive signals, child processes and dropped futures.
#![cfg(unix)] // Signals and inherited descriptors are Unix's.

mod common;

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::process::Running;
use common::unix::{
    count, helper, listening, on_linux, output, rounds, strace, until, with_linux_backend,
};
use common::{Backend, Os, unique_name};
use rustix::process::{Pid, Signal, kill_process};
use sockpipe::Listener;

/// Rust programs ignore SIGPIPE before `main`. strace makes that call do nothing, so that this
/// program behaves like one in another language that uses the crate as a library.
#[test]
fn writing_to_a_closed_peer_raises_no_sigpipe() {
    let logs = tempfile::tempdir().expect("a directory");
    let options = ["-e", "trace=rt_sigaction", "-e", "inject=rt_sigaction:retval=0"];
    let mut died = Vec::new();
    let mut ways = vec!["plain", "vectored", "half"];
    if cfg!(feature = "blocking") {
        let blocking = ["blocking", "blocking-timed", "blocking-vectored", "blocking-descriptors"];
        ways.extend(blocking);
    }
    for way in ways {
        let writer = helper(&["closed-peers", way, "1000"]);
        let Some(writer) = strace(&logs.path().join("log"), &options, &writer) else { return };
        let (status, out, _) = Running::start(writer).wait();
        let ignored = u64::from_str_radix(&out[0], 16).expect("a mask");
        assert_eq!(ignored & 1 << 12, 0, "SIGPIPE is ignored: nothing was tried");
        println!("1000 {way} writes to closed peers, SIGPIPE at its default: {:?}", out.get(1));
        if !status.success() || out[1] != "broken 1000 other 0" {
            died.push(way);
        }
    }
    assert_eq!(died, [""; 0], "a signal, or another error");
}

/// Processes whose parent may have exited.
struct Orphans(Vec<Pid>);

impl Drop for Orphans {
    fn drop(&mut self) {
        for orphan in &self.0 {
            let _ = kill_process(*orphan, Signal::KILL);
        }
    }
}

/// The descriptors of a child, after its exec.
fn descriptors(sleep: &str) -> Vec<String> {
    let name = format!("/proc/{sleep}/comm");
    until("past the exec", || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n"));
    let open = fs::read_dir(format!("/proc/{sleep}/fd")).expect("its descriptors");
    let names = open.filter_map(|entry| {
        let entry = entry.expect("an entry");
        // A file that the dynamic loader had open may be closed by now.
        let file = fs::read_link(entry.path()).ok()?;
        let loaded = ["/usr", "/lib", "/lib64", "/etc"].iter().any(|dir| file.starts_with(dir));
        (!loaded).then(|| entry.file_name().to_string_lossy().into_owned())
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// The server starts children while it makes sockets. They hold neither a socket nor the name.
#[test]
fn children_inherit_nothing_from_a_busy_server() {
    // macOS needs two calls, and a child may start between them; `apple.rs` describes it.
    if !with_linux_backend("one call that makes a descriptor close-on-exec") {
        return;
    }
    let os = Os::new();
    let count = rounds(1000, 10_000).to_string();
    let server = Running::start(helper(&["children", os.endpoint(), &count]));
    let line = server.next_line();
    let (rounds, ids) = line.split_once(" children ").expect("children");
    let ids: Vec<&str> = ids.split(' ').collect();
    let pid = |id: &&str| Pid::from_raw(id.parse().expect("a process id")).expect("a process");
    let _orphans = Orphans(ids.iter().map(pid).collect());
    // A plain child shows which descriptors this test itself passes to its children.
    let mut plain = Command::new("sleep");
    plain.arg("1000").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let plain = Running::start(plain);
    let usual = descriptors(&plain.child.id().to_string());
    for id in &ids {
        assert_eq!(descriptors(id), usual, "child {id}");
    }
    println!("{rounds} of bind, connect and accept; {} children have nothing of it", ids.len());
    // The children outlive the server and hold neither its name nor its lock.
    server.crash();
    let refused = UnixStream::connect(os.endpoint()).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _context = runtime.enter();
    drop(Listener::bind(os.endpoint()).expect("the name of the dead"));
    assert!(fs::metadata(format!("/proc/{}", ids[0])).is_ok(), "the child is gone");
}

/// A child may start at any moment, so the call that opens a file must set close-on-exec itself: in
/// servers, in clients, and when a name is inspected or cleaned.
#[test]
fn no_file_is_opened_that_a_child_would_inherit() {
    let (home, logs) = (tempfile::tempdir(), tempfile::tempdir());
    let (home, logs) = (home.expect("a directory"), logs.expect("a directory"));
    let log = logs.path().join("log");
    let path = home.path().join("s.sock").display().to_string();
    let name = unique_name();
    listening(helper(&["server", &path])).0.crash();
    for (verb, endpoint) in [
        ("occupancy", &path),
        ("clean", &path),
        ("server", &path),
        ("server", &name),
        ("connect", &name),
    ] {
        let traced = strace(&log, &["-e", "trace=openat"], &helper(&[verb, endpoint]));
        let Some(mut traced) = traced else { return };
        // Without the variable, the crate chooses a directory and makes it if it is missing.
        traced.env_remove("XDG_RUNTIME_DIR");
        let mut running = Running::start(traced);
        drop(running.child.stdin.take());
        running.wait();

        let calls = fs::read_to_string(&log).expect("a log");
        let inherited = calls.lines().filter(|call| !call.contains("O_CLOEXEC"));
        let inherited: Vec<_> = inherited.filter(|call| call.contains("openat(")).collect();
        assert_eq!(inherited, [""; 0], "{verb} {endpoint}");
        assert!(calls.contains(".sock.lock\""), "{verb} {endpoint}: {calls}");
    }
}

/// Both ends receive a signal every millisecond.
#[test]
fn a_storm_of_signals_loses_no_round_trip() {
    let os = Os::new();
    let trips = rounds(10_000, 100_000);
    let (server, _) = listening(helper(&["server", os.endpoint(), "--alarm"]));
    let client = Running::start(helper(&["trips", os.endpoint(), &trips.to_string()]));
    assert!(client.next_line().starts_with("ready"));
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let ends = [Pid::from_child(&client.child), Pid::from_child(&server.child)];
    let (line, sent) = thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                for end in ends {
                    kill_process(end, Signal::ALARM).expect("a signal");
                }
                sent += 1;
                thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let line = client.out.recv_timeout(common::PATIENCE);
        stop.store(true, Ordering::Relaxed);
        (line.expect("the end of the trips"), storm.join().expect("a storm"))
    });
    println!("{line}; {sent} signals to each end in {:.1?}", started.elapsed());
    assert!(line.starts_with(&format!("trips {trips} wrong 0 errors 0 ")), "{line}");
    assert!(count(&line, "signals") > 0 && sent > 10, "no storm: {line}, {sent}");
}

/// The helper is a separate process, so that no other test changes its descriptors.
#[test]
fn futures_dropped_at_any_point_lose_nothing() {
    let os = Os::new();
    let times = rounds(1000, 10_000);
    let lines = output(helper(&["cancel", os.endpoint(), &times.to_string()]));
    println!("{times} of each: {}; {}", lines[0], lines[1]);
    for what in ["connects", "accepts", "reads", "writes"] {
        let mut words = lines[0].split(' ');
        let before = words.clone().position(|word| word == what).expect("a count") - 1;
        let dropped: u32 = words.nth(before).and_then(|word| word.parse().ok()).expect("a number");
        assert!(dropped > times / 50, "too few {what}: {}", lines[0]);
    }
    let number = |what| count(&lines[1], what);
    assert!(number("connected") > u64::from(times / 10), "{}", lines[1]);
    assert_eq!((number("lost"), number("wrong")), (0, 0), "{}", lines[1]);
    if on_linux("counting descriptors in /dev/fd") {
        assert_eq!(number("leaked"), 0, "{}", lines[1]);
    }
    assert_eq!(os.files(), [""; 0]);
}
