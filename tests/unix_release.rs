//! A listener releases its name, loses it to another server, or binds it again by `republish`.
//! Operations fail without a runtime, and a failed `bind` leaves no file.
#![cfg(unix)] // A pipe's name ends with the pipe.

mod common;

use std::fs;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::process::Running;
use common::unix::{Standing, ask, command, finish, helper, listening, ping, strace};
use common::{Backend, Os, assert_reason, within};
use sockpipe::os::unix::{ListenerExt, StreamExt};
use sockpipe::{Error, ListenOptions, Listener, Operation, Reason, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

fn lock(os: &Os) -> PathBuf {
    os.dir().join(".s.sock.lock")
}

/// Removes the files as a cleaner of `/tmp` does.
fn clean(os: &Os, with_lock: bool) {
    fs::remove_file(os.endpoint()).expect("the socket");
    if with_lock {
        fs::remove_file(lock(os)).expect("the lock file");
    }
}

/// A pending client that has written `text`.
fn waiting(os: &Os, text: &[u8]) -> UnixStream {
    let mut client = UnixStream::connect(os.endpoint()).expect("a connection");
    client.write_all(text).expect("a write");
    client.shutdown(std::net::Shutdown::Write).expect("a half-close");
    client
}

/// Answers the next client and returns its text.
async fn serve_one(listener: &mut Listener) -> Vec<u8> {
    let mut stream = within(listener.accept()).await.expect("a connection");
    let mut text = Vec::new();
    within(stream.read_to_end(&mut text)).await.expect("an end");
    within(stream.write_all(b"answer")).await.expect("a write");
    text
}

fn answered(mut client: UnixStream) {
    let mut text = Vec::new();
    client.read_to_end(&mut text).expect("an answer");
    assert_eq!(text, b"answer");
}

/// The first server ends in each way after the second has taken its name.
#[test]
fn a_replaced_server_leaves_its_successor_alone_however_it_ends() {
    for end in ["drop", "panic", "abort", "kill"] {
        for foreign in [false, true] {
            let os = Os::new();
            // Otherwise it ends itself, a second after it lost its name.
            let server = helper(&["server", os.endpoint(), "--ignore-lost-name"]);
            let (mut first, _) = listening(server);
            clean(&os, !foreign);
            let second: Running = if foreign {
                listening(helper(&["raw-server", os.endpoint(), "8"])).0
            } else {
                listening(helper(&["server", os.endpoint()])).0
            };
            let before = Standing::at(Path::new(os.endpoint()));
            let files = os.files();
            assert_eq!(ask(&mut first, "published"), "published false");
            match end {
                "drop" => {
                    command(&mut first, "drop");
                    assert_eq!(finish(first), ["dropped"]);
                }
                "kill" => first.crash(),
                end => {
                    command(&mut first, end);
                    assert!(!first.wait().0.success(), "it was to end badly");
                }
            }
            assert_eq!(Standing::at(Path::new(os.endpoint())), before, "{end}");
            // A foreign server has no lock, so the lock file is the first server's.
            assert!(foreign || os.files() == files, "{end}: {:?}", os.files());
            ping(Path::new(os.endpoint()));
            // A rival sees by the lock or by a connection that the second server lives.
            let (_, out, _) = Running::start(helper(&["server", os.endpoint()])).wait();
            assert!(out[0].starts_with("AddrInUse LiveServer: "), "{end}: {out:?}");
            drop(second);
        }
    }
}

/// Unwinding drops the listener, and a pending client reads an end instead of a reset.
#[tokio::test]
async fn a_listener_dropped_by_a_panic_releases_its_name() {
    let os = Os::new();
    let listener = Listener::bind(os.endpoint()).expect("a free name");
    let mut client = UnixStream::connect(os.endpoint()).expect("a connection");
    let held = std::panic::AssertUnwindSafe(move || {
        let _listener = listener;
        panic!("as asked");
    });
    std::panic::catch_unwind(held).expect_err("a panic");
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    assert_eq!(os.files(), [""; 0]);
}

/// `accept` fails because of a signal, or because a client has left.
#[test]
fn pending_clients_read_an_end_although_an_accept_fails() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for error in ["EINTR", "ECONNABORTED", "EPROTO"] {
        let os = Os::new();
        let inject = format!("inject=?accept,accept4:error={error}:when=1");
        let server = helper(&["holds", os.endpoint()]);
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let (server, _) = listening(server);
        let mut clients = [waiting(&os, b""), waiting(&os, b"")];

        assert_eq!(finish(server), [""; 0]);
        let calls = fs::read_to_string(&log).expect("a log");
        assert!(calls.contains("(INJECTED)"), "{error}: {calls}");
        for client in &mut clients {
            assert_eq!(client.read(&mut [0]).expect("an end"), 0, "{error}");
        }
    }
}

