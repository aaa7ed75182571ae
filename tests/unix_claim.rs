//! Many processes race for a name: exactly one gets it, and no server loses it. The processes are
//! real, since the kernel decides these races.
//!
//! `SOCKPIPE_FULL=1` runs the full counts.
#![cfg(unix)] // On Windows the system itself gives a name to the first instance.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::process::Running;
use common::unix::{
    ask, command, count as number, finish, full, helper, listening, output, rounds, strace, until,
};
use common::{Backend, Os, PATIENCE, unique_name};
use rustix::process::geteuid;
use sockpipe::Endpoint;

/// Processes that bind a name at the same moment, and their outcomes.
struct Race {
    rivals: Vec<Child>,
    winners: Vec<u32>,
    in_use: usize,
    other: Vec<String>,
}

impl Race {
    fn run(path: &str, rivals: usize) -> Self {
        // All rivals wait for the end of one socket, which they see at the same time, and report on
        // the other.
        let (start, waiting) = UnixStream::pair().expect("a pair");
        let (reports, reporting) = UnixStream::pair().expect("a pair");
        reports.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let share = |end: &UnixStream| Stdio::from(OwnedFd::from(end.try_clone().expect("a copy")));
        let rivals = (0..rivals).map(|_| {
            let mut rival = helper(&["once", path]);
            rival.stdin(share(&waiting)).stdout(share(&reporting)).stderr(Stdio::inherit());
            rival.spawn().expect("a process")
        });
        let mut race = Self { rivals: rivals.collect(), winners: vec![], in_use: 0, other: vec![] };
        drop((waiting, reporting));
        let mut lines = BufReader::new(reports).lines().map(|line| line.expect("a report"));
        for _ in &race.rivals {
            let line = lines.next().expect("a rival that is ready");
            assert!(line.starts_with("ready "), "{line}");
        }
        drop(start);
        for _ in &race.rivals {
            let line = lines.next().expect("an outcome");
            match line.split_once(' ') {
                Some(("won", id)) => race.winners.push(id.parse().expect("a process id")),
                Some(("lost", why)) if why.starts_with("AddrInUse LiveServer: ") => {
                    race.in_use += 1;
                }
                _ => race.other.push(line),
            }
        }
        race
    }

    #[track_caller]
    fn assert_one_won(&self, os: &Os) {
        assert_eq!(self.other, [""; 0]);
        assert_eq!((self.winners.len(), self.in_use), (1, self.rivals.len() - 1));
        UnixStream::connect(os.endpoint()).expect("the winner listens");
        let name = Path::new(os.endpoint()).file_name().expect("a name").to_string_lossy();
        assert_eq!(os.files(), [format!(".{name}.lock"), name.into_owned()]);
        let lock = os.dir().join(&os.files()[0]);
        let holder = fs::read_to_string(lock).expect("a lock file");
        let holder = holder.split(' ').next().map(str::trim);
        assert_eq!(holder, Some(&*self.winners[0].to_string()));
    }
}

impl Drop for Race {
    /// Kills the processes that are left, so that the name stays as after a crash.
    fn drop(&mut self) {
        for rival in &mut self.rivals {
            let _ = rival.kill();
            let _ = rival.wait();
        }
    }
}

/// A name whose path is as long as a socket address allows.
fn with_a_long_name() -> Os {
    let os = Os::new();
    let limit = if cfg!(all(target_os = "linux", not(sockpipe_posix))) { 107 } else { 103 };
    let length = limit - os.dir().as_os_str().len() - 1;
    os.named(&"n".repeat(length))
}

/// Each round runs with a free name, and again with the dead socket of the first winner.
#[test]
fn one_of_many_processes_binds_a_name() {
    let (rivals, count) = (50, rounds(20, 200));
    let started = Instant::now();
    for _ in 0..count {
        let os = Os::new();
        Race::run(os.endpoint(), rivals).assert_one_won(&os);
        Race::run(os.endpoint(), rivals).assert_one_won(&os);
    }
    let took = started.elapsed();
    println!("{rivals} processes, {count} rounds fresh and stale: one winner each, {took:.1?}");
}

