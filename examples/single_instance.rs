//! One instance of a program: a second start hands its arguments to the first, and ends.
//!
//! ```text
//! cargo run --example single_instance -- notes.txt    # the editor, in a first terminal
//! cargo run --example single_instance -- more.txt     # in a second terminal: opened in the first
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use sockpipe::{HandOver, Launch, LaunchRequest, Stream, hand_over};

const NAME: &str = "sockpipe-example-editor";

#[tokio::main]
async fn main() -> Result<()> {
    let launch = Launch::of_this_process()?;
    let mut listener = match hand_over(NAME, &launch).await? {
        HandOver::First(listener) => listener,
        HandOver::Taken(reply) => {
            println!("it runs already; it opens {:?}", launch.get_args());
            std::process::exit(reply.exit_code().await?);
        }
    };
    // Heard from here on, so that the name is released. Until here a signal ends the process.
    let mut stop = std::pin::pin!(sockpipe::shutdown_signal());
    println!("the first; opening {:?}. Ctrl-C ends it", launch.get_args());
    loop {
        let later = tokio::select! {
            later = listener.accept() => later?,
            stopped = &mut stop => return Ok(stopped?),
        };
        tokio::spawn(async move {
            if let Err(error) = open(later).await {
                eprintln!("a later start failed: {error}");
            }
        });
    }
}

async fn open(later: Stream) -> Result<()> {
    let request = LaunchRequest::receive(later, Duration::from_secs(5)).await?;
    let launch = request.launch();
    // Relative names are meant from where the later one was started.
    let dir = launch.get_current_dir().unwrap_or_else(|| Path::new("."));
    println!("opening {:?} from {}", launch.get_args(), dir.display());
    request.finish(0).await?;
    Ok(())
}
