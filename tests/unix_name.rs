//! A server changes its own socket and lock file only. It changes neither the target of a link that
//! somebody put in the socket's place, nor a file that is linked as the lock file.
#![cfg(unix)] // A pipe's name is not a file.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::process::{Running, Users, is_here};
use common::unix::{
    STRANGER, Standing, helper, helper_as, listening, open_to_all, set_mode, strace, through,
    until, with_linux_backend,
};
use common::{Backend, Os, PATIENCE, assert_reason, assert_says};
use rustix::fs::{FlockOperation, flock};
use sockpipe::os::unix::{ListenOptionsExt, OnNameLost};
use sockpipe::{ConnectOptions, Endpoint, ListenOptions, Listener, Occupancy, Reason, Stream};

/// The sockets in the endpoint's directory, whatever their names are.
fn sockets(os: &Os) -> Vec<PathBuf> {
    let entries = fs::read_dir(os.dir()).expect("a directory").flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    sockets.map(|entry| entry.path()).collect()
}

/// Others can write to the directory, and replace the socket right after `bind` or right before the
/// server sets the mode. The umask makes the server set it.
#[test]
fn a_link_in_place_of_the_socket_is_never_followed() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for delay in ["bind:delay_exit", "?fchmodat,?fchmodat2:delay_enter"] {
        let os = Os::new();
        let target = logs.path().join("target");
        fs::write(&target, "secret").expect("a file");
        set_mode(&target, 0o600);
        set_mode(&os.dir(), 0o777);
        let before = Standing::at(&target);

        let server = helper(&["server", os.endpoint(), "--unsafe-directory", "--everyone"]);
        let server = through("sh", &["-c", r#"umask 077; exec "$0" "$@""#], &server);
        let inject = format!("inject={delay}=3000000");
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let mut server = Running::start(server);
        drop(server.child.stdin.take());
        until("it has bound its socket", || !sockets(&os).is_empty());
        for socket in sockets(&os) {
            fs::remove_file(&socket).expect("a socket");
            symlink(&target, &socket).expect("a link");
        }

        let (_, out, err) = server.wait();
        assert_eq!(Standing::at(&target), before, "{delay}: {out:?} {err:?}");
        let said = out.concat();
        assert!(said.starts_with("PermissionDenied UnsafeDirectory: "), "{delay}: {out:?}");
        assert!(said.contains("replaced the socket") && said.contains(os.endpoint()), "{said}");
        // The server does not remove the link, which is not its own.
        let left = fs::read_dir(os.dir()).expect("a directory").flatten();
        assert_eq!(left.filter(|entry| entry.path().is_symlink()).count(), 1, "{delay}");
    }
}

/// Some file systems refuse chmod on a socket. There only a socket for its owner can be bound.
#[test]
fn bind_without_chmod_succeeds_for_a_private_socket_only() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for error in ["EINVAL", "EPERM"] {
        for (call, umask, dir) in [
            ("?fchmod", "077", 0o755),
            ("?fchmodat,?fchmodat2", "0377", 0o755),
            ("?fchmod,?fchmodat,?fchmodat2", "077", 0o755),
            ("?fchmod,?fchmodat,?fchmodat2", "022", 0o755),
            ("?fchmod,?fchmodat,?fchmodat2", "0", 0o700),
        ] {
            let os = Os::new();
            set_mode(&os.dir(), dir);
            let start = |options: &[&str]| {
                let server = helper(&[&["server", os.endpoint()], options].concat());
                let script = format!(r#"umask {umask}; exec "$0" "$@""#);
                let server = through("sh", &["-c", &script], &server);
                strace(&log, &["-e", &format!("inject={call}:error={error}")], &server)
            };
            let Some(server) = start(&[]) else { return };
            let (server, _) = listening(server);
            let mode = fs::metadata(os.endpoint()).expect("a socket").mode() & 0o777;
            assert!(mode & 0o022 == 0 || dir == 0o700, "{call} {error}: {mode:o}");
            common::unix::finish(server);
            if call == "?fchmod" || umask == "0" {
                continue;
            }

            let (_, out, _) = Running::start(start(&["--everyone"]).expect("as before")).wait();
            let said = out.concat();
            assert!(said.contains(" Os: "), "{error}: {said}");
            assert!(said.contains(os.endpoint()) && said.contains("0666"), "{said}");
            assert_eq!(os.files(), [""; 0], "{call} {error}");
        }

        // Others could enter this directory and connect.
        let os = Os::new();
        set_mode(&os.dir(), 0o755);
        let server = helper(&["server", os.endpoint()]);
        let server = through("sh", &["-c", r#"umask 0; exec "$0" "$@""#], &server);
        let inject = format!("inject=?fchmod,?fchmodat,?fchmodat2:error={error}");
        let server = strace(&log, &["-e", &inject], &server).expect("as before");
        let (_, out, _) = Running::start(server).wait();
        let said = out.concat();
        assert!(said.contains(" Os: ") && said.contains("0600"), "{error}: {said}");
        assert_eq!(os.files(), [""; 0], "{error}");
    }
}

/// `cp -al` and snapshots make such names. The file under the other name stays as it was.
#[tokio::test]
async fn a_lock_file_with_a_second_name_is_replaced_and_never_written() {
    let os = Os::new();
    let (lock, other) = (os.dir().join(".s.sock.lock"), os.dir().join("other"));
    fs::write(&other, "data").expect("a file");
    fs::hard_link(&other, &lock).expect("a link");
    let listener = Listener::bind(os.endpoint()).expect("a lock of its own");
    assert_eq!(fs::read_to_string(&other).expect("a file"), "data");
    let (one, two) = (fs::metadata(&other), fs::metadata(&lock));
    let (one, two) = (one.expect("a file"), two.expect("a lock file"));
    assert_ne!(one.ino(), two.ino());
    assert_eq!((one.nlink(), two.nlink()), (1, 1));
    drop(listener);
    assert_eq!(os.files(), ["other"]);
}

/// The holder may be a live server that took the lock before the file got a second name.
#[tokio::test]
async fn bind_refuses_a_held_lock_file_with_a_second_name() {
    let os = Os::new();
    let (lock, other) = (os.dir().join(".s.sock.lock"), os.dir().join("other"));
    fs::write(&other, "4711\n").expect("a file");
    fs::hard_link(&other, &lock).expect("a link");
    let holder = File::open(&other).expect("a file");
    flock(&holder, FlockOperation::LockExclusive).expect("a lock");
    let before = (Standing::at(&other), os.files());
    // Another program may have written that process id, so the error does not report it.
    assert_reason!(Listener::bind(os.endpoint()), Reason::LiveServer { process: None, .. });
    assert_eq!((Standing::at(&other), os.files()), before);
}

/// In such a directory another user may have made the link.
#[tokio::test]
async fn bind_refuses_a_lock_file_with_a_second_name_where_others_can_write() {
    let os = Os::new();
    let (lock, other) = (os.dir().join(".s.sock.lock"), os.dir().join("other"));
    fs::write(&other, "data").expect("a file");
    fs::hard_link(&other, &lock).expect("a link");
    set_mode(&os.dir(), 0o777);
    let before = (Standing::at(&other), os.files());
    let options = ListenOptions::new().unsafe_directory(true);
    let bound = Listener::bind_with(os.endpoint(), &options);
    let shown = lock.display().to_string();
    let error = assert_reason!(bound, Reason::ForeignOwner, os.endpoint());
    // The error names the file.
    assert_says(&error, &[&shown]);
    assert_eq!((Standing::at(&other), os.files()), before);
}

/// The server pauses while its name has no server: before `bind`, when the dead socket is removed,
/// and before `listen`.
#[tokio::test]
async fn a_client_waits_for_a_server_that_is_just_taking_the_name() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for call in ["bind", "listen"] {
        let os = Os::new();
        listening(helper(&["server", os.endpoint()])).0.crash();
        // The inode's number may be reused at once, so its times count too.
        let id = |socket: fs::Metadata| (socket.ino(), socket.ctime(), socket.ctime_nsec());
        let dead = id(fs::symlink_metadata(os.endpoint()).expect("a socket"));
        let inject = format!("inject={call}:delay_enter=400000");
        let server = helper(&["server", os.endpoint()]);
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let server = Running::start(server);
        until("the name has no server", || match fs::symlink_metadata(os.endpoint()) {
            Ok(socket) => call == "listen" && id(socket) != dead,
            Err(_) => call == "bind",
        });
        let stream = common::within(Stream::connect(os.endpoint())).await;
        drop(stream.unwrap_or_else(|error| panic!("{call}: {error}")));
        assert!(server.next_line().starts_with("listening "));
        common::unix::finish(server);
    }
}

/// Connects where no server is. A client that waited would do so for a second each time.
async fn is_refused_at_once(os: &Os) -> String {
    let (mut refused, mut fastest) = (String::new(), Duration::MAX);
    // A busy machine may stop one of them for as long.
    for _ in 0..3 {
        let started = Instant::now();
        let connected = common::within(Stream::connect(os.endpoint())).await;
        fastest = fastest.min(started.elapsed());
        refused = assert_reason!(connected, Reason::NoServer, os.endpoint()).to_string();
    }
    assert!(fastest < Duration::from_millis(500), "{fastest:?}");
    refused
}

/// A stranger's server holds a lock without a socket in a directory where everybody can make files.
#[tokio::test]
async fn a_lock_planted_by_another_user_is_ignored() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    set_mode(&os.dir(), 0o1777);
    let planted = ["server", os.endpoint(), "--ignore-lost-name"];
    let (planter, id) = listening(helper_as(&users, STRANGER, &[], &planted));
    fs::remove_file(os.endpoint()).expect("a socket");
    let path = Endpoint::try_from(Path::new(os.endpoint())).expect("a path");
    assert_eq!(
        path.resolve().expect("a place")[0].occupancy().expect("an answer"),
        Occupancy::Free
    );
    let refused = is_refused_at_once(&os).await;
    let bound = assert_reason!(Listener::bind(os.endpoint()), Reason::ForeignOwner);
    let said = format!("{refused}\n{bound}");
    assert!(!said.contains(&id.to_string()), "{said}");
    planter.crash();
}

/// The umask denies all rights. A server that was killed under it leaves such a lock file.
#[test]
fn a_start_under_a_strict_umask_leaves_a_usable_lock_file() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    chown(os.dir(), Some(STRANGER), Some(STRANGER)).expect("an owner");
    let server = || helper_as(&users, STRANGER, &[], &["server", os.endpoint()]);
    let strict = through("sh", &["-c", "umask 0777; exec \"$0\" \"$@\""], &server());
    let (first, _) = listening(strict);
    let lock = os.dir().join(".s.sock.lock");
    assert_eq!(fs::metadata(&lock).expect("a lock").mode() & 0o777, 0o600);
    first.crash();
    for mode in [0o400, 0] {
        set_mode(&lock, mode);
        let (mut server, _) = listening(server());
        assert_eq!(fs::metadata(&lock).expect("a lock").mode() & 0o777, 0o600);
        assert_eq!(common::unix::ask(&mut server, "stats"), "accepted 0 refused 0 pauses 0");
        server.crash();
    }
}

