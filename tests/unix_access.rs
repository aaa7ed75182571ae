//! Access control: modes, users, groups, directories and impostors. The tests use real users and
//! traced processes, and need root to be several users.
#![cfg(unix)] // Windows has security descriptors instead.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::process::{Running, Users};
use common::unix::{
    OTHER_STRANGER, STRANGER, command, count, finish, helper, helper_as, linked, listening,
    open_to_all, output, rounds, set_mode, strace, through, with_linux_backend,
};
use common::{Backend, Os, assert_kind, assert_reason, assert_says, within};
use rustix::process::{getegid, geteuid};
use sockpipe::os::unix::ListenOptionsExt;
use sockpipe::{Access, ListenOptions, Listener, Reason, Stream};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

const GROUP: u32 = 61_020;

/// Runs `command` by a shell that sets the umask.
fn with_umask(umask: &str, command: &Command) -> Command {
    through("sh", &["-c", "umask $1; shift; exec \"$@\"", "sh", umask], command)
}

/// Polls the files of the directory meanwhile, and returns the modes that each of them had.
fn modes_seen<T>(dir: PathBuf, while_this: impl FnOnce() -> T) -> (T, Vec<(String, u32)>) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&dir).expect("a directory").flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let Ok(data) = fs::symlink_metadata(entry.path()) else { continue };
                    let mode = (name, data.mode() & 0o7777);
                    if !seen.contains(&mode) {
                        seen.push(mode);
                    }
                }
            }
            seen
        });
        let done = while_this();
        stop.store(true, Ordering::Relaxed);
        (done, watcher.join().expect("a watcher"))
    })
}

#[test]
fn a_socket_never_has_a_looser_mode_than_requested() {
    let times = rounds(50, 500).to_string();
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for umask in ["000", "022", "077"] {
        for mode in [0o600, 0o660, 0o666] {
            let os = Os::new();
            let shown = format!("{mode:o}");
            let binds = helper(&["binds", os.endpoint(), &times, "--mode", &shown]);
            let binds = with_umask(umask, &binds);
            let (lines, mut seen) = modes_seen(os.dir(), || output(binds));
            // In a second run strace delays each step, so that the watcher sees every state.
            let slow = "inject=fchmodat,?fchmodat2,listen:delay_enter=10000";
            let binds = helper(&["binds", os.endpoint(), "2", "--mode", &shown]);
            if let Some(binds) = strace(&log, &["-e", slow], &with_umask(umask, &binds)) {
                seen.extend(modes_seen(os.dir(), || output(binds)).1);
            }
            assert!(lines[0].starts_with(&format!("mode {shown} ")), "{umask}: {lines:?}");
            assert_eq!(lines[1], "done");
            for (file, seen) in &seen {
                if file == ".s.sock.lock" {
                    // Only its owner may read a lock file. It may have the sticky bit.
                    assert_eq!(seen & !0o1600, 0, "{file} {seen:o}");
                    continue;
                }
                // Other systems set the mode between `bind` and `listen`.
                let early = cfg!(any(sockpipe_posix, not(target_os = "linux")));
                assert!(early || seen & !mode == 0, "{umask} {shown}: {file} had {seen:o}");
            }
            assert_eq!(os.files(), [""; 0]);
        }
    }
    println!("{times} binds for each of three modes and three umasks: never looser");
}

