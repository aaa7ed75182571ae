//! A claim whose system calls fail: a full disk, a disk that cannot be written, no descriptors
//! left, and whatever else the kernel may say. Each is an error that names the endpoint, or does
//! not matter; nothing is left behind, and the next server starts.
#![cfg(unix)] // Windows makes no files.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::process::{Running, is_here};
use common::unix::{can_unshare, command, finish, helper, listening, on_linux, strace, through};
use common::{Backend, Os};

/// What the helper says of a `bind` or `connect` that failed, or `listening` with its number left
/// out; what a tool between us and it says is not of interest.
fn said(lines: &[String]) -> String {
    let line = lines.first().map_or("", String::as_str);
    if line.starts_with("listening ") { "listening".to_owned() } else { line.to_owned() }
}

fn run(command: Command) -> String {
    let mut running = Running::start(command);
    drop(running.child.stdin.take());
    let (_, out, err) = running.wait();
    let panics = err.iter().any(|line| line.contains("panicked"));
    assert!(!panics, "{err:?}");
    said(&out)
}

fn starts_and_leaves_nothing(os: &Os) {
    let (mut server, _) = listening(helper(&["server", os.endpoint()]));
    command(&mut server, "drop");
    assert_eq!(finish(server), ["dropped"]);
    assert_eq!(os.files(), [""; 0]);
}

/// Every call of a claim in turn, with the errors that its manual page has.
#[test]
fn bind_reports_each_failing_call_and_leaves_no_file() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for (call, error, kind) in [
        ("socket", "EMFILE", "Uncategorized"),
        ("socket", "ENFILE", "Uncategorized"),
        ("socket", "ENOBUFS", "Uncategorized"),
        ("socket", "ENOMEM", "OutOfMemory"),
        ("flock", "EIO", "Uncategorized"),
        ("bind", "EACCES", "PermissionDenied"),
        ("bind", "EROFS", "ReadOnlyFilesystem"),
        ("bind", "ENOSPC", "StorageFull"),
        ("bind", "EDQUOT", "QuotaExceeded"),
        ("bind", "ENOMEM", "OutOfMemory"),
        ("listen", "EOPNOTSUPP", "Unsupported"),
    ] {
        let os = Os::new();
        for stale in [false, true] {
            if stale {
                listening(helper(&["server", os.endpoint()])).0.crash();
            }
            let before = os.files();
            let inject = format!("inject={call}:error={error}");
            let server = helper(&["server", os.endpoint()]);
            let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
            let line = run(server);
            let injected = fs::read_to_string(&log).expect("a log").contains("(INJECTED)");
            assert!(injected, "{call} was not called");
            assert!(line.starts_with(&format!("{kind} Os: ")), "{call} {error}, {stale}: {line}");
            assert!(line.contains(os.endpoint()), "{call} {error}, {stale}: {line}");
            // The dead socket goes with the lock file that tells of it, once there is a new one to
            // be bound; a lock file that could not be locked is not ours to remove.
            let mut left = os.files();
            let mut expected = before;
            for names in [&mut left, &mut expected] {
                names.retain(|name| !(call == "flock" && name == ".s.sock.lock"));
            }
            let gone = matches!(call, "bind" | "listen");
            expected.retain(|_| !gone);
            assert_eq!(left, expected, "{call} {error}, {stale}");
            starts_and_leaves_nothing(&os);
        }
    }
}

/// What does not matter to those who connect: the note of who holds the lock, and the end.
#[test]
fn bind_succeeds_although_an_optional_call_fails() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for (call, error) in [
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EDQUOT"),
        ("pwrite64", "EIO"),
        ("unlinkat", "EROFS"),
        ("unlinkat", "EIO"),
    ] {
        let os = Os::new();
        let inject = format!("inject={call}:error={error}");
        let server = helper(&["server", os.endpoint()]);
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let (mut server, _) = listening(server);
        let line = run(helper(&["server", os.endpoint()]));
        assert!(line.starts_with("AddrInUse LiveServer: "), "{call} {error}: {line}");
        command(&mut server, "drop");
        assert_eq!(finish(server), ["dropped"], "{call} {error}");
        assert!(fs::read_to_string(&log).expect("a log").contains("(INJECTED)"), "{call}");
        starts_and_leaves_nothing(&os);
    }
}

/// With one descriptor more each time: an error, until there are enough.
#[test]
fn bind_without_descriptors_is_an_error() {
    if !on_linux("prlimit") || !is_here("prlimit") {
        return;
    }
    let os = Os::new();
    let mut refused = 0;
    for limit in 3..64 {
        let limited = |verb: &str| {
            let limit = format!("--nofile={limit}:{limit}");
            through("prlimit", &[&limit], &helper(&[verb, os.endpoint()]))
        };
        let mut running = Running::start(limited("server"));
        drop(running.child.stdin.take());
        let (_, out, err) = running.wait();
        match said(&out).as_str() {
            "listening" => {
                println!("{refused} limits too low for a listener, {limit} is enough");
                assert!(refused > 0, "nothing was tried");
                return starts_and_leaves_nothing(&os);
            }
            // Too few for a runtime, or for the program itself.
            "" => assert!(err.iter().all(|line| !line.contains("sockpipe/src")), "{err:?}"),
            line => {
                assert!(line.contains("(os error 24)"), "{limit}: {line}");
                assert!(line.contains(os.dir().to_str().expect("UTF-8")), "{limit}: {line}");
                refused += 1;
            }
        }
        assert_eq!(os.files(), [""; 0], "{limit}");
    }
    panic!("64 descriptors are not enough");
}