/// Another user may have linked the file there, where the system allows such links.
#[test]
fn a_linked_file_of_the_user_keeps_its_mode_as_a_lock_file() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    let (lock, other) = (os.dir().join(".s.sock.lock"), os.dir().join("other"));
    fs::write(&other, "data").expect("a file");
    fs::hard_link(&other, &lock).expect("a link");
    set_mode(&other, 0o400);
    for path in [&os.dir(), &other] {
        chown(path, Some(STRANGER), Some(STRANGER)).expect("an owner");
    }
    let before = (Standing::at(&other), os.files());
    let server = helper_as(&users, STRANGER, &[], &["server", os.endpoint()]);
    let said = common::unix::output(server).concat();
    assert!(said.starts_with("PermissionDenied NotWritable: "), "{said}");
    assert_eq!((Standing::at(&other), os.files()), before);
}

/// The user is not root.
#[test]
fn occupancy_names_the_users_own_server_as_the_holder() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    chown(os.dir(), Some(STRANGER), Some(STRANGER)).expect("an owner");
    let as_stranger = |verb: &str| helper_as(&users, STRANGER, &[], &[verb, os.endpoint()]);
    let (server, id) = listening(as_stranger("server"));
    let told = common::unix::output(as_stranger("occupancy"));
    assert_eq!(told, [format!("Held {{ process: Some({id}) }}")]);
    common::unix::finish(server);
}

