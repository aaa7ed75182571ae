//! Real failures for the reasons of `sockpipe::Error` that every OS has, and for those that need a
//! separate process. `errors.rs` has the reasons that only Unix has.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Backend, Os, unique_name, within};
use sockpipe::{
    ConnectOptions, Endpoint, Error, ExpectServer, ListenOptions, Listener, Operation, Reason,
    Stream, UserId, connect_or_spawn,
};

/// Checks kind, operation and endpoint of an error, and returns its reason.
#[track_caller]
fn failed<T>(
    outcome: io::Result<T>,
    kind: ErrorKind,
    operation: Operation,
    at: &str,
) -> (Reason, io::Error) {
    let Err(error) = outcome else { panic!("no error, where {kind:?} was to be") };
    assert_eq!(error.kind(), kind, "{error}");
    let known = Error::of(&error).unwrap_or_else(|| panic!("none of ours: {error:?}"));
    assert_eq!(known.operation(), operation, "{error}");
    let endpoint = known.endpoint().map(Endpoint::to_string).unwrap_or_default();
    assert!(endpoint.contains(at), "{endpoint} instead of {at}");
    assert!(error.to_string().contains(&endpoint), "{error}");
    (known.reason().clone(), error)
}

/// A user who is neither this process's nor the system's.
fn somebody_else() -> UserId {
    if cfg!(windows) { UserId::Sid("S-1-5-21-1-2-3-1001".into()) } else { UserId::Uid(61_034) }
}

#[tokio::test]
async fn taken_free_and_unexpected_names_have_their_reasons() {
    let os = Os::new();
    let (at, absent) = (os.endpoint(), ErrorKind::NotFound);
    let (reason, _) = failed(within(os.connect()).await, absent, Operation::Connect, at);
    assert_eq!(reason, Reason::NoServer);

    let _server = os.bind().expect("a free name");
    let (reason, _) = failed(os.bind(), ErrorKind::AddrInUse, Operation::Bind, at);
    assert!(matches!(reason, Reason::LiveServer { .. }), "{reason:?}");
    let options = ListenOptions::new();
    let wait = Listener::bind_wait(at, &options, Duration::ZERO);
    let (reason, _) = failed(within(wait).await, ErrorKind::TimedOut, Operation::Bind, at);
    assert_eq!(reason, Reason::Deadline);

    let expect = ExpectServer::Exactly(somebody_else());
    let connecting = os.connect_with(&ConnectOptions::new().expect_server(expect)).await;
    let (reason, error) = failed(connecting, ErrorKind::PermissionDenied, Operation::Connect, at);
    assert_eq!(reason, Reason::UnexpectedServer);
    assert!(error.to_string().contains("refused the server at"), "{error}");
}

#[tokio::test]
async fn invalid_foreign_and_long_endpoints_have_their_reasons() {
    let error = Stream::connect("a/b").await.expect_err("no endpoint");
    let known = Error::of(&error).expect("one of ours");
    assert_eq!(known.reason(), &Reason::InvalidEndpoint);
    assert_eq!((error.kind(), known.endpoint()), (ErrorKind::InvalidInput, None));

    let elsewhere = if cfg!(windows) { "/run/x.sock" } else { r"\\.\pipe\x" };
    let (reason, _) =
        failed(Listener::bind(elsewhere), ErrorKind::Unsupported, Operation::Resolve, elsewhere);
    assert_eq!(reason, Reason::Unsupported);

    let long = "n".repeat(300);
    let long = if cfg!(windows) { format!(r"\\.\pipe\{long}") } else { format!("/tmp/{long}") };
    let (reason, error) =
        failed(Listener::bind(&long), ErrorKind::InvalidInput, Operation::Bind, &long);
    assert_eq!(reason, Reason::NameTooLong, "{error}");
}

#[tokio::test]
async fn a_daemon_that_is_missing_or_ends_has_its_reason() {
    let (name, nowhere) = (unique_name(), "/nowhere/daemon");
    let spawned = within(connect_or_spawn(&name, Command::new(nowhere))).await;
    let (reason, error) = failed(spawned, ErrorKind::NotFound, Operation::Spawn, "");
    assert_eq!(reason, Reason::Os);
    let code = Error::of(&error).and_then(Error::raw_os_error);
    assert!(code.is_some(), "the OS has a code for this: {error:?}");

    let ends = if cfg!(windows) { "hostname" } else { "false" };
    let spawned = within(connect_or_spawn(&name, Command::new(ends))).await;
    let (reason, _) = failed(spawned, ErrorKind::Other, Operation::Spawn, "");
    assert_eq!(reason, Reason::ServerExited);
}

