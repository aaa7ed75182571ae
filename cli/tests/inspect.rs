//! `info`, `ping` and `completions` print text for people and JSON for programs.

mod common;

use std::time::{Duration, Instant};

use common::{Backend, Os, Tool, run, unique_name, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[track_caller]
fn json(arguments: &[&str], code: i32) -> Value {
    let ended = run(arguments);
    assert_eq!((ended.code, ended.err.as_str()), (Some(code), ""), "{}", ended.text());
    let text = ended.text();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn info_names_a_live_server_and_its_process() {
    let os = Os::new();
    let server = Tool::listening(&["echo", os.endpoint()]);
    let info = json(&["info", "--json", os.endpoint()], 0);
    assert_eq!(info["endpoint"], os.endpoint());
    assert_eq!(info["state"], "live");
    assert_eq!(info["candidates"].as_array().map(Vec::len), Some(1));
    assert!(!info["why"].as_str().unwrap_or_default().is_empty());
    let asked = json(&["info", "--json", "--connect", os.endpoint()], 0);
    // On Windows the owner of a pipe is known only from a connection.
    for info in if cfg!(unix) { vec![info, asked] } else { vec![asked] } {
        assert_eq!(info["pid"], server.child.id(), "{info}");
        let program = info["program"].as_str().unwrap_or_default();
        assert!(program.contains("sockpipe"), "{info}");
        let access = info["access"].as_str().unwrap_or_default();
        if cfg!(windows) {
            assert!(access.starts_with("O:S-1-") || access.contains("D:"), "{info}");
            assert!(info["owner"].as_str().unwrap_or_default().starts_with("S-1-"), "{info}");
        } else {
            assert_eq!(access, "mode 0600");
            assert!(info["owner"].as_str().unwrap_or_default().starts_with("uid "), "{info}");
        }
    }
    let text = run(&["info", os.endpoint()]).assert_succeeds().text();
    for label in ["endpoint ", "address ", "why ", "state ", "next "] {
        assert!(text.lines().any(|line| line.starts_with(label)), "{label:?} is not in {text}");
    }
}

#[tokio::test]
async fn info_does_not_use_up_a_server_of_one_client() {
    let os = Os::new();
    let mut listener = os.bind().expect("a free name");
    for _ in 0..3 {
        assert_eq!(json(&["info", "--json", os.endpoint()], 0)["state"], "live");
    }
    let mut client = within(os.connect()).await.expect("a connection");
    client.write_all(b"first").await.expect("a write");
    let mut stream = within(listener.accept()).await.expect("a client");
    let mut got = [0; 5];
    within(stream.read_exact(&mut got)).await.expect("the first client's bytes");
    assert_eq!(&got, b"first");
}

#[test]
fn info_lists_the_candidates_of_a_portable_name() {
    let name = unique_name();
    let info = json(&["info", "--json", &name], 3);
    let all = info["candidates"].as_array().expect("a list");
    assert_eq!(
        all.len(),
        sockpipe::Endpoint::try_from(&name).expect("a name").resolve().expect("here").len()
    );
    assert!(all.iter().any(|one| one["address"] == info["address"]), "{info}");
    let mut server = Tool::start(&["echo", &name]);
    let address = server.await_listening();
    let info = json(&["info", "--json", &name], 0);
    assert_eq!((&info["state"], &info["address"]), (&"live".into(), &Value::from(address)));
    server.crash();
    assert!(run(&["clean", &name]).code == Some(0));
}

/// Each cause by itself, so that a user knows which one to remove.
#[cfg(target_os = "linux")]
#[test]
fn info_tells_why_a_directory_is_passed_over() {
    use std::os::unix::fs::PermissionsExt;

    let os = Os::new();
    let (open, missing) = (os.dir().join("open"), os.dir().join("missing"));
    std::fs::create_dir(&open).expect("a directory");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("a mode");
    for (dir, why) in [
        (&open, "is passed over, as others can write to it (mode 0777)"),
        (&missing, "there is no directory "),
    ] {
        let mut info = common::tool();
        info.args(["info", &unique_name()]).env("XDG_RUNTIME_DIR", dir);
        let info = Tool::of(info).wait().text();
        let cause = info.lines().find(|line| line.contains("unusable")).expect("a cause");
        assert!(cause.contains(why) && cause.contains(&dir.display().to_string()), "{info}");
    }
}

/// Other tools search the system's table for a path. The socket is bound under its final path, so
/// they find it.
#[cfg(target_os = "linux")]
#[test]
fn the_system_table_has_the_path_that_info_names() {
    let os = Os::new();
    let mut server = common::tool();
    server.current_dir(os.dir()).args(["echo", "./here"]);
    let mut server = Tool::of(server);
    server.await_listening();
    let path = os.dir().canonicalize().expect("a directory").join("here");
    let table = std::fs::read_to_string("/proc/net/unix").expect("Linux");
    let wanted = format!(" {}", path.display());
    assert!(table.lines().any(|line| line.ends_with(&wanted)), "{wanted} is not in {table}");
    let info = json(&["info", "--json", path.to_str().expect("UTF-8")], 0);
    assert_eq!((&info["state"], &info["pid"]), (&"live".into(), &server.child.id().into()));
    assert_eq!(info["temporary_name"], Value::Null, "{info}");
}

/// The kernel's table contains names as they were given. A name can hold a line break, and then
/// look like another line.
#[cfg(target_os = "linux")]
#[test]
fn info_is_not_deceived_by_names_in_the_system_table() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let os = Os::new();
    drop(UnixListener::bind(os.endpoint()).expect("a socket"));
    let (dir, pid) = (os.dir(), std::process::id());
    // This process has no such socket.
    let line = format!("\n0: 2 0 10000 1 1 1 {}/.s.sock.{pid}.0a1b2c3d", dir.display());
    let name = SocketAddr::from_abstract_name(line).expect("a name");
    let _liar = UnixListener::bind_addr(&name).expect("a socket");
    let info = json(&["info", "--json", os.endpoint()], 3);
    assert_eq!((&info["state"], &info["pid"]), (&"stale".into(), &Value::Null), "{info}");
    assert_eq!(info["temporary_name"], Value::Null, "{info}");

    // A name can hold an escape sequence of the terminal.
    let odd = "odd\u{1b}[31m";
    std::fs::create_dir(dir.join(odd)).expect("a directory");
    let mut server = common::tool();
    server.current_dir(&dir).args(["echo", &format!("./{odd}/../here")]);
    let mut server = Tool::of(server);
    let said = server.await_listening();
    assert_eq!(said, "./odd\u{fffd}[31m/../here");
    let here = dir.join("here");
    let text = run(&["info", here.to_str().expect("UTF-8")]).assert_succeeds().text();
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn ping_prints_the_distribution_of_its_round_trips() {
    let os = Os::new();
    let _echo = Tool::listening(&["echo", os.endpoint()]);
    let text = run(&["ping", os.endpoint()]).assert_succeeds().text();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("1000 round trips of 64 bytes to "), "{text}");
    let figures = lines.next().unwrap_or_default();
    let figures: Vec<_> = figures.split_whitespace().collect();
    assert_eq!(figures, ["min", "p50", "p90", "p99", "max"], "{text}");
    assert_eq!(lines.next().map(|times| times.split_whitespace().count()), Some(10), "{text}");
    assert!(lines.any(|line| line.ends_with('#')), "{text}");
    for (count, size) in [(1, 1), (7, 65_537), (3, 1_048_576)] {
        let arguments = ["ping", os.endpoint(), "-n", &count.to_string(), "-s", &size.to_string()];
        let ping = json(&[&arguments[..], &["--json"]].concat(), 0);
        assert_eq!((&ping["count"], &ping["size"]), (&count.into(), &size.into()));
        let figure = |name: &str| ping[name].as_u64().expect("a number");
        let figures = ["min_ns", "p50_ns", "p90_ns", "p99_ns", "max_ns"].map(figure);
        assert!(figures[0] > 0 && figures.is_sorted(), "{figures:?}");
        let histogram = ping["histogram"].as_array().expect("a list");
        let counted = histogram.iter().map(|bucket| bucket["count"].as_u64().expect("a number"));
        assert_eq!(counted.sum::<u64>(), count, "{ping}");
        let within = |figure: u64, bucket: &Value| {
            bucket["from_ns"].as_u64() <= Some(figure) && Some(figure) < bucket["to_ns"].as_u64()
        };
        assert!(within(figures[0], &histogram[0]), "{ping}");
        assert!(within(figures[4], &histogram[histogram.len() - 1]), "{ping}");
    }
}

#[cfg(all(target_os = "linux", feature = "shared-memory", not(sockpipe_posix)))]
#[test]
fn ping_uses_shared_memory_when_both_sides_allow_it() {
    let os = Os::new();
    let _echo = Tool::listening(&["echo", os.endpoint(), "--shared-memory"]);
    let ping = ["ping", os.endpoint(), "--json"];
    assert_eq!(json(&ping, 0)["transport"], "socket");
    let ping = json(&[&ping[..], &["--shared-memory"]].concat(), 0);
    assert_eq!(ping["transport"], "shared-memory");
    let text = run(&["ping", os.endpoint(), "--shared-memory"]).assert_succeeds().text();
    assert!(text.contains("through shared-memory"), "{text}");
}

#[test]
fn ping_keeps_to_its_rate() {
    let os = Os::new();
    let _echo = Tool::listening(&["echo", os.endpoint()]);
    let started = Instant::now();
    let ping = json(&["ping", os.endpoint(), "-n", "21", "--rate", "50", "--json"], 0);
    // `ping` sends the first at once, and the last after 20 pauses of 20 ms.
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    assert_eq!(ping["count"], 21);
    let rate = ping["rate"].as_f64().expect("a number");
    assert!(rate <= 21.0 / 0.4, "{ping}");
    let ping = json(&["ping", os.endpoint(), "-n", "500", "--rate", "100000", "--json"], 0);
    assert_eq!(ping["count"], 500);
}

/// `ping` measures from the time at which it should have sent, so that each round trip due during
/// the pause counts as slow, and not only the first.
#[tokio::test]
async fn a_pause_of_the_server_shows_in_every_delayed_round_trip() {
    let os = Os::new();
    let mut listener = os.bind().expect("a free name");
    let client =
        Tool::start(&["ping", os.endpoint(), "-n", "50", "-s", "1", "--rate", "100", "--json"]);
    let mut stream = within(listener.accept()).await.expect("a client");
    let mut byte = [0];
    let mut answered = 0;
    // `ping` sends one more than it counts.
    while answered < 51 {
        if answered == 10 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        within(stream.read_exact(&mut byte)).await.expect("a ping");
        stream.write_all(&byte).await.expect("an answer");
        answered += 1;
    }
    let ended = tokio::task::spawn_blocking(|| client.wait().assert_succeeds());
    let ended = within(ended).await.expect("no panic");
    let ping: Value = serde_json::from_str(&ended.text()).expect("JSON");
    // About 20 were due during the pause; those in the middle waited 100 ms.
    let histogram = ping["histogram"].as_array().expect("a list");
    let slow = histogram.iter().filter(|bucket| bucket["from_ns"].as_u64() >= Some(50_000_000));
    let slow: u64 = slow.filter_map(|bucket| bucket["count"].as_u64()).sum();
    assert!(slow >= 10, "{ping}");
}

#[tokio::test]
async fn ping_fails_at_a_server_that_does_not_echo() {
    for (answer, code, says) in [
        (None, 6, "no answer within 0.3 s"),
        (Some(&b""[..]), 1, "the server left after 0 answers"),
        (Some(&[b'x'; 64][..]), 1, "other data than was sent"),
    ] {
        let os = Os::new();
        let mut listener = os.bind().expect("a free name");
        let client = Tool::start(&["ping", os.endpoint(), "--timeout", "0.3"]);
        let mut stream = within(listener.accept()).await.expect("a client");
        if let Some(answer) = answer {
            within(stream.read_exact(&mut [0; 64])).await.expect("a ping");
            stream.write_all(answer).await.expect("an answer");
            drop(stream.close(Duration::from_secs(1)).await);
            drop(listener);
        } else {
            tokio::spawn(async move {
                let _kept = (stream, listener);
                std::future::pending::<()>().await;
            });
        }
        let ended = tokio::task::spawn_blocking(|| client.wait());
        within(ended).await.expect("no panic").assert_fails(code, &[says, "echo server"]);
    }
}

#[test]
fn completions_name_the_verbs_and_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).assert_succeeds().text();
        for word in ["sockpipe", "connect", "any-server"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
}

/// `info` looks for obstacles before it advises a server.
#[cfg(target_os = "linux")]
#[test]
fn info_does_not_advise_a_take_over_that_would_fail() {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    let os = Os::new();
    drop(UnixListener::bind(os.endpoint()).expect("a socket"));
    let lock = os.dir().join(".s.sock.lock");
    symlink("elsewhere", &lock).expect("a link");
    let info = run(&["info", os.endpoint()]);
    assert!(info.text().contains("no server can listen there: its lock file"), "{info:?}");
    std::fs::remove_file(&lock).expect("a link");
    let info = run(&["info", os.endpoint()]);
    assert!(info.text().contains("takes it over"), "{info:?}");

    std::fs::remove_file(os.endpoint()).expect("a socket");
    let packets = packet_server(os.endpoint());
    let info = run(&["info", os.endpoint()]);
    assert_eq!(info.code, Some(4), "{info:?}");
    assert!(!info.text().contains("sockpipe connect"), "{info:?}");
    drop(packets);
}

#[cfg(target_os = "linux")]
fn packet_server(path: &str) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    bind(&socket, &SocketAddrUnix::new(path).expect("an address")).expect("a name");
    listen(&socket, 1).expect("a server");
    socket
}
