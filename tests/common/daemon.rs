//! Runs a daemon and its clients as processes. The calling test file has to have tests called
//! `daemon` and `clients`, which are the programs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sockpipe::{ConnectOptions, DaemonCommand, Listener, Stream, connect_or_spawn_with, echo};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{PATIENCE, argument, unique_name, within};

/// How many processes connect at the same time, and with how many clients each.
pub const CLIENTS: (usize, usize) = if cfg!(windows) { (4, 16) } else { (32, 2) };

/// A daemon that does not run yet: its name, and a file to which each start adds a line.
pub struct Daemon {
    pub name: String,
    pub dir: TempDir,
}

impl Daemon {
    pub fn new() -> Self {
        Self { name: unique_name(), dir: tempfile::tempdir().expect("a directory") }
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("starts")
    }

    /// Lets a slow daemon go on.
    pub fn go(&self) {
        fs::write(self.dir.path().join("starts.go"), "").expect("a file");
    }

    /// Returns the process id of each start.
    pub fn starts(&self) -> Vec<u32> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().map(|line| line.parse().expect("a process id")).collect()
    }

    pub fn command(&self, behaviour: &str) -> Command {
        helper("helper_daemon", &[behaviour, &self.name, self.log().to_str().expect("UTF-8")])
    }

    pub async fn connect(&self, behaviour: &str, limit: Duration) -> std::io::Result<Stream> {
        self.connect_by(self.command(behaviour), limit).await
    }

    pub async fn connect_by(
        &self,
        command: impl Into<DaemonCommand>,
        limit: Duration,
    ) -> std::io::Result<Stream> {
        let options = ConnectOptions::new().deadline(limit);
        within(connect_or_spawn_with(&self.name, command, &options)).await
    }

    pub async fn stop(&self) {
        let mut stream = within(Stream::connect(&self.name)).await.expect("the daemon");
        within(stream.write_all(b"stop")).await.expect("a write");
        assert_eq!(within(stream.read(&mut [0])).await.expect("an end"), 0);
        // A new daemon can start once the old one's name is free.
        within(async { while Stream::connect(&self.name).await.is_ok() {} }).await;
    }
}

/// Returns the test `name` of this file as a program with arguments.
pub fn helper(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test's own program"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env("SOCKPIPE_TEST_HELPER", arguments.join("\n"));
    command
}

pub fn arguments() -> Option<Vec<String>> {
    Some(argument()?.lines().map(str::to_owned).collect())
}

/// The daemon's program.
pub async fn daemon() {
    let Some(arguments) = arguments() else { return };
    let [behaviour, name, log] = &arguments[..] else { panic!("{arguments:?}") };
    let go = format!("{log}.go");
    let mut log = fs::OpenOptions::new().append(true).create(true).open(log).expect("a log");
    log.write_all(format!("{}\n", std::process::id()).as_bytes()).expect("a line");
    match behaviour.as_str() {
        "fail" => {
            eprintln!("the flux capacitor is empty");
            std::process::exit(3);
        }
        "nothing" => std::process::exit(0),
        // The daemon waits for its test.
        "slow" => {
            while !Path::new(&go).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        "late" => std::thread::sleep(Duration::from_millis(500)),
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

/// The program of clients whose daemon may not run yet.
pub async fn clients() {
    let Some(arguments) = arguments() else { return };
    let [behaviour, name, log] = &arguments[..] else { panic!("{arguments:?}") };
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.1 {
        let command = helper("helper_daemon", &[behaviour, name, log]);
        let name = name.clone();
        clients.spawn(async move {
            let options = ConnectOptions::new().deadline(PATIENCE);
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

pub fn stop_process(pid: u32) {
    let mut command = Command::new(if cfg!(windows) { "taskkill" } else { "kill" });
    let arguments: &[&str] = if cfg!(windows) { &["/F", "/PID"] } else { &["-KILL"] };
    command.args(arguments).arg(pid.to_string()).stdout(Stdio::null());
    assert!(command.status().expect("a program").success(), "{pid} was gone");
}