/// The order of the calls shows it. The process's umask stays as it was.
#[test]
fn the_mode_is_set_before_a_client_can_connect() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let calls = "trace=execve,umask,bind,listen,?chmod,fchmod,fchmodat,?fchmodat2,fchownat,\
                 connect";
    let own_group = getegid().as_raw().to_string();
    let with_group = ["--mode", "660", "--group", &own_group];
    for options in [&["--mode", "660"][..], &with_group, &["--everyone"]] {
        let os = Os::new();
        let binds = helper(&[&["binds", os.endpoint(), "1"], options].concat());
        let Some(binds) = strace(&log, &["-e", calls], &with_umask("022", &binds)) else { return };
        output(binds);
        let log = fs::read_to_string(&log).expect("a log");
        // The first lines are those of the shell that sets the umask.
        let own = log.lines().skip_while(|line| !line.contains("/test_helper\", ["));
        let own: Vec<_> = own.filter_map(|line| line.split_once(' ')).collect();
        let at = |call: &str| own.iter().position(|(_, line)| line.trim().starts_with(call));
        let last = |call: &str| own.iter().rposition(|(_, line)| line.trim().starts_with(call));
        assert_eq!(at("umask"), None, "{log}");
        assert_eq!(at("connect"), None, "nobody was there to be tried: {log}");
        let listens = at("listen(").expect("a listen");
        assert!(at("bind(").expect("a bind") < listens, "{log}");
        for change in ["fchmod", "chmod", "fchownat"] {
            assert!(last(change).is_none_or(|last| last < listens), "{change} too late: {log}");
        }
        if let (Some(owner), Some(mode)) = (at("fchownat"), last("fchmodat")) {
            assert!(owner < mode, "another group had the mode meant for this one: {log}");
        }
    }
}

/// Accepts strangers, writes a byte to each, and returns the listener when this user connects.
fn accepting(mut listener: Listener) -> JoinHandle<Listener> {
    tokio::spawn(async move {
        loop {
            let mut stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => panic!("accept failed: {error}"),
            };
            let peer = stream.peer_credentials().expect("credentials");
            if peer.uid() == Some(geteuid().as_raw()) {
                return listener;
            }
            stream.write_all(b"!").await.expect("a write");
        }
    })
}

/// Connects as this user, which ends [`accepting`].
async fn stop(os: &Os, accepting: JoinHandle<Listener>) -> Listener {
    let _own = within(Stream::connect(os.endpoint())).await.expect("our own server");
    within(accepting).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_refused_by_the_mode_and_by_the_check() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    let serving = accepting(Listener::bind(os.endpoint()).expect("a free name"));
    let client =
        || output(helper_as(&users, STRANGER, &[], &["raw-connects", os.endpoint(), "200"]));
    assert_eq!(client(), ["denied 200 closed 0 served 0 other 0"]);
    // The mode of the socket now admits everybody, and `accept` still checks the peer.
    set_mode(Path::new(os.endpoint()), 0o666);
    assert_eq!(client(), ["denied 0 closed 200 served 0 other 0"]);
    let listener = stop(&os, serving).await;
    println!("200 denied by the mode, {} closed by the check", listener.stats().refused);
    assert_eq!(listener.stats().refused, 200);
    assert_eq!(listener.stats().pauses, 0);
}

/// A server binds its name again and again while a stranger tries to connect.
#[test]
fn another_user_is_refused_while_a_server_starts() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    let client = Running::start(helper_as(&users, STRANGER, &[], &["raw-hammer", os.endpoint()]));
    assert_eq!(client.next_line(), "hammering");
    let times = rounds(500, 2000).to_string();
    output(with_umask("000", &helper(&["binds", os.endpoint(), &times])));
    let line = finish(client).concat();
    println!("{times} binds: {line}");
    // Other systems set the mode between `bind` and `listen`. A client that looked up the path just
    // before may connect once the server listens; the check in `accept` closes its connection.
    if with_linux_backend("the mode of a socket that has no name yet") {
        assert_eq!(count(&line, "connected"), 0, "{line}");
    }
    assert!(count(&line, "denied") > 0, "nothing was tried: {line}");
}