/// The next server recognizes the dead socket even with another mode, and does not connect to it.
#[test]
fn bind_recognizes_a_dead_socket_of_sockpipe_without_a_connection() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let os = Os::new();
    listening(helper(&["server", os.endpoint()])).0.crash();
    set_mode(Path::new(os.endpoint()), 0o666);
    let server = helper(&["server", os.endpoint()]);
    let Some(server) = strace(&log, &["-e", "trace=connect,bind"], &server) else { return };
    common::unix::finish(listening(server).0);
    let calls = fs::read_to_string(&log).expect("a log");
    assert!(calls.contains(" bind("), "{calls}");
    if with_linux_backend("a way to ask who has a socket") {
        assert!(!calls.contains(" connect("), "{calls}");
    }
}

/// The client pauses while it asks whether a process holds the lock.
#[test]
fn a_client_that_asks_about_the_lock_does_not_hold_it() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let os = Os::new();
    listening(helper(&["server", os.endpoint()])).0.crash();
    let client = helper(&["connect", os.endpoint()]);
    let options = [
        "-e",
        "trace=flock,fcntl,?fcntl64",
        "-e",
        "inject=flock,fcntl,?fcntl64:delay_exit=60000000",
    ];
    let Some(client) = strace(&log, &options, &client) else { return };
    let client = Running::start(client);
    let has_asked = || fs::read_to_string(&log).is_ok_and(|log| log.contains("(DELAYED)"));
    until("it has asked", has_asked);
    let (server, _) = listening(helper(&["server", os.endpoint()]));
    assert_eq!(client.out.try_iter().collect::<Vec<_>>(), [""; 0], "it has asked");
    client.crash();
    common::unix::finish(server);
}

