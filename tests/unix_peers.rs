//! Credentials of peers: real users, processes, groups and namespaces, and a kernel that reports
//! nothing.
#![cfg(unix)] // On Windows a peer has a token.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use common::process::{Running, Users};
use common::unix::{
    OTHER_STRANGER, STRANGER, ask, can_unshare, command, finish, helper, helper_as, listening,
    open_to_all, output, rounds, set_mode, strace, through, with_linux_backend,
};
use common::{Backend, Os, assert_kind, within};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use sockpipe::os::unix::StreamExt;
use sockpipe::{Access, ListenOptions, Listener};
use tokio::io::AsyncWriteExt;

fn everybody(os: &Os) -> Listener {
    let options = ListenOptions::new().access(Access::Everyone);
    Listener::bind_with(os.endpoint(), &options).expect("a free name")
}

/// Whether the backend reports a peer's process, which not every system does.
const TELLS_PIDS: bool = cfg!(any(target_os = "linux", target_vendor = "apple"));

#[tokio::test]
async fn peer_credentials_report_the_user_and_group_of_each_peer() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    let mut listener = everybody(&os);
    let each = rounds(300, 3_334);
    for uid in [0, STRANGER, 65_534] {
        // The group's id differs from the user's.
        let gid = uid ^ 1;
        let (as_user, as_group) = (format!("--reuid={uid}"), format!("--regid={gid}"));
        let each_text = each.to_string();
        let mut client = Command::new("setpriv");
        client.args([&as_user, &as_group, "--clear-groups"]).arg(users.program("test_helper"));
        client.args(["raw-connects", os.endpoint(), &each_text]);
        client.stdout(Stdio::piped()).stderr(Stdio::piped());
        let client = Running::start(client);
        for _ in 0..each {
            let mut stream = within(listener.accept()).await.expect("a connection");
            let peer = stream.peer_credentials().expect("credentials");
            assert_eq!((peer.uid(), peer.gid()), (Some(uid), Some(gid)));
            assert_eq!(peer.pid(), TELLS_PIDS.then(|| client.child.id()));
            within(stream.write_all(b"!")).await.expect("a write");
        }
        assert_eq!(client.wait().1, [format!("denied 0 closed 0 served {each} other 0")]);
    }
    println!("{} connections of three users: 0 mismatches", each * 3);
}

/// In a user namespace this id stands for unmapped users. Outside it is a user like others.
#[test]
fn the_user_65534_connects_to_its_own_server() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    chown(os.dir(), Some(65_534), None).expect("an owner");
    let run = |arguments: &[&str]| helper_as(&users, 65_534, &[], arguments);
    let (mut server, _) = listening(run(&["server", os.endpoint()]));
    let line = output(run(&["connect", os.endpoint()])).concat();
    assert!(line.starts_with("served by uid Some(65534)"), "{line}");
    command(&mut server, "drop");
    assert_eq!(finish(server), ["dropped"]);
}

/// For more than 32 groups the kernel must be asked twice.
#[tokio::test]
async fn peer_groups_lists_all_groups_of_a_peer() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    let mut listener = everybody(&os);
    for many in [1, 31, 32, 33, 500] {
        let groups: Vec<u32> = (70_000..70_000 + many).collect();
        let client = helper_as(&users, STRANGER, &groups, &["raw-connects", os.endpoint(), "1"]);
        let client = Running::start(client);
        let stream = within(listener.accept()).await.expect("a connection");
        if cfg!(all(target_os = "linux", not(sockpipe_posix))) {
            let mut told = stream.peer_groups().expect("groups");
            told.sort_unstable();
            assert_eq!(told, groups);
        } else {
            assert_kind(stream.peer_groups(), ErrorKind::Unsupported);
        }
        drop(stream);
        assert!(client.wait().0.success());
    }
}

/// The process that a pidfd refers to, or -1 once it has exited.
fn process_of(pidfd: &OwnedFd) -> i64 {
    let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = fs::read_to_string(info).expect("what is known of a descriptor");
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a process");
    line.trim().parse().expect("a number")
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).expect("a poll") == 1
}

