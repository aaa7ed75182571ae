//! `connect_or_spawn` starts a server once, when a client needs it. `SingleInstance` lets one
//! instance of a program run. These tests use real processes.

mod common;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::daemon::{CLIENTS, Daemon, arguments, helper, stop_process};
use common::{assert_reason, assert_says, unique_name, within};
use sockpipe::{
    ConnectOptions, Connector, DaemonCommand, Listener, Reason, SingleInstance, Stream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Whether to run the full counts, which take minutes.
fn full() -> bool {
    std::env::var_os("SOCKPIPE_FULL").is_some()
}

fn rounds() -> usize {
    if full() { 20 } else { 5 }
}

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

/// Starts a process, again if Wine fails to: when many start at once, one may fail with
/// `ERROR_INTERNAL_ERROR` before it runs.
fn start(command: &mut Command) -> Child {
    let lost = |started: &io::Result<Child>| {
        cfg!(windows) && matches!(started, Err(error) if error.raw_os_error() == Some(1359))
    };
    let mut started = command.spawn();
    for _ in 0..5 {
        if lost(&started) {
            started = command.spawn();
        }
    }
    started.expect("a process")
}

#[tokio::test]
async fn one_of_many_cold_clients_starts_the_daemon_and_all_connect() {
    let started = Instant::now();
    for round in 0..rounds() {
        let daemon = Daemon::new();
        let log = daemon.log();
        // The daemons listen at once and late in turn; in a full run all of them listen late.
        let behaviour = if round % 2 == 0 && !full() { "serve" } else { "late" };
        let children: Vec<Child> = (0..CLIENTS.0)
            .map(|_| {
                let mut command = helper(
                    "helper_clients",
                    &[behaviour, &daemon.name, log.to_str().expect("UTF-8")],
                );
                start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().expect("an end");
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "round {round}: {err}");
        }
        assert_eq!(daemon.starts().len(), 1, "round {round}");
        daemon.stop().await;
    }
    let clients = CLIENTS.0 * CLIENTS.1;
    println!("{} rounds of {clients} cold clients in {:?}", rounds(), started.elapsed());
}

#[tokio::test]
async fn a_connector_reports_once_that_it_started_the_daemon() {
    let daemon = Daemon::new();
    let (tell, started) = std::sync::mpsc::channel();
    let (name, log) = (daemon.name.clone(), daemon.log());
    let connector = Connector::new(&daemon.name).expect("an endpoint");
    let connector = connector.options(ConnectOptions::new().deadline(common::PATIENCE));
    let starting = connector.clone().or_spawn(move || {
        let tell = tell.clone();
        let command = helper("helper_daemon", &["serve", &name, log.to_str().expect("UTF-8")]);
        DaemonCommand::new(command).on_start(move |pid| tell.send(pid).expect("a test"))
    });
    let error = within(connector.connect()).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for _ in 0..2 {
        within(starting.connect()).await.expect("a daemon");
    }
    let told: Vec<u32> = started.try_iter().collect();
    assert_eq!(told, daemon.starts());
    assert_eq!(told.len(), 1);
    // Programs that do not use sockpipe connect to the address that `locate` returns.
    let address = within(connector.locate()).await.expect("a daemon");
    within(Stream::connect(&address)).await.expect("a daemon");
    assert_ne!(address.to_string(), daemon.name);
    daemon.stop().await;
}

#[tokio::test]
async fn a_client_starts_no_daemon_while_the_old_one_stops() {
    let daemon = Daemon::new();
    let mut old = Listener::bind(&daemon.name).expect("a free name");
    let (client, server) = tokio::join!(Stream::connect(&daemon.name), old.accept());
    let connection = (client.expect("a connection"), server.expect("a connection"));
    assert_eq!(old.stop_listening().len(), 0);
    // A closed pipe may still accept a client for a moment.
    let options = ConnectOptions::new().deadline(Duration::from_millis(50));
    within(async { while Stream::connect_with(&daemon.name, &options).await.is_ok() {} }).await;
    let mut connecting = std::pin::pin!(daemon.connect("serve", common::PATIENCE));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut connecting).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(daemon.starts(), [0; 0]);
    drop((old, connection));
    within(connecting).await.expect("the next daemon");
    assert_eq!(daemon.starts().len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_is_detached_from_its_client() {
    let daemon = Daemon::new();
    let client = daemon.connect("serve", common::PATIENCE).await.expect("a connection");
    let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    drop(client);
    // A second client connects to the same daemon.
    drop(daemon.connect("serve", common::PATIENCE).await.expect("a connection"));
    assert_eq!(daemon.starts().len(), 1);
    if cfg!(target_os = "linux") {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let after_name = stat.rsplit_once(')').expect("a name").1;
        let fields: Vec<_> = after_name.split_whitespace().collect();
        // Fields 5 and 6 of proc(5): the daemon leads its own process group and session.
        assert_eq!((fields[2], fields[3]), (&*pid.to_string(), &*pid.to_string()));
        let link = |number| {
            let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).expect("a descriptor");
            link.to_string_lossy().into_owned()
        };
        assert_eq!((&*link(0), &*link(1)), ("/dev/null", "/dev/null"));
        assert!(link(2).ends_with("(deleted)"), "{}", link(2));
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors") {
            let Ok(link) = fs::read_link(entry.expect("an entry").path()) else { continue };
            assert!(!link.to_string_lossy().contains(".spawn"), "it has the spawn lock");
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_fails_to_start_is_reported_with_its_error_output() {
    let daemon = Daemon::new();
    let outcome = daemon.connect("fail", common::PATIENCE).await;
    let error = assert_reason!(outcome, Reason::ServerExited, daemon.name);
    // The reason does not contain the daemon's output, so the text is asserted.
    assert_says(&error, &["3", "the flux capacitor is empty"]);
    // The next client starts a daemon that works.
    drop(daemon.connect("serve", common::PATIENCE).await.expect("a connection"));
    assert_eq!(daemon.starts().len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_does_not_listen_is_named_and_left_running() {
    for behaviour in ["deaf", "elsewhere"] {
        let daemon = Daemon::new();
        // Long enough for the program to start, also under Wine.
        let limit = Duration::from_secs(if cfg!(windows) { 6 } else { 2 });
        let started = Instant::now();
        let outcome = daemon.connect(behaviour, limit).await;
        let error = assert_reason!(outcome, Reason::Deadline, daemon.name);
        assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
        assert!(started.elapsed() < limit * 2, "{:?}", started.elapsed());
        let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
        assert_says(&error, &[&format!("process {pid} ")]);
        stop_process(pid);
    }
}

/// The file in which the client that starts a daemon records the daemon's process.
fn spawn_file(daemon: &Daemon) -> PathBuf {
    if cfg!(unix) {
        return daemon.dir.path().join(".d.sock.spawn");
    }
    let files = fs::read_dir(std::env::temp_dir()).expect("a directory");
    let mut files = files.map(|entry| entry.expect("an entry").path());
    let name = |path: &PathBuf| path.to_string_lossy().into_owned();
    let file = files.find(|path| name(path).ends_with(&format!("{}.spawn", daemon.name)));
    file.unwrap_or_default()
}

#[tokio::test]
async fn a_slow_daemon_is_started_once_over_several_deadlines() {
    let mut daemon = Daemon::new();
    let limit = Duration::from_secs(if cfg!(windows) { 4 } else { 1 });
    if cfg!(unix) {
        daemon.name = daemon.dir.path().join("d.sock").to_str().expect("UTF-8").to_owned();
    }
    for _ in 0..3 {
        let outcome = daemon.connect("slow", limit).await;
        let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
        let error = assert_reason!(outcome, Reason::Deadline, daemon.name);
        assert_says(&error, &[&format!("process {pid} is still starting")]);
        assert!(spawn_file(&daemon).exists());
    }

    // Clients do not wait for a daemon that has died.
    stop_process(daemon.starts()[0]);
    let outcome = daemon.connect("slow", limit).await;
    let [_, pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    assert_says(&assert_reason!(outcome, Reason::Deadline), &[&pid.to_string()]);

    daemon.go();
    drop(daemon.connect("slow", common::PATIENCE).await.expect("a connection"));
    assert_eq!(daemon.starts().len(), 2);
    assert!(!spawn_file(&daemon).exists(), "the lock's file was left");
    daemon.stop().await;
}

#[tokio::test]
async fn kill_at_deadline_kills_a_daemon_that_hangs() {
    let daemon = Daemon::new();
    // Long enough for the program to start, also under Wine.
    let limit = Duration::from_secs(if cfg!(windows) { 4 } else { 1 });
    let error = assert_reason!(daemon.connect("deaf", limit).await, Reason::Deadline);
    let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    assert_says(&error, &["DaemonCommand::kill_at_deadline"]);

    // It also kills the daemon of an earlier call, where the system identifies a process for sure.
    let killing = || DaemonCommand::new(daemon.command("deaf")).kill_at_deadline(true);
    let outcome = daemon.connect_by(killing(), limit).await;
    if cfg!(any(target_os = "linux", windows)) {
        let error = assert_reason!(outcome, Reason::Deadline);
        assert_says(&error, &[&format!("process {pid} was killed")]);
    } else {
        assert_says(&assert_reason!(outcome, Reason::Deadline), &["is still starting"]);
        stop_process(pid);
    }
    let outcome = daemon.connect_by(killing(), limit).await;
    let [_, pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    let error = assert_reason!(outcome, Reason::Deadline);
    assert_says(&error, &[&format!("process {pid} was killed")]);

    drop(daemon.connect("serve", common::PATIENCE).await.expect("a connection"));
    assert_eq!(daemon.starts().len(), 3);
    daemon.stop().await;
}

/// The guide's page on daemons describes this loop.
#[tokio::test]
async fn a_client_that_connects_again_finds_a_new_daemon_each_time() {
    let daemon = Daemon::new();
    for round in 1..=4 {
        // A daemon that exits may drop a connection that was made just before.
        let mut stream = loop {
            let mut stream = daemon.connect("serve", common::PATIENCE).await.expect("a connection");
            let asked = within(stream.write_all(b"hello")).await;
            if asked.is_ok() && within(stream.read_exact(&mut [0; 5])).await.is_ok() {
                break stream;
            }
        };
        assert_eq!(daemon.starts().len(), round);
        // The daemon exits or crashes while the client is connected.
        if round % 2 == 0 {
            daemon.stop().await;
        } else {
            stop_process(daemon.starts()[round - 1]);
        }
        let end = within(stream.read(&mut [0])).await;
        assert!(matches!(end, Ok(0)), "{end:?}");
    }
}

#[tokio::test]
async fn a_command_that_succeeds_without_a_server_fails_soon() {
    let daemon = Daemon::new();
    let outcome = daemon.connect("nothing", common::PATIENCE).await;
    assert_reason!(outcome, Reason::ServerExited, daemon.name);
}

#[tokio::test]
async fn a_command_that_cannot_be_run_fails_and_releases_the_lock() {
    let name = unique_name();
    let command = Command::new("no-such-program-anywhere");
    let outcome = within(sockpipe::connect_or_spawn(&name, command)).await;
    assert_says(&assert_reason!(outcome, Reason::Os, name), &["no-such-program-anywhere"]);
    // The lock is released: the next attempt fails in the same place.
    let command = Command::new("no-such-program-anywhere");
    let outcome = within(sockpipe::connect_or_spawn(&name, command)).await;
    assert_reason!(outcome, Reason::Os, name);
}

/// A single-instance program. It prints its role; the primary prints the wishes of the others.
#[tokio::test]
async fn helper_instance() {
    let Some(arguments) = arguments() else { return };
    let [name, wish] = &arguments[..] else { panic!("{arguments:?}") };
    match SingleInstance::acquire(name).await.expect("one or the other") {
        SingleInstance::Primary(mut listener) => {
            println!("\nprimary");
            loop {
                let mut later = listener.accept().await.expect("a connection");
                let mut wish = String::new();
                later.read_to_string(&mut wish).await.expect("a wish");
                println!("\nwish {wish}");
            }
        }
        SingleInstance::Secondary(mut first) => {
            first.write_all(wish.as_bytes()).await.expect("a write");
            first.close(common::PATIENCE).await.expect("a close");
            println!("\nsecondary");
        }
    }
}

#[tokio::test]
async fn one_of_many_instances_is_the_first_and_receives_the_others() {
    #[cfg(windows)]
    if common::wine::skipped_without_model("it lets everybody create a first instance") {
        return;
    }
    const INSTANCES: usize = if cfg!(windows) { 4 } else { 16 };
    let name = unique_name();
    for _ in 0..3 {
        let mut instances: Vec<_> = (0..INSTANCES)
            .map(|number| {
                let mut command = helper("helper_instance", &[&name, &format!("open {number}")]);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                common::process::Running::start(command)
            })
            .collect();
        // Each instance prints its role.
        let is_first = |instance: &common::process::Running| loop {
            match instance.next_line().as_str() {
                "primary" => break true,
                "secondary" => break false,
                _ => {}
            }
        };
        let (firsts, others): (Vec<_>, Vec<_>) =
            instances.drain(..).partition(|instance| is_first(instance));
        assert_eq!((firsts.len(), others.len()), (1, INSTANCES - 1));
        let mut wishes = Vec::new();
        while wishes.len() < INSTANCES - 1 {
            let line = firsts[0].next_line();
            wishes.extend(
                line.strip_prefix("wish open ")
                    .map(|number| number.parse::<usize>().expect("a number")),
            );
        }
        wishes.sort_unstable();
        wishes.dedup();
        assert_eq!(wishes.len(), INSTANCES - 1, "{wishes:?}");
        // The primary crashes, and in the next round another instance becomes the primary.
        for first in firsts {
            first.crash();
        }
    }
}
