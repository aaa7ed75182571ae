//! Processes that a signal asks to stop.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use rustix::process::{Pid, Signal, kill_process};
use sockpipe::blocking::{Listener, Stream, serve, shutdown_signal};

use crate::common::bounded::{bounded, read_all};
use crate::common::unique_name;

const ARGUMENT: &str = "SOCKPIPE_TEST_HELPER";

/// The program: a threaded server, as the page of `shutdown_signal` shows it.
#[test]
fn helper_server() {
    let Ok(name) = env::var(ARGUMENT) else { return };
    let stop = shutdown_signal().expect("signals");
    shutdown_signal().expect("again");
    let listener = Listener::bind(&name).expect("a free name");
    println!("\nlistens");
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            let threads = NonZeroUsize::new(2).expect("not zero");
            serve(&listener, threads, |mut stream| stream.write_all(b"hello").expect("a write"))
        });
        // Each waiting thread is notified.
        let second = scope.spawn(|| stop.wait());
        stop.wait().expect("a signal");
        second.join().expect("no panic").expect("a signal");
        listener.unblock();
        served.join().expect("no panic").expect("a server");
    });
    println!("\nstopped");
    if name.ends_with("-hangs") {
        thread::sleep(Duration::from_secs(600));
    }
}

fn start(name: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    crate::common::process::heed_interrupts();
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "blocking::signal::helper_server", "--nocapture"]).env(ARGUMENT, name);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a process");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("a line"));
    assert!(lines.any(|line| line == "listens"));
    (child, lines)
}

fn tell(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a process");
}

#[test]
fn a_signal_stops_a_threaded_server_gracefully() {
    bounded(|| {
        for signal in [Signal::INT, Signal::TERM] {
            let name = unique_name();
            let (mut child, mut lines) = start(&name);
            assert_eq!(read_all(Stream::connect(&name).expect("a server")), b"hello");
            tell(&child, signal);
            assert!(lines.any(|line| line == "stopped"));
            assert!(child.wait().expect("an end").success());
            drop(Listener::bind(&name).expect("a free name"));
        }
    });
}

#[test]
fn a_second_signal_kills_a_process_that_does_not_stop() {
    bounded(|| {
        let (mut child, mut lines) = start(&format!("{}-hangs", unique_name()));
        tell(&child, Signal::TERM);
        assert!(lines.any(|line| line == "stopped"));
        tell(&child, Signal::INT);
        assert_eq!(child.wait().expect("an end").signal(), Some(Signal::INT.as_raw()));
    });
}
