//! A listener whose socket somebody removed binds its name again while it waits for clients.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Backend, Os, assert_reason, ours};
use sockpipe::os::unix::{ListenOptionsExt, ListenerExt, OnNameLost};
use sockpipe::{ListenOptions, Listener, Operation, Reason, Stream};
use tokio::time::timeout;

/// Longer than the time between two checks of the name. The clock is paused, so this takes no time.
const LONG: Duration = Duration::from_secs(25);

fn bound(os: &Os) -> (Listener, PathBuf) {
    let listener = Listener::bind(os.endpoint()).expect("a free name");
    (listener, PathBuf::from(os.endpoint()))
}

fn lock_of(socket: &Path) -> PathBuf {
    let name = socket.file_name().and_then(|name| name.to_str()).expect("a name");
    socket.with_file_name(format!(".{name}.lock"))
}

async fn wait_in_vain(listener: &mut Listener) {
    assert!(timeout(LONG, listener.accept()).await.is_err(), "nobody connected");
}

/// Checks that clients find the listener under its name.
async fn assert_reachable(listener: &mut Listener) {
    assert!(listener.is_published());
    let client = Stream::connect(listener.endpoint()).await.expect("a server");
    listener.accept().await.expect("a client");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_removed_socket_is_bound_again() {
    let os = Os::new();
    let (mut listener, socket) = bound(&os);
    for times in 1..=3 {
        fs::remove_file(&socket).expect("a socket");
        wait_in_vain(&mut listener).await;
        assert_eq!(listener.stats().republished, times);
        assert_reachable(&mut listener).await;
    }
    drop(listener);
    assert_eq!(os.files(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_socket_and_lock_are_made_again() {
    let os = Os::new();
    let (mut listener, socket) = bound(&os);
    fs::remove_file(lock_of(&socket)).expect("a lock");
    fs::remove_file(&socket).expect("a socket");
    wait_in_vain(&mut listener).await;
    assert_reachable(&mut listener).await;
    assert!(Listener::bind(os.endpoint()).is_err(), "a second server has the name");
    drop(listener);
    assert_eq!(os.files(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn accept_fails_and_leaves_the_name_to_a_server_that_took_it() {
    let os = Os::new();
    let (mut listener, socket) = bound(&os);
    fs::remove_file(lock_of(&socket)).expect("a lock");
    fs::remove_file(&socket).expect("a socket");
    let (mut second, _) = bound(&os);
    let ended = timeout(LONG, listener.accept()).await.expect("an end");
    let error = assert_reason!(
        ended,
        Reason::LiveServer { process: Some(process), .. } if *process == std::process::id(),
        os.endpoint()
    );
    assert_eq!(ours(&error).operation(), Operation::Accept);
    assert!(!listener.is_published());
    assert_eq!(listener.stats().republished, 0);
    drop(listener);
    assert_reachable(&mut second).await;
}

/// The foreign server has no lock, and binds the path while the listener still holds its own.
#[tokio::test(start_paused = true)]
async fn accept_fails_and_leaves_the_name_to_a_foreign_server_that_took_it() {
    let os = Os::new();
    let (mut listener, socket) = bound(&os);
    fs::remove_file(&socket).expect("a socket");
    let foreign = UnixListener::bind(&socket).expect("a free name");
    let ended = timeout(LONG, listener.accept()).await.expect("an end");
    let error = assert_reason!(ended, Reason::LiveServer { .. }, os.endpoint());
    assert_eq!(ours(&error).operation(), Operation::Accept);
    drop(listener);
    assert!(socket.exists(), "it is the foreign server's");
    drop(foreign);
}

/// The process that holds the lock but has no socket may be about to exit.
#[tokio::test(start_paused = true)]
async fn a_listener_waits_while_another_process_holds_only_its_lock() {
    let os = Os::new();
    let (mut listener, socket) = bound(&os);
    fs::remove_file(lock_of(&socket)).expect("a lock");
    fs::remove_file(&socket).expect("a socket");
    let (starting, _) = bound(&os);
    fs::remove_file(&socket).expect("a socket");
    wait_in_vain(&mut listener).await;
    assert_eq!(listener.stats().republished, 0);
    drop(starting);
    wait_in_vain(&mut listener).await;
    assert_eq!(listener.stats().republished, 1);
    assert_reachable(&mut listener).await;
}

/// Only the lock file is removed. No second server starts, and its error names the process.
#[tokio::test(start_paused = true)]
async fn a_removed_lock_is_made_again() {
    let os = Os::new();
    let (mut listener, socket) = bound(&os);
    fs::remove_file(lock_of(&socket)).expect("a lock");
    assert!(Listener::bind(os.endpoint()).is_err(), "a second server has the name");
    // Where the system does not report who holds a socket, `bind` connected to find out.
    if timeout(LONG, listener.accept()).await.is_ok() {
        wait_in_vain(&mut listener).await;
    }
    assert!(lock_of(&socket).exists());
    assert_eq!(listener.stats().republished, 0);
    assert_reason!(
        Listener::bind(os.endpoint()),
        Reason::LiveServer { process: Some(process), .. } if *process == std::process::id(),
        os.endpoint()
    );
    assert_reachable(&mut listener).await;
    drop(listener);
    assert_eq!(os.files(), [""; 0]);
}

/// Where cleaners remove old files, the listener renews the time of its lock file, and only there.
#[tokio::test(start_paused = true)]
async fn the_lock_of_a_living_server_does_not_look_old() {
    use std::time::SystemTime;

    let old = SystemTime::now() - Duration::from_secs(40 * 24 * 60 * 60);
    let here = [std::path::absolute(std::env::temp_dir()).expect("a path"), "/dev/shm".into()];
    for parent in here.iter().filter(|parent| parent.is_dir()) {
        let cleaned = parent.starts_with("/tmp") || parent.starts_with("/var/tmp");
        let dir = tempfile::tempdir_in(parent).expect("a directory");
        let socket = dir.path().join("s.sock");
        let mut listener = Listener::bind(socket.as_path()).expect("a free name");
        let lock = fs::File::open(lock_of(&socket)).expect("a lock");
        lock.set_modified(old).expect("a time");
        wait_in_vain(&mut listener).await;
        let now = fs::metadata(lock_of(&socket)).expect("a lock").modified().expect("a time");
        assert_eq!(now > old, cleaned, "{}", parent.display());
        // The new time does not make the lock file look like another server's.
        assert_eq!(listener.stats().republished, 0);
        assert_reachable(&mut listener).await;
    }
}

#[tokio::test(start_paused = true)]
async fn on_name_lost_stops_or_ignores_as_chosen() {
    for choice in [OnNameLost::Stop, OnNameLost::Ignore] {
        let os = Os::new();
        let options = ListenOptions::new().on_name_lost(choice);
        let mut listener = Listener::bind_with(os.endpoint(), &options).expect("a free name");
        fs::remove_file(os.endpoint()).expect("a socket");
        let waited = timeout(LONG, listener.accept()).await;
        if choice == OnNameLost::Ignore {
            assert!(waited.is_err(), "nobody connected");
        } else {
            let ended = waited.expect("an end");
            let error = assert_reason!(ended, Reason::NameLost, os.endpoint());
            assert_eq!(ours(&error).operation(), Operation::Accept);
        }
        assert_eq!(listener.stats().republished, 0);
        assert!(!Path::new(os.endpoint()).exists());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_binds_nothing_in_a_directory_that_was_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).expect("a directory");
    let mut listener = Listener::bind(inner.join("s.sock")).expect("a free name");
    fs::remove_dir_all(&inner).expect("a directory");
    fs::create_dir(&inner).expect("a directory");
    wait_in_vain(&mut listener).await;
    assert_eq!(listener.stats().republished, 0);
    assert_eq!(fs::read_dir(&inner).expect("a directory").count(), 0);
}

/// The new socket would belong to another user than the first.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_became_another_user_does_not_bind_again() {
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::{Uid, geteuid};
    use rustix::thread::set_thread_res_uid;

    if !geteuid().is_root() {
        println!("not run: only root can become another user");
        return;
    }
    let os = Os::new();
    let dir = Path::new(os.endpoint()).parent().expect("a directory");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)).expect("a mode");

    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let (mut listener, socket) = bound(&os);
        fs::remove_file(&socket).expect("a socket");
        // Only this thread changes its user, and the whole test runs in it.
        let become_user = |uid| set_thread_res_uid(None, Uid::from_raw(uid), None);
        become_user(65534).expect("another user");
        wait_in_vain(&mut listener).await;
        become_user(0).expect("root again");
        assert_eq!(listener.stats().republished, 0);
        assert!(!socket.exists());
    });
}

/// A logout and a login replace the directory. The server is a separate process, which has its own
/// environment.
#[cfg(target_os = "linux")]
#[test]
fn a_portable_name_is_bound_again_in_a_new_runtime_directory() {
    use common::unix::{ask, finish, helper, listening, set_mode, until};

    let (parent, name) = (tempfile::tempdir().expect("a directory"), common::unique_name());
    let dir = parent.path().join("run");
    let make = || {
        fs::create_dir(&dir).expect("a directory");
        set_mode(&dir, 0o700);
    };
    make();
    let mut server = helper(&["server", &name]);
    server.env("XDG_RUNTIME_DIR", &dir);
    let (mut server, _) = listening(server);
    fs::remove_dir_all(&dir).expect("a directory");
    make();
    let socket = dir.join(format!("{name}.sock"));
    until("it is bound anew", || socket.exists());
    assert!(lock_of(&socket).exists());
    assert_eq!(ask(&mut server, "stats"), "accepted 0 refused 0 pauses 0");
    finish(server);
    assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
}

/// Three threads wait for clients, two without a timeout and one with it.
#[cfg(feature = "blocking")]
#[test]
fn a_blocking_listener_binds_a_removed_name_again() {
    use std::thread;
    use std::time::Instant;

    use common::unix::until;
    use sockpipe::blocking;

    let os = Os::new();
    let listener = blocking::Listener::bind(os.endpoint()).expect("a free name");
    let mut took = Duration::ZERO;
    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| listener.accept()),
            scope.spawn(|| listener.accept()),
            scope.spawn(|| listener.accept_timeout(common::PATIENCE)),
        ];
        fs::remove_file(os.endpoint()).expect("a socket");
        let removed = Instant::now();
        until("it is bound anew", || Path::new(os.endpoint()).exists());
        took = removed.elapsed();
        assert!(listener.is_published());
        assert_eq!(listener.stats().republished, 1);
        for _ in &waiting {
            blocking::Stream::connect(os.endpoint()).expect("a server");
        }
        for thread in waiting {
            thread.join().expect("no panic").expect("a client");
        }
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(listener);
    assert_eq!(os.files(), [""; 0]);
}

/// A listener that has not waited for clients for long checks its name as soon as it waits.
#[cfg(feature = "blocking")]
#[test]
fn a_blocking_listener_checks_its_name_before_it_waits() {
    use std::thread;
    use std::time::Instant;

    use common::unix::until;
    use sockpipe::blocking;

    let [one, other] = [Os::new(), Os::new()];
    let listeners =
        [&one, &other].map(|os| blocking::Listener::bind(os.endpoint()).expect("a free name"));
    for os in [&one, &other] {
        fs::remove_file(os.endpoint()).expect("a socket");
    }
    thread::sleep(Duration::from_secs(10));
    let (waits, mut took) = (Instant::now(), Duration::ZERO);
    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| listeners[0].accept()),
            scope.spawn(|| listeners[1].accept_timeout(common::PATIENCE)),
        ];
        for os in [&one, &other] {
            until("it is bound anew", || Path::new(os.endpoint()).exists());
            blocking::Stream::connect(os.endpoint()).expect("a server");
        }
        took = waits.elapsed();
        for thread in waiting {
            thread.join().expect("no panic").expect("a client");
        }
    });
    assert!(took < Duration::from_secs(5), "{took:?}");
}
