//! Starting a server when it is needed, once; and one instance of a program. Real processes.

mod common;

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{assert_error, unique_name, within};
use sockpipe::{ConnectOptions, Listener, SingleInstance, Stream, connect_or_spawn_with, echo};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// Clients that come at once, in how many processes, and how often.
const CLIENTS: (usize, usize) = if cfg!(windows) { (4, 16) } else { (32, 2) };

fn rounds() -> usize {
    if cfg!(windows) { 5 } else { 20 }
}

/// A daemon that is not there yet: its name, and a file in which each start leaves a line.
struct Daemon {
    name: String,
    dir: TempDir,
}

impl Daemon {
    fn new() -> Self {
        Self { name: unique_name(), dir: tempfile::tempdir().expect("a directory") }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("starts")
    }

    /// The process id of each start.
    fn starts(&self) -> Vec<u32> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().map(|line| line.parse().expect("a process id")).collect()
    }

    fn command(&self, behaviour: &str) -> Command {
        helper("daemon", &[behaviour, &self.name, self.log().to_str().expect("UTF-8")])
    }

    async fn connect(&self, behaviour: &str, limit: Duration) -> std::io::Result<Stream> {
        let options = ConnectOptions::new().deadline(limit);
        within(connect_or_spawn_with(&self.name, self.command(behaviour), &options)).await
    }

    async fn stop(&self) {
        let mut stream = within(Stream::connect(&self.name)).await.expect("the daemon");
        within(stream.write_all(b"stop")).await.expect("a write");
        assert_eq!(within(stream.read(&mut [0])).await.expect("an end"), 0);
        // A new daemon can start once the old one's name is free.
        within(async { while Stream::connect(&self.name).await.is_ok() {} }).await;
    }
}

/// Runs the test `name` of this file in a process of its own, as a program with arguments.
fn helper(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test's own program"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env("SOCKPIPE_TEST_HELPER", arguments.join("\n"));
    command
}

fn arguments() -> Option<Vec<String>> {
    Some(common::argument()?.lines().map(str::to_owned).collect())
}