#[test]
fn one_of_many_processes_binds_a_long_name() {
    let (rivals, count) = (50, rounds(2, 50));
    for _ in 0..count {
        let os = with_a_long_name();
        Race::run(os.endpoint(), rivals).assert_one_won(&os);
        Race::run(os.endpoint(), rivals).assert_one_won(&os);
    }
    println!("{rivals} processes, {count} rounds with a long name: one winner each");
}

#[test]
fn a_killed_server_starts_again_every_time() {
    let count = rounds(30, 300);
    let start = |arguments: &[&str], os: &Os| {
        let started = Instant::now();
        let (server, _) = listening(helper(arguments));
        UnixStream::connect(os.endpoint()).expect("it listens");
        let took = started.elapsed();
        server.crash();
        took
    };
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    // What the program itself takes, without the crate, on this machine at that time.
    let foreign = || {
        let os = Os::new();
        start(&["raw-server", os.endpoint(), "5"], &os)
    };

    for os in [Os::new(), with_a_long_name()] {
        let server = ["server", os.endpoint()];
        let first = start(&server, &os);
        let restart = || {
            UnixStream::connect(os.endpoint()).expect_err("the last server left a dead socket");
            assert_eq!(os.files().len(), 2, "a socket and its lock");
            start(&server, &os)
        };
        let (mut times, mut others) = (Vec::new(), Vec::new());
        for round in 0..count {
            times.push(restart());
            if round % 3 == 0 {
                others.push(foreign());
            }
        }
        let (usual, longest) = (median(&mut times), times[times.len() - 1]);
        let (other, others_longest) = (median(&mut others), others[others.len() - 1]);
        println!(
            "{count} restarts after kill -9: median {usual:.1?}, longest {longest:.1?}; \
             a first start: {first:.1?}; without the crate: {other:.1?}, {others_longest:.1?}"
        );
        assert!(usual < other + Duration::from_millis(100), "{usual:?}, {other:?}");
        let most = others_longest + Duration::from_secs(2);
        assert!(longest < most, "{longest:?}, {others_longest:?}");
        let (mut server, _) = listening(helper(&["server", os.endpoint()]));
        command(&mut server, "drop");
        assert_eq!(finish(server), ["dropped"]);
        assert_eq!(os.files(), [""; 0]);
    }
}

/// Clients connect all the time while servers replace dead sockets. A sockpipe client that waits
/// for a server gets no error. A foreign client may find no socket, or one that does not listen
/// yet.
#[test]
fn clients_that_wait_meet_no_error_during_a_takeover() {
    let count = rounds(200, 500);
    let os = Os::new();
    // This leaves a dead socket, so that the name exists from the start.
    output(helper(&["takeovers", os.endpoint(), "1"]));
    let foreign = Running::start(helper(&["raw-hammer", os.endpoint()]));
    assert_eq!(foreign.next_line(), "hammering");
    let ours = Running::start(helper(&["hammer", os.endpoint()]));
    assert_eq!(ours.next_line(), "hammering");
    output(helper(&["takeovers", os.endpoint(), &count.to_string()]));
    // Where the system does not report who holds a socket, `bind` does not take one without a lock
    // file for dead at once.
    let path = Endpoint::try_from(Path::new(os.endpoint())).expect("a path");
    path.resolve().expect("a place")[0].remove_stale().expect("a dead socket");
    let (last, _) = listening(helper(&["server", os.endpoint()]));
    let (foreign, ours) = (finish(foreign).concat(), finish(ours).concat());
    finish(last);
    println!("{count} takeovers: foreign {foreign}; ours {ours}");
    assert_eq!((number(&foreign, "denied"), number(&ours, "failed")), (0, 0), "{foreign} {ours}");
    assert!(number(&foreign, "connected") > 0 && number(&ours, "connected") > 0, "{ours}");
}

