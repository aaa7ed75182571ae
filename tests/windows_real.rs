//! Rules that Windows enforces and Wine does not: who may open a pipe, who may add an instance to
//! it, and that a name has one owner. Other tests show where an end could get lost. Under Wine a
//! test that would show nothing prints that it did not run, or that the model of NT runs it
//! (`scripts/nt.sh`).
#![cfg(windows)] // Only Windows has named pipes.

mod common;

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::windows::fs::OpenOptionsExt;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::wine::{skipped, skipped_without_model};
use common::{
    PATIENCE, argument, assert_kind, assert_reason, assert_says, spawn_helper, unique_name, within,
};
use sockpipe::os::windows::ListenOptionsExt;
use sockpipe::{
    Access, ConnectOptions, Error, ExpectServer, ListenOptions, Listener, Reason, Stream, UserId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::windows::named_pipe::{PipeMode, ServerOptions};

const ERROR_ACCESS_DENIED: i32 = 5;
/// `SecurityAnonymous` in the flags of an open.
const SECURITY_ANONYMOUS: u32 = 0;

fn listen(options: &ListenOptions) -> (Listener, String) {
    let listener = Listener::bind_with(unique_name(), options).expect("a free name");
    let path = listener.endpoint().to_string();
    (listener, path)
}

/// The SID of the user that runs the tests.
async fn own_sid() -> String {
    let (mut listener, path) = listen(&ListenOptions::new());
    let _client = within(Stream::connect(path)).await.expect("a connection");
    let server = within(listener.accept()).await.expect("a connection");
    match server.peer_credentials().expect("credentials").user() {
        UserId::Sid(sid) => sid.clone(),
        other => panic!("{other} is no SID"),
    }
}

fn assert_denied<T>(outcome: io::Result<T>, what: &str) {
    let error = outcome.err().unwrap_or_else(|| panic!("{what}"));
    assert_eq!(error.raw_os_error(), Some(ERROR_ACCESS_DENIED), "{error}");
}

/// This is row 4 of the contract. `bind` checks before whether the name exists, but only the system
/// decides between rivals.
#[test]
fn one_of_many_concurrent_binds_wins() {
    if skipped_without_model("it lets everybody create a first instance") {
        return;
    }
    const RIVALS: usize = 16;
    for _ in 0..50 {
        let (name, barrier) = (unique_name(), Arc::new(Barrier::new(RIVALS)));
        let rivals: Vec<_> = (0..RIVALS)
            .map(|_| {
                let (name, barrier) = (name.clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    let bound = Listener::bind(name);
                    // All rivals have tried before the first listener is dropped.
                    barrier.wait();
                    bound
                })
            })
            .collect();
        let bound: Vec<_> =
            rivals.into_iter().map(|rival| rival.join().expect("a rival")).collect();
        assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
        for error in bound.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        }
    }
}

/// This is row 16 of the contract at the server: no impostor can take the name.
#[tokio::test]
async fn a_foreign_program_cannot_create_a_first_instance_of_a_held_name() {
    if skipped_without_model("it lets everybody create a first instance") {
        return;
    }
    let (_listener, path) = listen(&ListenOptions::new());
    let mut first = ServerOptions::new();
    first.first_pipe_instance(true).pipe_mode(PipeMode::Message);
    assert_denied(first.create(path), "a second server has the name");
}

/// The descriptor gives this user the rights that `Access::Everyone` gives everybody: to read and
/// to write, but not to add an instance. Here the listener cannot add instances either.
#[tokio::test]
async fn a_user_with_read_and_write_access_cannot_add_an_instance() {
    if skipped_without_model("it does not enforce descriptors") {
        return;
    }
    let own = own_sid().await;
    let sddl = format!("O:{own}G:{own}D:P(D;;GA;;;NU)(A;;0x0012019b;;;{own})");
    let options = ListenOptions::new().security_descriptor(sddl).instances(1);
    let (_listener, path) = listen(&options);
    let mut further = ServerOptions::new();
    further.pipe_mode(PipeMode::Message);
    assert_denied(further.create(&path), "it has an instance of a pipe that it may only use");
    // These rights suffice to connect.
    within(Stream::connect(&path)).await.expect("a connection");
}

