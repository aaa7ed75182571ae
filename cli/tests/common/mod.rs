//! Runs the tool as a process, with its input and output as bytes.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses a part")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use sockpipe_testing::process::tool;
pub use sockpipe_testing::*;

/// A running program, which is killed when this is dropped.
pub struct Tool {
    pub child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    what: String,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ended {
    pub fn text(&self) -> String {
        process::text(&self.out)
    }

    /// Asserts a failure with this code, one line on standard error that contains all of `says`,
    /// and nothing on standard output.
    #[track_caller]
    pub fn assert_fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.out.is_empty(), "{}", self.text());
        let first = self.err.lines().next().unwrap_or_default();
        assert!(first.starts_with("error: "), "{:?}", self.err);
        for part in says {
            assert!(self.err.contains(part), "{part:?} is not in {:?}", self.err);
        }
        // Messages of the tool must not name items of the crate.
        let item =
            ["Options", "os::", "ExpectServer"].iter().find(|item| self.err.contains(**item));
        assert_eq!(item, None, "{:?}", self.err);
        assert!(!self.err.contains("panicked"), "{:?}", self.err);
    }

    /// Asserts that the parser of the command line rejected the arguments.
    #[track_caller]
    pub fn assert_usage(&self) {
        assert_eq!((self.code, self.out.as_slice()), (Some(2), &b""[..]), "{self:?}");
    }

    #[track_caller]
    pub fn assert_succeeds(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.text());
        self
    }
}

impl Tool {
    /// Starts `sockpipe` with an open standard input.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = tool();
        command.args(arguments).stdin(Stdio::piped());
        Self::of(command)
    }

    /// Starts `sockpipe`, and waits until it has printed the address that it listens on.
    #[track_caller]
    pub fn listening(arguments: &[&str]) -> Self {
        let mut server = Self::start(arguments);
        server.await_listening();
        server
    }

    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("a pipe"), Arc::clone(&out)),
            collect(child.stderr.take().expect("a pipe"), Arc::clone(&err)),
        ];
        Self { child, out, err, readers, what: format!("{command:?}") }
    }

    /// Starts `sockpipe` without input, as a user that has no account.
    #[cfg(unix)]
    pub fn as_stranger(users: &process::Users, arguments: &[&str]) -> Self {
        let program = users.copy(&tool(), "sockpipe");
        let mut command = process::Users::run_as(&program, unix::STRANGER);
        command.args(arguments);
        Self::of(command)
    }

    /// Starts `sockpipe` with a standard output that has no reader.
    pub fn with_closed_output(arguments: &[&str]) -> Self {
        let mut command = tool();
        command.args(arguments).stdin(Stdio::piped());
        if cfg!(unix) {
            // The output is the standard input of a process that has ended, so it has no reader
            // from the start.
            let mut gone = tool().arg("--version").stdin(Stdio::piped()).spawn().expect("one");
            command.stdout(gone.stdin.take().expect("a pipe"));
            gone.wait_with_output().expect("an end");
        }
        let mut child = command.spawn().expect("a process");
        // On Windows a child cannot write to std's end of such a pipe, so the reader is dropped
        // here instead: a process takes longer than this to start.
        drop(child.stdout.take());
        let err = Arc::default();
        let readers = vec![collect(child.stderr.take().expect("a pipe"), Arc::clone(&err))];
        Self { child, out: Arc::default(), err, readers, what: format!("{command:?}") }
    }

    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    /// Writes to standard input, which stays open.
    #[track_caller]
    pub fn type_in(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("a write");
    }

    pub fn end_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Writes `bytes` to standard input from a thread, and then closes it.
    pub fn feed(&mut self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut input = self.input();
        // A program that does not read all of it shows that by how it ends.
        thread::spawn(move || drop(input.write_all(&bytes)))
    }

    #[track_caller]
    pub fn await_out(&mut self, text: &str) {
        self.await_text(text, |tool| &tool.out);
    }

    /// Returns how many bytes the program has written to standard output so far.
    pub fn output_length(&self) -> usize {
        self.out.lock().expect("no panic").len()
    }

    /// Returns what the program has written to standard output so far.
    pub fn output_so_far(&self) -> String {
        process::text(&self.out.lock().expect("no panic"))
    }

    #[track_caller]
    pub fn await_err(&mut self, text: &str) {
        self.await_text(text, |tool| &tool.err);
    }

    /// Waits until the program prints the address that it listens on, and returns that.
    #[track_caller]
    pub fn await_listening(&mut self) -> String {
        self.await_err("listening on ");
        self.await_err("\n");
        let mut err = self.err.lock().expect("no panic");
        let said = process::text(&err);
        let end = err.iter().position(|&byte| byte == b'\n').expect("it was there");
        err.drain(..=end);
        let line = said.lines().next().unwrap_or_default();
        let address = line.strip_prefix("listening on ");
        address.unwrap_or_else(|| panic!("{said:?}")).to_owned()
    }

    #[track_caller]
    fn await_text(&mut self, text: &str, from: fn(&Self) -> &Arc<Mutex<Vec<u8>>>) {
        let deadline = Instant::now() + PATIENCE;
        while !process::text(&from(self).lock().expect("no panic")).contains(text) {
            let ended = self.child.try_wait().expect("a child");
            assert!(
                Instant::now() < deadline && ended.is_none(),
                "{}: no {text:?}, {ended:?}: {:?} {:?}",
                self.what,
                process::text(&self.out.lock().expect("no panic")),
                process::text(&self.err.lock().expect("no panic")),
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the program ends, and leaves its standard input as it is.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end: {:?}",
                self.what,
                process::text(&self.err.lock().expect("no panic"))
            );
            thread::sleep(Duration::from_millis(2));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("no panic");
        }
        let out = std::mem::take(&mut *self.out.lock().expect("no panic"));
        let err = process::text(&self.err.lock().expect("no panic"));
        Ended { code: status.code(), out, err }
    }

    /// Kills the program, as `kill -9` does.
    pub fn crash(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("a signal");
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            to.lock().expect("no panic").extend_from_slice(&buffer[..length]);
        }
    })
}

/// Runs `sockpipe` to its end, with `input` as all of its standard input.
#[track_caller]
pub fn run_with(arguments: &[&str], input: &[u8]) -> Ended {
    let mut tool = Tool::start(arguments);
    let writer = tool.feed(input.to_vec());
    let ended = tool.wait();
    writer.join().expect("no panic");
    ended
}

/// Runs `sockpipe` to its end, without input.
#[track_caller]
pub fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, b"")
}

/// Returns bytes of all values. No buffer's size is a multiple of their period.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}