#[test]
fn a_client_sends_nothing_to_a_server_of_another_user() {
    let Some(users) = Users::new() else { return };
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    // Like /tmp, the directory is sticky and open to all.
    let os = open_to_all();
    set_mode(&os.dir(), 0o1777);
    let squatter = || {
        let raw = with_umask("000", &helper(&["raw-server", os.endpoint(), "8"]));
        let raw = through(
            "setpriv",
            &[&format!("--reuid={STRANGER}"), &format!("--regid={STRANGER}"), "--clear-groups"],
            &raw,
        );
        listening(as_copied(&users, &raw)).0
    };
    // Runs a client as `uid`, and returns its output and how many calls sent bytes to the server.
    let ask = |uid: u32, options: &[&str]| -> Option<(String, usize)> {
        let arguments = [&["connect", os.endpoint()], options].concat();
        let client = helper_as(&users, uid, &[], &arguments);
        let calls = "trace=connect,write,writev,?send,sendto,sendmsg,sendmmsg,?sendfile";
        let client = strace(&log, &["-yy", "-e", calls], &client)?;
        let line = output(client).concat();
        let log = fs::read_to_string(&log).expect("a log");
        // The client's output goes to pipes, so its only socket is the connection.
        let sent = log.lines().filter(|line| !line.contains(" connect(") && line.contains("UNIX"));
        let sent = sent.count();
        assert!(log.contains(os.endpoint()), "{log}");
        Some((line, sent))
    };
    let server = squatter();
    for uid in [0, OTHER_STRANGER] {
        let Some((line, sent)) = ask(uid, &[]) else { return };
        assert!(line.starts_with("PermissionDenied UnexpectedServer: "), "{line}");
        assert!(line.contains(&format!("uid {STRANGER}")), "{line}");
        assert_eq!(sent, 0, "{line}");
        assert_eq!(server.next_line(), "got 0");
        println!("uid {uid}: refused, and the impostor got 0 bytes");
    }
    // The same trace shows the bytes that a client sends to a server that it trusts.
    for (uid, options) in [(STRANGER, &[][..]), (OTHER_STRANGER, &["--anyone"])] {
        let Some((line, sent)) = ask(uid, options) else { return };
        assert!(line.starts_with("served wrongly by"), "{line}");
        assert!(sent > 0, "strace does not show what is sent");
        assert_eq!(server.next_line(), "got 8");
    }
}

/// Root made the socket, as systemd does, and the service then changed its user. The kernel reports
/// root to clients until the service calls `listen` again.
#[cfg(target_os = "linux")]
#[test]
fn a_service_that_gave_up_root_is_seen_as_its_user_after_it_listens_again() {
    if Users::new().is_none() {
        return;
    }
    let os = open_to_all();
    let (mut server, _) = listening(helper(&["server", os.endpoint(), "--everyone"]));
    let service = STRANGER.to_string();
    let asked = |form: &str, user: &str| {
        let line = output(helper(&["connect", os.endpoint(), &format!("--{form}={user}")]));
        !line[0].starts_with("PermissionDenied UnexpectedServer: ")
    };
    let ask = common::unix::ask;
    assert_eq!(ask(&mut server, &format!("become {service}")), format!("became {service}"));
    let [user, exactly] = ["user", "exactly"].map(|form| asked(form, &service));
    assert!(user, "root made the socket");
    assert!(!exactly, "root is not the service's user");
    assert_eq!(ask(&mut server, "listen again"), "listens");
    for form in ["user", "exactly"] {
        assert!(asked(form, &service), "{form}: it is the service's user who listens");
        assert!(!asked(form, &OTHER_STRANGER.to_string()), "{form}");
    }
    assert!(!asked("exactly", "0"));
    finish(server);
}

/// `command` with a copy of the test helper that every user can run.
fn as_copied(users: &Users, command: &Command) -> Command {
    let copy = users.program("test_helper");
    let original = helper(&[]).get_program().to_owned();
    let mut copied = Command::new(command.get_program());
    copied.args(command.get_args().map(|argument| {
        if argument == original { copy.clone().into_os_string() } else { argument.to_owned() }
    }));
    let pipe = std::process::Stdio::piped;
    copied.stdin(pipe()).stdout(pipe()).stderr(pipe());
    copied
}

