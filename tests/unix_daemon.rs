//! What a daemon inherits on Unix from the client that starts it, and what it does not.
#![cfg(unix)] // Descriptors, sessions, signals and zombies are Unix's.

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::daemon::{Daemon, helper};
use common::process::Running;
use common::unix::{on_linux, strace, until};
use common::{Backend, Os, assert_reason, within};
use sockpipe::os::unix::DaemonCommandExt;
use sockpipe::{ConnectOptions, DaemonCommand, Listener, Reason, Stream, connect_or_spawn_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The program of the daemon.
#[tokio::test]
async fn helper_daemon() {
    common::daemon::daemon().await;
}

/// A program whose clients connect to a daemon that may not run yet.
#[tokio::test]
async fn helper_clients() {
    common::daemon::clients().await;
}

/// Another client's daemon holds the name and is about to listen. The second daemon exits for that
/// reason, and its client waits for the first.
#[tokio::test]
async fn a_client_whose_daemon_came_second_waits_for_the_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d.sock");
    // This daemon holds the name but has no socket yet.
    let other = Listener::bind(path.as_path()).expect("a free name");
    fs::remove_file(&path).expect("a socket");
    let options = ConnectOptions::new().deadline(common::PATIENCE);
    let mut connecting =
        Box::pin(connect_or_spawn_with(path.as_path(), Command::new("false"), &options));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut connecting).await;
    assert!(early.is_err(), "{early:?}");
    drop(other);
    let mut listener = Listener::bind(path.as_path()).expect("a free name");
    let (stream, accepted) = within(async { tokio::join!(connecting, listener.accept()) }).await;
    stream.expect("a connection");
    accepted.expect("a client");
}

#[tokio::test]
async fn a_daemon_starts_where_no_temporary_directory_can_be_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (name, log) = (dir.path().join("d.sock"), dir.path().join("starts"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut command = helper("helper_clients", &["serve", &text(&name), &text(&log)]);
    let output = command.env("TMPDIR", dir.path().join("nowhere")).output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let names = fs::read_dir(dir.path()).expect("a directory");
    let names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".sockpipe")), "{names:?}");
    let mut stream = within(Stream::connect(name.as_path())).await.expect("the daemon");
    within(stream.write_all(b"stop")).await.expect("a write");
    assert_eq!(within(stream.read(&mut [0])).await.expect("an end"), 0);
}

fn process(pid: u32) -> rustix::process::Pid {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("an id")
}

