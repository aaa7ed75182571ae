//! The next version of a server takes over while clients come and go.
#![cfg(unix)] // The listening socket is passed to the next version.

mod common;

use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::process::{Running, Users};
use common::unix::{
    OTHER_STRANGER, STRANGER, helper, helper_as, open_to_all, output, rounds, set_mode,
};
use common::{Backend, Os, PATIENCE, assert_reason, assert_says, ours, within};
use rustix::process::Signal;
use sockpipe::os::unix::{AsyncPassFds, ListenOptionsExt, ListenerExt, take_over};
use sockpipe::{Error, ListenOptions, Listener, Operation, Reason, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::RwLock;

fn upgradable() -> ListenOptions {
    ListenOptions::new().upgradable(true)
}

/// Takes over from `old`, which serves meanwhile, and returns the next version's listener.
async fn next(os: &Os, old: &mut Listener) -> io::Result<Listener> {
    let options = upgradable();
    let taking = take_over(os.endpoint(), &options, PATIENCE);
    let (next, served) = within(async { tokio::join!(taking, old.accept()) }).await;
    let error = served.expect_err("it is taken over");
    let reason = Error::of(&error).map(Error::reason);
    assert!(matches!(reason, Some(Reason::TakenOver { .. })), "{error}");
    next
}

fn start(os: &Os) -> Running {
    let server = Running::start(helper(&["upgrade", os.endpoint()]));
    assert_eq!(server.next_line(), "serves");
    server
}

/// The id of the server process that answers.
async fn ask(os: &Os) -> io::Result<u32> {
    answer(Stream::connect(os.endpoint()).await?).await
}

async fn answer(mut stream: Stream) -> io::Result<u32> {
    stream.write_u8(b'?').await?;
    stream.read_u32().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_is_refused_or_lost_while_one_version_after_another_takes_over() {
    let os = Arc::new(Os::new());
    let mut server = start(&os);
    let over = Arc::new(AtomicBool::new(false));
    // On macOS a process that starts just as a socket is made inherits it and keeps it open.
    let making = Arc::new(RwLock::new(()));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (os, over, making) = (os.clone(), over.clone(), making.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    let made = making.read().await;
                    let stream = within(Stream::connect(os.endpoint())).await.expect("a server");
                    drop(made);
                    within(answer(stream)).await.expect("an answer");
                    served += 1;
                }
                served
            })
        })
        .collect();
    let upgrades = rounds(20, 200);
    for _ in 0..upgrades {
        let started = making.write().await;
        let next = Running::start(helper(&["upgrade", os.endpoint()]));
        drop(started);
        assert_eq!(next.next_line(), "serves");
        let (status, out, err) = std::mem::replace(&mut server, next).wait();
        assert!(status.success(), "{err:?}");
        assert_eq!(out, ["taken over, 0 cut"]);
    }
    over.store(true, Ordering::Relaxed);
    let mut served = 0;
    for client in clients {
        served += within(client).await.expect("a client that was always served");
    }
    let id = server.child.id();
    assert_eq!(within(ask(&os)).await.expect("an answer"), id);
    assert_reason!(os.bind(), Reason::LiveServer { process: Some(process), .. } if *process == id);
    assert_eq!(os.files(), [".s.sock.lock", ".s.sock.upgrade", "s.sock"]);
    println!("{upgrades} upgrades, {served} clients, none refused and none lost");
}

/// A cleaner of old files may remove it. The next version can take over afterwards.
#[tokio::test]
async fn a_removed_upgrade_socket_is_made_again() {
    let os = Os::new();
    let mut old = Listener::bind_with(os.endpoint(), &upgradable()).expect("a free name");
    let offer = os.dir().join(".s.sock.upgrade");
    {
        let mut accept = std::pin::pin!(old.accept());
        let early = tokio::time::timeout(Duration::from_millis(10), &mut accept).await;
        assert!(early.is_err(), "{early:?}");
        std::fs::remove_file(&offer).expect("a socket");
        let there = async {
            while !offer.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            accepted = &mut accept => panic!("{accepted:?}"),
            () = within(there) => {}
        }
    }
    let new = next(&os, &mut old).await.expect("the name");
    drop(old);
    drop(new);
    assert_eq!(os.files(), [""; 0]);
}