#[tokio::test]
async fn bind_refuses_directories_in_which_others_could_replace_the_socket() {
    let os = Os::new();
    let root = geteuid().is_root();
    let dir = os.dir().join("dir");
    fs::create_dir(&dir).expect("a directory");
    let path = dir.join("s.sock");
    let link = linked(&os, "link", &dir).join("s.sock");
    let own = geteuid().as_raw();
    let mut tried = 0;
    for (owner, mode, safe) in [
        (own, 0o700, true),
        (own, 0o755, true),
        (own, 0o1777, true),
        (own, 0o1770, true),
        (own, 0o777, false),
        (own, 0o757, false),
        (own, 0o770, false),
        (STRANGER, 0o700, false),
        (STRANGER, 0o755, false),
        (STRANGER, 0o1777, false),
    ] {
        if owner != own && !root {
            println!("not run: only root can give a directory away");
            continue;
        }
        // Only root can give the directory to a group of other users.
        if mode == 0o770 && !root {
            println!("not run: whose group it is depends on this user");
            continue;
        }
        chown(&dir, Some(owner), root.then_some(STRANGER)).expect("an owner");
        set_mode(&dir, mode);
        for path in [&path, &link] {
            if safe {
                drop(Listener::bind(path.as_path()).expect("a safe directory"));
            } else {
                let why = if owner == own { "can be written by others" } else { "belongs to uid" };
                let bound = Listener::bind(path.as_path());
                let error = assert_reason!(bound, Reason::UnsafeDirectory, path.display());
                assert_says(&error, &[why, "unsafe_directory"]);
            }
            assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
            let allowed = ListenOptions::new().unsafe_directory(true);
            drop(Listener::bind_with(path.as_path(), &allowed).expect("as it was told to"));
            assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
        }
        tried += 1;
    }
    println!("{tried} owners and modes, by the path and by a link");
}

/// To the system this number means that the group does not change.
#[tokio::test]
async fn bind_refuses_an_invalid_group() {
    let os = Os::new();
    for endpoint in [os.endpoint(), &common::unique_name()] {
        let refused = Listener::bind_with(endpoint, &ListenOptions::new().group(u32::MAX));
        assert_kind(refused, ErrorKind::InvalidInput);
    }
    assert_eq!(os.files(), [""; 0]);
}

/// A umask of 002 makes such directories where each user has a group of its own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn bind_accepts_a_directory_whose_group_has_only_its_owner() {
    let fields = |file: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    };
    let users =
        fields("/etc/passwd").into_iter().filter(|user| user.get(3).is_some_and(|gid| gid == "0"));
    let has_members =
        |group: &Vec<String>| group[0] == "root" && group.get(3).is_some_and(|who| !who.is_empty());
    if !geteuid().is_root() || users.count() != 1 || fields("/etc/group").iter().any(has_members) {
        println!("not run: only for a root whose group nobody else is in");
        return;
    }
    let os = Os::new();
    for mode in [0o775, 0o770, 0o2775] {
        set_mode(&os.dir(), mode);
        drop(Listener::bind(os.endpoint()).expect("a directory of its own"));
    }
    set_mode(&os.dir(), 0o777);
    let error =
        assert_reason!(Listener::bind(os.endpoint()), Reason::UnsafeDirectory, os.endpoint());
    assert_says(&error, &["mode 0777", "chmod go-w", "unsafe_directory"]);
    // An access control list gives another user access.
    if common::process::is_here("setfacl") {
        set_mode(&os.dir(), 0o700);
        let list = format!("u:{STRANGER}:rwx");
        let set = Command::new("setfacl").args(["-m", &list]).arg(os.dir()).status();
        if set.is_ok_and(|status| status.success()) {
            assert_reason!(Listener::bind(os.endpoint()), Reason::UnsafeDirectory, os.endpoint());
        }
    }
}

/// A member of the group may write there, but so may the other members.
#[cfg(target_os = "linux")]
#[test]
fn bind_refuses_a_directory_of_root_that_a_group_may_write_to() {
    let Some(users) = Users::new() else { return };
    let os = Os::new();
    for (mode, safe) in [(0o775, false), (0o2775, false), (0o1775, true)] {
        chown(os.dir(), Some(0), Some(STRANGER)).expect("an owner");
        set_mode(&os.dir(), mode);
        for uid in [STRANGER, 0] {
            let run = |options: &[&str]| {
                let arguments = [&["server", os.endpoint()], options].concat();
                let server = helper_as(&users, uid, &[STRANGER], &arguments);
                let mut server = Running::start(server);
                drop(server.child.stdin.take());
                server.wait().1.concat()
            };
            let said = run(&[]);
            if safe {
                assert!(said.starts_with("listening "), "{uid} {mode:o}: {said}");
            } else {
                let how = if uid == 0 { "chmod go-w" } else { "a directory of your own" };
                for part in
                    ["PermissionDenied UnsafeDirectory: ", &format!("(mode {mode:04o}"), how]
                {
                    assert!(said.contains(part), "{uid} {mode:o}: {part:?} is not in {said:?}");
                }
            }
            let allowed = run(&["--unsafe-directory"]);
            assert!(allowed.starts_with("listening "), "{uid} {mode:o}: {allowed}");
            assert_eq!(os.files(), [""; 0], "{uid} {mode:o}");
        }
    }
}