/// The daemon's program.
#[tokio::test]
async fn daemon() {
    let Some(arguments) = arguments() else { return };
    let [behaviour, name, log] = &arguments[..] else { panic!("{arguments:?}") };
    let mut log = fs::OpenOptions::new().append(true).create(true).open(log).expect("a log");
    log.write_all(format!("{}\n", std::process::id()).as_bytes()).expect("a line");
    match behaviour.as_str() {
        "fail" => {
            eprintln!("the flux capacitor is empty");
            std::process::exit(3);
        }
        "nothing" => std::process::exit(0),
        // Until its test lets it go on.
        "slow" => {
            while !Path::new(&format!("{name}.go")).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        "deaf" => std::thread::sleep(Duration::from_secs(600)),
        "elsewhere" => {
            let _listener = Listener::bind(format!("{name}-elsewhere")).expect("a free name");
            std::thread::sleep(Duration::from_secs(600));
        }
        _ => {}
    }
    let mut listener = Listener::bind(name).expect("a free name");
    loop {
        let mut stream = listener.accept().await.expect("a connection");
        tokio::spawn(async move {
            let mut stop = Vec::new();
            let seen = |bytes: &[u8]| {
                stop.extend_from_slice(bytes);
                if stop == b"stop" {
                    std::process::exit(0);
                }
            };
            echo::echo(&mut stream, seen).await
        });
    }
}

/// A program with clients of a daemon that may not run yet.
#[tokio::test]
async fn clients() {
    let Some(arguments) = arguments() else { return };
    let [name, log] = &arguments[..] else { panic!("{arguments:?}") };
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.1 {
        let command = helper("daemon", &["serve", name, log]);
        let name = name.clone();
        clients.spawn(async move {
            let options = ConnectOptions::new().deadline(common::PATIENCE);
            let stream = connect_or_spawn_with(name, command, &options).await;
            let mut stream = stream.expect("a connection");
            stream.write_all(b"?").await.expect("a write");
            assert_eq!(stream.read_u8().await.expect("an answer"), b'?');
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("a client that was served");
    }
}

#[tokio::test]
async fn of_many_cold_clients_one_starts_the_daemon_and_all_connect() {
    let started = Instant::now();
    for round in 0..rounds() {
        let daemon = Daemon::new();
        let log = daemon.log();
        let children: Vec<Child> = (0..CLIENTS.0)
            .map(|_| {
                let mut command = helper("clients", &[&daemon.name, log.to_str().expect("UTF-8")]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process")
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
async fn the_daemon_is_on_its_own() {
    let daemon = Daemon::new();
    let client = daemon.connect("serve", common::PATIENCE).await.expect("a connection");
    let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    drop(client);
    // A second client finds it.
    drop(daemon.connect("serve", common::PATIENCE).await.expect("a connection"));
    assert_eq!(daemon.starts().len(), 1);
    if cfg!(target_os = "linux") {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let after_name = stat.rsplit_once(')').expect("a name").1;
        let fields: Vec<_> = after_name.split_whitespace().collect();
        // Fields 5 and 6 of proc(5): the process group and the session are its own.
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
async fn a_daemon_that_fails_says_why() {
    let daemon = Daemon::new();
    let outcome = daemon.connect("fail", common::PATIENCE).await;
    let says = ["ended before it listened", &daemon.name, "3", "the flux capacitor is empty"];
    assert_error(outcome, ErrorKind::Other, &says);
    // The next client starts one that works.
    drop(daemon.connect("serve", common::PATIENCE).await.expect("a connection"));
    assert_eq!(daemon.starts().len(), 2);
    daemon.stop().await;
}

/// Another client's daemon has the name and is about to listen: ours ends for that, and its client waits
/// for the other one.
#[cfg(unix)]
#[tokio::test]
async fn a_daemon_that_another_one_precedes_is_no_failure() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, lock) = (dir.path().join("d.sock"), dir.path().join(".d.sock.lock"));
    let lock = fs::File::create(lock).expect("a lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    let options = ConnectOptions::new().deadline(common::PATIENCE);
    let mut connecting =
        Box::pin(connect_or_spawn_with(path.as_path(), Command::new("false"), &options));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut connecting).await;
    assert!(early.is_err(), "{early:?}");
    drop(lock);
    let mut listener = Listener::bind(path.as_path()).expect("a free name");
    let (stream, accepted) = within(async { tokio::join!(connecting, listener.accept()) }).await;
    stream.expect("a connection");
    accepted.expect("a client");
}

#[tokio::test]
async fn a_daemon_that_does_not_listen_there_is_named_in_time_and_left() {
    for behaviour in ["deaf", "elsewhere"] {
        let daemon = Daemon::new();
        // Long enough for the program to start, also under Wine.
        let limit = Duration::from_secs(if cfg!(windows) { 6 } else { 2 });
        let started = Instant::now();
        let outcome = daemon.connect(behaviour, limit).await;
        let says = ["no server after", "does not listen yet", &daemon.name];
        assert_error(outcome, ErrorKind::TimedOut, &says);
        assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
        assert!(started.elapsed() < limit * 2, "{:?}", started.elapsed());
        let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
        stop_process(pid);
    }
}

fn stop_process(pid: u32) {
    let mut command = Command::new(if cfg!(windows) { "taskkill" } else { "kill" });
    let arguments: &[&str] = if cfg!(windows) { &["/F", "/PID"] } else { &["-KILL"] };
    command.args(arguments).arg(pid.to_string()).stdout(Stdio::null());
    assert!(command.status().expect("a program").success(), "{pid} was gone");
}

#[tokio::test]
async fn a_command_that_ends_well_without_a_server_is_told_of_soon() {
    let daemon = Daemon::new();
    let outcome = daemon.connect("nothing", common::PATIENCE).await;
    assert_error(outcome, ErrorKind::Other, &["ended before it listened", &daemon.name, "0"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_daemon_starts_where_no_temporary_directory_can_be_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (name, log) = (dir.path().join("d.sock"), dir.path().join("starts"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut command = helper("clients", &[&text(&name), &text(&log)]);
    let output = command.env("TMPDIR", dir.path().join("nowhere")).output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let names = fs::read_dir(dir.path()).expect("a directory");
    let names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".sockpipe")), "{names:?}");
    let mut stream = within(Stream::connect(name.as_path())).await.expect("the daemon");
    within(stream.write_all(b"stop")).await.expect("a write");
    assert_eq!(within(stream.read(&mut [0])).await.expect("an end"), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn a_slow_daemon_is_started_once_over_several_deadlines() {
    let mut daemon = Daemon::new();
    daemon.name = daemon.dir.path().join("d.sock").to_str().expect("UTF-8").to_owned();
    let file = daemon.dir.path().join(".d.sock.spawn");
    for _ in 0..3 {
        let outcome = daemon.connect("slow", Duration::from_secs(1)).await;
        let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
        assert_error(outcome, ErrorKind::TimedOut, &[&format!("process {pid} is still starting")]);
        assert!(file.exists());
    }

    // One that is gone is waited for no longer.
    stop_process(daemon.starts()[0]);
    let outcome = daemon.connect("slow", Duration::from_secs(1)).await;
    let [_, pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    assert_error(outcome, ErrorKind::TimedOut, &[&pid.to_string()]);

    fs::write(format!("{}.go", daemon.name), "").expect("a file");
    drop(daemon.connect("slow", common::PATIENCE).await.expect("a connection"));
    assert_eq!(daemon.starts().len(), 2);
    assert!(!file.exists(), "the lock's file was left");
    daemon.stop().await;
}

#[cfg(unix)]
fn process(pid: u32) -> rustix::process::Pid {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("an id")
}

/// Until there is no such process, nor a zombie of it.
#[cfg(unix)]
async fn gone(pid: rustix::process::Pid) {
    within(async {
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_daemon_whose_client_is_refused_leaves_no_zombie() {
    use sockpipe::{ExpectServer, UserId};
    let daemon = Daemon::new();
    let other = ExpectServer::Exactly(UserId::Uid(rustix::process::geteuid().as_raw() + 1));
    let options = ConnectOptions::new().deadline(common::PATIENCE).expect_server(other);
    let connecting = connect_or_spawn_with(&daemon.name, daemon.command("serve"), &options);
    assert_error(within(connecting).await, ErrorKind::PermissionDenied, &[&daemon.name]);
    let [pid] = daemon.starts()[..] else { panic!("{:?}", daemon.starts()) };
    // It goes on, for clients that want it.
    daemon.stop().await;
    gone(process(pid)).await;
}

#[cfg(unix)]
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

#[tokio::test]
async fn a_command_that_cannot_be_run() {
    let name = unique_name();
    let command = Command::new("no-such-program-anywhere");
    let outcome = within(sockpipe::connect_or_spawn(&name, command)).await;
    assert_error(outcome, ErrorKind::NotFound, &["cannot start no-such-program-anywhere"]);
    // It has let go of the lock: the next try gets as far.
    let command = Command::new("no-such-program-anywhere");
    let outcome = within(sockpipe::connect_or_spawn(&name, command)).await;
    assert_error(outcome, ErrorKind::NotFound, &["cannot start no-such-program-anywhere"]);
}

/// A program of which there is to be one. Prints what it is; the first prints what the others want.
#[tokio::test]
async fn instance() {
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
async fn of_many_instances_one_is_the_first_and_hears_of_the_others() {
    const INSTANCES: usize = if cfg!(windows) { 4 } else { 16 };
    let name = unique_name();
    for _ in 0..3 {
        let mut instances: Vec<_> = (0..INSTANCES)
            .map(|number| {
                let mut command = helper("instance", &[&name, &format!("open {number}")]);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                common::process::Running::start(command)
            })
            .collect();
        // Each says what it is.
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
        // The first crashes; in the next round there is another.
        for first in firsts {
            first.crash();
        }
    }
}