/// The error must not look like another server, for which `bind_wait` would wait.
#[test]
fn a_listener_that_cannot_add_its_own_instances_reports_it() {
    if skipped_without_model("it does not enforce descriptors") {
        return;
    }
    let options = ListenOptions::new().security_descriptor("D:P(A;;0x0012019b;;;WD)");
    let outcome = Listener::bind_with(unique_name(), &options);
    assert_says(&assert_reason!(outcome, Reason::Os), &["add instances"]);
}

/// This is row 15 of the contract. The tests have one user, so the descriptor leaves out that one.
#[tokio::test]
async fn a_user_missing_from_the_descriptor_is_refused() {
    if skipped_without_model("it does not enforce descriptors") {
        return;
    }
    let own = own_sid().await;
    for sddl in [
        format!("O:{own}G:{own}D:P(D;;GA;;;NU)(A;;GA;;;SY)"),
        format!("O:{own}G:{own}D:P(D;;GA;;;{own})(A;;GA;;;WD)"),
        format!("O:{own}G:{own}D:P"),
    ] {
        let options = ListenOptions::new().security_descriptor(sddl).instances(1);
        let (_listener, path) = listen(&options);
        assert_reason!(within(Stream::connect(&path)).await, Reason::PeerRefused, path);
    }
}

#[test]
fn a_descriptor_that_grants_everyone_everything_is_refused() {
    if skipped("it does not know NO_ACCESS_CONTROL") {
        return;
    }
    let options = ListenOptions::new().security_descriptor("D:NO_ACCESS_CONTROL");
    let outcome = Listener::bind_with(unique_name(), &options);
    assert_says(&assert_kind(outcome, ErrorKind::InvalidInput), &["who may connect"]);
}

/// The clients come through this machine's own file server, as clients from the network do.
#[tokio::test]
async fn clients_from_the_network_are_refused() {
    if skipped("it has no file server") {
        return;
    }
    let open = |path: &str| {
        let remote = path.replace(r"\\.\pipe", r"\\127.0.0.1\pipe");
        OpenOptions::new().read(true).write(true).open(remote)
    };
    let foreign = format!(r"\\.\pipe\{}", unique_name());
    let mut options = ServerOptions::new();
    let _foreign = options.reject_remote_clients(false).create(&foreign).expect("a free name");
    if let Err(error) = open(&foreign) {
        // A real Windows may have no file server either.
        println!("not run: no pipe is reached through the network here: {error}");
        return;
    }
    for options in [
        ListenOptions::new(),
        ListenOptions::new().access(Access::Everyone),
        ListenOptions::new().security_descriptor("D:P(A;;GA;;;WD)(A;;GA;;;AN)"),
    ] {
        let (_listener, path) = listen(&options);
        let error = open(&path).expect_err("a client from the network connected");
        println!("refused: {error}");
    }
}

/// The default owner of a pipe is the user that made it, or Administrators.
#[tokio::test]
async fn a_client_checks_the_owner_of_a_foreign_pipe() {
    if skipped_without_model("pipes with the default descriptor have no owner") {
        return;
    }
    let system = ExpectServer::Exactly(UserId::Sid("S-1-5-18".to_owned()));
    for (expect, right) in [(system, false), (ExpectServer::Default, true)] {
        let path = format!(r"\\.\pipe\{}", unique_name());
        let _server = ServerOptions::new().create(&path).expect("a free name");
        let options = ConnectOptions::new().expect_server(expect);
        let outcome = within(Stream::connect_with(&path, &options)).await;
        if right {
            outcome.expect("a server of our own");
        } else {
            assert_reason!(outcome, Reason::UnexpectedServer, path);
        }
    }
}

