//! A server whose handlers hear of a stop, so that idle clients do not hold it up.
//!
//! ```text
//! cargo run --example graceful        # in a first terminal; then Ctrl-C there
//! cargo run --example echo_client     # in a second terminal: it is asked to leave, and ends
//! ```

use std::io;
use std::time::Duration;

use anyhow::Result;
use sockpipe::{Listener, Stopping, Stream, TimedListener, TimedStream};
use sockpipe::{serve_with, shutdown_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<()> {
    let listener = Listener::bind("echo")?;
    let stop = shutdown_signal();
    println!("listening on {}", listener.endpoint());
    // Who says nothing for a minute is let go of.
    let listener = TimedListener::new(listener).idle_deadline(Duration::from_secs(60));

    let drained = serve_with(listener, handle)
        .on_error(|error| eprintln!("a connection ended: {error}"))
        .max_connections(1000)
        .with_graceful_shutdown(stop)
        .drain_deadline(Duration::from_secs(10))
        .await?;
    println!("{} connections finished, {} were cut", drained.finished(), drained.cut());
    Ok(())
}

async fn handle(mut stream: TimedStream<Stream>, stopping: Stopping) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        // Between two messages is where it can end; within one it is finished first.
        let length = tokio::select! {
            length = stream.read(&mut buffer) => length?,
            () = stopping.requested() => 0,
        };
        if length == 0 {
            return stream.into_inner().close(Duration::from_secs(1)).await;
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