/// Connects as two members of the group and as another user, and returns their outcomes.
fn as_member_and_as_other(users: &Users, os: &Os) -> [String; 3] {
    let connects = ["raw-connects", os.endpoint(), "20"];
    [&[GROUP][..], &[GROUP - 1, GROUP], &[GROUP - 1]]
        .map(|groups| output(helper_as(users, STRANGER, groups, &connects)).concat())
}

const DENIED: &str = "denied 20 closed 0 served 0 other 0";
const CLOSED: &str = "denied 0 closed 20 served 0 other 0";
const SERVED: &str = "denied 0 closed 0 served 20 other 0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_of_the_chosen_group_connect() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    let options = ListenOptions::new().mode(0o660).group(GROUP);
    let serving = accepting(Listener::bind_with(os.endpoint(), &options).expect("a free name"));
    let socket = fs::symlink_metadata(os.endpoint()).expect("a socket");
    assert_eq!((socket.mode() & 0o7777, socket.gid()), (0o660, GROUP));
    assert_eq!(as_member_and_as_other(&users, &os), [SERVED, SERVED, DENIED]);
    // This client has the group as its primary one.
    let member = helper_as(&users, GROUP, &[], &["raw-connects", os.endpoint(), "20"]);
    assert_eq!(output(member), [SERVED]);
    // The mode now admits everybody. Where the system reports a peer's groups, `accept` still
    // admits members only.
    if with_linux_backend("the groups of a peer") {
        set_mode(Path::new(os.endpoint()), 0o666);
        assert_eq!(as_member_and_as_other(&users, &os), [SERVED, SERVED, CLOSED]);
    }
    let listener = stop(&os, serving).await;
    println!("refused {}", listener.stats().refused);
}

/// A new socket inherits the group of such a directory, and the check uses the socket's group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_of_the_directorys_group_connect() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    chown(os.dir(), None, Some(GROUP)).expect("a group");
    set_mode(&os.dir(), 0o2755);
    let options = ListenOptions::new().mode(0o660);
    let serving = accepting(Listener::bind_with(os.endpoint(), &options).expect("a free name"));
    assert_eq!(fs::symlink_metadata(os.endpoint()).expect("a socket").gid(), GROUP);
    let got = as_member_and_as_other(&users, &os);
    assert_eq!(got, [SERVED, SERVED, DENIED]);
    drop(stop(&os, serving).await);
}

#[test]
fn bind_refuses_a_group_without_the_user_in_it() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    chown(os.dir(), Some(STRANGER), None).expect("an owner");
    let arguments = ["binds", os.endpoint(), "1", "--mode", "660", "--group", "0"];
    let line = output(helper_as(&users, STRANGER, &[], &arguments)).concat();
    assert!(line.starts_with("PermissionDenied Os: "), "{line}");
    assert_eq!(os.files(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_user_connects_with_access_everyone() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    let options = ListenOptions::new().access(Access::Everyone);
    let serving = accepting(Listener::bind_with(os.endpoint(), &options).expect("a free name"));
    assert_eq!(as_member_and_as_other(&users, &os), [SERVED, SERVED, SERVED]);
    assert_eq!(stop(&os, serving).await.stats().refused, 0);
}

/// Root may always connect, since it could read the server's memory too.
#[test]
fn root_connects_to_the_server_of_another_user() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    chown(os.dir(), Some(STRANGER), None).expect("an owner");
    let server = helper_as(&users, STRANGER, &[], &["server", os.endpoint()]);
    let (mut server, _) = listening(server);
    let line = output(helper(&["connect", os.endpoint(), "--anyone"])).concat();
    assert!(line.starts_with(&format!("served by uid Some({STRANGER})")), "{line}");
    command(&mut server, "stats");
    assert_eq!(server.next_line(), "accepted 1 refused 0 pauses 0");
}