/// SYSTEM or Administrators own a service's pipe. A client accepts it as `ExpectServer::User`, and
/// refuses it as `ExpectServer::Exactly` another user.
#[tokio::test]
async fn expect_server_accepts_a_service_for_a_user_but_not_for_exactly_one() {
    const INVALID_OWNER: i32 = 1307;
    let user = |sid: &str| UserId::Sid(sid.to_owned());
    for (owner, sid) in [("SY", "S-1-5-18"), ("BA", "S-1-5-32-544")] {
        let sddl = format!("O:{owner}G:{owner}D:P(A;;GA;;;WD)");
        let options = ListenOptions::new().security_descriptor(sddl).instances(1);
        let listener = match Listener::bind_with(unique_name(), &options) {
            Ok(listener) => listener,
            Err(error) => {
                // Only a user with the right to set owners can name another owner.
                let code = Error::of(&error).and_then(Error::raw_os_error);
                assert_eq!(code, Some(INVALID_OWNER), "{error}");
                println!("not run: this user may not make a pipe of {owner}");
                continue;
            }
        };
        let somebody = "S-1-5-21-1-2-3-1001";
        for (expect, right) in [
            (ExpectServer::Default, true),
            (ExpectServer::User(user(somebody)), true),
            (ExpectServer::Exactly(user(sid)), true),
            (ExpectServer::Exactly(user(somebody)), false),
        ] {
            let options = ConnectOptions::new().expect_server(expect.clone());
            let path = listener.endpoint().to_string();
            let outcome = within(Stream::connect_with(path, &options)).await;
            assert_eq!(outcome.is_ok(), right, "{owner} for {expect:?}");
            if let Err(error) = outcome {
                let reason = Error::of(&error).map(Error::reason);
                assert_eq!(reason, Some(&Reason::UnexpectedServer), "{error}");
            }
        }
    }
}

/// In message mode a reader keeps the end apart from unread data before it. Wine does so in byte
/// mode too, and so cannot show that the mode matters.
#[tokio::test]
async fn an_end_behind_unread_data_is_read_as_an_end() {
    let (mut listener, path) = listen(&ListenOptions::new());
    for length in [1, 4096, 200_000] {
        let mut client = within(Stream::connect(&path)).await.expect("a connection");
        let mut server = within(listener.accept()).await.expect("a connection");
        within(client.write_all(&vec![1; length])).await.expect("a write");
        client.shutdown().await.expect("a half-close");
        within(server.write_all(&vec![2; length])).await.expect("a write");
        server.shutdown().await.expect("a half-close");
        // Neither end has read anything yet.
        for stream in [&mut server, &mut client] {
            let mut bytes = Vec::new();
            within(stream.read_to_end(&mut bytes)).await.expect("an end");
            assert_eq!(bytes.len(), length);
        }
    }
}

/// This is the reason to send the end again to a reader in byte mode.
// The event loop must run while this thread waits, since it closes the pipe.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn in_byte_mode_an_end_behind_unread_data_vanishes() {
    if skipped_without_model("it keeps them apart") {
        return;
    }
    let path = format!(r"\\.\pipe\{}", unique_name());
    let server = ServerOptions::new().pipe_mode(PipeMode::Message).create(&path).expect("free");
    // The client has no event loop, which would read too early.
    let mut client = OpenOptions::new().read(true).write(true).open(&path).expect("a server");
    within(server.connect()).await.expect("a client");
    for message in [&b"abc"[..], b""] {
        let written = loop {
            within(server.writable()).await.expect("room");
            match server.try_write(message) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => break written.expect("a write"),
            }
        };
        assert_eq!(written, message.len());
    }
    let (sender, lengths) = channel();
    let reader = thread::spawn(move || {
        for _ in 0..2 {
            let length = client.read(&mut [0; 16]).unwrap_or_default();
            sender.send(length).expect("a test that waits");
        }
    });
    assert_eq!(lengths.recv_timeout(PATIENCE), Ok(3));
    let nothing = lengths.recv_timeout(Duration::from_millis(300));
    assert_eq!(nothing, Err(RecvTimeoutError::Timeout), "the end was there");
    drop(server);
    assert_eq!(lengths.recv_timeout(PATIENCE), Ok(0), "the pipe is closed");
    reader.join().expect("no panic");
}

/// Most programs do not choose a level of impersonation. The server can then identify them once it
/// has read their first bytes.
#[tokio::test]
async fn a_plain_client_is_identified_after_its_first_bytes() {
    if skipped_without_model("it tells at once") {
        return;
    }
    let own = UserId::Sid(own_sid().await);
    let (mut listener, path) = listen(&ListenOptions::new());
    let mut client = OpenOptions::new().read(true).write(true).open(&path).expect("a server");
    let mut server = within(listener.accept()).await.expect("a connection");
    let error = server.peer_credentials().expect_err("nothing was read");
    let reason = Error::of(&error).map(Error::reason);
    assert!(matches!(reason, Some(Reason::PeerNotToldYet { .. })), "{error}");
    client.write_all(b"x").expect("a write");
    within(server.read_exact(&mut [0])).await.expect("a byte");
    assert_eq!(*server.peer_credentials().expect("credentials").user(), own);
}