/// Another owner of the socket may shut it down, such as the supervisor that made it.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn accept_fails_after_another_owner_shut_the_socket_down() {
    use rustix::net::{Shutdown, shutdown};

    let os = Os::new();
    let mut listener = os.bind().expect("a free name");
    let mut pending = waiting(&os, b"x");
    // One kernel refuses this.
    if shutdown(&listener, Shutdown::Both).is_err() {
        return;
    }
    assert_eq!(serve_one(&mut listener).await, b"x");
    pending.read_to_end(&mut Vec::new()).expect("an end");
    let error = within(listener.accept()).await.expect_err("no client comes any more");
    let code = Error::of(&error).and_then(Error::raw_os_error);
    assert_eq!(code, Some(rustix::io::Errno::INVAL.raw_os_error()), "{error}");
}

#[tokio::test]
async fn republish_binds_a_removed_name_again() {
    for with_lock in [false, true] {
        let os = Os::new();
        let mut listener = Listener::bind(os.endpoint()).expect("a free name");
        assert!(listener.is_published());
        // `republish` does nothing while the name is published.
        let before = Standing::at(Path::new(os.endpoint()));
        listener.republish().expect("nothing to do");
        assert_eq!(Standing::at(Path::new(os.endpoint())), before);

        let early = [waiting(&os, b"first"), waiting(&os, b"second")];
        clean(&os, with_lock);
        assert!(!listener.is_published());
        listener.republish().expect("the name is free");
        assert!(listener.is_published());
        assert_eq!(os.files(), [".s.sock.lock", "s.sock"]);
        assert_reason!(Listener::bind(os.endpoint()), Reason::LiveServer { .. }, os.endpoint());

        // Clients are served in their order: two from the old socket, then one from the new.
        let late = waiting(&os, b"third");
        for text in [&b"first"[..], b"second", b"third"] {
            assert_eq!(serve_one(&mut listener).await, text);
        }
        early.into_iter().chain([late]).for_each(answered);
        drop(listener);
        assert_eq!(os.files(), [""; 0]);
    }
}

/// A client that connected before `republish` and is never accepted reads an end too.
#[tokio::test]
async fn a_drop_after_republish_ends_all_pending_clients() {
    let os = Os::new();
    let mut listener = Listener::bind(os.endpoint()).expect("a free name");
    let mut early = waiting(&os, b"");
    clean(&os, false);
    listener.republish().expect("the name is free");
    let mut late = waiting(&os, b"");
    drop(listener);
    for client in [&mut early, &mut late] {
        assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    }
    assert_eq!(os.files(), [""; 0]);
}

#[tokio::test]
async fn republish_leaves_the_name_to_a_successor() {
    let os = Os::new();
    let mut first = Listener::bind(os.endpoint()).expect("a free name");
    let early = waiting(&os, b"early");
    clean(&os, true);
    let mut second = Listener::bind(os.endpoint()).expect("a free name");
    let before = Standing::at(Path::new(os.endpoint()));
    for _ in 0..3 {
        assert_reason!(first.republish(), Reason::LiveServer { .. }, os.endpoint());
        assert!(!first.is_published());
    }
    assert_eq!(Standing::at(Path::new(os.endpoint())), before);
    // Each listener still serves its own clients.
    let late = waiting(&os, b"late");
    assert_eq!(serve_one(&mut first).await, b"early");
    assert_eq!(serve_one(&mut second).await, b"late");
    answered(early);
    answered(late);
    drop(second);
    first.republish().expect("the name is free again");
    let client = waiting(&os, b"at last");
    assert_eq!(serve_one(&mut first).await, b"at last");
    answered(client);
    drop(first);
    assert_eq!(os.files(), [""; 0]);
}

/// `republish` refuses the same files and servers as `bind`.
#[tokio::test]
async fn republish_refuses_a_name_that_foreign_servers_and_files_took() {
    let os = Os::new();
    let mut listener = Listener::bind(os.endpoint()).expect("a free name");
    clean(&os, false);
    let foreign = UnixListener::bind(os.endpoint()).expect("a free name");
    assert_reason!(listener.republish(), Reason::LiveServer { .. }, os.endpoint());
    drop(foreign);
    // The foreign server has died and left its socket.
    listener.republish().expect("the name of the dead");
    clean(&os, false);
    fs::write(os.endpoint(), "data").expect("a file");
    assert_reason!(listener.republish(), Reason::NotASocket, os.endpoint());
    drop(listener);
    assert_eq!(fs::read(os.endpoint()).expect("a file"), b"data");
    assert_eq!(os.files(), ["s.sock"]);
}

