//! Large transfers: every byte arrives, and the rate is compared with socat's in the same run.
//!
//! This command transfers a gibibyte with an optimized build. It prints the ratios and fails if one
//! is below the bar:
//!
//! ```text
//! SOCKPIPE_FULL=1 cargo test --release -p sockpipe-cli --test bulk -- --nocapture
//! ```
//!
//! Otherwise the transfer is smaller, and the ratios of an unoptimized build are only printed.
#![cfg(unix)] // socat runs on Unix only.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::process::{is_here, tool};
use common::unix::full;
use common::{Backend, Os, PATIENCE, noise};

/// The tests run one at a time. Otherwise each would slow down the others.
static TURN: Mutex<()> = Mutex::new(());

/// This block is sent repeatedly. Its length is no multiple of a buffer's size, so that a buffer
/// that is sent twice or skipped shows.
static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1_000_003));

fn length() -> usize {
    if full() { 1 << 30 } else { 32 << 20 }
}

/// The bar for an optimized build, as a share of socat's rate.
const BAR: f64 = 0.8;

#[test]
fn listen_and_connect_transfer_as_fast_as_socat() {
    compare("listen and connect", |program| {
        let os = Os::new();
        let path = os.endpoint();
        let (server, client) = match program {
            Program::Ours => (ours(&["-q", "listen", path]), ours(&["connect", "--wait", path])),
            Program::Socat(options) => {
                let server = socat(options, &["-u", &format!("UNIX-LISTEN:{path}"), "-"]);
                // socat creates the name before it listens, so the client retries.
                let to = format!("UNIX-CONNECT:{path},retry=1000,interval=0.01");
                (server, socat(options, &["-u", "-", &to]))
            }
        };
        let (mut server, mut client) = (Reaped(server), Reaped(client));
        // The server has nothing to send.
        drop(server.0.stdin.take());
        let input = client.0.stdin.take().expect("a pipe");
        let took = through(input, server.0.stdout.take().expect("a pipe"));
        assert!(client.wait().success());
        assert!(server.wait().success());
        took
    });
}

#[test]
fn a_relay_transfers_as_fast_as_socat() {
    relay_with("relay", &[]);
}

#[test]
fn a_relay_without_descriptors_transfers_as_fast_as_socat() {
    relay_with("relay --no-descriptors", &["--no-descriptors"]);
}

fn relay_with(what: &str, options: &[&str]) {
    compare(what, |program| {
        let (front, behind) = (Os::new(), Os::new());
        let server = UnixListener::bind(behind.endpoint()).expect("a socket");
        let (from, to) = (front.endpoint(), behind.endpoint());
        let relay = match program {
            Program::Ours => ours(&[&["-q", "relay", from, to], options].concat()),
            Program::Socat(options) => {
                socat(options, &[&format!("UNIX-LISTEN:{from}"), &format!("UNIX-CONNECT:{to}")])
            }
        };
        let _relay = Reaped(relay);
        let mut client = None;
        common::unix::until("a relay", || {
            client = UnixStream::connect(from).ok();
            client.is_some()
        });
        let client = client.expect("a relay");
        server.set_nonblocking(true).expect("a mode");
        let mut accepted = None;
        common::unix::until("the relay's connection", || {
            accepted = server.accept().ok();
            accepted.is_some()
        });
        let (server, _) = accepted.expect("a relay");
        server.set_nonblocking(false).expect("a mode");
        through(HalfClosed(client), server)
    });
}

#[derive(Clone, Copy)]
enum Program {
    Ours,
    Socat(&'static [&'static str]),
}

/// Runs the programs in turns, so that other load on the machine affects all of them.
fn compare(what: &str, run: impl Fn(Program) -> Duration) {
    let _turn = TURN.lock();
    if !is_here("socat") {
        println!("{what}: {:.0} MiB/s", rate(run(Program::Ours)));
        return;
    }
    let rivals: [(&str, &'static [&'static str]); 2] =
        [("socat", &[]), ("socat with our size of buffer", &["-b", "65536"])];
    let (mut ours, mut theirs) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..if full() { 5 } else { 3 } {
        ours.push(rate(run(Program::Ours)));
        for ((_, options), rates) in rivals.iter().zip(&mut theirs) {
            rates.push(rate(run(Program::Socat(options))));
        }
    }
    let ours = median(ours);
    let mib = length() >> 20;
    let ratios = rivals.iter().zip(theirs).map(|((name, _), rates)| {
        let theirs = median(rates);
        let ratio = ours / theirs;
        println!("{what}, {mib} MiB: {ours:.0} MiB/s, {name} {theirs:.0} MiB/s, ratio {ratio:.2}");
        ratio
    });
    let ratios: Vec<_> = ratios.collect();
    // The bar holds for the default options. The ratio with larger buffers is printed for
    // comparison.
    if full() && !cfg!(debug_assertions) {
        assert!(ratios[0] >= BAR, "{what}: {:.2} of socat", ratios[0]);
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Returns the rate in MiB per second.
fn rate(took: Duration) -> f64 {
    length() as f64 / f64::from(1 << 20) / took.as_secs_f64()
}

fn ours(arguments: &[&str]) -> Child {
    let mut command = tool();
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().expect("a process")
}

fn socat(options: &[&str], arguments: &[&str]) -> Child {
    let mut command = Command::new("socat");
    command.args(options).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("socat")
}

/// Sends the blocks through a program, compares its output with them, and returns how long it took.
fn through(input: impl Write + Send + 'static, output: impl Read + Send + 'static) -> Duration {
    let started = Instant::now();
    let (done, is_done) = channel();
    // On a failure these threads outlive the test for a moment: the programs are killed, and then
    // the pipes that the threads wait for are closed.
    let writer = thread::spawn(move || send(input));
    let reader = thread::spawn(move || {
        compare_all(output);
        let _ = done.send(started.elapsed());
    });
    let took = is_done.recv_timeout(limit());
    if let Err(RecvTimeoutError::Timeout) = took {
        panic!("not all came out within {:?}", limit());
    }
    reader.join().expect("the right bytes");
    writer.join().expect("no panic");
    took.expect("the reader has told")
}

/// A slow machine still moves a MiB in a tenth of a second.
fn limit() -> Duration {
    PATIENCE + Duration::from_millis(100) * (length() >> 20) as u32
}

fn send(mut input: impl Write) {
    let mut left = length();
    while left > 0 {
        let part = &BLOCK[..left.min(BLOCK.len())];
        input.write_all(part).expect("a write");
        left -= part.len();
    }
}

fn compare_all(mut output: impl Read) {
    let mut buffer = vec![0; 256 * 1024];
    let mut got = 0;
    loop {
        let count = output.read(&mut buffer).expect("a read");
        if count == 0 {
            break;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let at = got % BLOCK.len();
            let expected = &BLOCK[at..BLOCK.len().min(at + rest.len())];
            assert!(&rest[..expected.len()] == expected, "a wrong byte after {got}");
            got += expected.len();
            rest = &rest[expected.len()..];
        }
    }
    assert_eq!(got, length());
}

struct HalfClosed(UnixStream);

impl Write for HalfClosed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Drop for HalfClosed {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}

struct Reaped(Child);

impl Reaped {
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        common::unix::until("the program's end", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
