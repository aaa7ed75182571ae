//! One instance of a program: a second start hands its arguments to the first, and ends.
//!
//! ```text
//! cargo run --example single_instance -- notes.txt    # the editor, in a first terminal
//! cargo run --example single_instance -- more.txt     # in a second terminal: opened in the first
//! ```

use std::time::Duration;

use anyhow::Result;
use sockpipe::SingleInstance;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<()> {
    let files: Vec<_> = std::env::args().skip(1).collect();
    // Heard from here on, so that the name is given back.
    let mut stop = std::pin::pin!(sockpipe::shutdown_signal());
    match SingleInstance::acquire("sockpipe-example-editor").await? {
        SingleInstance::Primary(mut listener) => {
            println!("the first; opening {files:?}. Ctrl-C ends it");
            loop {
                let mut later = tokio::select! {
                    later = listener.accept() => later?,
                    stopped = &mut stop => return Ok(stopped?),
                };
                tokio::spawn(async move {
                    let mut files = String::new();
                    // More than any command line holds is not a list of files.
                    match (&mut later).take(1 << 20).read_to_string(&mut files).await {
                        Ok(_) => println!("opening {:?}", files.lines().collect::<Vec<_>>()),
                        Err(error) => eprintln!("a later start failed: {error}"),
                    }
                });
            }
        }
        SingleInstance::Secondary(mut first) => {
            first.write_all(files.join("\n").as_bytes()).await?;
            first.close(Duration::from_secs(5)).await?;
            println!("it runs already; it opens {files:?}");
            Ok(())
        }
    }
}
