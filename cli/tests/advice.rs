//! What `info` advises where something is in the way of a server: a link, a file of another kind, a
//! directory without write access. The advised step must not fail.
#![cfg(unix)] // A pipe has no directory, no mode, and no links to it.

mod common;

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use common::process::{Users, tool};
use common::unix::{STRANGER, linked, open_to_all, set_mode, strace};
use common::{Backend, Ended, Os, Tool, run};

/// The line of `info` that starts with `label`.
#[track_caller]
fn line<'a>(text: &'a str, label: &str) -> &'a str {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(label));
    lines.find(|rest| rest.starts_with(' ')).unwrap_or_else(|| panic!("{label}: {text}")).trim()
}

#[track_caller]
fn assert_next(info: &Ended, code: i32, says: &[&str], not: &str) {
    assert_eq!((info.code, info.err.as_str()), (Some(code), ""), "{}", info.text());
    let text = info.text();
    let next = line(&text, "next");
    for part in says {
        assert!(next.contains(part), "{part:?} is not in {text}");
    }
    assert!(!next.contains(not), "{text}");
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn connect_follows_a_link_and_listen_refuses_it() {
    let os = Os::new();
    let link = linked(&os, "link", &os.dir().join("s.sock"));
    let link = utf8(&link);
    let target = fs::canonicalize(os.dir()).expect("a directory").join("s.sock");
    let server = Tool::listening(&["echo", os.endpoint()]);
    run(&["connect", link]).assert_succeeds();
    let info = run(&["info", link]);
    assert_next(&info, 0, &["sockpipe connect", link], "remove");
    let text = info.text();
    assert!(line(&text, "state").starts_with("live: "), "{text}");
    assert!(line(&text, "leads to").starts_with(utf8(&target)), "{text}");
    assert!(line(&text, "leads to").contains("a server cannot listen"), "{text}");
    assert!(line(&text, "process").starts_with(&format!("pid {}", server.child.id())), "{text}");
    let json = run(&["info", "--json", link]).assert_succeeds().text();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["address"], &json["leads_to"]), (&link.into(), &utf8(&target).into()));

    // The advice for a dead server names the target, because `clean` does not follow links.
    server.crash();
    let info = run(&["info", link]);
    let clean = format!("sockpipe clean {}`", target.display());
    assert_next(&info, 3, &[&clean], &format!("clean {link}"));
    run(&["listen", link]).assert_fails(4, &["a symbolic link"]);
    run(&["clean", utf8(&target)]);
    // The link now leads to a free name.
    assert_eq!(run(&["info", link]).code, Some(4));
    let datagrams = os.dir().join("datagrams");
    let _socket = UnixDatagram::bind(&datagrams).expect("a socket");
    let link = linked(&os, "other", &datagrams);
    assert_next(&run(&["info", utf8(&link)]), 4, &["choose another endpoint"], "remove");
}

/// Where the kernel does not report who has a socket, the tool cannot know whether a server that is
/// about to listen has it. On Linux, strace makes the request fail; other backends do not make one.
#[test]
fn listen_advises_to_clean_a_socket_that_may_be_dead() {
    let os = Os::new();
    drop(UnixListener::bind(os.endpoint()).expect("a socket"));
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let no_sock_diag = ["-e", "inject=sendto,?send:error=EPERM"];
    let is_asked = cfg!(all(target_os = "linux", not(sockpipe_posix)));
    let run = |verb: &str| {
        let mut command = tool();
        command.args([verb, os.endpoint()]);
        if is_asked {
            command = strace(&log, &no_sock_diag, &command)?;
        }
        let ended = Tool::of(command).wait();
        let asked = !is_asked || fs::read_to_string(&log).expect("a log").contains("(INJECTED)");
        assert!(asked, "nothing was asked: {ended:?}");
        Some(ended)
    };

    let Some(listen) = run("listen") else { return };
    let advice = "; if no server runs there, `sockpipe clean` removes it";
    listen.assert_fails(4, &["cannot listen on", os.endpoint(), "does not listen yet", advice]);
    assert!(!listen.err.contains("remove_stale"), "{listen:?}");
    assert_eq!(os.files(), ["s.sock"]);
    let Some(clean) = run("clean") else { return };
    assert_eq!((clean.code, os.files().len()), (Some(0), 0), "{clean:?}");
}

/// Nobody can connect to such a file, so `info` leaves out its mode.
#[test]
fn info_shows_no_access_for_other_kinds_of_file() {
    let os = Os::new();
    fs::write(os.dir().join("file"), "data").expect("a file");
    fs::create_dir(os.dir().join("directory")).expect("a directory");
    linked(&os, "link", &os.dir().join("file"));
    let _socket = UnixDatagram::bind(os.dir().join("datagrams")).expect("a socket");
    for name in ["file", "directory", "link", "datagrams"] {
        let path = os.dir().join(name);
        let info = run(&["info", utf8(&path)]);
        assert_next(&info, 4, &["choose another endpoint"], "sockpipe");
        let text = info.text();
        assert!(!text.contains("\nowner") && !text.contains("\naccess"), "{text}");
    }
}