/// A client that can have no socket says so, and what it wanted.
#[test]
fn connect_without_descriptors_is_an_error() {
    let os = Os::new();
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let (_server, _) = listening(helper(&["server", os.endpoint()]));
    let client = helper(&["connect", os.endpoint()]);
    let inject = ["-e", "inject=socket:error=EMFILE"];
    let Some(client) = strace(&log, &inject, &client) else { return };
    let line = run(client);
    assert!(line.contains("cannot connect to") && line.contains(os.endpoint()), "{line}");
    assert!(line.contains("(os error 24)"), "{line}");
}

/// Whether a server has the name cannot be known then, so there is no answer.
#[test]
fn occupancy_fails_when_a_lock_cannot_be_opened() {
    let os = Os::new();
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let (server, id) = listening(helper(&["server", os.endpoint()]));
    let look = || helper(&["occupancy", os.endpoint()]);
    assert_eq!(run(look()), format!("Held {{ process: Some({id}) }}"));
    for error in ["EMFILE", "ENFILE", "ENOMEM", "EIO", "EINTR"] {
        let inject = format!("inject=openat:error={error}");
        let options = ["-P", ".s.sock.lock", "-e", &inject];
        let Some(look) = strace(&log, &options, &look()) else { return };
        let line = run(look);
        let calls = fs::read_to_string(&log).expect("a log");
        assert!(calls.contains("(INJECTED)"), "{error}: {calls}");
        assert!(line.contains("(os error ") && line.contains(os.endpoint()), "{error}: {line}");
    }
    finish(server);
}

/// The helper in a file system of its own at the endpoint's directory, after `script` there.
fn in_tmpfs(os: &Os, options: &str, script: &str) -> Option<Command> {
    if !can_unshare(&["-m"]) || !is_here("mount") {
        return None;
    }
    let dir = os.dir();
    let dir = dir.to_str().expect("UTF-8");
    let whole = format!(
        r#"set -e; mount -t tmpfs -o {options} none {dir}; cd {dir}; {script}
        set +e; "$0" "$@"; echo "left $(ls -A | tr '\n' ' ')"; exit 0"#
    );
    let server = helper(&["server", os.endpoint()]);
    Some(through("unshare", &["-m", "sh", "-c", &whole], &server))
}

fn in_tmpfs_said(os: &Os, options: &str, script: &str) -> Option<(String, String)> {
    let mut running = Running::start(in_tmpfs(os, options, script)?);
    drop(running.child.stdin.take());
    let (_, out, err) = running.wait();
    let left = out.iter().find_map(|line| line.strip_prefix("left "));
    let left = left.unwrap_or_else(|| panic!("{out:?} {err:?}")).trim().to_owned();
    Some((said(&out), left))
}

/// Room for `count` files beside the directory itself.
fn files(count: u32) -> String {
    format!("nr_inodes={}", count + 1)
}

#[test]
fn bind_on_a_full_disk_fails_and_leaves_no_file() {
    let os = Os::new();
    // None at all, for the lock file alone, and for both.
    let Some((line, left)) = in_tmpfs_said(&os, &files(0), "true") else { return };
    assert!(line.starts_with("StorageFull Os: ") && line.contains("lock"), "{line}");
    assert!(line.contains("choose another directory"), "{line}");
    assert_eq!(left, "");
    let (line, left) = in_tmpfs_said(&os, &files(1), "true").expect("as before");
    assert!(line.starts_with("StorageFull Os: "), "{line}");
    assert_eq!(left, "");
    let (line, left) = in_tmpfs_said(&os, &files(2), "true").expect("as before");
    assert_eq!((&*line, &*left), ("listening", ""));
    // Files can be made, and nothing written: who listens does not need to write.
    let fill = "head -c 1M /dev/zero >full 2>/dev/null || true";
    let (line, left) = in_tmpfs_said(&os, "size=64k", fill).expect("as before");
    assert_eq!((&*line, &*left), ("listening", "full"));
}

#[test]
fn bind_on_a_read_only_disk_fails_and_leaves_no_file() {
    let os = Os::new();
    let Some((line, left)) = in_tmpfs_said(&os, "ro", "true") else { return };
    assert!(line.starts_with("PermissionDenied NotWritable: "), "{line}");
    assert!(line.contains("Read-only") && line.contains("that you can write to"), "{line}");
    assert_eq!(left, "");
    // One that became so after a crash: what the crash left stays as it is.
    let server = helper(&["server", os.endpoint()]);
    let program = Path::new(server.get_program()).to_str().expect("UTF-8");
    let crash = format!(
        "{program} takeovers {} 1 >/dev/null; touch .s.sock.lock; mount -o remount,ro {}",
        os.endpoint(),
        os.dir().display()
    );
    let (line, left) = in_tmpfs_said(&os, "rw", &crash).expect("as before");
    assert!(line.starts_with("PermissionDenied NotWritable: "), "{line}");
    assert_eq!(left, ".s.sock.lock s.sock");
}