/// Sixteen processes bind the name, keep it for up to 2 ms, and release it or crash.
#[test]
fn a_server_keeps_its_name_among_rivals() {
    let mut limit = Duration::from_secs(if full() { 10 } else { 2 });
    let os = Os::new();
    let (mut kept, mut crashes) = (0, 0);
    let started = Instant::now();
    while (kept <= 50 || crashes <= 10) && started.elapsed() < 2 * PATIENCE {
        let end = Instant::now() + limit;
        // On a busy machine the rivals may not meet in the first round.
        limit *= 2;
        let rival = |seed: u32| {
            let left = end.saturating_duration_since(Instant::now()).as_millis().to_string();
            Running::start(helper(&["churn", os.endpoint(), &left, &seed.to_string()]))
        };
        // One thread starts them all. Under qemu, a process that starts while other threads work
        // can wait forever for a lock of theirs.
        let mut rivals: Vec<_> = (0..16).map(rival).collect();
        while !rivals.is_empty() {
            let mut ended = None;
            until("a rival has ended", || {
                let has_ended = |rival: &mut Running| rival.child.try_wait().expect("a child");
                ended = rivals.iter_mut().position(|rival| has_ended(rival).is_some());
                ended.is_some()
            });
            let (status, out, err) = rivals.swap_remove(ended.expect("a rival")).wait();
            let wrong: Vec<_> = out.iter().filter(|line| *line != "k").chain(&err).collect();
            assert_eq!(wrong, [""; 0], "it lost its name, or met another error");
            kept += out.len();
            crashes += u32::from(!status.success());
            if Instant::now() < end {
                rivals.push(rival(1000 + crashes));
            }
        }
    }
    let limit = started.elapsed();
    println!(
        "16 processes for {limit:.0?}: had the name {kept} times, {crashes} crashes, lost it 0"
    );
    assert!(kept > 50 && crashes > 10, "nothing was tried: {kept} {crashes}");
    // The last process may have crashed. The next server binds the name and leaves no file.
    let (mut server, _) = listening(helper(&["server", os.endpoint()]));
    command(&mut server, "drop");
    assert_eq!(finish(server), ["dropped"]);
    assert_eq!(os.files(), [""; 0]);
}

/// The server dies at each call of `bind`. It leaves at most the socket and its lock file.
#[test]
fn a_server_killed_while_it_binds_leaves_the_name_to_the_next() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for call in ["flock", "pwrite64", "socket", "unlinkat", "bind", "listen"] {
        let os = Os::new();
        for stale in [false, true] {
            if call == "unlinkat" {
                listening(helper(&["server", os.endpoint()])).0.crash();
            }
            let inject = format!("inject={call}:signal=KILL");
            let server = helper(&["server", os.endpoint()]);
            let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
            let (status, out, _) = Running::start(server).wait();
            assert!(!status.success() && out.is_empty(), "{call}, {stale}: {out:?}");
            let mut left = os.files();
            left.retain(|name| name != ".s.sock.lock" && name != "s.sock");
            assert_eq!(left, [""; 0], "{call}, {stale}");
            listening(helper(&["server", os.endpoint()])).0.crash();
        }
        let (mut server, _) = listening(helper(&["server", os.endpoint()]));
        command(&mut server, "drop");
        assert_eq!(finish(server), ["dropped"]);
        println!("killed at {call}: the next starts, and nothing is left");
        assert_eq!(os.files(), [""; 0], "{call}");
    }
}

/// A rival opens the lock file just before its holder removes it, and then locks the removed file.
/// The next server makes a new lock file, which counts.
#[test]
fn a_rival_that_locked_a_removed_lock_file_does_not_get_the_name() {
    let os = Os::new();
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let (mut holder, _) = listening(helper(&["server", os.endpoint()]));
    // strace delays the rival by four seconds, while the holder leaves and the next server starts.
    let late = helper(&["server", os.endpoint()]);
    let options = ["-e", "trace=openat,flock", "-e", "inject=flock:delay_enter=4000000:when=1"];
    let Some(late) = strace(&log, &options, &late) else { return };
    let late = Running::start(late);
    until("it has opened the lock file", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains(".s.sock.lock\""))
    });
    command(&mut holder, "drop");
    assert_eq!(finish(holder), ["dropped"]);
    let (mut next, _) = listening(helper(&["server", os.endpoint()]));
    let (_, out, _) = late.wait();
    assert!(out[0].starts_with("AddrInUse LiveServer: "), "{out:?}");
    assert!(fs::read_to_string(&log).expect("a log").matches(" flock(").count() > 1);
    // The rival found the new lock held, and did not connect.
    assert_eq!(ask(&mut next, "stats"), "accepted 0 refused 0 pauses 0");
    command(&mut next, "drop");
    assert_eq!(finish(next), ["dropped"]);
    assert_eq!(os.files(), [""; 0]);
}