/// A pipe of byte type cannot carry the end of one direction.
#[cfg(windows)]
#[tokio::test]
async fn shutdown_of_a_pipe_of_byte_type_fails_with_no_half_close() {
    use tokio::io::AsyncWriteExt;
    use tokio::net::windows::named_pipe::ServerOptions;

    let path = format!(r"\\.\pipe\{}", unique_name());
    let _server = ServerOptions::new().create(&path).expect("a free name");
    let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
    let mut client = within(Stream::connect_with(&path, &options)).await.expect("a connection");
    let outcome = within(client.shutdown()).await;
    let (reason, _) = failed(outcome, ErrorKind::Unsupported, Operation::Shutdown, "");
    assert_eq!(reason, Reason::NoHalfClose);
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use sockpipe::os::unix::{ListenerExt, StreamExt};

    use super::common::process::is_here;
    use super::common::unix::{can_unshare, helper, output, strace, through};
    use super::*;

    #[tokio::test]
    async fn from_fd_reports_a_descriptor_of_another_kind_as_unusable() {
        let file = || OwnedFd::from(File::open("/dev/null").expect("a file"));
        let options = ListenOptions::new();
        let invalid = ErrorKind::InvalidInput;
        let listener = Listener::from_fd(file(), &options).map(drop);
        for outcome in [listener, Stream::from_fd(file()).map(drop)] {
            let error = outcome.expect_err("it is a file");
            let reason = Error::of(&error).map(Error::reason);
            assert_eq!((error.kind(), reason), (invalid, Some(&Reason::UnusableDescriptor)));
        }
    }

    /// A process holds the lock on the name but has no socket.
    #[tokio::test]
    async fn connect_to_a_held_name_without_a_server_times_out() {
        let os = Os::new();
        let server = os.bind().expect("a free name");
        // The socket is replaced by a dead one. Where a refusal may come from a busy server, it is
        // only removed.
        fs::remove_file(os.endpoint()).expect("a socket");
        if cfg!(all(target_os = "linux", not(sockpipe_posix))) {
            drop(UnixListener::bind(os.endpoint()).expect("a free path"));
        }
        let outcome = within(os.connect()).await;
        let (reason, error) =
            failed(outcome, ErrorKind::TimedOut, Operation::Connect, os.endpoint());
        let Reason::NameWithoutServer { process, .. } = reason else { panic!("{error}") };
        assert_eq!(process, Some(std::process::id()));
        drop(server);
    }

    /// On systems where a full queue refuses clients too, one refusal does not prove a socket dead.
    #[tokio::test]
    async fn bind_reports_a_dead_socket_of_another_program_as_unproven() {
        let os = Os::new();
        drop(UnixListener::bind(os.endpoint()).expect("a free path"));
        if cfg!(all(target_os = "linux", not(sockpipe_posix))) {
            os.bind().expect("the system says that nobody has it");
            return;
        }
        let (reason, error) =
            failed(os.bind(), ErrorKind::AddrInUse, Operation::Bind, os.endpoint());
        assert_eq!(reason, Reason::UnprovenSocket, "{error}");
        let options = ListenOptions::new();
        let wait = Listener::bind_wait(os.endpoint(), &options, Duration::from_secs(10));
        within(wait).await.expect("a name whose socket was proven dead");
    }

    #[test]
    fn bind_without_file_locks_fails_with_no_locks() {
        let os = Os::new();
        let logs = tempfile::tempdir().expect("a directory");
        let server = helper(&["reason", os.endpoint()]);
        let inject = ["-e", "inject=flock:error=ENOLCK"];
        let Some(server) = strace(&logs.path().join("log"), &inject, &server) else { return };
        let expected = format!("Unsupported Bind {:?} 37", Reason::NoLocks);
        assert_eq!(output(server).concat(), expected);
    }

    /// Others could take a portable name in such a directory.
    #[test]
    fn bind_refuses_a_directory_of_portable_names_open_to_others() {
        if !rustix::process::geteuid().is_root() || !can_unshare(&["-m"]) || !is_here("mount") {
            println!("not run: this needs a /tmp of its own");
            return;
        }
        let mut command = helper(&["reason", &unique_name()]);
        command.env("XDG_RUNTIME_DIR", "/nowhere");
        // The new /tmp may hide the program's own file, so it is opened before.
        let own = "exec 5<\"$0\" && mount -t tmpfs t /tmp && mkdir -m 777 /tmp/sockpipe-0 && \
                   exec /proc/self/fd/5 \"$@\"";
        let command = through("unshare", &["-m", "sh", "-c", own], &command);
        let expected = format!("PermissionDenied Bind {:?} 0", Reason::PrivateDirectory);
        assert_eq!(output(command).concat(), expected);
    }
}

#[test]
fn each_reason_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/error.rs")).expect("a text");
    let body = text.split("pub enum Reason {").nth(1).and_then(|rest| rest.split("\n}").next());
    let reasons: BTreeSet<&str> = body
        .expect("the reasons")
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(char::is_uppercase))
        .map(|line| line.trim_end_matches([' ', '{', ',']))
        .collect();
    assert!(reasons.contains("LiveServer") && reasons.contains("Os"), "{reasons:?}");

    let (mut dirs, mut texts) = (vec![root.join("tests"), root.join("src")], String::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let is_test = path
                .components()
                .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs");
            if path.is_dir() {
                dirs.push(path);
            } else if is_test && path.extension().is_some_and(|end| end == "rs") {
                texts += &fs::read_to_string(path).expect("a text");
            }
        }
    }
    let missing: Vec<_> =
        reasons.iter().filter(|reason| !texts.contains(&format!("Reason::{reason}"))).collect();
    assert!(missing.is_empty(), "no test asserts {missing:?}");
}
