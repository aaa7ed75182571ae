//! The examples that block, as processes. `cargo build --examples --features blocking` builds them.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;

use sockpipe::blocking::Listener;

use super::bounded::{bounded, unique_name};
use crate::process::{example, text};

#[test]
fn blocking_client() {
    bounded(|| {
        let name = unique_name();
        let listener = Listener::bind(&name).expect("a free name");
        let server = thread::spawn(move || {
            let stream = listener.accept().expect("a client");
            let mut heard = Vec::new();
            for line in BufReader::new(&stream).lines() {
                let line = line.expect("a line");
                writeln!(&stream, "{line}").expect("a write");
                heard.push(line);
            }
            heard
        });
        let mut command = example("blocking_client");
        let mut client = command.arg(&name).stdin(Stdio::piped()).spawn().expect("a process");
        client.stdin.take().expect("a pipe").write_all(b"one\ntwo\n").expect("a write");
        let output = client.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "one\ntwo\n");
        assert_eq!(server.join().expect("no panic"), ["one", "two"]);

        let output = example("blocking_client").arg(&name).output().expect("a process");
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains("no server at"), "{}", text(&output.stderr));
    });
}

#[test]
fn pass_fd() {
    bounded(|| {
        let output = example("pass_fd").output().expect("a process");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{err}");
        if cfg!(unix) {
            assert!(
                out.contains(r#"got "here you are" and a file, which says "written by"#),
                "{out}"
            );
        } else {
            assert!(
                out.starts_with("not on this system: a named pipe carries no handles"),
                "{out}"
            );
        }
    });
}
