//! Runs the blocking examples as processes. `cargo build --examples --features blocking` builds
//! them.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;
#[cfg(unix)]
use std::{fs::File, io::Seek};

use sockpipe::blocking::{Listener, Stream};

use crate::common::bounded::bounded;
#[cfg(unix)]
use crate::common::bounded::read_all;
use crate::common::process::{Running, example, text};
use crate::common::unique_name;

#[test]
fn the_blocking_client_example_exchanges_lines() {
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
fn the_pass_fd_example_passes_a_file() {
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

#[test]
fn the_window_example_answers_requests() {
    bounded(|| {
        let name = unique_name();
        let mut command = example("window");
        let program = Running::start({
            command.arg(&name);
            command
        });
        assert!(program.next_line().starts_with("listening on "));
        let stream = Stream::connect(&name).expect("a connection");
        let mut answers = BufReader::new(&stream).lines();
        for asked in ["show settings", "quit"] {
            writeln!(&stream, "{asked}").expect("a write");
            let answer = answers.next().expect("an answer").expect("a line");
            assert_eq!(answer, format!("done: {asked}"));
            assert_eq!(program.next_line(), format!("asked to {asked}"));
        }
        drop(answers);
        drop(stream);
        let (status, _, errors) = program.wait();
        assert!(status.success(), "{errors:?}");
    });
}

#[cfg(unix)]
#[test]
fn the_fd_proxy_example_passes_descriptors_on() {
    use std::os::fd::AsFd;

    use sockpipe::os::unix::PassFds;

    bounded(|| {
        let (name, front) = (unique_name(), unique_name());
        let listener = Listener::bind(&name).expect("a free name");
        let mut command = example("fd_proxy");
        command.args([&front, &name]);
        let proxy = Running::start(command);
        assert!(proxy.next_line().starts_with("listening on "));

        let client = Stream::connect(&front).expect("a connection");
        let server = listener.accept().expect("the proxy");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"in a file").expect("a write");
        client.send_with_fds(b"look", &[file.as_fd()]).expect("a write");
        let (length, mut fds) = server.recv_with_fds(&mut [0; 16], 2).expect("a read");
        assert_eq!((length, fds.len()), (4, 1));
        let mut passed = File::from(fds.pop().expect("a descriptor"));
        passed.rewind().expect("a start");
        assert_eq!(read_all(&passed), b"in a file");
        assert_eq!(proxy.next_line(), "client: 4 bytes, 1 descriptors");

        (&mut &server).write_all(b"seen").expect("a write");
        server.shutdown().expect("an end");
        assert_eq!(read_all(&client), b"seen");
        client.shutdown().expect("an end");
        assert_eq!(read_all(&server), b"");
        proxy.crash();
    });
}
