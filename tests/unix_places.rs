//! Directories that change under a server: their modes, mounts, copies and overlays.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::process::{Running, Users, is_here};
use common::unix::{
    can_unshare, finish, helper, helper_as, listening, output, ping, set_mode, strace, through,
    until, with_linux_backend,
};
use common::{Backend, Os, unique_name};

/// The helper with `dir` as its runtime directory.
fn at_home(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = helper(arguments);
    command.env("XDG_RUNTIME_DIR", dir);
    command
}

/// Their error says so, and no second server starts beside the one in that directory.
#[test]
fn clients_pass_over_a_runtime_directory_opened_to_others() {
    let (home, name) = (tempfile::tempdir().expect("a directory"), unique_name());
    set_mode(home.path(), 0o700);
    let (server, id) = listening(at_home(home.path(), &["server", &name]));
    for mode in [0o777, 0o722, 0o1777] {
        set_mode(home.path(), mode);
        let said = output(at_home(home.path(), &["connect", &name])).join("");
        let shown = home.path().display().to_string();
        for part in ["NotFound NoServer: ", &shown, "passed over", &format!("(mode {mode:04o})")] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        let second = output(at_home(home.path(), &["server", &name])).join("");
        for part in ["AddrInUse LiveServer: ", &shown, &id.to_string()] {
            assert!(second.contains(part), "{part:?} is not in {second:?}");
        }
    }
    set_mode(home.path(), 0o700);
    let said = output(at_home(home.path(), &["connect", &name])).join("");
    assert!(said.starts_with("served by"), "{said}");
    finish(server);
}

