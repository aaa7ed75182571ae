//! Directories that change under a server, and what is mounted there.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::process::is_here;
use common::unix::{
    can_unshare, finish, helper, listening, output, set_mode, through, until, with_linux_backend,
};
use common::{Backend, Os, unique_name};

/// The helper with a runtime directory of its own.
fn at_home(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = helper(arguments);
    command.env("XDG_RUNTIME_DIR", dir);
    command
}

/// Clients pass such a directory over, and say so; no second server starts beside the one in it.
#[test]
fn a_runtime_directory_that_others_may_write_to_by_now() {
    let (home, name) = (tempfile::tempdir().expect("a directory"), unique_name());
    set_mode(home.path(), 0o700);
    let (server, id) = listening(at_home(home.path(), &["server", &name]));
    for mode in [0o777, 0o722, 0o1777] {
        set_mode(home.path(), mode);
        let said = output(at_home(home.path(), &["connect", &name])).join("");
        let shown = home.path().display().to_string();
        for part in ["NotFound", &shown, "passed over", &format!("(mode {mode:04o})")] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        let second = output(at_home(home.path(), &["server", &name])).join("");
        for part in ["AddrInUse", &shown, &id.to_string()] {
            assert!(second.contains(part), "{part:?} is not in {second:?}");
        }
    }
    set_mode(home.path(), 0o700);
    let said = output(at_home(home.path(), &["connect", &name])).join("");
    assert!(!said.contains("NotFound"), "{said}");
    finish(server);
}

/// It cannot be replaced: neither a start nor a look promises that.
#[test]
fn a_dead_socket_that_is_a_mount_point() {
    if !can_unshare(&["-m"]) || !is_here("mount") {
        return;
    }
    let os = Os::new();
    let dead = os.dir().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    fs::write(os.endpoint(), "").expect("a file");
    let mounted =
        format!(r#"set -e; mount --bind {} {}; set +e; "$0" "$@""#, dead.display(), os.endpoint());
    // Where a refusal proves nothing, a start that does not wait gets no further than that.
    let verbs: &[_] = if cfg!(sockpipe_posix) { &["clean"] } else { &["clean", "server"] };
    for verb in verbs {
        let command = helper(&[verb, os.endpoint()]);
        let said = output(through("unshare", &["-m", "sh", "-c", &mounted], &command)).join("");
        for part in [os.endpoint(), "mounted there", "unmount it"] {
            assert!(said.contains(part), "{verb}: {part:?} is not in {said:?}");
        }
    }
    if with_linux_backend("the attribute of a mount point") {
        let command = helper(&["occupancy", os.endpoint()]);
        let said = output(through("unshare", &["-m", "sh", "-c", &mounted], &command)).join("");
        assert!(said.contains("a mount point with a dead socket"), "{said}");
    }
}

/// As at a logout and the next login. It is there again before programs that wait give up.
#[test]
fn a_runtime_directory_that_is_mounted_anew() {
    if !can_unshare(&["-m"]) || !is_here("mount") || !is_here("nsenter") {
        return;
    }
    if !with_linux_backend("what tells of mounts") {
        return;
    }
    let (home, name) = (tempfile::tempdir().expect("a directory"), unique_name());
    set_mode(home.path(), 0o700);
    let dir = home.path().display();
    let mount = format!("mount -t tmpfs -o mode=700 none {dir}");
    let server = helper(&["server", &name]);
    let own = format!(r#"set -e; {mount}; exec "$0" "$@""#);
    let mut server = through("unshare", &["-m", "sh", "-c", &own], &server);
    server.env("XDG_RUNTIME_DIR", home.path());
    let (server, id) = listening(server);

    let socket = format!("/proc/{id}/root{dir}/{name}.sock");
    assert!(Path::new(&socket).exists());
    let changed = Instant::now();
    let again = format!("set -e; umount -l {dir}; sleep 0.2; {mount}");
    let entered = ["-m", "-t", &id.to_string(), "sh", "-c", &again];
    let status = Command::new("nsenter").args(entered).status().expect("nsenter");
    assert!(status.success(), "{status}");
    assert!(!Path::new(&socket).exists(), "the new directory has nothing yet");
    until("it is bound anew", || Path::new(&socket).exists());
    let took = changed.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    finish(server);
    let left = fs::read_dir(home.path()).expect("a directory").count();
    assert_eq!(left, 0, "in the directory below");
}