/// A signal kills this process when it writes to a file.
#[test]
fn bind_succeeds_in_a_process_that_may_write_no_files() {
    let os = Os::new();
    let server = helper(&["server", os.endpoint()]);
    let limited = ["-c", "ulimit -f 0; exec \"$0\" \"$@\""];
    let (mut server, _) = listening(common::unix::through("sh", &limited, &server));
    assert_eq!(ask(&mut server, "stats"), "accepted 0 refused 0 pauses 0");
    command(&mut server, "drop");
    assert_eq!(finish(server), ["dropped"]);
    assert_eq!(os.files(), [""; 0]);

    // With room for the lock file, the next server's error names the process that holds the name.
    let limited = ["-c", "ulimit -f 1; exec \"$0\" \"$@\""];
    let server = helper(&["server", os.endpoint()]);
    let (server, id) = listening(common::unix::through("sh", &limited, &server));
    let refused = output(helper(&["server", os.endpoint()])).concat();
    assert!(refused.contains(&format!("pid {id}")), "{refused}");
    finish(server);
}

/// Whether portable names depend on `XDG_RUNTIME_DIR`. macOS has one directory per user instead.
fn has_runtime_directories() -> bool {
    let has = !cfg!(target_vendor = "apple");
    if !has {
        println!("not run: a portable name has one address on this system");
    }
    has
}

/// Clients try several directories for a portable name, so a server in any of them holds it. A
/// server that cron started, for example, has another directory than one in a session.
#[test]
fn bind_refuses_a_portable_name_held_in_another_of_its_directories() {
    if !has_runtime_directories() {
        return;
    }
    let (os, name) = (Os::new(), unique_name());
    let started = |in_session: bool| {
        let mut server = helper(&["server", &name]);
        server.env_remove("XDG_RUNTIME_DIR");
        if in_session {
            server.env("XDG_RUNTIME_DIR", os.dir());
        }
        server
    };
    let (mut first, _) = listening(started(false));
    let refused = output(started(true)).concat();
    assert!(refused.starts_with("AddrInUse LiveServer: ") && refused.contains(&name), "{refused}");
    assert!(refused.contains(&format!("pid {}", first.child.id())), "{refused}");
    assert_eq!(os.files(), [""; 0]);
    command(&mut first, "drop");
    assert_eq!(finish(first), ["dropped"]);
    let (mut second, _) = listening(started(true));
    assert_eq!(os.files(), [format!(".{name}.sock.lock"), format!("{name}.sock")]);
    command(&mut second, "drop");
    assert_eq!(finish(second), ["dropped"]);
}

/// Two paths to one directory count as one place.
#[test]
fn a_portable_name_binds_in_a_directory_with_two_paths() {
    if !has_runtime_directories() {
        return;
    }
    let (dir, name) = (tempfile::tempdir().expect("a directory"), unique_name());
    let end = |mut server: Running| {
        command(&mut server, "drop");
        assert_eq!(finish(server), ["dropped"]);
    };
    // A server makes the last of these directories where the system has none.
    let mut server = helper(&["server", &name]);
    server.env_remove("XDG_RUNTIME_DIR");
    end(listening(server).0);
    let user = geteuid().as_raw();
    let places = [format!("/run/user/{user}"), format!("/tmp/sockpipe-{user}")];
    let target = places.iter().find(|dir| Path::new(dir).is_dir()).expect("a directory");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(target, &link).expect("a link");
    let mut server = helper(&["server", &name]);
    server.env("XDG_RUNTIME_DIR", &link);
    end(listening(server).0);
}
