//! Runs the built examples and other programs as processes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use sockpipe::Endpoint;

use super::PATIENCE;

/// Restores the default action of SIGINT. A shell that starts the tests in the background may have
/// them ignore it, and the programs that they start would inherit that.
#[cfg(unix)]
#[allow(unsafe_code, reason = "there is no safe call for it")]
pub fn heed_interrupts() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: the default is a valid action for the signal, and no handler of this process is lost.
    ONCE.call_once(|| unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
    });
}

#[cfg(not(unix))]
pub fn heed_interrupts() {}

pub fn example(name: &str) -> Command {
    heed_interrupts();
    // The tests are in target/debug/deps, and the examples in target/debug/examples.
    let program = std::env::current_exe().expect("the test's own program");
    let directory = program.parent().and_then(|deps| deps.parent()).expect("two parents");
    let path = directory.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built: run `cargo build --examples`", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns the program `sockpipe` of the package `sockpipe-cli`.
pub fn tool() -> Command {
    heed_interrupts();
    let program = std::env::current_exe().expect("the test's own program");
    let directory = program.parent().and_then(|deps| deps.parent()).expect("two parents");
    let path = directory.join(format!("sockpipe{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Reports whether this machine has `program`, and prints if not. With `SOCKPIPE_REQUIRE_PEERS` set
/// it panics instead.
pub fn is_here(program: &str) -> bool {
    if is_in_path(program) {
        return true;
    }
    let required = std::env::var_os("SOCKPIPE_REQUIRE_PEERS").is_some();
    assert!(!required, "{program} is not on this machine, and SOCKPIPE_REQUIRE_PEERS is set");
    println!("not run: {program} is not on this machine");
    false
}

pub fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Programs in a place where every user can run them, and a way to run them as another user. Only
/// root can do that.
#[cfg(unix)]
pub struct Users {
    programs: tempfile::TempDir,
}

#[cfg(unix)]
impl Users {
    /// Returns `None` and prints why, if this user is not root or setpriv is missing.
    pub fn new() -> Option<Self> {
        use std::fs::{Permissions, set_permissions};
        use std::os::unix::fs::PermissionsExt;

        if !rustix::process::geteuid().is_root() {
            println!("not run: only root can run programs as other users");
            return None;
        }
        if !is_here("setpriv") {
            return None;
        }
        let programs = tempfile::tempdir().expect("a directory");
        set_permissions(programs.path(), Permissions::from_mode(0o755)).expect("a mode");
        Some(Self { programs })
    }

    /// Returns the path of a copy of `example`.
    pub fn program(&self, example: &str) -> std::path::PathBuf {
        self.copy(&self::example(example), example)
    }

    /// Returns the path of a copy of the program that `command` runs, called `name`.
    pub fn copy(&self, command: &Command, name: &str) -> std::path::PathBuf {
        let program = self.programs.path().join(name);
        if !program.exists() {
            // A separate process copies the program. If another test forked a child while this
            // process had the copy open for writing, the copy could not be run ("text file busy").
            let original = command.get_program();
            let copied = Command::new("cp").arg(original).arg(&program).status().expect("cp");
            assert!(copied.success(), "{copied}");
        }
        program
    }

    /// Returns `example` as a command of user and group `uid`, with an empty environment.
    pub fn example(&self, example: &str, uid: u32) -> Command {
        Self::run_as(&self.program(example), uid)
    }

    /// Returns a program as a command of user and group `uid`, with an empty environment.
    pub fn run_as(program: &std::path::Path, uid: u32) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg("--clear-groups")
            .arg(program)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A running program whose output is read as it arrives.
pub struct Running {
    pub child: Child,
    pub out: Receiver<String>,
    pub err: Receiver<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("a process");
        let out = lines(child.stdout.take().expect("a pipe"));
        let err = lines(child.stderr.take().expect("a pipe"));
        Self { child, out, err }
    }

    #[track_caller]
    pub fn next_line(&self) -> String {
        match self.out.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => panic!("no line; errors: {:?}", self.err.try_iter().collect::<Vec<_>>()),
        }
    }

    #[track_caller]
    pub fn wait(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                // Both end with the process, so these calls do not wait.
                let (out, err) = (self.out.iter().collect(), self.err.iter().collect());
                return (status, out, err);
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub fn crash(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("a signal");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

pub fn server(endpoint: &str, arguments: &[&str]) -> Running {
    let mut command = example("echo_server");
    command.arg(endpoint).args(arguments);
    let server = Running::start(command);
    let line = server.next_line();
    let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}"));
    assert!(address.parse::<Endpoint>().is_ok(), "{address:?} is no endpoint");
    server
}

/// Runs `echo_client` to its end.
pub fn client(endpoint: &str, arguments: &[&str]) -> Output {
    let mut command = example("echo_client");
    command.arg(endpoint).args(arguments);
    command.output().expect("a process")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}
