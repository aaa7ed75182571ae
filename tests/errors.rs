//! Real failures and the errors that report them: kind, operation, reason, endpoint, OS code and
//! source, on which a program can act, and the text that names them.
#![cfg(unix)]

mod common;

use std::error::Error as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use common::{unique_name, within};
use sockpipe::os::unix::{ListenOptionsExt, OnNameLost};
use sockpipe::{
    Candidate, ConnectOptions, Endpoint, Error, ExpectServer, ListenOptions, Listener, Operation,
    ParseEndpointError, Reason, Stream, UserId, connect_or_spawn,
};
use tempfile::TempDir;

/// Checks what each error at `endpoint` must have: its kind, and a text of `what` and the advice.
#[track_caller]
fn failure<T>(outcome: io::Result<T>, kind: ErrorKind, endpoint: &Endpoint) -> Failure {
    let Err(error) = outcome else { panic!("no error, where {kind:?} was to be") };
    assert_eq!(error.kind(), kind, "{error}");
    let known = Error::of(&error).unwrap_or_else(|| panic!("none of ours: {error:?}"));
    assert_eq!(known.endpoint(), Some(endpoint), "{error}");

    let advice = known.advice().map_or_else(String::new, |advice| format!("; {advice}"));
    assert_eq!(error.to_string(), format!("{}{advice}", known.what()));
    assert!(known.what().contains(&endpoint.to_string()), "{error}");
    assert_eq!(error.raw_os_error(), None, "a wrapped error has no code");
    if known.raw_os_error().is_some() {
        assert!(error.source().is_some(), "{error:?}");
    }
    Failure(error)
}

struct Failure(io::Error);

impl Failure {
    fn known(&self) -> &Error {
        Error::of(&self.0).expect("one of ours")
    }

    #[track_caller]
    fn is(&self, operation: Operation, reason: &Reason, code: Option<i32>, says: &str) {
        let known = self.known();
        let found = (known.operation(), known.reason(), known.raw_os_error());
        assert_eq!(found, (operation, reason, code), "{known}");
        assert!(known.to_string().contains(says), "{says:?} is not in {known}");
    }
}

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        endpoint(&self.path(name))
    }
}

fn endpoint(path: &Path) -> Endpoint {
    Endpoint::try_from(path).expect("a path")
}

fn candidate(endpoint: &Endpoint) -> Candidate {
    endpoint.resolve().expect("an address").swap_remove(0)
}

async fn connect(endpoint: &Endpoint) -> io::Result<Stream> {
    within(Stream::connect::<Endpoint>(endpoint.clone())).await
}

fn bind(endpoint: &Endpoint) -> io::Result<Listener> {
    Listener::bind::<Endpoint>(endpoint.clone())
}

#[tokio::test]
async fn bind_and_clean_report_the_process_of_a_live_server() {
    let dir = Dir::new();
    let name = dir.endpoint("s");
    let _server = bind(&name).expect("a free name");

    let bound = failure(bind(&name), ErrorKind::AddrInUse, &name);
    let cleaned = failure(candidate(&name).remove_stale(), ErrorKind::AddrInUse, &name);
    for (failed, operation, says) in [
        (bound, Operation::Bind, "cannot listen on /"),
        (cleaned, Operation::Clean, "cannot clean /"),
    ] {
        assert_eq!(failed.known().operation(), operation);
        assert!(failed.known().what().starts_with(says), "{}", failed.0);
        let Reason::LiveServer { process, .. } = failed.known().reason() else {
            panic!("{:?}", failed.known());
        };
        assert_eq!(*process, Some(process::id()));
    }

    let options = ListenOptions::new();
    let wait = Listener::bind_wait(name.clone(), &options, Duration::ZERO);
    let late = failure(within(wait).await, ErrorKind::TimedOut, &name);
    late.is(Operation::Bind, &Reason::Deadline, None, "waited 0 s");
    let source = late.0.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(ErrorKind::AddrInUse));
}

#[tokio::test]
async fn connect_tells_absent_from_stale_servers_by_reason_and_code() {
    let dir = Dir::new();
    let absent = dir.endpoint("absent");
    let failed = failure(connect(&absent).await, ErrorKind::NotFound, &absent);
    failed.is(Operation::Connect, &Reason::NoServer, None, "no server at /");
    assert!(failed.known().advice().is_some_and(|advice| advice.starts_with("start it first")));

    let name = dir.endpoint("stale");
    drop(UnixListener::bind(dir.path("stale")).expect("a socket"));
    let failed = failure(connect(&name).await, ErrorKind::ConnectionRefused, &name);
    let refused = Some(libc::ECONNREFUSED);
    failed.is(Operation::Connect, &Reason::StaleSocket, refused, "only the socket");

    let portable = Endpoint::try_from(unique_name()).expect("a name");
    if portable.resolve().expect("addresses").len() == 1 {
        return;
    }
    // `connect` tried several addresses; the error has the endpoint that the caller passed.
    let failed = failure(connect(&portable).await, ErrorKind::NotFound, &portable);
    failed.is(Operation::Connect, &Reason::NoServer, None, "looked for");
}

