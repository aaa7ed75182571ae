//! A listener whose name somebody removed binds it anew while it waits for clients.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Backend, Os};
use sockpipe::os::unix::ListenerExt;
use sockpipe::{Listener, Stream};
use tokio::time::timeout;

/// Longer than a listener waits between two looks; the tests' clock does not wait for it.
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

/// The listener is reachable, and by whoever connects.
async fn assert_reachable(listener: &mut Listener) {
    assert!(listener.is_published());
    let client = Stream::connect(listener.endpoint()).await.expect("a server");
    listener.accept().await.expect("a client");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_removed_socket_is_bound_anew() {
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
async fn a_removed_socket_and_lock_are_made_anew() {
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
async fn a_name_that_another_server_has_is_left_to_it() {
    let os = Os::new();
    let (mut listener, socket) = bound(&os);
    fs::remove_file(lock_of(&socket)).expect("a lock");
    fs::remove_file(&socket).expect("a socket");
    let (mut second, _) = bound(&os);
    wait_in_vain(&mut listener).await;
    assert!(!listener.is_published());
    assert_eq!(listener.stats().republished, 0);
    drop(listener);
    assert_reachable(&mut second).await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_was_made_anew_is_left_alone() {
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

/// A server that dropped its privileges would make a socket of another user under the name.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_became_another_user_makes_no_socket() {
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
        // Of this thread alone, in which all of it runs.
        let become_user = |uid| set_thread_res_uid(None, Uid::from_raw(uid), None);
        become_user(65534).expect("another user");
        wait_in_vain(&mut listener).await;
        become_user(0).expect("root again");
        assert_eq!(listener.stats().republished, 0);
        assert!(!socket.exists());
    });
}
