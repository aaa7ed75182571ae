//! A program with an event loop of its own, as a window has, that does what other processes ask
//! for. It has no runtime: a thread waits for clients, and wakes the loop by the channel that all
//! its events take.
//!
//! ```text
//! cargo run --features blocking --example window                   # in a first terminal
//! echo show settings | sockpipe connect window                     # in a second one
//! echo quit | sockpipe connect window
//! ```
//!
//! With winit the channel is an `EventLoopProxy`, with GTK a `glib` channel, with Win32
//! `PostMessage`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use sockpipe::blocking::{Listener, Stream, serve};

/// The longest line that a client may send.
const LONGEST: u64 = 4096;

enum Event {
    /// From another process, with the place for the answer.
    Asked {
        line: String,
        answer: Sender<String>,
    },
    ServerEnded(io::Result<()>),
}

fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "window".to_owned());
    let listener = Listener::bind(endpoint)?;
    println!("listening on {}", listener.endpoint());
    let (events, inbox) = mpsc::channel();

    thread::scope(|scope| {
        scope.spawn(|| {
            let threads = NonZeroUsize::MIN.saturating_add(3);
            let served = serve(&listener, threads, |stream| {
                if let Err(error) = talk(stream, &events) {
                    eprintln!("a client: {error}");
                }
            });
            let _ = events.send(Event::ServerEnded(served));
        });
        for event in &inbox {
            match event {
                Event::Asked { line, answer } => {
                    println!("asked to {line}");
                    let _ = answer.send(format!("done: {line}"));
                    if line == "quit" {
                        listener.unblock();
                    }
                }
                Event::ServerEnded(served) => return Ok(served?),
            }
        }
        Ok(())
    })
}

/// One client: its lines, and the answers of the loop.
fn talk(stream: Stream, events: &Sender<Event>) -> io::Result<()> {
    // Clients that say nothing hold up one thread each.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(&stream);
    loop {
        let mut line = String::new();
        if (&mut lines).take(LONGEST).read_line(&mut line)? == 0 {
            return stream.close(Duration::from_secs(10));
        }
        let (answer, answered) = mpsc::channel();
        let line = line.trim().to_owned();
        if events.send(Event::Asked { line, answer }).is_err() {
            return Ok(());
        }
        match answered.recv() {
            Ok(answer) => writeln!(&stream, "{answer}")?,
            Err(_) => return Ok(()),
        }
    }
}