#[tokio::test]
async fn the_next_version_serves_pending_clients_and_holds_the_name() {
    let os = Os::new();
    let mut old = Listener::bind_with(os.endpoint(), &upgradable()).expect("a free name");
    let mode = os.dir().join(".s.sock.upgrade").metadata().expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut new = next(&os, &mut old).await.expect("the name");
    // The old listener accepts no more clients, although it still shares the socket.
    let waiting = within(os.connect()).await.expect("a connection");
    old.accept().await.expect_err("it is taken over");
    drop(old);
    within(new.accept()).await.expect("the one that waits");
    drop(waiting);
    let id = std::process::id();
    assert_reason!(os.bind(), Reason::LiveServer { process: Some(process), .. } if *process == id);
    // The version after the next one takes over too.
    let newest = next(&os, &mut new).await.expect("the name");
    drop(new);
    within(os.connect()).await.expect("a connection");
    drop(newest);
    assert_eq!(os.files(), [""; 0]);
}

#[tokio::test]
async fn take_over_binds_a_free_name() {
    let os = Os::new();
    let options = upgradable();
    let first = within(take_over(os.endpoint(), &options, Duration::ZERO)).await;
    let mut first = first.expect("a free name");
    next(&os, &mut first).await.expect("the name");
}

#[tokio::test]
async fn take_over_times_out_at_a_server_that_is_not_upgradable() {
    let os = Os::new();
    let server = os.bind().expect("a free name");
    assert_eq!(os.files(), [".s.sock.lock", "s.sock"]);
    let options = upgradable();
    let taking = take_over(os.endpoint(), &options, Duration::from_millis(50));
    let error = assert_reason!(within(taking).await, Reason::Deadline, os.endpoint());
    assert_eq!(ours(&error).operation(), Operation::TakeOver);
    assert_says(&error, &["ListenOptionsExt::upgradable"]);
    // `take_over` binds the name once that server has stopped.
    let mut taking = Box::pin(take_over(os.endpoint(), &options, PATIENCE));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut taking).await;
    assert!(early.is_err(), "{early:?}");
    drop(server);
    within(taking).await.expect("a free name");
}

#[tokio::test]
async fn take_over_succeeds_after_the_old_version_republished_its_name() {
    let os = Os::new();
    let mut old = Listener::bind_with(os.endpoint(), &upgradable()).expect("a free name");
    std::fs::remove_file(os.endpoint()).expect("a socket");
    old.republish().expect("the name");
    next(&os, &mut old).await.expect("the name");
}

/// A next version that has received the descriptors and goes no further. Returns its connection,
/// and the socket on which one byte decides who holds the name.
async fn undecided(os: &Os, old: &mut Listener) -> (Stream, UnixStream) {
    let successor = Stream::connect(os.dir().join(".s.sock.upgrade")).await.expect("a connection");
    let mut message = [0; 64];
    let received = async {
        tokio::select! {
            served = old.accept() => panic!("{served:?}"),
            received = successor.recv_with_fds(&mut message, 3) => received,
        }
    };
    let (_, mut fds) = within(received).await.expect("a message");
    assert_eq!(fds.len(), 3);
    (successor, UnixStream::from(fds.pop().expect("three")))
}

#[tokio::test]
async fn a_next_version_that_gives_up_leaves_the_name_to_the_old_one() {
    let os = Os::new();
    let mut old = Listener::bind_with(os.endpoint(), &upgradable()).expect("a free name");
    for _ in 0..3 {
        drop(undecided(&os, &mut old).await);
        let (client, server) = within(async { tokio::join!(os.connect(), old.accept()) }).await;
        client.expect("a connection");
        server.expect("a client");
    }
    next(&os, &mut old).await.expect("the name");
}

