//! A later start of a program hands its launch to the first instance and reads the answer.

mod common;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use common::{PATIENCE, assert_kind, assert_reason, assert_says, ours, unique_name, within};
use sockpipe::{
    ConnectOptions, Error, HandOver, Launch, LaunchRequest, ListenOptions, Listener, Operation,
    Reason, Stream, hand_over, hand_over_with,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// Starts a first instance, which answers one launch with `code` and returns it.
async fn first(name: &str, code: i32) -> JoinHandle<Launch> {
    let first = within(hand_over(name, &Launch::new())).await.expect("one or the other");
    let HandOver::First(mut listener) = first else { panic!("there is another") };
    tokio::spawn(async move {
        let later = listener.accept().await.expect("a connection");
        let request = LaunchRequest::receive(later, PATIENCE).await.expect("a launch");
        let launch = request.launch().clone();
        request.finish(code).await.expect("somebody waits for it");
        launch
    })
}

async fn later(name: &str, launch: &Launch, limit: Duration) -> std::io::Result<i32> {
    let options = ConnectOptions::new().deadline(limit);
    let listen = ListenOptions::new();
    match within(hand_over_with(name, launch, &listen, &options)).await? {
        HandOver::Taken(reply) => within(reply.exit_code()).await,
        HandOver::First(_) => panic!("there is no other"),
    }
}

fn process_of(error: &std::io::Error) -> Option<u32> {
    match Error::of(error).expect("an error of ours").reason() {
        Reason::NoAnswer { process, .. } | Reason::NotUnderstood { process, .. } => *process,
        reason => panic!("{reason:?}"),
    }
}

/// A string of this system that is not valid Unicode.
fn no_text() -> OsString {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStringExt::from_vec(b"a\xff\x80".to_vec());
    #[cfg(windows)]
    return std::os::windows::ffi::OsStringExt::from_wide(&[0x61, 0xd800, 0xffff]);
}

#[tokio::test]
async fn a_launch_arrives_as_it_was_sent() {
    let many = (0..1000).map(|number| OsString::from(format!("name {number}")));
    let odd = ["", "line\nbreak", "tab\t", "--", "quote\"'", "ü"].map(OsString::from);
    let args: Vec<_> = many.chain(odd).chain([no_text()]).collect();
    let launch = Launch::new().args(&args).current_dir("/elsewhere/é");
    let launch = launch.env("DISPLAY", ":1").env("TOKEN", no_text()).env("EMPTY", "");
    let name = unique_name();
    let first = first(&name, -7).await;
    assert_eq!(later(&name, &launch, PATIENCE).await.expect("an exit code"), -7);
    let received = within(first).await.expect("no panic");
    assert_eq!(received.get_args(), args);
    assert_eq!(received, launch);
}

#[test]
fn launch_of_this_process_has_its_directory_and_no_environment() {
    let launch = Launch::of_this_process().expect("a directory");
    assert_eq!(launch.get_args(), std::env::args_os().skip(1).collect::<Vec<_>>());
    let here = std::env::current_dir().expect("a directory");
    assert_eq!(launch.get_current_dir(), Some(here.as_path()));
    assert_eq!(launch.get_envs(), []);
}

#[tokio::test]
async fn a_first_instance_that_accepts_nothing_is_named_at_the_deadline() {
    let name = unique_name();
    let _first = Listener::bind(&name).expect("a free name");
    let (started, limit) = (Instant::now(), Duration::from_millis(500));
    let outcome = later(&name, &Launch::new().args(["a.txt"]), limit).await;
    let error = assert_reason!(outcome, Reason::NoAnswer { .. }, name);
    assert_eq!(ours(&error).operation(), Operation::HandOver);
    assert_eq!(process_of(&error), Some(std::process::id()));
    assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_first_instance_with_another_protocol_is_named() {
    let newer = b"sp-run\0\x02\0".as_slice();
    for (answer, says) in
        [(b"HTTP/1.1 400".as_slice(), "something else"), (newer, "another version")]
    {
        let name = unique_name();
        let mut raw = Listener::bind(&name).expect("a free name");
        let serving = tokio::spawn(async move {
            let mut stream = raw.accept().await.expect("a connection");
            stream.write_all(answer).await.expect("a write");
            // The connection stays open until the peer has read the answer and closed its end.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let outcome = later(&name, &Launch::new(), PATIENCE).await;
        let error = assert_reason!(outcome, Reason::NotUnderstood { .. }, name);
        assert_says(&error, &[says]);
        assert_eq!(process_of(&error), Some(std::process::id()));
        within(serving).await.expect("no panic");
    }
}

#[tokio::test]
async fn a_later_start_becomes_the_first_when_the_first_instance_exits() {
    let name = unique_name();
    let mut ending = Listener::bind(&name).expect("a free name");
    let ended = tokio::spawn(async move {
        // The first instance drops the connection without an answer and exits.
        let come = ending.accept().await.expect("a connection");
        drop(come);
        drop(ending);
    });
    let outcome = within(hand_over(&name, &Launch::new())).await.expect("one or the other");
    assert!(matches!(outcome, HandOver::First(_)), "{outcome:?}");
    within(ended).await.expect("no panic");
}

#[tokio::test]
async fn a_later_start_fails_when_the_first_instance_drops_its_request() {
    let name = unique_name();
    let mut listener = Listener::bind(&name).expect("a free name");
    let serving = tokio::spawn(async move {
        let stream = listener.accept().await.expect("a connection");
        drop(LaunchRequest::receive(stream, PATIENCE).await.expect("a launch"));
    });
    let outcome = later(&name, &Launch::new(), PATIENCE).await;
    let error = assert_reason!(outcome, Reason::Os, name);
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    within(serving).await.expect("no panic");
}

#[tokio::test]
async fn a_first_instance_refuses_another_protocol_and_accepts_on() {
    let name = unique_name();
    let mut listener = Listener::bind(&name).expect("a free name");
    let huge = [b"sp-run\0\x01".as_slice(), &u32::MAX.to_le_bytes()].concat();
    let cases: [(&[u8], &[u8], ErrorKind, &str); 5] = [
        (b"open b.txt\n--------", b"", ErrorKind::InvalidData, "not a launch"),
        (b"sp-run\0\x02\0\0\0\0", b"sp-run\0\x01\x01", ErrorKind::InvalidData, "version 2"),
        (&huge, b"sp-run\0\x01\x01", ErrorKind::InvalidData, "not a launch"),
        (b"sp-run\0\x01\x01\0\0\0?", b"sp-run\0\x01\x01", ErrorKind::InvalidData, "not a launch"),
        (b"sp", b"", ErrorKind::UnexpectedEof, ""),
    ];
    for (sends, answer, kind, says) in cases {
        let mut stream = within(Stream::connect(&name)).await.expect("a connection");
        stream.write_all(sends).await.expect("a write");
        stream.shutdown().await.expect("an end");
        let accepted = within(listener.accept()).await.expect("a connection");
        let outcome = within(LaunchRequest::receive(accepted, PATIENCE)).await;
        assert_says(&assert_kind(outcome, kind), &[says]);
        assert_eq!(within(common::read_all(&mut stream)).await, answer);
    }
    // A client that sends nothing times out.
    let silent = within(Stream::connect(&name)).await.expect("a connection");
    let accepted = within(listener.accept()).await.expect("a connection");
    let outcome = within(LaunchRequest::receive(accepted, Duration::from_millis(50))).await;
    assert_kind(outcome, ErrorKind::TimedOut);
    drop(silent);
}

#[cfg(feature = "blocking")]
#[tokio::test(flavor = "multi_thread")]
async fn threads_and_tasks_hand_over_to_each_other() {
    use sockpipe::blocking;

    let launch = Launch::new().args(["a.txt"]).env("A", "1");
    let name = unique_name();
    let tasks = first(&name, 3).await;
    let (to, sent) = (name.clone(), launch.clone());
    let threads = tokio::task::spawn_blocking(move || {
        match blocking::hand_over(&to, &sent).expect("one or the other") {
            blocking::HandOver::Taken(reply) => reply.exit_code().expect("a code"),
            blocking::HandOver::First(_) => panic!("there is no other"),
        }
    });
    assert_eq!(within(threads).await.expect("no panic"), 3);
    assert_eq!(within(tasks).await.expect("no panic"), launch);

    let first = blocking::hand_over(&name, &launch).expect("one or the other");
    let blocking::HandOver::First(listener) = first else { panic!("{first:?}") };
    let serving = tokio::task::spawn_blocking(move || {
        let later = listener.accept_timeout(PATIENCE).expect("a connection");
        let request = blocking::LaunchRequest::receive(later, PATIENCE).expect("a launch");
        let launch = request.launch().clone();
        request.finish(4).expect("somebody waits for it");
        // From here on this instance holds the name and accepts nobody.
        let to = listener.endpoint().clone();
        let limit = ConnectOptions::new().deadline(Duration::from_millis(100));
        let late = blocking::hand_over_with(to, &launch, &ListenOptions::new(), &limit);
        let error = assert_reason!(late, Reason::NoAnswer { .. });
        assert_eq!(process_of(&error), Some(std::process::id()));
        launch
    });
    assert_eq!(later(&name, &launch, PATIENCE).await.expect("a code"), 4);
    assert_eq!(within(serving).await.expect("no panic"), launch);
}

/// The first instance is a real process, which a signal suspends.
#[cfg(unix)]
#[tokio::test]
async fn a_suspended_first_instance_is_named_and_later_skips_the_launch() {
    use std::os::unix::fs::PermissionsExt;

    use common::process::{Running, example};
    use rustix::process::{Pid, Signal, kill_process};

    let home = tempfile::tempdir().expect("a directory");
    let start = |file: &str| {
        let mut command = example("single_instance");
        command.arg(file).env("XDG_RUNTIME_DIR", home.path()).current_dir(home.path());
        Running::start(command)
    };
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(home.path(), mode).expect("a mode");
    let first = start("a.txt");
    assert!(first.next_line().contains("a.txt"));
    let pid = first.child.id();
    let process = Pid::from_raw(pid.try_into().expect("an id")).expect("an id");
    kill_process(process, Signal::STOP).expect("it runs");
    let (status, out, err) = start("b.txt").wait();
    kill_process(process, Signal::CONT).expect("it is stopped");
    assert!(!status.success(), "{out:?}");
    assert!(err.join("\n").contains(&format!("process {pid}")), "{err:?}");
    // The first instance works again, and it skips the file of the start that gave up.
    let (status, _, err) = start("c.txt").wait();
    assert!(status.success(), "{err:?}");
    let line = first.next_line();
    assert!(line.contains("c.txt"), "{line}");
    first.crash();
}