/// Polls `future` once, without a runtime.
fn poll_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn runtime(io: bool, time: bool) -> Runtime {
    let mut builder = Builder::new_current_thread();
    if io {
        builder.enable_io();
    }
    if time {
        builder.enable_time();
    }
    builder.build().expect("a runtime")
}

#[test]
fn every_operation_fails_without_a_runtime_or_its_timers() {
    let os = Os::new();
    let socket = || {
        let path = os.dir().join("foreign");
        let _ = fs::remove_file(&path);
        UnixListener::bind(path).expect("a free name")
    };
    let connected = || UnixStream::pair().expect("a pair").0;
    let server = UnixListener::bind(os.dir().join("server")).expect("a free name");
    let all = |with_timers: bool| {
        let failed = |outcome: io::Result<()>| drop(assert_reason!(outcome, Reason::NoRuntime));
        failed(Listener::bind(os.endpoint()).map(drop));
        failed(Listener::from_fd(socket().into(), &ListenOptions::new()).map(drop));
        if !with_timers {
            for made in [Stream::pair().map(drop), Stream::from_fd(connected().into()).map(drop)] {
                let error = assert_reason!(made, Reason::NoRuntime);
                let operation = Error::of(&error).map(Error::operation);
                assert_eq!(operation, Some(Operation::Adopt), "{error}");
            }
            failed(poll_once(Stream::connect(os.dir().join("server"))).map(drop));
        }
    };
    all(false);
    for (io, time) in [(false, false), (false, true)] {
        let _context = runtime(io, time);
        let _entered = _context.enter();
        all(false);
    }
    // Streams need no timers. A listener may have to wait, so `bind` fails without them.
    let context = runtime(true, false);
    let entered = context.enter();
    all(true);
    Stream::pair().expect("a pair");
    drop(entered);
    drop((context, server));
    let mut left = os.files();
    left.retain(|name| !["foreign", "server"].contains(&name.as_str()));
    assert_eq!(left, [""; 0], "a bind that failed leaves something behind");
}

#[test]
fn republish_without_a_runtime_can_be_tried_again() {
    let os = Os::new();
    let context = runtime(true, true);
    let mut listener = context.block_on(async { Listener::bind(os.endpoint()) }).expect("a name");
    let client = waiting(&os, b"early");
    clean(&os, true);
    assert_reason!(listener.republish(), Reason::NoRuntime);
    // The failed attempt removed its new socket, whose inode number may be reused.
    let foreign = UnixListener::bind(os.endpoint()).expect("a free name");
    assert!(!listener.is_published());
    let taken = context.block_on(async { listener.republish() });
    assert_reason!(taken, Reason::LiveServer { .. }, os.endpoint());
    drop(foreign);
    fs::remove_file(os.endpoint()).expect("its name");
    context.block_on(async {
        // The listener reports a published name only if clients can connect.
        assert_eq!(listener.is_published(), UnixStream::connect(os.endpoint()).is_ok());
        listener.republish().expect("there is a runtime now");
        let late = waiting(&os, b"late");
        assert_eq!(serve_one(&mut listener).await, b"early");
        assert_eq!(serve_one(&mut listener).await, b"late");
        answered(client);
        answered(late);
    });
    drop(listener);
    assert_eq!(os.files(), [""; 0]);
}

/// The client stays pending until an `accept` in a runtime takes it.
#[test]
fn accept_without_a_runtime_can_be_tried_again() {
    let os = Os::new();
    let context = runtime(true, true);
    let mut listener = context.block_on(async { Listener::bind(os.endpoint()) }).expect("a name");
    let client = waiting(&os, b"early");
    let outcome = poll_once(listener.accept());
    assert_reason!(outcome, Reason::NoRuntime, os.endpoint());
    assert_eq!(listener.stats().refused, 0);
    context.block_on(async {
        assert_eq!(serve_one(&mut listener).await, b"early");
        answered(client);
    });
}

/// The server has changed its working directory since it bound a relative path.
#[test]
fn republish_in_another_directory_binds_the_same_path() {
    let os = Os::new();
    let command = |server: &mut Running, text: &str| {
        command(server, text);
        server.next_line()
    };
    let mut server = helper(&["server", "./s.sock", "--ignore-lost-name"]);
    server.current_dir(os.dir());
    let mut server = Running::start(server);
    assert!(server.next_line().starts_with("listening "));
    assert_eq!(command(&mut server, "leave directory"), "left");
    assert_eq!(command(&mut server, "published"), "published true");
    fs::remove_file(os.endpoint()).expect("its name");
    assert_eq!(command(&mut server, "published"), "published false");
    assert_eq!(command(&mut server, "republish"), "republish ok");
    assert_eq!(command(&mut server, "published"), "published true");
    drop(UnixStream::connect(os.endpoint()).expect("a server"));

    // The socket's directory was moved away, and there is none under its old path.
    let elsewhere = os.dir().with_extension("elsewhere");
    fs::rename(os.dir(), &elsewhere).expect("a free name");
    assert_eq!(command(&mut server, "published"), "published false");
    let refused = command(&mut server, "republish");
    assert!(refused.contains("NotFound NoDirectory: "), "{refused}");
    fs::rename(&elsewhere, os.dir()).expect("a free name");
    assert_eq!(command(&mut server, "published"), "published true");
    assert_eq!(command(&mut server, "drop"), "dropped");
    assert_eq!(os.files(), [""; 0]);
}