#[tokio::test]
async fn an_old_version_that_ends_early_leaves_the_name_to_the_new_one() {
    for taken in [false, true] {
        let os = Os::new();
        let mut old = Listener::bind_with(os.endpoint(), &upgradable()).expect("a free name");
        let (_successor, mut byte) = undecided(&os, &mut old).await;
        byte.set_nonblocking(true).expect("a socket");
        let read = |byte: &mut UnixStream| byte.read(&mut [0; 8]).expect("a byte, or an end");
        if taken {
            assert_eq!(read(&mut byte), 1);
        }
        drop(old);
        assert_eq!(read(&mut byte), 0, "the name is two servers'");
        let left: &[&str] =
            if taken { &[".s.sock.lock", ".s.sock.upgrade", "s.sock"] } else { &[] };
        assert_eq!(os.files(), left);
    }
}

#[tokio::test]
async fn take_over_names_a_suspended_server_which_serves_on_later() {
    let os = Os::new();
    let old = start(&os);
    old.signal(Signal::STOP);
    let options = upgradable();
    let taking = take_over(os.endpoint(), &options, Duration::from_millis(200));
    let known = cfg!(any(target_os = "linux", target_vendor = "apple"));
    let id = known.then(|| old.child.id());
    let error = within(taking).await;
    let error = assert_reason!(error, Reason::NoAnswer { process, .. } if *process == id);
    assert_eq!(ours(&error).operation(), Operation::TakeOver);
    old.signal(Signal::CONT);
    assert_eq!(within(ask(&os)).await.expect("an answer"), old.child.id());
    let new = start(&os);
    assert_eq!(old.wait().1, ["taken over, 0 cut"]);
    assert_eq!(within(ask(&os)).await.expect("an answer"), new.child.id());
}

#[tokio::test]
async fn take_over_fails_as_another_user_and_as_root() {
    let Some(users) = Users::new() else { return };
    let os = open_to_all();
    chown(os.dir(), Some(STRANGER), Some(STRANGER)).expect("a new owner");
    let old = Running::start(helper_as(&users, STRANGER, &[], &["upgrade", os.endpoint()]));
    assert_eq!(old.next_line(), "serves");

    // In the second round the mode admits everybody, and both sides still check their peer.
    let upgrade = os.dir().join(".s.sock.upgrade");
    for mode in [0o600, 0o666] {
        set_mode(&upgrade, mode);
        for uid in [0, OTHER_STRANGER] {
            let line = output(helper_as(&users, uid, &[], &["upgrade", os.endpoint()])).concat();
            let connects = mode == 0o666 || uid == 0;
            let why = if connects { "UnexpectedServer" } else { "ForeignOwner" };
            let why = format!("PermissionDenied {why}: ");
            assert!(line.starts_with(&why), "{mode:o} {uid}: {line}");
        }
    }
    // A client that does not check the server's user receives nothing.
    let mut raw = UnixStream::connect(&upgrade).expect("a socket");
    assert_eq!(raw.read(&mut [0; 64]).expect("an end"), 0);

    let next = Running::start(helper_as(&users, STRANGER, &[], &["upgrade", os.endpoint()]));
    assert_eq!(next.next_line(), "serves");
    assert_eq!(old.wait().1, ["taken over, 0 cut"]);
}

#[tokio::test]
async fn upgradable_fails_at_once_for_listeners_that_cannot_be_taken_over() {
    let options = upgradable();
    if cfg!(any(target_os = "linux", target_os = "android")) {
        let name = format!("abstract:{}", common::unique_name());
        assert_reason!(Listener::bind_with(&name, &options), Reason::Unsupported, name);
        let taking = take_over(&name, &options, PATIENCE);
        assert_reason!(within(taking).await, Reason::Unsupported, name);
    }
    let os = Os::new();
    let socket = os.bind().expect("a free name").into_fd().expect("a socket");
    assert_reason!(Listener::from_fd(socket, &options), Reason::Unsupported);
    #[cfg(feature = "blocking")]
    {
        let bound = sockpipe::blocking::Listener::bind_with(Os::new().endpoint(), &options);
        assert_reason!(bound, Reason::Unsupported);
    }
}
