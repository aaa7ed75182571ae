//! A server whose next version takes over from it, without a moment in which nobody listens.
//!
//! ```text
//! cargo run --example upgrade    # serves
//! cargo run --example upgrade    # in a second terminal: takes over, and the first one ends
//! ```
//!
//! The example `echo_client` talks to it: `cargo run --example echo_client
//! sockpipe-example-upgrade`.

#[cfg(unix)]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    use std::time::Duration;

    use sockpipe::os::unix::{ListenOptionsExt, take_over};
    use sockpipe::{ListenOptions, echo, serve, shutdown_signal};

    let options = ListenOptions::new().upgradable(true);
    let limit = Duration::from_secs(10);
    let listener = take_over("sockpipe-example-upgrade", &options, limit).await?;
    // Only now: until here a signal ends the process at once.
    let stop = shutdown_signal();
    println!("process {} listens on {}", std::process::id(), listener.endpoint());
    let drained =
        serve(listener, |stream| echo::echo(stream, |_| ())).with_graceful_shutdown(stop).await?;
    println!("{} connections finished, {} were cut", drained.finished(), drained.cut());
    Ok(())
}

/// On Windows the next version waits for the end of the old one, with `Listener::bind_wait`.
#[cfg(windows)]
fn main() {}
