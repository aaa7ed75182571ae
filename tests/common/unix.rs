//! Helpers that the tests of the Unix backend share: the test helper as a process, and the tools
//! that run it as another user, with other limits, or with system calls that fail.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sockpipe::{ListenOptions, Listener};

use super::process::{Running, Users, example, is_here};
use super::{Backend, Os, PATIENCE};

/// A user id without an account.
pub const STRANGER: u32 = 61_010;
pub const OTHER_STRANGER: u32 = 61_011;

/// Reports whether to run the full counts of the acceptance checks, which take minutes.
pub fn full() -> bool {
    std::env::var_os("SOCKPIPE_FULL").is_some()
}

/// Returns the number of rounds of this run: `normal`, or `all` in a full run.
pub fn rounds(normal: u32, all: u32) -> u32 {
    if full() { all } else { normal }
}

/// Reports whether this is Linux, and prints if not.
pub fn on_linux(what: &str) -> bool {
    let linux = cfg!(target_os = "linux");
    if !linux {
        println!("not run: {what} is Linux's");
    }
    linux
}

/// Like [`on_linux`], for features that the backend of macOS and the BSDs does not use even on
/// Linux.
pub fn with_linux_backend(what: &str) -> bool {
    let linux = cfg!(all(target_os = "linux", not(sockpipe_posix)));
    if !linux {
        println!("not run: the backend uses {what} on Linux only");
    }
    linux
}

/// Returns the test helper with `arguments`. It ends with its standard input, which is a pipe.
pub fn helper(arguments: &[&str]) -> Command {
    let mut command = example("test_helper");
    command.args(arguments).stdin(Stdio::piped());
    command
}

/// Returns the test helper as another user and group, with the supplementary `groups`.
pub fn helper_as(users: &Users, uid: u32, groups: &[u32], arguments: &[&str]) -> Command {
    let mut command = users.example("test_helper", uid);
    if !groups.is_empty() {
        let program = users.program("test_helper");
        let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
        command = Command::new("setpriv");
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg(format!("--groups={}", groups.join(",")))
            .arg(program)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }
    command.args(arguments).stdin(Stdio::piped());
    command
}

/// Returns `program` with `command` as its last arguments, and with the same pipes.
pub fn through(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    outer
}

/// Returns `command` under strace, which logs the calls that `options` name to the file `log`.
/// Returns `None` and prints why, if strace is missing or may not trace.
pub fn strace(log: &Path, options: &[&str], command: &Command) -> Option<Command> {
    if !on_linux("strace") || !is_here("strace") {
        return None;
    }
    let allowed = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        let required = std::env::var_os("SOCKPIPE_REQUIRE_PEERS").is_some();
        assert!(!required, "strace may not trace here, and SOCKPIPE_REQUIRE_PEERS is set");
        println!("not run: strace may not trace here");
        return None;
    }
    let log = log.to_str().expect("UTF-8");
    Some(through("strace", &[&["-f", "-qq", "-o", log], options].concat(), command))
}

/// Reports whether `unshare` works with `options`. Containers often forbid it.
pub fn can_unshare(options: &[&str]) -> bool {
    if !on_linux("unshare") || !is_here("unshare") {
        return false;
    }
    let tried = Command::new("unshare").args(options).arg("true").output().expect("unshare");
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        println!("not run: unshare {options:?} does not work here: {}", why.trim());
    }
    tried.status.success()
}

/// Starts a server of the test helper, waits until it listens, and returns its process id. If
/// another program runs it, that is not the child's.
#[track_caller]
pub fn listening(command: Command) -> (Running, u32) {
    let server = Running::start(command);
    let line = server.next_line();
    let id = line.strip_prefix("listening ").unwrap_or_else(|| panic!("{line:?}"));
    let id = id.parse().expect("a process id");
    (server, id)
}

/// Connects to a server of the test helper, and waits for its answer.
#[track_caller]
pub fn ping(socket: &Path) {
    let mut client = UnixStream::connect(socket).expect("a server");
    client.set_read_timeout(Some(PATIENCE)).expect("a limit");
    client.write_all(b"eping").expect("a write");
    client.read_exact(&mut [0; 4]).expect("an answer");
}

pub fn command(server: &mut Running, line: &str) {
    let input = server.child.stdin.as_mut().expect("a pipe");
    writeln!(input, "{line}").expect("a server that listens to its commands");
}

#[track_caller]
pub fn ask(server: &mut Running, line: &str) -> String {
    command(server, line);
    server.next_line()
}

/// Closes the helper's standard input, and returns everything that it has printed since.
#[track_caller]
pub fn finish(mut running: Running) -> Vec<String> {
    drop(running.child.stdin.take());
    let (status, out, err) = running.wait();
    assert!(status.success(), "{status}: {out:?} {err:?}");
    out
}

/// Returns everything that the helper printed, from its start to its end.
#[track_caller]
pub fn output(command: Command) -> Vec<String> {
    let (status, out, err) = Running::start(command).wait();
    assert!(status.success(), "{status}: {out:?} {err:?}");
    out
}

/// Returns the number that follows `name` in a line such as `accepted 3 refused 4`.
#[track_caller]
pub fn count(line: &str, name: &str) -> u64 {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    let number = words.nth(1).and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// Polls until `condition` holds. Tests use it for another process, which they cannot await.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not so after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns a backend in a directory that every user can enter.
pub fn open_to_all() -> Os {
    let os = Os::new();
    set_mode(&os.dir(), 0o755);
    os
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// Everything that can be observed of the file at a path, without following links.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    id: (u64, u64),
    owner: (u32, u32, u32),
    changed: (i64, i64, i64, i64),
    contents: Vec<u8>,
}

impl Standing {
    pub fn at(path: &Path) -> Self {
        let data = fs::symlink_metadata(path).expect("something");
        let contents = if data.is_file() {
            fs::read(path).expect("a file")
        } else if data.is_symlink() {
            fs::read_link(path).expect("a link").into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        Self {
            id: (data.dev(), data.ino()),
            owner: (data.uid(), data.gid(), data.mode()),
            // The change time shows that the file was touched, even if the modification time was
            // restored.
            changed: (data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()),
            contents,
        }
    }
}

/// Returns a path through a new link `name` to `to`.
pub fn linked(os: &Os, name: &str, to: &Path) -> PathBuf {
    let path = os.dir().join(name);
    symlink(to, &path).expect("a link");
    path
}

/// Takes the name of another program's dead socket. That takes a while if the system does not
/// report which process has a socket.
pub async fn bind_over_the_dead(os: &Os) -> Listener {
    let options = ListenOptions::new();
    let bound = Listener::bind_wait(os.endpoint(), &options, PATIENCE).await;
    bound.expect("the name of the dead")
}