/// The server may no longer write to the directory, so its stop reports the files that it leaves.
#[cfg(target_os = "linux")]
#[test]
fn a_stop_that_cannot_remove_its_name_reports_it() {
    use std::time::Duration;

    use rustix::process::{Uid, geteuid};
    use rustix::thread::set_thread_res_uid;
    use sockpipe::{Error, LocalListener, Operation, TimedListener, echo, serve};

    if !geteuid().is_root() {
        println!("not run: only root can become another user");
        return;
    }
    // Only this thread changes its user, and the whole test runs in it.
    let become_user =
        |uid| set_thread_res_uid(None, Uid::from_raw(uid), None).expect("another user");
    let assert_said = |os: &Os, how: &str, error: &io::Error| {
        let known = Error::of(error).expect("one of ours");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{how}: {error}");
        assert_eq!(known.operation(), Operation::Release, "{how}: {error}");
        assert_eq!(known.raw_os_error(), Some(libc::EACCES), "{how}: {error}");
        let endpoint = known.endpoint().map(ToString::to_string);
        assert_eq!(endpoint.as_deref(), Some(os.endpoint()), "{how}: {error}");
        common::assert_says(error, &["cannot be removed", "remove it, or leave it"]);
        // The next client and the next server find a dead socket.
        become_user(0);
        assert_eq!(os.files(), [".s.sock.lock", "s.sock"], "{how}");
        let refused = UnixStream::connect(os.endpoint()).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{how}");
        // A child of another test holds the lock's descriptor until its exec.
        common::unix::until("the name of the dead is free", || {
            Listener::bind(os.endpoint()).is_ok()
        });
        assert_eq!(os.files(), [""; 0], "{how}");
    };

    runtime(true, true).block_on(async {
        for how in ["close", "release", "stop and release", "serve", "serve that releases first"] {
            let os = Os::new();
            let listener = Listener::bind(os.endpoint()).expect("a free name");
            become_user(65534);
            let error = match how {
                "close" => listener.close().await.expect_err("it may not"),
                "release" => {
                    let mut listener = TimedListener::new(listener);
                    let error = listener.release().expect_err("it may not");
                    listener.release().expect("it is said once");
                    error
                }
                "stop and release" => {
                    let mut listener = listener;
                    assert!(listener.stop_listening().is_empty());
                    listener.close().await.expect_err("it may not")
                }
                how => {
                    let server = serve(listener, |stream| echo::echo(stream, |_| ()));
                    let server = server.stop_when_idle(Duration::ZERO);
                    let drained = if how == "serve" {
                        server.await
                    } else {
                        server.release_name_first().await
                    };
                    let drained = drained.expect("no other error");
                    let error = drained.release_error().expect("it may not");
                    assert_said(&os, how, error);
                    continue;
                }
            };
            assert_said(&os, how, &error);
        }
        #[cfg(feature = "blocking")]
        {
            let os = Os::new();
            let listener = sockpipe::blocking::Listener::bind(os.endpoint()).expect("a free name");
            become_user(65534);
            let error = listener.close().expect_err("it may not");
            assert_said(&os, "blocking", &error);
        }
    });
}

#[test]
fn a_stop_whose_system_calls_fail_reports_the_name_it_leaves() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    for error in ["EROFS", "EIO", "EPERM", "EBUSY"] {
        let os = Os::new();
        let server = helper(&["server", os.endpoint()]);
        let inject = format!("inject=unlinkat:error={error}");
        let Some(server) = strace(&log, &["-e", &inject], &server) else { return };
        let (mut server, _) = listening(server);
        let said = ask(&mut server, "close");
        for part in [" Os: ", "cannot release", os.endpoint(), "cannot be removed", "replaces it"] {
            assert!(said.contains(part), "{error}: {part:?} is not in {said:?}");
        }
        finish(server);
        let (mut next, _) = listening(helper(&["server", os.endpoint()]));
        assert_eq!(ask(&mut next, "close"), "closed", "{error}");
        assert_eq!(os.files(), [""; 0], "{error}");
    }
}