/// A mount point cannot be removed, so the errors advise to unmount it.
#[test]
fn a_dead_socket_that_is_a_mount_point_is_left_alone() {
    if !can_unshare(&["-m"]) || !is_here("mount") {
        return;
    }
    let os = Os::new();
    let dead = os.dir().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    fs::write(os.endpoint(), "").expect("a file");
    let mounted =
        format!(r#"set -e; mount --bind {} {}; set +e; "$0" "$@""#, dead.display(), os.endpoint());
    // Where a refusal does not prove a socket dead, a start that does not wait fails earlier.
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

/// A logout and the next login remount it. The server is back before waiting programs give up.
#[test]
fn a_server_binds_again_when_its_runtime_directory_is_remounted() {
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
    // The server checks its name meanwhile, and binds it in the directory below the mount.
    let below = home.path().join(format!("{name}.sock"));
    let inside = format!("/proc/{id}/root{}", below.display());
    let enter = |script: &str| {
        let entered = ["-m", "-t", &id.to_string(), "sh", "-c", script];
        let status = Command::new("nsenter").args(entered).status().expect("nsenter");
        assert!(status.success(), "{status}");
    };
    enter(&format!("umount -l {dir}"));
    // A client that does not wait is refused between the bind and the listen.
    until("it listens in the directory below", || UnixStream::connect(&inside).is_ok());
    // It serves a client only after it has begun to watch the name that it has now.
    ping(Path::new(&inside));
    let changed = Instant::now();
    enter(&mount);
    assert!(!Path::new(&socket).exists(), "the new directory has nothing yet");
    until("it is bound anew", || Path::new(&socket).exists());
    let took = changed.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    until("it has left the directory below", || !below.exists());
    finish(server);
    let left = fs::read_dir(home.path()).expect("a directory").count();
    assert_eq!(left, 0, "in the directory below");
}

/// A server must not listen, and a client must not look, in another directory than other programs.
#[test]
fn bind_and_connect_use_no_other_directory_after_a_transient_error() {
    let (home, name) = (tempfile::tempdir().expect("a directory"), unique_name());
    set_mode(home.path(), 0o700);
    let dir = home.path().to_str().expect("UTF-8");
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    // A server in the next directory would answer a client that looks there.
    let elsewhere = |arguments: &[&str]| {
        let mut command = helper(arguments);
        command.env_remove("XDG_RUNTIME_DIR");
        command
    };
    // The name of the call depends on the C library, and on 32 bits it supports times after 2038.
    let state =
        if cfg!(target_pointer_width = "32") { "statx" } else { "fstat,?fstat64,?newfstatat" };
    for error in ["EMFILE", "ENFILE", "ENOMEM", "EIO", "EINTR"] {
        for call in ["openat", state] {
            let inject = format!("inject={call}:error={error}:when=1");
            let options = ["-P", dir, "-e", &inject];
            for verb in ["server", "connect"] {
                let next = (verb == "connect").then(|| listening(elsewhere(&["server", &name])));
                let Some(mut command) = strace(&log, &options, &helper(&[verb, &name])) else {
                    return;
                };
                command.env("XDG_RUNTIME_DIR", dir);
                let mut running = Running::start(command);
                drop(running.child.stdin.take());
                let (_, out, err) = running.wait();
                let calls = fs::read_to_string(&log).expect("a log");
                assert!(calls.contains("(INJECTED)"), "{verb} {call} {error}: {calls}");
                let said = out.concat();
                let what = format!("{verb}, {error} of {call}: {said:?} {err:?}");
                let well = ["listening", "served", "cleaned"];
                assert!(!well.iter().any(|well| said.starts_with(well)), "{what}");
                assert!(said.contains(&name) || said.contains(dir), "{what}");
                if let Some((next, _)) = next {
                    finish(next);
                }
                assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 0, "{what}");
            }
        }
    }
}

/// The dead socket is in the lower layer, with and without its lock file. The overlay shows it as a
/// different file.
#[test]
fn a_dead_socket_in_the_lower_layer_of_an_overlay_is_replaced() {
    if !can_unshare(&["-m"]) || !is_here("mount") {
        return;
    }
    let os = Os::new();
    let base = os.dir();
    let base = base.to_str().expect("UTF-8");
    let overlay = format!(
        r#"set -e; mount -t tmpfs none {base}; cd {base}; mkdir lower upper work merged
        mkfifo input; exec 9<>input
        "$0" server {base}/lower/s.sock <input >said & server=$!
        while ! grep -q listening said; do :; done
        kill -9 $server; wait $server || true; exec 9>&-
        "#
    );
    let mount = "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none merged";
    // Where a refusal does not prove a socket dead, a start that does not wait fails earlier.
    let verbs: &[_] = if cfg!(sockpipe_posix) { &["clean"] } else { &["clean", "server"] };
    for before in ["", "rm lower/.s.sock.lock;", "mkdir -p other; cp -al lower/. other;"] {
        for verb in verbs {
            let script = format!(
                r#"{overlay} {before} {mount} || {{ echo "no overlay"; exit 0; }}
                set +e; "$0" "$@"; echo "left $(ls -A merged)"; umount merged; ls -A lower"#
            );
            let path = os.dir().join("merged/s.sock");
            let command = helper(&[verb, path.to_str().expect("UTF-8")]);
            let mut running =
                Running::start(through("unshare", &["-m", "sh", "-c", &script], &command));
            drop(running.child.stdin.take());
            let (_, out, err) = running.wait();
            if out.first().is_some_and(|line| line == "no overlay") {
                println!("not run: no overlay can be mounted here: {err:?}");
                return;
            }
            let first = out.first().cloned().unwrap_or_default();
            let well = first.starts_with("listening ") || first == "cleaned true";
            assert!(well, "{before} {verb}: {out:?} {err:?}");
            assert_eq!(out.get(1).map(String::as_str), Some("left "), "{before} {verb}: {out:?}");
            // The lower layer is unchanged.
            assert!(out.iter().any(|line| line == "s.sock"), "{before} {verb}: {out:?}");
        }
    }
}

/// `cp -al` makes such a copy, of a live server and of a dead one.
#[test]
fn a_hard_linked_copy_of_a_servers_directory_is_kept_apart() {
    if !is_here("cp") {
        return;
    }
    for dies in [false, true] {
        let os = Os::new();
        let (one, copy) = (os.dir().join("one"), os.dir().join("copy"));
        fs::create_dir(&one).expect("a directory");
        let [path, copied] = [&one, &copy].map(|dir| dir.join("s.sock").display().to_string());
        let (server, id) = listening(helper(&["server", &path]));
        let copies = Command::new("cp").arg("-al").args([&one, &copy]).status().expect("cp");
        assert!(copies.success(), "{copies}");
        let lock = copy.join(".s.sock.lock");
        let before = fs::read(&lock).expect("a lock");
        if dies {
            server.crash();
            // There a refusal does not prove the socket dead, and a lock file with two names does
            // not count.
            if cfg!(sockpipe_posix) {
                assert_eq!(output(helper(&["clean", &copied])), ["cleaned true"]);
            }
            // Both servers are dead by now, and each name can be bound without the other.
            let (second, _) = listening(helper(&["server", &copied]));
            let (first, _) = listening(helper(&["server", &path]));
            for (server, dir) in [(first, &one), (second, &copy)] {
                finish(server);
                assert_eq!(fs::read_dir(dir).expect("a directory").count(), 0);
            }
            continue;
        }
        for path in [&path, &copied] {
            let said = output(helper(&["server", path])).concat();
            assert!(
                said.starts_with("AddrInUse LiveServer: ") && said.contains(path.as_str()),
                "{said}"
            );
        }
        assert_eq!(fs::read(&lock).expect("a lock"), before);
        let said = output(helper(&["connect", &path])).concat();
        assert!(said.contains(&id.to_string()) || said.starts_with("served by"), "{said}");
        finish(server);
        // The server has removed its own files, and the copies belong to no process.
        assert_eq!(fs::read_dir(&one).expect("a directory").count(), 0);
        if cfg!(sockpipe_posix) {
            assert_eq!(output(helper(&["clean", &copied])), ["cleaned true"]);
        }
        finish(listening(helper(&["server", &copied])).0);
        assert_eq!(fs::read_dir(&copy).expect("a directory").count(), 0);
    }
}

/// The umask may deny the owner's rights, and a server killed before it set them leaves such a
/// directory.
#[test]
fn bind_restores_the_owners_rights_to_a_private_directory() {
    const OWNER: u32 = 61_017;
    let Some(users) = Users::new() else { return };
    let dir = Path::new("/tmp").join(format!("sockpipe-{OWNER}"));
    let _ = fs::remove_dir_all(&dir);
    let name = unique_name();
    let start = |umask: &str| {
        let mut server = helper_as(&users, OWNER, &[], &["server", &name]);
        server.env_remove("XDG_RUNTIME_DIR");
        let script = format!(r#"umask {umask}; exec "$0" "$@""#);
        let mut server = through("sh", &["-c", &script], &server);
        server.env_remove("XDG_RUNTIME_DIR");
        server
    };
    for umask in ["0777", "0277", "0177"] {
        finish(listening(start(umask)).0);
        let mode = fs::metadata(&dir).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{umask}");
        fs::remove_dir(&dir).expect("nothing in it");
    }
    for mode in [0, 0o200, 0o400, 0o500] {
        fs::create_dir(&dir).expect("a directory");
        chown(&dir, Some(OWNER), Some(OWNER)).expect("an owner");
        set_mode(&dir, mode);
        finish(listening(start("022")).0);
        fs::remove_dir(&dir).expect("nothing in it");
    }
    // `bind` refuses a directory of another user, and one that others may enter.
    for (owner, mode) in [(OWNER + 1, 0), (OWNER, 0o070), (OWNER, 0o007)] {
        fs::create_dir(&dir).expect("a directory");
        chown(&dir, Some(owner), Some(owner)).expect("an owner");
        set_mode(&dir, mode);
        let said = output(start("022")).concat();
        assert!(
            said.starts_with("PermissionDenied PrivateDirectory: "),
            "{owner} {mode:o}: {said}"
        );
        let kept = fs::metadata(&dir).expect("a directory").permissions().mode();
        assert_eq!(kept & 0o7777, mode, "{owner}");
        fs::remove_dir(&dir).expect("nothing in it");
    }
}