#[tokio::test]
async fn peer_credentials_fail_for_an_anonymous_client() {
    if skipped_without_model("it tells at once") {
        return;
    }
    let (mut listener, path) = listen(&ListenOptions::new());
    let mut nobody = OpenOptions::new();
    nobody.read(true).write(true).security_qos_flags(SECURITY_ANONYMOUS);
    let mut client = nobody.open(&path).expect("a server");
    let mut server = within(listener.accept()).await.expect("a connection");
    client.write_all(b"x").expect("a write");
    within(server.read_exact(&mut [0])).await.expect("a byte");
    let error = server.peer_credentials().expect_err("nobody");
    let reason = Error::of(&error).map(Error::reason);
    assert!(matches!(reason, Some(Reason::AnonymousPeer { .. })), "{error}");
}

/// Accepts one client, and waits until the test kills it.
#[tokio::test]
async fn helper_server_that_crashes() {
    let Some(name) = argument() else { return };
    let mut listener = Listener::bind(name).expect("a free name");
    let mut stream = within(listener.accept()).await.expect("a connection");
    within(stream.write_all(b"here")).await.expect("a write");
    std::future::pending::<()>().await;
}

/// The client of a server that crashed. It holds the server's name until it closes.
async fn left_by_a_crash(name: &str) -> Stream {
    let mut child = spawn_helper("helper_server_that_crashes", name);
    let options = ConnectOptions::new().wait_for_server(PATIENCE);
    let mut client = within(Stream::connect_with(name, &options)).await.expect("a connection");
    within(client.read_exact(&mut [0; 4])).await.expect("a server");
    child.kill().expect("a kill");
    child.wait().expect("an end");
    assert_eq!(within(client.read(&mut [0])).await.expect("an end"), 0);
    client
}

fn assert_held<T>(outcome: io::Result<T>) {
    let error = outcome.err().expect("a name that a client holds");
    let reason = Error::of(&error).map(Error::reason);
    assert_eq!(reason, Some(&Reason::HeldByConnections), "{error}");
}

#[tokio::test]
async fn the_name_of_a_crashed_server_whose_client_lives_is_taken_over() {
    let name = unique_name();
    let _former = left_by_a_crash(&name).await;
    let missed = within(Stream::connect(&name)).await;
    assert_reason!(missed, Reason::NoServer);
    let mut listener = Listener::bind(&name).expect("a name without a server");
    // Every instance works, and every client reaches this listener.
    for _ in 0..8 {
        let mut client = within(Stream::connect(&name)).await.expect("a connection");
        let mut server = within(listener.accept()).await.expect("a connection");
        within(client.write_all(b"x")).await.expect("a write");
        within(server.read_exact(&mut [0])).await.expect("a byte");
    }
    assert_reason!(Listener::bind(&name), Reason::LiveServer { .. }, name);
}

/// Clients would find a pipe with the rights and type of the dead server.
#[tokio::test]
async fn a_name_is_not_taken_over_with_other_rights_or_of_another_type() {
    if skipped_without_model("a name goes with its server") {
        return;
    }
    let name = unique_name();
    let former = left_by_a_crash(&name).await;
    let everyone = ListenOptions::new().access(Access::Everyone);
    assert_held(Listener::bind_with(&name, &everyone));
    assert_held(Listener::bind_with(&name, &ListenOptions::new().byte_type(true)));
    // The failed attempts leave no instance.
    let missed = within(Stream::connect(&name)).await;
    assert_reason!(missed, Reason::NoServer);
    drop(former);
    Listener::bind_with(&name, &everyone).expect("a free name");
}

#[tokio::test]
async fn one_of_many_concurrent_takeovers_wins() {
    if skipped_without_model("a name goes with its server") {
        return;
    }
    const RIVALS: usize = 8;
    for _ in 0..5 {
        let name = unique_name();
        let _former = left_by_a_crash(&name).await;
        let barrier = Barrier::new(RIVALS);
        let bind = || {
            barrier.wait();
            let bound = Listener::bind(&name);
            // All rivals have tried before the first listener is dropped.
            barrier.wait();
            bound
        };
        let bound: Vec<_> = thread::scope(|scope| {
            let rivals: Vec<_> = (0..RIVALS).map(|_| scope.spawn(bind)).collect();
            rivals.into_iter().map(|rival| rival.join().expect("a rival")).collect()
        });
        assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
        for error in bound.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        }
    }
}
