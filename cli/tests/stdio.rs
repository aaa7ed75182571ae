//! Standard input and output in the modes and states that other programs leave them in.
#![cfg(unix)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use common::process::tool;
use common::{Backend, Os, PATIENCE, Tool, noise, within};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1024 * 1024;

/// Sets the mode that ssh and node leave behind, which all processes that share the pipe get.
fn set_nonblocking(end: impl AsFd) {
    let flags = fcntl_getfl(&end).expect("flags");
    fcntl_setfl(end, flags | OFlags::NONBLOCK).expect("a mode");
}

/// Returns the read end and the write end of a pipe or of a pair of sockets.
fn ends(sockets: bool) -> (OwnedFd, OwnedFd) {
    // Not every system can create a pipe that other tests' processes do not inherit.
    #[cfg(not(target_vendor = "apple"))]
    if !sockets {
        return rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    }
    let _ = sockets;
    let (read, write) = UnixStream::pair().expect("a pair");
    (read.into(), write.into())
}

#[tokio::test]
async fn a_nonblocking_output_receives_all_bytes() {
    for sockets in [false, true] {
        let os = Os::new();
        let mut listener = os.bind().expect("a free name");
        let (from, to) = ends(sockets);
        set_nonblocking(&to);
        let mut command = tool();
        command.args(["connect", os.endpoint()]).stdout(to);
        let mut client = command.spawn().expect("a process");
        // The command still holds the write end.
        drop(command);
        let mut peer = within(listener.accept()).await.expect("a client");
        let bytes = noise(4 * MIB);
        // Nobody reads, so all buffers up to the output fill up.
        let mut sent = 0;
        let pause = std::time::Duration::from_millis(300);
        while let Ok(wrote) = tokio::time::timeout(pause, peer.write(&bytes[sent..])).await {
            sent += wrote.expect("a reader");
            assert!(sent < bytes.len(), "all is taken, and nobody has read");
        }
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            File::from(from).read_to_end(&mut got).expect("an end");
            got
        });
        within(peer.write_all(&bytes[sent..])).await.expect("a write");
        within(peer.close(PATIENCE)).await.expect("a close");
        let got = tokio::task::spawn_blocking(|| reader.join().expect("no panic"));
        let got = within(got).await.expect("no panic");
        assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
        assert!(client.wait().expect("an end").success());
    }
}

#[tokio::test]
async fn a_nonblocking_input_is_read_to_its_end() {
    for sockets in [false, true] {
        let os = Os::new();
        let mut listener = os.bind().expect("a free name");
        let (from, to) = ends(sockets);
        set_nonblocking(&from);
        let mut command = tool();
        command.args(["connect", os.endpoint()]).stdin(from);
        let client = Tool::of(command);
        // The input is empty before and after these writes.
        let mut peer = within(listener.accept()).await.expect("a client");
        let mut to = File::from(to);
        for said in [&b"first"[..], b"second"] {
            to.write_all(said).expect("a write");
            let mut got = vec![0; said.len()];
            within(peer.read_exact(&mut got)).await.expect("what was written");
            assert_eq!(got, said);
        }
        drop(to);
        assert_eq!(within(peer.read(&mut [0])).await.expect("the end"), 0);
        drop(peer);
        let ended = tokio::task::spawn_blocking(|| client.wait());
        within(ended).await.expect("no panic").assert_succeeds();
    }
}

#[test]
fn a_resource_limit_is_reported_and_kills_no_process() {
    let os = Os::new();
    let program = tool().get_program().to_str().expect("UTF-8").to_owned();
    let _echo = Tool::listening(&["echo", os.endpoint()]);
    let file = os.dir().join("file");
    let limited = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, &program, os.endpoint()]).arg(&file);
        Tool::of(command).wait()
    };
    let ended = limited("ulimit -f 0; echo hello | \"$0\" connect \"$1\" > \"$2\"");
    ended.assert_fails(1, &["cannot write to standard output: File too large"]);
    if cfg!(target_os = "linux") {
        let ended = limited("ulimit -v 500000; exec \"$0\" ping -n 1 -s 1000000000 \"$1\"");
        ended.assert_fails(1, &["no memory for 1000000000 bytes", "--size"]);
    }
}