#[tokio::test]
async fn peer_pidfd_refers_to_the_process_of_a_peer() {
    let os = Os::new();
    let mut listener = Listener::bind(os.endpoint()).expect("a free name");
    let client = Running::start(helper(&["raw-connects", os.endpoint(), "1"]));
    let stream = within(listener.accept()).await.expect("a connection");
    let pidfd = match stream.peer_pidfd() {
        Ok(pidfd) => pidfd,
        Err(error) => {
            let old = !cfg!(all(target_os = "linux", not(sockpipe_posix))) || !is_linux_6_5();
            assert!(old && error.kind() == ErrorKind::Unsupported, "{error}");
            println!("not run further: {error}");
            return;
        }
    };
    assert_eq!(process_of(&pidfd), i64::from(client.child.id()));
    assert!(!has_ended(&pidfd));
    client.crash();
    // This holds for the earlier pidfd and for a new one.
    assert!(has_ended(&pidfd));
    assert_eq!(process_of(&pidfd), -1);
    match stream.peer_pidfd() {
        Ok(late) => assert!(has_ended(&late) && process_of(&late) == -1),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
}

fn is_linux_6_5() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

/// `accept` checks the user only, so it accepts a client whose process has exited.
#[tokio::test]
async fn peer_credentials_outlive_the_process_of_a_peer() {
    let os = Os::new();
    let mut listener = Listener::bind(os.endpoint()).expect("a free name");
    let client = Running::start(helper(&["raw-connects", os.endpoint(), "1"]));
    common::unix::until("a connection", || {
        let mut polled = [PollFd::new(&listener, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).expect("a poll") == 1
    });
    let id = client.child.id();
    client.crash();
    let stream = within(listener.accept()).await.expect("a connection");
    let peer = stream.peer_credentials().expect("credentials");
    assert_eq!(peer.uid(), Some(rustix::process::geteuid().as_raw()));
    assert_eq!(peer.pid(), TELLS_PIDS.then_some(id));
}

fn unshared(options: &[&str], command: &Command) -> Command {
    through("unshare", options, command)
}

#[test]
fn root_of_a_user_namespace_counts_as_its_user_outside() {
    let Some(users) = Users::new() else { return };
    if !can_unshare(&["-U", "-r"]) {
        return;
    }
    let os = open_to_all();
    let (mut server, _) = listening(helper(&["server", os.endpoint()]));
    set_mode(Path::new(os.endpoint()), 0o666);
    let program = users.program("test_helper");
    let program = program.to_str().expect("UTF-8");
    let (uid, gid) = (format!("--reuid={STRANGER}"), format!("--regid={STRANGER}"));
    let inside = [&uid, &gid, "--clear-groups", "unshare", "-U", "-r", "sh", "-c"];
    let mut client = Command::new("setpriv");
    client.args(inside).arg(format!("id -u; exec {program} raw-connects {} 5", os.endpoint()));
    client.stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_eq!(output(client), ["0", "denied 0 closed 5 served 0 other 0"]);
    assert_eq!(ask(&mut server, "stats"), "accepted 0 refused 5 pauses 0");
}

/// Without a mapping every outside user has the same id inside, the client's own user included.
#[test]
fn a_client_in_an_unmapped_namespace_refuses_the_server() {
    if !can_unshare(&["-U"]) || !with_linux_backend("unmapped users") {
        return;
    }
    let os = open_to_all();
    let (_server, _) = listening(helper(&["server", os.endpoint(), "--everyone"]));
    let line = output(unshared(&["-U"], &helper(&["connect", os.endpoint()]))).concat();
    assert!(line.starts_with("PermissionDenied UnexpectedServer: "), "{line}");
    for part in ["user namespace", "65534", "ConnectOptions::expect_server", "ExpectServer::Anyone"]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let told_to = helper(&["connect", os.endpoint(), "--anyone"]);
    let line = output(unshared(&["-U"], &told_to)).concat();
    assert!(line.starts_with("served by uid Some(65534)"), "{line}");
}

/// The server's own user has the same id as every client's.
#[test]
fn a_server_in_an_unmapped_namespace_refuses_its_clients() {
    let Some(users) = Users::new() else { return };
    if !can_unshare(&["-U"]) || !with_linux_backend("unmapped users") {
        return;
    }
    let os = open_to_all();
    set_mode(&os.dir(), 0o1777);
    chown(os.dir(), Some(STRANGER), None).expect("an owner");
    let program = users.program("test_helper");
    let program = program.to_str().expect("UTF-8");
    let (uid, gid) = (format!("--reuid={STRANGER}"), format!("--regid={STRANGER}"));
    let inside = [&uid, &gid, "--clear-groups", "unshare", "-U", program, "server"];
    let mut server = Command::new("setpriv");
    let pipe = Stdio::piped;
    server.args(inside).arg(os.endpoint()).stdin(pipe()).stdout(pipe()).stderr(pipe());
    let (mut server, _) = listening(server);
    set_mode(Path::new(os.endpoint()), 0o666);
    for uid in [OTHER_STRANGER, 0] {
        let client = helper_as(&users, uid, &[], &["raw-connects", os.endpoint(), "3"]);
        assert_eq!(output(client), ["denied 0 closed 3 served 0 other 0"], "uid {uid}");
    }
    assert_eq!(ask(&mut server, "stats"), "accepted 0 refused 6 pauses 0");
}

/// Processes outside have no ids inside the namespace, but those inside have ids outside.
#[test]
fn a_server_in_a_pid_namespace_sees_no_process_ids() {
    if !can_unshare(&["-p", "-f"]) {
        return;
    }
    let os = Os::new();
    let server = unshared(&["-p", "-f"], &helper(&["server", os.endpoint(), "--tell"]));
    let (mut server, inside) = listening(server);
    assert_eq!(inside, 1);
    for _ in 0..3 {
        let line = output(helper(&["connect", os.endpoint()])).concat();
        assert!(line.starts_with("served by uid") && !line.contains("pid None"), "{line}");
        let line = server.next_line();
        assert!(line.ends_with("pid None"), "{line}");
    }
    assert_eq!(ask(&mut server, "stats"), "accepted 3 refused 0 pauses 0");
}

#[test]
fn a_client_in_a_pid_namespace_sees_no_process_id() {
    if !can_unshare(&["-p", "-f"]) {
        return;
    }
    let os = Os::new();
    let (server, _) = listening(helper(&["server", os.endpoint(), "--tell"]));
    let client = unshared(&["-p", "-f"], &helper(&["connect", os.endpoint()]));
    let line = output(client).concat();
    assert!(line.starts_with("served by uid") && line.ends_with("pid None"), "{line}");
    let line = server.next_line();
    assert!(line.contains("pid Some("), "{line}");
}

/// `accept` refuses such a client and serves the next one.
#[test]
fn a_client_that_the_kernel_does_not_identify_is_refused() {
    let os = Os::new();
    let logs = tempfile::tempdir().expect("a directory");
    let inject = "inject=getsockopt:error=EIO:when=1..5";
    let server = helper(&["server", os.endpoint()]);
    let Some(server) = strace(&logs.path().join("log"), &["-e", inject], &server) else { return };
    let (mut server, _) = listening(server);
    let line = output(helper(&["connect", os.endpoint(), "--times=5"]));
    let closed = |line: &String| line.starts_with("closed by") || line.starts_with("cut off by");
    assert!(line.len() == 5 && line.iter().all(closed), "{line:?}");
    let line = output(helper(&["connect", os.endpoint()])).concat();
    assert!(line.starts_with("served by"), "{line}");
    assert_eq!(ask(&mut server, "stats"), "accepted 1 refused 5 pauses 0");
}

#[test]
fn a_server_that_the_kernel_does_not_identify_is_refused() {
    let os = Os::new();
    let (mut server, _) = listening(helper(&["server", os.endpoint()]));
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for anyone in [&[][..], &["--anyone"]] {
        let client = helper(&[&["connect", os.endpoint()], anyone].concat());
        let options =
            ["-e", "inject=getsockopt:error=EIO", "-e", "trace=getsockopt,?send,sendto,write"];
        let Some(client) = strace(&log, &options, &client) else { return };
        let line = output(client).concat();
        assert!(line.contains("os error 5") && !line.contains("by uid"), "{line}");
        let log = fs::read_to_string(&log).expect("a log");
        assert!(!log.contains("epayload"), "{log}");
    }
    assert_eq!(ask(&mut server, "stats"), "accepted 2 refused 0 pauses 0");
}

/// A process id of one namespace may belong to another process in the other.
#[test]
fn errors_report_no_process_id_of_another_namespace() {
    if !can_unshare(&["-p", "-f"]) {
        return;
    }
    let apart = ["-p", "-f"];
    let digit = |letter: char| letter.is_ascii_digit();
    for server_is_apart in [true, false] {
        let os = Os::new();
        let run = |inside: bool, verb: &str| {
            let command = helper(&[verb, os.endpoint()]);
            if inside { unshared(&apart, &command) } else { command }
        };
        let (server, id) = listening(run(server_is_apart, "server"));
        let no_number = |said: &str, what: &str| {
            let words = said.replace(os.endpoint(), "");
            let numbers = |word| words.split(word).skip(1).any(|rest| rest.starts_with(digit));
            assert!(
                !numbers("pid ") && !numbers("process ") && !words.contains("Some("),
                "{what} of process {id}: {said}"
            );
        };
        let told = |verb: &str| output(run(!server_is_apart, verb)).concat();
        let said = told("server");
        assert!(said.starts_with("AddrInUse LiveServer: "), "{said}");
        no_number(&said, "a second server");
        let said = told("occupancy");
        assert!(said.contains("Held"), "{said}");
        no_number(&said, "a look");
        let said = told("reason");
        assert!(said.contains("LiveServer"), "{said}");
        no_number(&said, "a reason");
        // A suspended server holds its name but cannot bind it again.
        let id = if server_is_apart { child_of(server.child.id()) } else { id };
        let id = Pid::from_raw(id as i32).expect("a number");
        kill_process(id, Signal::STOP).expect("a signal");
        fs::remove_file(os.endpoint()).expect("a socket");
        let said = told("connect");
        assert!(said.starts_with("TimedOut NameWithoutServer: "), "{said}");
        no_number(&said, "a client");
        kill_process(id, Signal::KILL).expect("a signal");
    }
}

fn child_of(process: u32) -> u32 {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(children).expect("its children");
    children.trim().parse().expect("one child")
}
