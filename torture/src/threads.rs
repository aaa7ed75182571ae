//! The same server by the blocking API, with a thread for each connection.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use sockpipe::ListenOptions;
use sockpipe::blocking::{self, Listener, shutdown_signal};
use tokio::io::AsyncReadExt;

use crate::connection::{Blocking, now};
use crate::server::{FIRST_BYTE, IDLE, serve_one, wrong};

/// More than the clients of one server have connections, those that were killed or suspended
/// included.
const THREADS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

pub(crate) fn run(path: &Path, options: &ListenOptions) -> Result<()> {
    let stop = shutdown_signal()?;
    let listener = Arc::new(Listener::bind_with(path, options)?);
    println!("listening");

    let stopping = thread::spawn({
        let listener = Arc::clone(&listener);
        move || {
            let stopped = stop.wait();
            listener.unblock();
            stopped
        }
    });
    blocking::serve(&listener, THREADS, |stream| handle(Blocking(stream)))?;
    stopping.join().expect("no panic").context("no signal")
}

fn handle(mut stream: Blocking) {
    let first = stream.set_limit(FIRST_BYTE).and_then(|()| now(stream.read_u8()));
    let Ok(service) = first else { return };
    match stream.set_limit(IDLE) {
        Ok(()) => now(serve_one(&mut stream, service)),
        Err(error) => wrong(&format!("a limit was refused: {error}")),
    }
}
