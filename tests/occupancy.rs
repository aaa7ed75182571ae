//! `Candidate::occupancy` reports what is at an address without a connection, and `remove_stale`
//! removes the socket of a dead server.

mod common;

use common::process::server;
use common::{Backend, Os, assert_reason, within};
use sockpipe::{Candidate, Endpoint, Occupancy, Reason};

/// The only address of a path, or of a name on Windows.
fn candidate(endpoint: &str) -> Candidate {
    let endpoint: Endpoint = endpoint.parse().expect("an endpoint");
    let found = endpoint.resolve().expect("candidates");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn occupancy(os: &Os) -> Occupancy {
    candidate(os.endpoint()).occupancy().expect("an answer")
}

#[tokio::test]
async fn occupancy_finds_a_server_and_does_not_disturb_it() {
    let os = Os::new();
    assert_eq!(occupancy(&os), Occupancy::Free);
    assert!(!candidate(os.endpoint()).remove_stale().expect("nothing to remove"));
    let mut listener = os.bind().expect("a free name");
    let Occupancy::Held { process, .. } = occupancy(&os) else { panic!("{:?}", occupancy(&os)) };
    // Only a lock file records the process.
    assert_eq!(process, cfg!(unix).then(std::process::id));
    for _ in 0..10 {
        let removed = candidate(os.endpoint()).remove_stale();
        assert_reason!(removed, Reason::LiveServer { .. }, os.endpoint());
        occupancy(&os);
    }
    // This is the first client that the server accepts: the questions made no connection.
    let client = within(os.connect()).await.expect("a connection");
    let peer = within(listener.accept()).await.expect("a client");
    drop(client);
    assert_eq!(within(common::read_all(peer)).await, b"");
    drop(listener);
    assert_eq!(occupancy(&os), Occupancy::Free);
    assert_eq!(os.files(), [""; 0]);
}

#[test]
fn the_socket_of_a_crashed_server_is_removed_once() {
    let os = Os::new();
    server(os.endpoint(), &["--quiet"]).crash();
    let left = if cfg!(unix) { Occupancy::Unclaimed } else { Occupancy::Free };
    assert_eq!(occupancy(&os), left);
    assert_eq!(candidate(os.endpoint()).remove_stale().expect("a dead name"), cfg!(unix));
    assert_eq!(os.files(), [""; 0]);
    assert_eq!(occupancy(&os), Occupancy::Free);
    assert!(!candidate(os.endpoint()).remove_stale().expect("nothing to remove"));
}

#[cfg(unix)]
mod paths {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use common::assert_kind;
    use common::unix::{Standing, helper, output};

    use super::*;

    fn at(os: &Os, name: &str) -> Candidate {
        candidate(os.dir().join(name).to_str().expect("UTF-8"))
    }

    #[test]
    fn other_kinds_of_file_are_named_and_left_alone() {
        let os = Os::new();
        fs::write(os.dir().join("file"), "data").expect("a file");
        fs::create_dir(os.dir().join("directory")).expect("a directory");
        symlink(os.dir().join("file"), os.dir().join("link")).expect("a link");
        let before = os.files();
        for (name, what) in
            [("file", "a file"), ("directory", "a directory"), ("link", "a symbolic link")]
        {
            let standing = Standing::at(&os.dir().join(name));
            let told = at(&os, name).occupancy().expect("an answer");
            assert!(matches!(told, Occupancy::Foreign { what: is, .. } if is == what), "{told:?}");
            assert_reason!(at(&os, name).remove_stale(), Reason::NotASocket, name);
            assert_eq!(Standing::at(&os.dir().join(name)), standing);
        }
        assert_eq!(os.files(), before);
        for missing in ["nowhere/s.sock", "file/s"] {
            assert_reason!(at(&os, missing).occupancy(), Reason::NoDirectory, missing);
            assert_reason!(at(&os, missing).remove_stale(), Reason::NoDirectory, missing);
        }
    }

    /// Other programs' sockets have no lock file: one listens, one takes datagrams, one is dead.
    #[test]
    fn a_foreign_socket_is_unclaimed_and_its_server_left_alone() {
        let os = Os::new();
        let listener = UnixListener::bind(os.dir().join("live")).expect("a socket");
        let _datagrams = UnixDatagram::bind(os.dir().join("datagrams")).expect("a socket");
        drop(UnixListener::bind(os.dir().join("dead")).expect("a socket"));
        for name in ["live", "datagrams"] {
            let standing = Standing::at(&os.dir().join(name));
            assert_eq!(at(&os, name).occupancy().expect("an answer"), Occupancy::Unclaimed);
            assert_reason!(at(&os, name).remove_stale(), Reason::LiveServer { .. }, name);
            assert_eq!(Standing::at(&os.dir().join(name)), standing);
        }
        // `occupancy` does not connect to the server. `remove_stale` connects only where the system
        // does not report who holds a socket.
        listener.set_nonblocking(true).expect("a mode");
        let asks_the_server = !cfg!(target_os = "linux") || cfg!(sockpipe_posix);
        assert_eq!(listener.accept().is_ok(), asks_the_server);
        assert_kind(listener.accept(), ErrorKind::WouldBlock);
        assert_eq!(at(&os, "dead").occupancy().expect("an answer"), Occupancy::Unclaimed);
        assert!(at(&os, "dead").remove_stale().expect("a dead name"));
        assert_eq!(os.files(), ["datagrams", "live"]);
    }

    /// Somebody removed the socket of a crashed server and left its lock file.
    #[test]
    fn remove_stale_removes_a_lock_file_without_its_socket() {
        let os = Os::new();
        server(os.endpoint(), &["--quiet"]).crash();
        fs::remove_file(os.endpoint()).expect("a socket");
        assert_eq!(os.files(), [".s.sock.lock"]);
        assert_eq!(occupancy(&os), Occupancy::Free);
        assert!(!candidate(os.endpoint()).remove_stale().expect("no socket"));
        assert_eq!(os.files(), [""; 0]);
    }

    /// The lock is a link to another server's lock, a directory or a FIFO. `occupancy` reports a
    /// free name at once.
    #[test]
    fn a_name_is_free_with_other_kinds_of_file_in_place_of_its_lock() {
        let os = Os::new();
        let other = os.dir().join("other.sock");
        let _other = server(other.to_str().expect("UTF-8"), &["--quiet"]);
        let (held, lock) = (os.dir().join(".other.sock.lock"), os.dir().join(".s.sock.lock"));
        type InPlace = (&'static str, fn(&Path, &Path));
        let cases: [InPlace; 4] = [
            ("a symbolic link", |held, lock| symlink(held, lock).expect("a link")),
            ("a hard link", |held, lock| fs::hard_link(held, lock).expect("a link")),
            ("a directory", |_, lock| fs::create_dir(lock).expect("a directory")),
            ("a FIFO", |_, lock| {
                let made = Command::new("mkfifo").arg(lock).status().expect("mkfifo");
                assert!(made.success(), "{made}");
            }),
        ];
        for (name, make) in cases {
            make(&held, &lock);
            // A separate process can be ended if `occupancy` does not return.
            let told = output(helper(&["occupancy", os.endpoint()]));
            assert_eq!(told, ["Free"], "{name}");
            if lock.is_dir() { fs::remove_dir(&lock) } else { fs::remove_file(&lock) }
                .expect("what was made");
        }
    }

    /// Two threads ask all the time while servers start.
    #[tokio::test]
    async fn a_server_can_bind_while_others_ask_for_the_occupancy() {
        let os = Os::new();
        let candidate = candidate(os.endpoint());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let asked = candidate.occupancy().expect("an answer");
                        assert!(!matches!(asked, Occupancy::Foreign { .. }), "{asked:?}");
                    }
                });
            }
            let started: Vec<_> = (0..300).map(|_| os.bind().map(drop)).collect();
            over.store(true, Ordering::Relaxed);
            let refused: Vec<_> = started.into_iter().filter_map(Result::err).collect();
            assert!(refused.is_empty(), "{} of 300: {:?}", refused.len(), refused[0]);
        });
    }
}