/// Waits until there is no such process, not even as a zombie.
async fn gone(pid: rustix::process::Pid) {
    within(async {
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_daemon_whose_client_is_refused_leaves_no_zombie() {
    use sockpipe::{ExpectServer, UserId};
    let daemon = Daemon::new();
    let other = ExpectServer::Exactly(UserId::Uid(rustix::process::geteuid().as_raw() + 1));
    let options = ConnectOptions::new().deadline(common::PATIENCE).expect_server(other);
    let connecting = connect_or_spawn_with(&daemon.name, daemon.command("serve"), &options);
    assert_reason!(within(connecting).await, Reason::UnexpectedServer, daemon.name);
    let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    // The daemon keeps running for other clients.
    daemon.stop().await;
    gone(process(pid)).await;
}

#[tokio::test]
async fn a_daemon_whose_client_gives_up_leaves_no_zombie() {
    let daemon = Daemon::new();
    let mut connecting = Box::pin(daemon.connect("deaf", common::PATIENCE));
    let pid = within(async {
        loop {
            let pause = Duration::from_millis(5);
            let early = tokio::time::timeout(pause, &mut connecting).await;
            assert!(early.is_err(), "{early:?}");
            if let [pid] = daemon.starts()[..] {
                break pid;
            }
        }
    })
    .await;
    drop(connecting);
    rustix::process::kill_process(process(pid), rustix::process::Signal::KILL).expect("it goes on");
    gone(process(pid)).await;
}

/// As behind a launcher, which ends before the server that it has started listens.
#[tokio::test]
async fn a_server_that_listens_soon_after_its_command_succeeded_is_found() {
    let os = Os::new();
    let (started, mut start) = tokio::sync::mpsc::unbounded_channel();
    let command = DaemonCommand::new(Command::new("true"))
        .on_start(move |pid| started.send(pid).expect("a test"));
    let options = ConnectOptions::new().deadline(common::PATIENCE);
    let connecting = connect_or_spawn_with(os.endpoint(), command, &options);
    let listening = async {
        gone(process(start.recv().await.expect("a start"))).await;
        os.bind().expect("a free name")
    };
    let (connected, _listener) = within(async { tokio::join!(connecting, listening) }).await;
    connected.expect("the server");
}

/// A client that starts its daemon by a shell that runs `script`, in a process that ignores
/// SIGCHLD. The system then keeps no exit status of a child.
#[cfg(target_os = "linux")] // Other systems' `env` has no such option.
fn client_without_sigchld(os: &Os, script: &str) -> Vec<String> {
    let client = common::unix::helper(&["spawning", os.endpoint(), "sh", "-c", script, "sh"]);
    let mut env = Command::new("env");
    env.arg("--ignore-signal=CHLD").arg(client.get_program()).args(client.get_args());
    env.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    common::unix::output(env)
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_ignores_sigchld_is_served_by_a_daemon_that_forks() {
    let os = Os::new();
    let said = client_without_sigchld(&os, "\"$@\" </dev/null >/dev/null 2>&1 &");
    let pid: u32 = said[0].parse().unwrap_or_else(|_| panic!("{said:?}"));
    rustix::process::kill_process(process(pid), rustix::process::Signal::KILL).expect("it runs");
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_ignores_sigchld_reports_what_its_daemon_said() {
    let os = Os::new();
    let said = client_without_sigchld(&os, "echo the flux capacitor is empty >&2; exit 3");
    for part in ["ServerExited", os.endpoint(), "SIGCHLD", "the flux capacitor is empty"] {
        assert!(said[0].contains(part), "{part}: {said:?}");
    }
}

/// Runs `command` with an inheritable descriptor 7, with one signal ignored and another blocked, as
/// shells and `nohup` leave them.
fn through_a_careless_shell(command: &Command, file: &Path) -> Command {
    let mut shell = Command::new("env");
    shell.args(["--ignore-signal=HUP", "--block-signal=USR1", "sh", "-c"]);
    shell.arg("exec 7>>\"$0\" && umask 0 && exec \"$@\"").arg(file);
    shell.arg(command.get_program()).args(command.get_args()).envs(environment(command));
    shell
}

fn environment(command: &Command) -> impl Iterator<Item = (&std::ffi::OsStr, &std::ffi::OsStr)> {
    command.get_envs().filter_map(|(name, value)| Some((name, value?)))
}

/// The value of the field `name` in the process's status file, see proc(5).
fn status_of(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("a line").trim().to_owned()
}

fn has_open(pid: u32, file: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let mut links = open.filter_map(|entry| fs::read_link(entry.expect("an entry").path()).ok());
    links.any(|link| link == file)
}

fn is_clean(pid: u32, file: &Path) {
    assert!(!has_open(pid, file), "it has the client's descriptor");
    let mask = |name| u64::from_str_radix(&status_of(pid, name), 16).expect("a mask");
    // Every Rust program ignores SIGPIPE, and the C library uses signals 32 and 33.
    let own = 1 << 12 | 1 << 31 | 1 << 32;
    assert_eq!((mask("SigIgn") & !own, mask("SigBlk")), (0, 0));
    assert_eq!(status_of(pid, "Umask"), "0000", "it is inherited");
}

#[tokio::test]
async fn a_daemon_inherits_neither_descriptors_nor_signal_handling() {
    if !on_linux("/proc") {
        return;
    }
    // The descriptors are closed by `close_range`, or one by one where that call is missing.
    for inject in [None, Some("inject=close_range:error=ENOSYS")] {
        let daemon = Daemon::new();
        let (file, log) = (daemon.dir.path().join("lock"), daemon.log());
        let client =
            helper("helper_clients", &["serve", &daemon.name, log.to_str().expect("UTF-8")]);
        let mut client = through_a_careless_shell(&client, &file);
        if let Some(inject) = inject {
            let options = ["-e", "trace=close_range", "-e", inject];
            let log = daemon.dir.path().join("strace");
            let variables: Vec<_> = environment(&client)
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let Some(traced) = strace(&log, &options, &client) else { return };
            client = traced;
            client.envs(variables);
        }
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // strace ends only with the daemon, so the test does not wait for the client.
        let client = Running::start(client);
        while !client.next_line().starts_with("test result: ok") {}
        is_clean(daemon.starts()[0], &file);
        daemon.stop().await;
    }
}

#[tokio::test]
async fn keep_fds_and_umask_pass_the_chosen_descriptors_and_umask_to_a_daemon() {
    if !on_linux("/proc") {
        return;
    }
    let daemon = Daemon::new();
    let (kept, other) = (daemon.dir.path().join("kept"), daemon.dir.path().join("other"));
    let file = fs::File::create(&kept).expect("a file");
    let _other = fs::File::create(&other).expect("a file");
    let command = DaemonCommand::new(daemon.command("serve"));
    let command = command.keep_fds([file.as_raw_fd(), file.as_raw_fd(), 0]).umask(0o077);
    drop(daemon.connect_by(command, common::PATIENCE).await.expect("a connection"));
    let pid = daemon.starts()[0];
    let link = fs::read_link(format!("/proc/{pid}/fd/{}", file.as_raw_fd())).expect("it is there");
    assert_eq!(link, kept);
    assert!(!has_open(pid, &other));
    assert_eq!(status_of(pid, "Umask"), "0077");
    // In this process the descriptor is still close-on-exec, so other children do not inherit it.
    let mut child = Command::new("sleep").arg("1000").spawn().expect("a process");
    // Not every system has `spawn` wait until the child runs its program.
    until("the descriptor is closed", || !has_open(child.id(), &kept));
    child.kill().expect("a child");
    child.wait().expect("an end");
    daemon.stop().await;
}

#[tokio::test]
async fn keep_fds_fails_with_a_descriptor_that_is_not_open() {
    let daemon = Daemon::new();
    let command = DaemonCommand::new(daemon.command("serve")).keep_fds([999]);
    let outcome = daemon.connect_by(command, common::PATIENCE).await;
    let error = outcome.expect_err("nothing to keep");
    assert_eq!(sockpipe::Error::of(&error).expect("ours").raw_os_error(), Some(9));
    assert!(daemon.starts().is_empty());
}