#[tokio::test]
async fn every_operation_leaves_other_kinds_of_file_alone() {
    let dir = Dir::new();
    let file = dir.endpoint("file");
    File::create(dir.path("file")).expect("a file");
    let exists = ErrorKind::AlreadyExists;
    let reason = &Reason::NotASocket;

    failure(bind(&file), exists, &file).is(Operation::Bind, reason, None, "cannot listen on");
    let cleaned = failure(candidate(&file).remove_stale(), exists, &file);
    cleaned.is(Operation::Clean, reason, None, "cannot clean");
    let failed = failure(connect(&file).await, exists, &file);
    failed.is(
        Operation::Connect,
        reason,
        Some(libc::ECONNREFUSED),
        "the path is a file, not a socket",
    );

    let datagrams = dir.endpoint("datagrams");
    let _socket = UnixDatagram::bind(dir.path("datagrams")).expect("a socket");
    let failed = failure(connect(&datagrams).await, exists, &datagrams);
    failed.is(Operation::Connect, reason, Some(libc::EPROTOTYPE), "of another type");
}

#[tokio::test]
async fn missing_and_unsafe_directories_have_their_reasons() {
    let dir = Dir::new();
    let nowhere = dir.endpoint("nowhere/s");
    let (missing, kind) = (&Reason::NoDirectory, ErrorKind::NotFound);
    let code = Some(libc::ENOENT);
    failure(bind(&nowhere), kind, &nowhere).is(Operation::Bind, missing, code, "cannot listen on");
    let failed = failure(connect(&nowhere).await, kind, &nowhere);
    failed.is(Operation::Connect, missing, code, "cannot connect to");
    let failed = failure(candidate(&nowhere).occupancy(), kind, &nowhere);
    failed.is(Operation::Inspect, missing, code, "cannot look at");
    // The lock on the start of a server fails first, so the text does not mention listening.
    let spawned = connect_or_spawn(dir.path("nowhere/s"), Command::new("true"));
    let failed = failure(within(spawned).await, kind, &nowhere);
    failed.is(Operation::Spawn, missing, code, "cannot start the server at");

    let open = dir.path("open");
    fs::create_dir(&open).expect("a directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("a mode");
    let name = dir.endpoint("open/s");
    let failed = failure(bind(&name), ErrorKind::PermissionDenied, &name);
    failed.is(Operation::Bind, &Reason::UnsafeDirectory, None, "could replace the socket");

    File::create(dir.path("file")).expect("a file");
    let name = dir.endpoint("file/s");
    let failed = failure(bind(&name), kind, &name);
    failed.is(Operation::Bind, missing, Some(libc::ENOTDIR), "but something else");
}

#[tokio::test]
async fn long_names_and_invalid_endpoints_have_their_reasons() {
    let dir = Dir::new();
    let long = dir.endpoint(&"n".repeat(200));
    let bound = failure(bind(&long), ErrorKind::InvalidInput, &long);
    bound.is(Operation::Bind, &Reason::NameTooLong, None, "too long for a socket");
    let failed = failure(connect(&long).await, ErrorKind::InvalidInput, &long);
    failed.is(Operation::Connect, &Reason::NameTooLong, None, "too long for a socket");
    assert!(failed.0.source().is_some_and(|source| source.is::<ParseEndpointError>()));

    let error = Listener::bind("a/b").expect_err("no endpoint");
    let known = Error::of(&error).expect("one of ours");
    let found = (known.operation(), known.reason(), known.endpoint());
    assert_eq!(found, (Operation::Parse, &Reason::InvalidEndpoint, None));
    assert!(error.to_string().starts_with("invalid endpoint \"a/b\""), "{error}");

    let pipe = Endpoint::try_from(r"\\.\pipe\x").expect("a pipe");
    let failed = failure(bind(&pipe), ErrorKind::Unsupported, &pipe);
    failed.is(Operation::Resolve, &Reason::Unsupported, None, "cannot use");
}

#[tokio::test]
async fn deadlines_and_unexpected_servers_have_their_reasons() {
    let dir = Dir::new();
    let name = dir.endpoint("s");
    let options = ListenOptions::new().backlog(1);
    let _server = Listener::bind_with::<Endpoint>(name.clone(), &options).expect("a free name");

    let uid = rustix::process::geteuid().as_raw();
    let other = ConnectOptions::new().expect_server(ExpectServer::Exactly(UserId::Uid(uid + 1)));
    let outcome = within(Stream::connect_with::<Endpoint>(name.clone(), &other)).await;
    let failed = failure(outcome, ErrorKind::PermissionDenied, &name);
    failed.is(Operation::Connect, &Reason::UnexpectedServer, None, "refused the server at");

    let at_once = ConnectOptions::new().deadline(Duration::ZERO);
    let mut clients = Vec::new();
    let outcome = loop {
        match within(Stream::connect_with::<Endpoint>(name.clone(), &at_once)).await {
            Ok(client) => clients.push(client),
            Err(error) => break Err::<Stream, _>(error),
        }
    };
    let failed = failure(outcome, ErrorKind::TimedOut, &name);
    failed.is(Operation::Connect, &Reason::Deadline, None, "too busy to answer within 0 s");
}

#[test]
fn bind_without_a_runtime_leaves_nothing_behind() {
    let dir = Dir::new();
    let name = dir.endpoint("s");
    let failed = failure(bind(&name), ErrorKind::Other, &name);
    failed.is(Operation::Bind, &Reason::NoRuntime, None, "there is no tokio runtime here");
    assert_eq!(fs::read_dir(dir.0.path()).expect("a directory").count(), 0);
}

#[tokio::test]
async fn bind_reports_a_directory_in_place_of_its_lock_file_as_foreign() {
    let dir = Dir::new();
    fs::create_dir(dir.path(".s.lock")).expect("a directory");
    let name = dir.endpoint("s");
    let failed = failure(bind(&name), ErrorKind::PermissionDenied, &name);
    let code = Some(libc::EISDIR);
    failed.is(Operation::Bind, &Reason::ForeignOwner, code, "its lock file");
}

#[tokio::test]
async fn a_daemon_that_exits_or_cannot_be_started_has_its_reason() {
    let dir = Dir::new();
    let name = dir.endpoint("s");
    let outcome = connect_or_spawn(dir.path("s"), Command::new("false"));
    let failed = failure(within(outcome).await, ErrorKind::Other, &name);
    failed.is(Operation::Spawn, &Reason::ServerExited, None, "exited before it listened");

    let outcome = connect_or_spawn(dir.path("s"), Command::new("/nowhere/daemon"));
    let failed = failure(within(outcome).await, ErrorKind::NotFound, &name);
    let code = Some(libc::ENOENT);
    failed.is(Operation::Spawn, &Reason::Os, code, "cannot start /nowhere/daemon");
}

#[tokio::test]
async fn errors_of_the_os_keep_their_code_and_are_the_source() {
    let dir = Dir::new();
    symlink("loop", dir.path("loop")).expect("a link");
    let name = dir.endpoint("loop/s");
    let code = Some(libc::ELOOP);
    let looped = io::Error::from_raw_os_error(libc::ELOOP).kind();
    let bound = bind(&name);
    let connected = connect(&name).await;
    for (failed, operation) in [
        (failure(bound, looped, &name), Operation::Bind),
        (failure(connected, looped, &name), Operation::Connect),
    ] {
        failed.is(operation, &Reason::Os, code, "cannot use the directory");
        let source = failed.0.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.and_then(io::Error::raw_os_error), code);
    }
}