#[test]
fn info_does_not_advise_a_server_where_none_can_listen() {
    let os = Os::new();
    let open = os.dir().join("open");
    fs::create_dir(&open).expect("a directory");
    set_mode(&open, 0o777);
    let path = open.join("s.sock");
    run(&["listen", utf8(&path)]).assert_fails(5, &["could replace the socket"]);
    let says = ["no server can listen there", "mode 0777"];
    assert_next(&run(&["info", utf8(&path)]), 3, &says, "starts a server");
    // A socket that a dead server left there does not change the advice.
    drop(UnixListener::bind(&path).expect("a socket"));
    assert_next(&run(&["info", utf8(&path)]), 3, &says, "takes it over");
    set_mode(&open, 0o1777);
    assert_next(&run(&["info", utf8(&path)]), 3, &["takes it over"], "no server");
    fs::remove_file(&path).expect("a file");
    assert_next(&run(&["info", utf8(&path)]), 3, &["starts a server"], "no server");
    Tool::listening(&["listen", utf8(&path)]).crash();

    let nowhere = os.dir().join("nowhere/s.sock");
    let makes = ["make the directory first"];
    assert_next(&run(&["info", utf8(&nowhere)]), 3, &makes, "sockpipe");
}

/// `info` exits with the same code as the verbs that use the name.
#[test]
fn a_name_that_is_too_long_is_a_usage_error_of_every_verb() {
    let os = Os::new();
    let abstract_name = format!("abstract:{}", "n".repeat(120));
    for (endpoint, reason) in [
        (format!("./{}", "n".repeat(200)), "too long"),
        // A file name has at most 255 bytes.
        (format!("./{}", "n".repeat(300)), "too long"),
        (abstract_name, "the limit of 107 bytes"),
    ] {
        if endpoint.starts_with("abstract:") && !common::unix::with_linux_backend("abstract") {
            continue;
        }
        let run = |verb| {
            let mut command = tool();
            command.current_dir(os.dir()).args([verb, endpoint.as_str()]);
            Tool::of(command).wait()
        };
        run("listen").assert_fails(2, &[reason]);
        run("connect").assert_fails(2, &[reason]);
        let info = run("info");
        assert_next(&info, 2, &["choose another endpoint"], "sockpipe");
        assert!(line(&info.text(), "state").contains(reason), "{}", info.text());
    }
    // A path that the crate can shorten is accepted.
    let deep = os.dir().join("d".repeat(60)).join("d".repeat(60));
    fs::create_dir_all(&deep).expect("directories");
    let path = deep.join("s.sock");
    let fits = common::unix::with_linux_backend("a way around a path that is too long");
    assert_eq!(run(&["info", utf8(&path)]).code, Some(if fits { 3 } else { 2 }));
}

#[test]
fn info_advises_what_another_user_can_do() {
    let Some(users) = Users::new() else { return };
    let as_stranger = |arguments: &[&str]| Tool::as_stranger(&users, arguments);
    let os = open_to_all();
    let path = os.endpoint();
    // Only root can write there.
    as_stranger(&["listen", path]).wait().assert_fails(5, &["cannot listen on"]);
    let info = as_stranger(&["info", path]).wait();
    assert_next(&info, 3, &["no server can listen there", "cannot write"], "starts a server");

    // This user may not connect to the socket, and cannot find out anything else about it.
    drop(UnixListener::bind(path).expect("a socket"));
    set_mode(path.as_ref(), 0o600);
    as_stranger(&["connect", path]).wait().assert_fails(5, &["refuse this user"]);
    assert_next(&as_stranger(&["info", path]).wait(), 5, &["ask as the user"], "sockpipe");
    // It may not even enter the directory.
    set_mode(&os.dir(), 0o700);
    let info = as_stranger(&["info", path]).wait();
    assert_next(&info, 5, &["ask as the user"], "sockpipe");
    assert_eq!(line(&info.text(), "state").matches(path).count(), 1, "{}", info.text());
    set_mode(&os.dir(), 0o755);
    set_mode(path.as_ref(), 0o666);
    let says = ["only uid 0", "choose another endpoint"];
    assert_next(&as_stranger(&["info", path]).wait(), 3, &says, "takes it over");

    // Another user's server listens, and then leaves its socket behind.
    let os = open_to_all();
    let path = os.endpoint();
    set_mode(&os.dir(), 0o1777);
    let mut server = as_stranger(&["echo", "--everyone", path]);
    server.await_listening();
    for arguments in [&["info", path][..], &["info", "--connect", path]] {
        let advice = format!("`sockpipe connect --any-server {path}` talks to it");
        let by = format!("uid {STRANGER}");
        assert_next(&run(arguments), 0, &[&advice, &by], "`sockpipe connect /");
    }
    let own = as_stranger(&["info", path]).wait();
    assert_next(&own, 0, &[&format!("`sockpipe connect {path}` talks to it")], "--any-server");
    server.crash();
    run(&["listen", path]).assert_fails(5, &["cannot listen on"]);
    let says = [&*format!("only uid {STRANGER}"), "choose another endpoint"];
    assert_next(&run(&["info", path]), 3, &says, "takes it over");
    run(&["clean", path]).assert_fails(5, &["cannot clean"]);
}
