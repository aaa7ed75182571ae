//! `bind` whose system calls fail: on a full disk, on a read-only one, without descriptors. It
//! fails with an error that names the endpoint, or succeeds where the call is optional. It leaves
//! no file behind, and the next server starts.
#![cfg(unix)] // Windows makes no files.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::process::{Running, is_here};
use common::unix::{
    can_unshare, command, finish, helper, listening, on_linux, strace, through, with_linux_backend,
};
use common::{Backend, Os};

/// The helper's first line: an error of its `bind` or `connect`, or `listening` without the number.
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

/// Each call of `bind` fails in turn, with the errors that its manual page lists.
#[test]
fn bind_reports_each_failing_call_and_leaves_no_file() {
    // `Unsupported`, but not with the oldest Rust.
    let unsupported = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP).kind();
    let unsupported = format!("{unsupported:?}");
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
        ("listen", "EOPNOTSUPP", &unsupported),
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
            // Once the new socket exists, `bind` has removed the dead one with its lock file. It
            // leaves a lock file that it could not lock.
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

/// A sandbox such as systemd's `RestrictAddressFamilies=AF_UNIX` has no netlink sockets, by which
/// `bind` asks who has a socket.
#[test]
fn bind_leaves_a_server_that_does_not_listen_yet_alone_where_the_kernel_reports_no_sockets() {
    if !with_linux_backend("a way to ask who has a socket") {
        return;
    }
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let os = Os::new();
    let kind = rustix::net::SocketType::STREAM;
    let server = rustix::net::socket(rustix::net::AddressFamily::UNIX, kind, None);
    let server = server.expect("a socket");
    let address = rustix::net::SocketAddrUnix::new(os.endpoint()).expect("an address");
    rustix::net::bind(&server, &address).expect("a free name");

    let inject = ["-e", "inject=sendto,?send:error=EPERM"];
    let Some(second) = strace(&log, &inject, &helper(&["server", os.endpoint()])) else { return };
    let line = run(second);
    assert!(fs::read_to_string(&log).expect("a log").contains("(INJECTED)"), "nothing was asked");
    assert!(line.starts_with("AddrInUse UnprovenSocket: "), "{line}");
    assert_eq!(os.files(), ["s.sock"]);
}

/// Clients do not depend on the process id in the lock file, nor on the removal of files.
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

/// Each round allows one descriptor more. `bind` fails until there are enough.
#[test]
fn bind_without_descriptors_fails_and_names_the_directory() {
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
            // These descriptors are too few for the runtime or for the program itself.
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

#[test]
fn connect_without_descriptors_fails_and_names_the_endpoint() {
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

/// Without the lock it cannot find out whether a server holds the name.
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

/// Mounts a tmpfs at the endpoint's directory, runs `script` there, and then the helper.
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

/// The option for a file system with room for `count` files.
fn files(count: u32) -> String {
    format!("nr_inodes={}", count + 1)
}

#[test]
fn bind_on_a_full_disk_fails_and_leaves_no_file() {
    let os = Os::new();
    // There is room for no file, then for the lock file only, then for both files.
    let Some((line, left)) = in_tmpfs_said(&os, &files(0), "true") else { return };
    assert!(line.starts_with("StorageFull Os: ") && line.contains("lock"), "{line}");
    assert!(line.contains("choose another directory"), "{line}");
    assert_eq!(left, "");
    let (line, left) = in_tmpfs_said(&os, &files(1), "true").expect("as before");
    assert!(line.starts_with("StorageFull Os: "), "{line}");
    assert_eq!(left, "");
    let (line, left) = in_tmpfs_said(&os, &files(2), "true").expect("as before");
    assert_eq!((&*line, &*left), ("listening", ""));
    // Now files can be made but not written, which is enough for a listener.
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
    // The disk becomes read-only after a crash, and the files that the crash left stay.
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
