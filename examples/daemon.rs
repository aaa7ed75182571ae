//! A client that starts its daemon when there is none. Client and daemon are one program here.
//!
//! ```text
//! cargo run --example daemon    # starts the daemon, and is answered by it
//! cargo run --example daemon    # is answered by the same; in a second terminal too
//! ```
//!
//! The daemon ends when nobody has asked it for 30 seconds.

use std::io;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use sockpipe::{Listener, Stream, connect_or_spawn, serve, shutdown_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "sockpipe-example-daemon";

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--serve") {
        daemon().await
    } else {
        client().await
    }
}

async fn client() -> Result<()> {
    let mut daemon = Command::new(std::env::current_exe()?);
    daemon.arg("--serve");
    let mut stream = connect_or_spawn(NAME, daemon).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    Ok(())
}

async fn daemon() -> Result<()> {
    let listener = Listener::bind(NAME)?;
    let stop = shutdown_signal();
    serve(listener, handle)
        .on_error(|error| eprintln!("a connection ended: {error}"))
        .with_graceful_shutdown(stop)
        .stop_when_idle(Duration::from_secs(30))
        .await?;
    Ok(())
}

async fn handle(mut stream: Stream) -> io::Result<()> {
    let hello = format!("hello from the daemon, process {}", std::process::id());
    stream.write_all(hello.as_bytes()).await?;
    stream.close(Duration::from_secs(1)).await
}
