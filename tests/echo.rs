//! The echo examples as a user runs them: as processes, on this OS's transport.

mod common;

use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::thread;

use common::process::{Running, client, example, server, text};
use common::{Backend, Os, within};
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The error output of a program that failed: one line that begins with the program's name.
#[track_caller]
fn one_line(program: &str, err: &[u8]) -> String {
    let err = text(err);
    assert!(err.starts_with(&format!("{program}: ")), "{err:?}");
    assert_eq!(err.matches('\n').count(), 1, "{err:?}");
    err
}

fn noise(length: usize) -> Vec<u8> {
    // The bytes take all values, and have no period that could match a buffer's size.
    let mut state = 1_u32;
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 24) as u8
    };
    (0..length).map(|_| next(&mut state)).collect()
}

#[test]
fn the_echo_example_shows_an_exchange_and_exits() {
    let output = example("echo").output().expect("a process");
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    for line in [
        "server: listening on ",
        "client: sent      olá mundo\n",
        "server: echoing   olá mundo\n",
        "client: received  olá mundo\n",
        "client: received  last words, and the end\n",
        "client: NotFound, as it should be: no server at ",
    ] {
        assert!(out.contains(line), "{line:?} is not in {out}");
    }
}

#[test]
fn the_echo_examples_exchange_lines() {
    let os = Os::new();
    let server = server(os.endpoint(), &[]);
    let output = client(os.endpoint(), &["--count", "3", "--interval", "20"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert_eq!(out.matches("sent: olá mundo\n").count(), 3, "{out}");
    assert_eq!(out.matches("olá mundo").count(), 6, "{out}");
    assert!(out.contains("received: olá mundo"), "{out}");
    // On a busy machine one read may return two messages: a stream has no boundaries.
    let shown = server.next_line();
    assert!(shown.starts_with("echo: olá mundo"), "{shown}");
    let output = client(os.endpoint(), &["--count", "1", "--message", "one \u{1b}[31mred"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The server does not print a client's control characters to its terminal.
    let shown = std::iter::from_fn(|| Some(server.next_line())).find(|line| line.contains("red"));
    assert_eq!(shown.as_deref(), Some("echo: one \u{fffd}[31mred"));
}

#[test]
fn a_quiet_server_prints_its_address_only() {
    let os = Os::new();
    let server = server(os.endpoint(), &["--quiet"]);
    assert!(client(os.endpoint(), &["--count", "2", "--interval", "1"]).status.success());
    assert_eq!(server.out.try_iter().collect::<Vec<_>>(), [""; 0]);
    server.crash();
}

#[test]
fn a_second_server_exits_and_the_first_keeps_serving() {
    let os = Os::new();
    let first = server(os.endpoint(), &["--quiet"]);
    let mut second = example("echo_server");
    let output = second.arg(os.endpoint()).output().expect("a process");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let err = one_line("echo_server", &output.stderr);
    assert!(err.contains(os.endpoint()), "{err}");
    assert!(err.contains("already listening"), "{err}");
    if cfg!(unix) {
        // Only a lock file records the process.
        assert!(err.contains(&format!("(pid {})", first.child.id())), "{err}");
    }
    assert!(client(os.endpoint(), &["--count", "1"]).status.success());
}

#[test]
fn a_client_without_a_server_exits_with_advice() {
    let os = Os::new();
    for arguments in [&[][..], &["--count", "1"], &["--stdin"]] {
        let output = client(os.endpoint(), arguments);
        assert_eq!(output.status.code(), Some(1));
        let err = one_line("echo_client", &output.stderr);
        assert!(err.contains("no server at "), "{err}");
        assert!(err.contains(&format!("echo_server -- {}", os.endpoint())), "{err}");
    }
    assert_eq!(os.files(), [""; 0]);
}

#[test]
fn the_name_of_a_crashed_server_is_taken_over() {
    let os = Os::new();
    for _ in 0..3 {
        let server = server(os.endpoint(), &["--quiet"]);
        assert!(client(os.endpoint(), &["--count", "1"]).status.success());
        server.crash();
        let output = client(os.endpoint(), &["--count", "1"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(one_line("echo_client", &output.stderr).contains("no server at "));
    }
}

#[test]
fn standard_input_comes_back_byte_for_byte() {
    // Wine moves about a tenth of the bytes per second that Linux moves.
    let length = if cfg!(windows) { 10 } else { 100 } * 1024 * 1024 + 1;
    let os = Os::new();
    let _server = server(os.endpoint(), &["--quiet"]);
    for length in [0, 1, length] {
        let sent = noise(length);
        let mut command = example("echo_client");
        let mut client = command
            .args([os.endpoint(), "--stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = client.stdin.take().expect("a pipe");
        let writer = feed(input, sent.clone());
        let output = client.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(output.stdout.len(), sent.len());
        assert!(output.stdout == sent, "the bytes are not those that were sent");
        writer.join().expect("no panic");
    }
}

fn feed(mut input: ChildStdin, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || input.write_all(&bytes).expect("a write"))
}

#[test]
fn a_client_ends_when_the_server_goes_although_its_input_is_open() {
    let os = Os::new();
    for arguments in [&["--stdin"][..], &["--interval", "10"], &["--interval", "600000"]] {
        let server = server(os.endpoint(), &["--quiet"]);
        let mut command = example("echo_client");
        command.arg(os.endpoint()).args(arguments).stdin(Stdio::piped());
        let mut client = Running::start(command);
        let mut input = client.child.stdin.take().expect("a pipe");
        input.write_all(b"hello\n").expect("a write");
        // An answer shows that it is connected.
        while !client.next_line().contains(if arguments[0] == "--stdin" {
            "hello"
        } else {
            "received"
        }) {}
        server.crash();
        let (status, _, err) = client.wait();
        // With `--stdin` the client fails, since it did not send all of its input.
        assert_eq!(status.code(), Some(i32::from(arguments[0] == "--stdin")), "{err:?}");
        drop(input);
    }
}

#[tokio::test]
async fn two_hundred_clients_of_one_process_get_their_own_bytes() {
    let os = Os::new();
    let _server = server(os.endpoint(), &["--quiet"]);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let endpoint = os.endpoint().to_owned();
        clients.spawn(async move {
            let mut stream = Stream::connect(&endpoint).await.expect("a connection");
            let sent = number.to_le_bytes().repeat(1000);
            stream.write_all(&sent).await.expect("a write");
            stream.shutdown().await.expect("a half-close");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.expect("an end");
            assert!(got == sent, "client {number} got another's bytes");
        });
    }
    within(async {
        while let Some(done) = clients.join_next().await {
            done.expect("a client that was served");
        }
    })
    .await;
}

#[test]
fn usage_errors_exit_with_two() {
    for (program, arguments, says) in [
        ("echo_server", &["--loud"][..], "--loud"),
        ("echo_server", &["one", "two"], "two"),
        ("echo_client", &["--count"], "--count"),
        ("echo_client", &["--count", "0"], "at least 1"),
        ("echo_client", &["--count", "many"], "many"),
        ("echo_client", &["--interval", "-1"], "-1"),
        ("echo_client", &["--message", ""], "must not be empty"),
    ] {
        let output = example(program).args(arguments).output().expect("a process");
        assert_eq!(output.status.code(), Some(2), "{program} {arguments:?}");
        let err = text(&output.stderr);
        let first = err.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("{program}: ")) && first.contains(says), "{err}");
        assert!(err.contains("usage: "), "{err}");
    }
    for program in ["echo_server", "echo_client"] {
        let output = example(program).arg("--help").output().expect("a process");
        assert!(output.status.success() && text(&output.stdout).starts_with("usage: "));
    }
}

#[test]
fn invalid_endpoints_are_refused_by_server_and_client() {
    let os = Os::new();
    let long_name = "n".repeat(60);
    for (endpoint, says) in [
        ("", "it is empty"),
        ("a/b", "'/' cannot be in a portable name"),
        (r"a\b", r"'\' cannot be in a portable name"),
        ("Name", "'N' cannot be in a portable name"),
        (&long_name, "portable name of 60 characters exceeds the limit of 48"),
        ("unix://host/x", "`unix://` wants an absolute path"),
        ("/", "names a directory"),
    ] {
        for program in ["echo_server", "echo_client"] {
            assert_fails(program, endpoint, &["invalid endpoint", says]);
        }
    }
    let foreign = if cfg!(windows) { "/run/x.sock" } else { r"\\.\pipe\x" };
    for program in ["echo_server", "echo_client"] {
        assert_fails(program, foreign, &["cannot use", foreign]);
    }
    assert_eq!(os.files(), [""; 0]);
}

#[track_caller]
fn assert_fails(program: &str, endpoint: &str, says: &[&str]) {
    let output = example(program).arg(endpoint).output().expect("a process");
    assert_eq!(output.status.code(), Some(1), "{program} {endpoint}: {}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    let err = one_line(program, &output.stderr);
    for part in says {
        assert!(err.contains(part), "{part:?} is not in {err:?}");
    }
}

/// Paths at which a server cannot listen.
#[cfg(unix)]
mod paths {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use common::process::Users;

    use super::*;

    fn path(os: &Os, name: &str) -> PathBuf {
        os.dir().join(name)
    }

    #[test]
    fn other_kinds_of_file_are_left_alone() {
        let os = Os::new();
        fs::write(path(&os, "file"), "data").expect("a file");
        fs::create_dir(path(&os, "directory")).expect("a directory");
        symlink(path(&os, "file"), path(&os, "link")).expect("a link");
        symlink(path(&os, "nothing"), path(&os, "dangling")).expect("a link");
        let before = os.files();
        for (name, what) in [
            ("file", "a file"),
            ("directory", "a directory"),
            ("link", "a symbolic link"),
            ("dangling", "a symbolic link"),
        ] {
            let path = path(&os, name);
            let inode = fs::symlink_metadata(&path).expect("still there").ino();
            let text = path.to_str().expect("UTF-8");
            let says = format!("cannot listen on {text}: {what} exists there");
            assert_fails("echo_server", text, &[&says]);
            assert_eq!(fs::symlink_metadata(&path).expect("still there").ino(), inode);
        }
        assert_eq!(fs::read_to_string(path(&os, "file")).expect("a file"), "data");
        assert_eq!(os.files(), before);
        for (name, says) in [
            ("file", "the path is a file, not a socket"),
            ("directory", "the path is a directory, not a socket"),
            ("dangling", "no server at"),
        ] {
            assert_fails("echo_client", path(&os, name).to_str().expect("UTF-8"), &[says]);
        }
        assert_eq!(os.files(), before);
    }

    #[test]
    fn a_missing_directory_is_reported() {
        let os = Os::new();
        fs::write(path(&os, "file"), "data").expect("a file");
        for parent in ["missing", "file"] {
            let socket = path(&os, parent).join("s.sock");
            let says = format!("there is no directory {}", path(&os, parent).display());
            assert_fails("echo_server", socket.to_str().expect("UTF-8"), &[&says]);
            assert_fails("echo_client", socket.to_str().expect("UTF-8"), &[&says]);
        }
        assert_eq!(os.files(), ["file"]);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let os = Os::new();
        let socket = path(&os, &"n".repeat(150));
        let text = socket.to_str().expect("UTF-8");
        let length = format!("too long for a socket: {} bytes", text.len());
        let limit = if cfg!(sockpipe_posix) || cfg!(not(target_os = "linux")) { 103 } else { 107 };
        let limit = format!("the limit is {limit}");
        for program in ["echo_server", "echo_client"] {
            assert_fails(program, text, &[text, &length, &limit]);
        }
        assert_eq!(os.files(), [""; 0]);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let os = Os::new();
        let open = path(&os, "open");
        fs::create_dir(&open).expect("a directory");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("a mode");
        let socket = open.join("s.sock");
        let text = socket.to_str().expect("UTF-8");
        assert_fails("echo_server", text, &["can be written by others (mode 0777", "chmod go-w"]);
        assert_eq!(fs::read_dir(&open).expect("a directory").count(), 0);
        // With the sticky bit, as in /tmp, users cannot replace each other's files.
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("a mode");
        server(text, &[]).crash();
    }

    /// Root can write to every directory, so root runs this test's server as another user.
    #[test]
    fn a_directory_without_permission_to_write_is_reported() {
        let os = Os::new();
        let users = Users::new();
        let mode = if users.is_some() { 0o755 } else { 0o555 };
        fs::set_permissions(os.dir(), fs::Permissions::from_mode(mode)).expect("a mode");
        let server = users.as_ref().map(|users| users.example("echo_server", 65533));
        let mut server = server.unwrap_or_else(|| example("echo_server"));
        let output = server.arg(os.endpoint()).output().expect("setpriv, of util-linux");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let err = one_line("echo_server", &output.stderr);
        let says = ["cannot listen on", os.endpoint(), "Permission denied", "can write to"];
        assert!(says.iter().all(|part| err.contains(part)), "{err}");
        assert_eq!(os.files(), [""; 0]);
    }
}

/// Signals stop the server. `windows_console.rs` tests console events, which Windows has instead.
#[cfg(unix)]
mod stop {
    use std::time::{Duration, Instant};

    use rustix::process::Signal;

    use super::*;

    /// Starts a server, and connects. The server has answered, so its start is over.
    async fn serving(os: &Os) -> (Running, Stream) {
        let server = server(os.endpoint(), &["--quiet"]);
        let mut stream = within(os.connect()).await.expect("a connection");
        within(stream.write_all(b"x")).await.expect("a write");
        within(stream.read_exact(&mut [0])).await.expect("an answer");
        (server, stream)
    }

    /// Waits until the server has removed its socket. Its lock file keeps the name until the
    /// connections have finished.
    async fn socket_is_gone(os: &Os) {
        within(async {
            while std::path::Path::new(os.endpoint()).exists() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_signal_lets_connections_finish_and_leaves_no_file() {
        for signal in [Signal::INT, Signal::TERM] {
            let os = Os::new();
            let (server, mut stream) = serving(&os).await;
            server.signal(signal);
            socket_is_gone(&os).await;
            let error = within(os.connect()).await.expect_err("it stops");
            let reason = sockpipe::Error::of(&error).map(sockpipe::Error::reason);
            assert!(matches!(reason, Some(sockpipe::Reason::Stopping { .. })), "{error}");
            // The connection stays open until its client has its answer.
            within(stream.write_all(b"after!")).await.expect("a write");
            stream.shutdown().await.expect("a half-close");
            let mut rest = Vec::new();
            within(stream.read_to_end(&mut rest)).await.expect("an end");
            assert_eq!(rest, b"after!");
            let (status, out, err) = server.wait();
            assert_eq!((status.code(), out, err), (Some(0), vec![], vec![]));
            assert_eq!(os.files(), [""; 0]);
        }
    }

    #[tokio::test]
    async fn a_connection_is_cut_five_seconds_after_a_signal() {
        let os = Os::new();
        let (server, mut stream) = serving(&os).await;
        let asked = Instant::now();
        server.signal(Signal::TERM);
        assert_eq!(within(stream.read(&mut [0])).await.expect("an end"), 0);
        assert!(asked.elapsed() >= Duration::from_millis(4900), "{:?}", asked.elapsed());
        let (status, ..) = server.wait();
        assert_eq!(status.code(), Some(0));
    }

    #[tokio::test]
    async fn a_second_signal_ends_the_server_at_once() {
        let os = Os::new();
        let (server, _stream) = serving(&os).await;
        let asked = Instant::now();
        server.signal(Signal::INT);
        socket_is_gone(&os).await;
        server.signal(Signal::INT);
        let (status, ..) = server.wait();
        assert_eq!(status.code(), Some(130));
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    }
}
