//! A worker that is connected to the program that started it, without a name: what editors and
//! browsers do. Both are one program here.
//!
//! ```text
//! cargo run --example worker
//! ```

use std::process::Command;

use anyhow::Result;
use sockpipe::Stream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

#[tokio::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--worker") {
        worker().await
    } else {
        parent().await
    }
}

async fn parent() -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    let (mut worker, mut child) = Stream::pair_with_child(command.arg("--worker"))?;
    worker.write_all(b"one\ntwo\nthree\n").await?;
    worker.shutdown().await?;
    let mut answers = String::new();
    worker.read_to_string(&mut answers).await?;
    print!("{answers}");
    child.wait()?;
    Ok(())
}

/// Until its parent wants no more, or is gone.
async fn worker() -> Result<()> {
    let (requests, mut answers) = Stream::from_parent()?.into_split();
    let mut requests = BufReader::new(requests).lines();
    while let Some(request) = requests.next_line().await? {
        answers.write_all(format!("{}\n", request.to_uppercase()).as_bytes()).await?;
    }
    Ok(())
}
