//! Each verb reports an endpoint that is invalid, missing, busy, stale or of another program.

mod common;

use common::{Backend, Os, Tool, run, within};
use sockpipe::ConnectOptions;

/// Returns the command lines of the verbs that listen.
fn listening<'a>(endpoint: &'a str, free: &'a str) -> [Vec<&'a str>; 4] {
    [
        vec!["listen", endpoint],
        vec!["listen", endpoint, "--keep", "--exec", "true"],
        vec!["echo", endpoint],
        vec!["relay", endpoint, free],
    ]
}

/// Returns the command lines of the verbs that connect.
fn connecting(endpoint: &str) -> [Vec<&str>; 3] {
    [vec!["connect", endpoint], vec!["ping", endpoint], vec!["relay", "stdio:", endpoint]]
}

#[test]
fn usage_errors_exit_with_2() {
    for (arguments, says) in [
        (&[][..], "Usage: sockpipe"),
        (&["lisen", "x"], "listen"),
        (&["listen"], "<ENDPOINT>"),
        (&["connect", "one", "two"], "two"),
        (&["connect", "--loud", "x"], "--loud"),
        (&["connect", "--wait=soon", "x"], "not a number of seconds"),
        (&["connect", "--timeout=-1", "x"], "seconds cannot be negative"),
        (&["connect", "--wait=nan", "x"], "not a number of seconds"),
        (&["connect", "--wait=inf", "x"], "too long to be counted"),
        (&["listen", "x", "--exec"], "--exec"),
        (&["listen", "x", "--close", "--exec", "true"], "--close"),
        (&["ping", "--count", "0", "x"], "0"),
        (&["ping", "--size", "0", "x"], "0"),
        (&["ping", "--rate", "0", "x"], "a rate is from"),
        (&["relay", "x"], "<TO>"),
        (&["relay", "tcp:80", "x"], "tcp:HOST:PORT"),
        (&["relay", "stdio:", "stdio:"], "not both"),
        (&["relay", "tcp:192.0.2.1:0", "x"], "--remote"),
        (&["completions", "cmd"], "bash"),
        (&["-v", "-q", "clean", "x"], "--quiet"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(says), "{arguments:?}: {ended:?}");
    }
    let help = run(&["--help"]).assert_succeeds().text();
    for verb in ["listen", "connect", "echo", "relay", "info", "ping", "clean", "completions"] {
        assert!(help.contains(&format!("  {verb} ")), "{help}");
        let help = run(&[verb, "--help"]).assert_succeeds().text();
        assert!(help.contains("Usage: sockpipe"), "{help}");
    }
    assert!(help.contains("Exit codes:"), "{help}");
    let version = run(&["--version"]).assert_succeeds().text();
    assert_eq!(version, concat!("sockpipe ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_invalid_endpoint_is_a_usage_error() {
    let os = Os::new();
    let free = os.endpoint();
    let long = "n".repeat(60);
    for (endpoint, says) in [
        ("", "it is empty"),
        ("a/b", "a path is written `./a/b`"),
        (r"a\b", "a named pipe is written"),
        ("Name", "'N' cannot be in a portable name"),
        (&long, "exceeds the limit of 48"),
        ("unix://host/x", "absolute path"),
        ("/", "names a directory"),
    ] {
        let verbs = [&listening(endpoint, free)[..], &connecting(endpoint)].concat();
        let others =
            [vec!["info", endpoint], vec!["clean", endpoint], vec!["relay", free, endpoint]];
        let all = [&verbs[..], &others].concat();
        // All verbs share a parser. Windows starts processes slowly, so there one endpoint is tried
        // with every verb.
        let some = if cfg!(windows) && endpoint != "a/b" { 1 } else { all.len() };
        for arguments in &all[..some] {
            run(arguments).assert_fails(2, &[says]);
        }
    }
    assert_eq!(os.files(), [""; 0]);
}

#[test]
fn an_endpoint_of_another_system_is_a_usage_error() {
    let os = Os::new();
    let endpoint = if cfg!(windows) { "/run/x.sock" } else { r"\\.\pipe\x" };
    let verbs = [&listening(endpoint, os.endpoint())[..], &connecting(endpoint)].concat();
    for arguments in [&verbs[..], &[vec!["info", endpoint], vec!["clean", endpoint]]].concat() {
        run(&arguments).assert_fails(2, &["cannot use", endpoint]);
    }
}

#[test]
fn connect_without_a_server_exits_with_3() {
    let os = Os::new();
    for arguments in connecting(os.endpoint()) {
        run(&arguments).assert_fails(3, &["no server at", "start it first", "--wait"]);
    }
    let info = run(&["info", os.endpoint()]);
    assert_eq!((info.code, info.err.as_str()), (Some(3), ""));
    assert!(info.text().contains("free: nothing is there"), "{}", info.text());
    // The advice does not repeat what the user has just tried.
    for arguments in connecting(os.endpoint()) {
        let ended = run(&[&arguments[..], &["--wait=0.1", "--timeout=0.2"]].concat());
        ended.assert_fails(3, &["no server at", ": waited 0.2 s for it; start it, or give --wait"]);
        assert!(!ended.err.contains("wait for it with"), "{ended:?}");
    }
    let clean = run(&["clean", os.endpoint()]);
    assert_eq!((clean.code, clean.text().as_str()), (Some(0), ""));
    assert!(clean.err.starts_with("nothing to remove"), "{}", clean.err);
    assert_eq!(os.files(), [""; 0]);
}

#[test]
fn listen_on_a_name_in_use_exits_with_4() {
    let os = Os::new();
    let free = Os::new();
    for server in ["echo", "listen"] {
        let mut server = Tool::listening(&[server, os.endpoint()]);
        let who = format!("pid {}", server.child.id());
        // A lock file names its process; a pipe does not.
        let who = if cfg!(unix) { who.as_str() } else { "" };
        for arguments in listening(os.endpoint(), free.endpoint()) {
            run(&arguments).assert_fails(4, &["already listening", who, "choose another"]);
        }
        run(&["clean", os.endpoint()]).assert_fails(4, &["is not stale", who]);
        let info = run(&["info", os.endpoint()]).assert_succeeds().text();
        assert!(info.contains("live: ") && info.contains(who), "{info}");
        // The server has not used up its single client on any of them.
        assert!(server.child.try_wait().expect("a child").is_none());
        let mut client = Tool::start(&["connect", os.endpoint()]);
        client.type_in("hello");
        if server.child.stdin.is_some() {
            server.end_input();
        }
        client.end_input();
        client.wait().assert_succeeds();
        server.crash();
    }
}

#[test]
fn the_name_of_a_crashed_server_can_be_taken_and_cleaned() {
    let os = Os::new();
    let free = Os::new();
    for arguments in listening(os.endpoint(), free.endpoint()) {
        let server = Tool::listening(&arguments);
        // Without --keep, `listen` releases its name after the first client, which may come before
        // or after the crash.
        let stays = arguments != ["listen", os.endpoint()];
        let client = stays.then(|| Tool::start(&["connect", os.endpoint()]));
        server.crash();
        if let Some(client) = client {
            client.crash();
        }
        for arguments in connecting(os.endpoint()) {
            run(&arguments).assert_fails(3, &["no server at", "--wait"]);
        }
        let info = run(&["info", os.endpoint()]);
        assert_eq!(info.code, Some(3), "{info:?}");
        let state = if cfg!(unix) { "stale: a socket is there" } else { "free: nothing is there" };
        assert!(info.text().contains(state), "{}", info.text());
        // The next server takes the name.
        Tool::listening(&arguments).crash();
        let clean = run(&["clean", os.endpoint()]);
        assert_eq!((clean.code, clean.text().as_str()), (Some(0), ""));
        let says = if cfg!(unix) { "removed " } else { "nothing to remove" };
        assert!(clean.err.contains(says), "{}", clean.err);
        assert_eq!(os.files(), [""; 0]);
    }
}

#[test]
fn a_killed_peer_ends_the_other_in_the_middle_of_a_transfer() {
    let os = Os::new();
    for kill_server in [true, false] {
        let mut server = Tool::listening(&["listen", os.endpoint()]);
        let mut client = Tool::start(&["connect", os.endpoint()]);
        let endless = |tool: &mut Tool| {
            use std::io::Write;
            let mut input = tool.input();
            std::thread::spawn(move || while input.write_all(&[b'x'; 1 << 16]).is_ok() {})
        };
        let writers = [endless(&mut server), endless(&mut client)];
        server.await_out("xxxx");
        client.await_out("xxxx");
        let other = if kill_server {
            server.crash();
            client
        } else {
            client.crash();
            server
        };
        let ended = other.wait();
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        for writer in writers {
            writer.join().expect("no panic");
        }
    }
    run(&["clean", os.endpoint()]);
    assert_eq!(os.files(), [""; 0]);
}

/// The server listens, and does not accept.
#[tokio::test]
async fn connect_to_a_busy_server_exits_with_6() {
    let os = Os::new();
    let _server = busy_server(&os).await;
    for arguments in connecting(os.endpoint()) {
        let arguments = [&arguments[..], &["--timeout", "0.2"]].concat();
        let ended = tokio::task::spawn_blocking({
            let arguments: Vec<_> = arguments.iter().map(|&text| text.to_owned()).collect();
            move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let ended = within(ended).await.expect("no panic");
        ended.assert_fails(6, &["too busy", "0.2 s", "--timeout"]);
    }
    let info = run(&["info", os.endpoint()]).assert_succeeds().text();
    assert!(info.contains("live: "), "{info}");
}

/// Returns a server whose backlog is full.
#[cfg(unix)]
async fn busy_server(os: &Os) -> impl Sized {
    use sockpipe::os::unix::ListenOptionsExt;
    use sockpipe::{ListenOptions, Listener};

    let options = ListenOptions::new().backlog(1);
    let listener = Listener::bind_with(os.endpoint(), &options).expect("a free name");
    let at_once = ConnectOptions::new().deadline(std::time::Duration::ZERO);
    let mut clients = Vec::new();
    while let Ok(client) = os.connect_with(&at_once).await {
        clients.push(client);
    }
    (listener, clients)
}

/// Returns a server whose only pipe instance has a client.
#[cfg(windows)]
async fn busy_server(os: &Os) -> impl Sized {
    use tokio::net::windows::named_pipe::ServerOptions;

    let found = sockpipe::Endpoint::try_from(os.endpoint()).expect("a name").resolve();
    let address = found.expect("an address")[0].address().to_string();
    let pipe = ServerOptions::new().max_instances(1).create(address).expect("a free name");
    // The pipe has the system's default descriptor, which names no user.
    let anyone = ConnectOptions::new().expect_server(sockpipe::ExpectServer::Anyone);
    let client = os.connect_with(&anyone).await.expect("the instance");
    (pipe, client)
}

#[cfg(unix)]
mod paths {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use common::process::tool;
    use common::unix::Standing;

    use super::*;

    /// A name that is not UTF-8. On macOS every file name is UTF-8.
    const ODD: &[u8] = if cfg!(target_vendor = "apple") { "\u{ff}".as_bytes() } else { b"\xff" };

    #[test]
    fn every_verb_leaves_other_kinds_of_file_alone() {
        let os = Os::new();
        fs::write(os.dir().join("file"), "data").expect("a file");
        fs::create_dir(os.dir().join("directory")).expect("a directory");
        symlink(os.dir().join("file"), os.dir().join("link")).expect("a link");
        let before = os.files();
        for (name, what) in
            [("file", "a file"), ("directory", "a directory"), ("link", "a symbolic link")]
        {
            let path = os.dir().join(name);
            let standing = Standing::at(&path);
            let endpoint = path.to_str().expect("UTF-8");
            for arguments in listening(endpoint, os.endpoint()) {
                run(&arguments).assert_fails(4, &[what, endpoint, "choose another path"]);
            }
            for arguments in connecting(endpoint) {
                run(&arguments).assert_fails(4, &["not a socket", endpoint]);
            }
            run(&["clean", endpoint]).assert_fails(4, &["cannot clean", what, endpoint]);
            let info = run(&["info", endpoint]);
            assert_eq!(info.code, Some(4), "{info:?}");
            assert!(info.text().contains(&format!("foreign: {what} exists there")), "{info:?}");
            assert_eq!(Standing::at(&path), standing);
        }
        assert_eq!(os.files(), before);
        for missing in ["nowhere/s.sock", "file/s.sock"] {
            let path = os.dir().join(missing);
            let endpoint = path.to_str().expect("UTF-8");
            let verbs = [&listening(endpoint, os.endpoint())[..], &connecting(endpoint)].concat();
            for arguments in verbs {
                run(&arguments).assert_fails(3, &["there is no directory"]);
            }
            let ended = run(&["connect", "--wait=0.1", endpoint]);
            ended.assert_fails(3, &["waited 0.1 s: cannot connect to", "there is no directory"]);
            assert_eq!(run(&["info", endpoint]).code, Some(3));
            assert_eq!(run(&["clean", endpoint]).code, Some(0));
        }
    }

    /// Without `./` the argument is a portable name.
    #[test]
    fn connect_suggests_a_path_where_such_a_file_exists() {
        let os = Os::new();
        let _server = Tool::listening(&["echo", os.endpoint()]);
        let free = Os::new();
        for (dir, is_there) in [(os.dir(), true), (free.dir(), false)] {
            let mut connect = tool();
            connect.current_dir(dir).args(["connect", "s.sock"]);
            let ended = Tool::of(connect).wait();
            ended.assert_fails(3, &["no server at ", "s.sock.sock"]);
            assert_eq!(ended.err.contains("write `./s.sock`"), is_there, "{ended:?}");
        }
    }

    #[test]
    fn sockets_of_other_programs_are_recognised_and_left_alone() {
        let os = Os::new();
        let live = os.dir().join("live");
        let live = live.to_str().expect("UTF-8");
        let listener = UnixListener::bind(live).expect("a socket");
        listener.set_nonblocking(true).expect("a mode");
        // Another socket of the system has a name that is not UTF-8.
        let other = os.dir().join(OsStr::from_bytes(ODD));
        let other = UnixListener::bind(other).expect("a socket");
        // On Linux `info` reads the system's table of sockets and does not connect.
        let info = run(&["info", live]).assert_succeeds().text();
        assert!(info.contains("live: "), "{info}");
        if cfg!(target_os = "linux") {
            assert!(info.contains(&format!("pid {}", std::process::id())), "{info}");
            assert!(listener.accept().is_err(), "info has connected");
            let info = run(&["info", "--connect", live]).assert_succeeds().text();
            assert!(info.contains("server    uid "), "{info}");
            assert!(listener.accept().is_ok(), "info has not connected");
        }
        drop(other);
        fs::remove_file(os.dir().join(OsStr::from_bytes(ODD))).expect("a file");
        for arguments in listening(live, os.endpoint()) {
            run(&arguments).assert_fails(4, &["already listening"]);
        }
        run(&["clean", live]).assert_fails(4, &["is not stale"]);
        let datagrams = os.dir().join("datagrams");
        let datagrams = datagrams.to_str().expect("UTF-8");
        let _socket = UnixDatagram::bind(datagrams).expect("a socket");
        for arguments in connecting(datagrams) {
            run(&arguments).assert_fails(4, &["a socket of another type"]);
        }
        assert_eq!(run(&["info", datagrams]).code, Some(4));
        assert_eq!(os.files(), ["datagrams", "live"]);
    }

    #[test]
    fn a_path_that_is_too_long_fails_and_one_that_is_not_utf_8_works() {
        let os = Os::new();
        let long = os.dir().join("n".repeat(150));
        let endpoint = long.to_str().expect("UTF-8");
        let verbs = [&listening(endpoint, os.endpoint())[..], &connecting(endpoint)].concat();
        for arguments in verbs {
            run(&arguments).assert_fails(2, &["too long for a socket"]);
        }
        // A name that is not UTF-8 is a valid path.
        let path = os.dir().join(OsStr::from_bytes(&[ODD, b".sock"].concat()));
        let mut server = tool();
        server.arg("echo").arg(&path);
        let mut server = Tool::of(server);
        server.await_listening();
        let mut ping = tool();
        ping.args(["ping", "-n", "3"]).arg(&path);
        assert_eq!(Tool::of(ping).wait().code, Some(0));
    }
}

/// The directory becomes read-only while the server runs.
#[cfg(unix)]
#[test]
fn a_server_that_cannot_remove_its_name_warns() {
    use std::os::unix::fs::chown;

    use common::process::Users;
    use common::unix::{STRANGER, set_mode};
    use rustix::process::Signal;

    let Some(users) = Users::new() else { return };
    for (verb, code) in [("echo", 0), ("listen", 130), ("relay", 0), ("one client", 0)] {
        let os = Os::new();
        chown(os.dir(), Some(STRANGER), Some(STRANGER)).expect("an owner");
        let verb_and_name: &[&str] = match verb {
            "one client" => &["listen", os.endpoint()],
            "relay" => &["relay", os.endpoint(), "tcp:127.0.0.1:1"],
            verb => &[verb, os.endpoint()],
        };
        let mut server = Tool::as_stranger(&users, verb_and_name);
        server.await_listening();
        set_mode(&os.dir(), 0o555);
        if verb == "one client" {
            server.end_input();
            common::run_with(&["connect", "--any-server", os.endpoint()], b"").assert_succeeds();
        } else {
            server.signal(Signal::TERM);
        }
        let ended = server.wait();
        let says = ["warning: cannot release", os.endpoint(), "cannot be removed", "leave it to"];
        assert!(says.iter().all(|part| ended.err.contains(part)), "{verb}: {ended:?}");
        assert_eq!(ended.err.matches("cannot release").count(), 1, "{verb}: {ended:?}");
        assert_eq!(ended.code, Some(code), "{verb}: {ended:?}");
        assert!(os.files().contains(&"s.sock".to_owned()), "{verb}");
        set_mode(&os.dir(), 0o755);
    }
}
