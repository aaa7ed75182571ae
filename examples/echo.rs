//! Server and client in one process, over the real transport of this OS: what sockpipe is for, in a
//! few seconds.
//!
//! ```text
//! cargo run --example echo
//! ```

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use sockpipe::{Listener, Stream, echo, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

#[tokio::main]
async fn main() -> Result<()> {
    timeout(Duration::from_secs(30), demonstrate()).await.context("it took too long")?
}

async fn demonstrate() -> Result<()> {
    // One name on every OS; the process id keeps two of these demonstrations apart.
    let name = format!("sockpipe-example-{}", std::process::id());
    let listener = Listener::bind(&name)?;
    println!("server: listening on {}", listener.endpoint());

    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, handle)
        .on_error(|error| eprintln!("server: {error}"))
        .with_graceful_shutdown(async {
            let _ = stopped.await;
        });
    let server = tokio::spawn(server.into_future());

    let mut stream = Stream::connect(&name).await?;
    println!("client: connected to {}", stream.peer_credentials()?.user());
    for message in ["olá mundo", "the same bytes come back", "on every OS"] {
        stream.write_all(message.as_bytes()).await?;
        println!("client: sent      {message}");
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer).await?;
        println!("client: received  {}", String::from_utf8_lossy(&answer));
        sleep(Duration::from_millis(300)).await;
    }

    stream.write_all(b"last words").await?;
    stream.shutdown().await?;
    println!("client: sent      last words, and the end of its side");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("client: received  {answer}, and the end");

    drop(stop);
    let drained = server.await??;
    println!("server: stopped, {} connections were cut", drained.cut());
    let gone = Stream::connect(&name).await.err().context("the server is still there")?;
    println!("client: {:?}, as it should be: {gone}", gone.kind());
    Ok(())
}

async fn handle(mut stream: Stream) -> io::Result<()> {
    let seen = |chunk: &[u8]| println!("server: echoing   {}", String::from_utf8_lossy(chunk));
    echo::echo(&mut stream, seen).await?;
    stream.close(Duration::from_secs(5)).await
}