/// In this directory of the kernel not even root can make files.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn bind_reports_a_directory_without_write_access_as_not_writable() {
    let name = Endpoint::try_from("/sys/sockpipe-test.sock").expect("a path");
    let failed = failure(bind(&name), ErrorKind::PermissionDenied, &name);
    let code = failed.known().raw_os_error();
    assert!(matches!(code, Some(libc::EACCES | libc::EPERM | libc::EROFS)), "{code:?}");
    failed.is(Operation::Bind, &Reason::NotWritable, code, "that you can write to");
}

/// The clock is paused, so the listener's next check of its name comes at once.
#[tokio::test(start_paused = true)]
async fn accept_fails_when_the_name_is_lost() {
    let dir = Dir::new();
    let name = dir.endpoint("s");
    let options = ListenOptions::new().on_name_lost(OnNameLost::Stop);
    let mut listener = Listener::bind_with::<Endpoint>(name.clone(), &options).expect("a name");
    fs::remove_file(dir.path("s")).expect("a socket");
    let failed = failure(listener.accept().await, ErrorKind::NotFound, &name);
    failed.is(Operation::Accept, &Reason::NameLost, None, "its name was removed");
}

#[tokio::test]
async fn a_client_without_permission_is_refused() {
    if rustix::process::geteuid().is_root() {
        println!("not run: root may connect to every socket");
        return;
    }
    let dir = Dir::new();
    let name = dir.endpoint("s");
    let _server = UnixListener::bind(dir.path("s")).expect("a socket");
    fs::set_permissions(dir.path("s"), fs::Permissions::from_mode(0o000)).expect("a mode");
    let failed = failure(connect(&name).await, ErrorKind::PermissionDenied, &name);
    let code = Some(libc::EACCES);
    failed.is(Operation::Connect, &Reason::PeerRefused, code, "refuse this user");
}

/// Such an error would lose the OS's code.
#[test]
fn no_error_is_built_from_the_kind_and_text_of_another() {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }

            files += 1;
            let text = fs::read_to_string(&path).expect("a text");
            let lost = text.lines().find(|line| line.contains("Error::new(error.kind(), format!("));
            assert_eq!(lost, None, "{}: use Error and caused_by", path.display());
        }
    }
    assert!(files > 50, "{files} files");
}