/// The second server pauses while the first one, which holds the name, dies.
#[test]
fn a_server_that_found_the_name_taken_holds_no_lock() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let os = Os::new();
    let (holder, _) = listening(helper(&["server", os.endpoint()]));
    let options = ["-e", "trace=flock", "-e", "inject=flock:delay_exit=2000000"];
    let Some(second) = strace(&log, &options, &helper(&["server", os.endpoint()])) else { return };
    let mut second = Running::start(second);
    let says = |what: &str, times: usize| {
        fs::read_to_string(&log).is_ok_and(|log| log.matches(what).count() >= times)
    };
    // `flock(` alone may be a call that has not been made yet.
    until("it is refused", || says("EAGAIN", 1));
    holder.crash();
    // A second `flock` would succeed now.
    until("it has its answer", || {
        says("flock(", 2) || second.child.try_wait().expect("a process").is_some()
    });
    let (server, _) = listening(helper(&["server", os.endpoint()]));
    let (_, out, _) = second.wait();
    assert!(out[0].starts_with("AddrInUse LiveServer: "), "{out:?}");
    common::unix::finish(server);
}

/// The server lives and has lost its socket. The client does not wait for ever.
#[tokio::test]
async fn connect_names_the_process_that_holds_a_name_without_a_socket() {
    let os = Os::new();
    let options = ListenOptions::new().on_name_lost(OnNameLost::Ignore);
    let server = Listener::bind_with(os.endpoint(), &options).expect("a free name");
    let id = std::process::id();
    fs::remove_file(os.endpoint()).expect("a socket");
    let options = ConnectOptions::new().deadline(PATIENCE);
    let started = Instant::now();
    let connected = common::within(Stream::connect_with(os.endpoint(), &options)).await;
    assert_reason!(
        connected,
        Reason::NameWithoutServer { process: Some(process), .. } if *process == id,
        os.endpoint()
    );
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    drop(server);

    // No process holds the name once the server has exited.
    is_refused_at_once(&os).await;
}

/// The server bound the path through a link. Users look for the path without the link.
#[cfg(target_os = "linux")]
#[test]
fn a_socket_bound_through_a_link_is_listed_under_its_real_path() {
    let os = Os::new();
    let link = os.dir().join("link");
    symlink(".", &link).expect("a link");
    let (server, _) = listening(helper(&["server", link.join("s.sock").to_str().expect("UTF-8")]));
    let dir = os.dir().canonicalize().expect("a directory");
    let wanted = format!(" {}", dir.join("s.sock").display());
    let table = fs::read_to_string("/proc/net/unix").expect("a table");
    assert!(table.lines().any(|line| line.ends_with(&wanted)), "{wanted} is not in {table}");
    common::unix::finish(server);
}

/// The cleaner removes old files at once. It keeps the socket, which the system lists, and the lock
/// file, which is marked by its sticky bit.
#[test]
fn the_system_cleaner_leaves_a_living_server_alone() {
    use std::process::{Command, Stdio};

    if !with_linux_backend("the sticky bit") || !is_here("systemd-tmpfiles") {
        return;
    }
    let (os, config) = (Os::new(), tempfile::NamedTempFile::new().expect("a file"));
    let line = format!("d {} - - - 0\n", os.dir().display());
    fs::write(config.path(), line).expect("a file");
    let clean = || {
        let mut cleaner = Command::new("systemd-tmpfiles");
        cleaner.arg("--clean").arg(config.path()).stdout(Stdio::null());
        assert!(cleaner.status().expect("a cleaner").success());
    };
    let (server, _) = listening(helper(&["server", os.endpoint()]));
    fs::write(os.dir().join("old"), "").expect("a file");
    until("it has removed what is old", || {
        clean();
        !os.dir().join("old").exists()
    });
    assert_eq!(os.files(), [".s.sock.lock", "s.sock"]);
    common::unix::finish(server);
    assert_eq!(os.files(), [""; 0]);
}
