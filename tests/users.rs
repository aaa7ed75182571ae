//! Portable names and paths of two users, whose real processes root starts.
#![cfg(unix)] // A second user on Windows needs a real Windows.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::{Running, Users, text};
use common::unique_name;

const ALICE: u32 = 61_001;
const BOB: u32 = 61_002;

/// Starts a server and returns the address that it prints.
fn start(mut command: Command, endpoint: &str) -> (Running, String) {
    command.args([endpoint, "--quiet"]);
    let server = Running::start(command);
    let line = server.next_line();
    let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}"));
    (server, address.to_owned())
}

/// Runs a client. Returns its output if it succeeded, otherwise its error.
fn ask(mut command: Command, arguments: &[&str]) -> Result<String, String> {
    let output = command.args(arguments).args(["--count", "1"]).output().expect("a process");
    match output.status.code() {
        Some(0) => Ok(text(&output.stdout)),
        code => {
            assert_eq!(code, Some(1), "{}", text(&output.stderr));
            Err(text(&output.stderr))
        }
    }
}

/// A directory that exists as long as this value.
struct Dir(PathBuf);

impl Dir {
    fn new(path: PathBuf, owner: u32, mode: u32) -> Self {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::create_dir(&path).expect("a directory of our own");
        chown(&path, Some(owner), Some(owner)).expect("an owner");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn two_users_have_separate_servers_at_one_portable_name() {
    let Some(users) = Users::new() else { return };
    let name = unique_name();
    let (_alice, alices) = start(users.example("echo_server", ALICE), &name);
    let (_bob, bobs) = start(users.example("echo_server", BOB), &name);
    assert_ne!(alices, bobs);
    for uid in [ALICE, BOB] {
        ask(users.example("echo_client", uid), &[&name]).expect("the user's own server");
    }
    // Root has no such server, also with the user's environment as under sudo. The error names the
    // user and the paths.
    let mut as_root = users.example("echo_client", 0);
    as_root.env("XDG_RUNTIME_DIR", Path::new(&alices).parent().expect("a directory"));
    let error = ask(as_root, &[&name]).expect_err("no server of root's");
    assert!(error.contains(&format!("no server at {name} of uid 0 (looked for ")), "{error}");
    assert!(error.contains(&format!("/tmp/sockpipe-0/{name}.sock")), "{error}");
}

#[test]
fn a_client_outside_a_session_finds_the_sessions_server() {
    let Some(users) = Users::new() else { return };
    if cfg!(sockpipe_posix) {
        println!("not run: only Linux has /run/user");
        return;
    }
    // This user is used by no other test, so the directories of concurrent tests stay.
    let uid = 61_003;
    let session = Dir::new(format!("/run/user/{uid}").into(), uid, 0o700);
    let name = unique_name();
    let mut server = users.example("echo_server", uid);
    server.env("XDG_RUNTIME_DIR", &session.0);
    let (_server, address) = start(server, &name);
    assert_eq!(Path::new(&address), session.0.join(format!("{name}.sock")));
    ask(users.example("echo_client", uid), &[&name])
        .expect("as from cron, without XDG_RUNTIME_DIR");
}

#[test]
fn a_runtime_directory_of_another_user_is_passed_over() {
    let Some(users) = Users::new() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    for (owner, mode) in [(BOB, 0o755), (0, 0o1777), (ALICE, 0o770)] {
        let given = Dir::new(dir.path().join("runtime"), owner, mode);
        let mut server = users.example("echo_server", ALICE);
        server.env("XDG_RUNTIME_DIR", &given.0);
        let name = unique_name();
        let (_server, address) = start(server, &name);
        assert_eq!(address, format!("/tmp/sockpipe-{ALICE}/{name}.sock"), "{owner} {mode:o}");
        assert_eq!(fs::read_dir(&given.0).expect("a directory").count(), 0);
    }
}

#[test]
fn a_private_directory_that_another_user_made_is_refused() {
    let Some(users) = Users::new() else { return };
    let uid = 61_004;
    let path = format!("/tmp/sockpipe-{uid}");
    for (owner, mode) in [(BOB, 0o777), (BOB, 0o700), (uid, 0o755)] {
        let squatted = Dir::new(path.clone().into(), owner, mode);
        let mut server = users.example("echo_server", uid);
        let output = server.arg(unique_name()).output().expect("a process");
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        let right = err.contains(&path)
            && (err.contains(&format!("belongs to uid {owner} and has mode {mode:04o}"))
                || err.contains("Permission denied"));
        assert!(right, "{err}");
        assert_eq!(fs::read_dir(&squatted.0).expect("a directory").count(), 0);
    }
    // A link is not followed either, not even to another directory of the same user.
    let elsewhere = tempfile::tempdir().expect("a directory");
    chown(elsewhere.path(), Some(uid), Some(uid)).expect("an owner");
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
    std::os::unix::fs::symlink(elsewhere.path(), &path).expect("a link");
    let _link = Dir(path.into());
    let mut server = users.example("echo_server", uid);
    server.arg(unique_name());
    let (status, out, err) = Running::start(server).wait();
    assert_eq!(status.code(), Some(1), "{out:?} {err:?}");
    assert!(err.concat().contains(&format!("sockpipe-{uid}")), "{err:?}");
    assert_eq!(fs::read_dir(elsewhere.path()).expect("a directory").count(), 0);
}

#[test]
fn clients_and_servers_of_two_users_refuse_each_other() {
    let Some(users) = Users::new() else { return };
    // Like /tmp, the directory is sticky and open to all.
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).expect("a mode");
    let path = dir.path().join("s.sock").to_str().expect("UTF-8").to_owned();
    let (server, _) = start(users.example("echo_server", ALICE), &path);

    // The mode of the socket refuses this client.
    let refused = ask(users.example("echo_client", BOB), &[&path]).expect_err("owner only");
    assert!(refused.contains("refuse this user"), "{refused}");
    // This client may connect, and refuses the server's user.
    let impostor = ask(users.example("echo_client", 0), &[&path]).expect_err("not root's");
    let says = format!("it runs as uid {ALICE}, not as root");
    assert!(impostor.contains(&says) && impostor.contains("expect_server"), "{impostor}");
    ask(users.example("echo_client", 0), &[&path, "--any-server"]).expect("as it was told to");

    // Another user's server cannot bind the name while the first lives, nor after it crashed.
    let taken = |uid| {
        let mut second = users.example("echo_server", uid);
        let output = second.arg(&path).output().expect("a process");
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    for _ in ["alive", "crashed"] {
        for uid in [BOB, 0] {
            let err = taken(uid);
            let right =
                err.contains("belongs to another user") || err.contains("Permission denied");
            assert!(right && err.contains(&path), "{err}");
        }
    }
    server.crash();
    let err = taken(BOB);
    assert!(err.contains(&path), "{err}");
    assert!(Path::new(&path).exists(), "another user's socket was removed");
    // Without the lock file the socket itself shows its owner.
    fs::remove_file(dir.path().join(".s.sock.lock")).expect("the lock file");
    let err = taken(BOB);
    assert!(err.contains(&format!("the socket there belongs to uid {ALICE}")), "{err}");
    assert!(Path::new(&path).exists(), "another user's socket was removed");
    // On other systems a full backlog refuses too, so without the lock file `bind` does not take
    // the socket for dead at once.
    if cfg!(all(target_os = "linux", not(sockpipe_posix))) {
        start(users.example("echo_server", ALICE), &path);
    }
}
