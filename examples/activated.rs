//! A server that the service manager starts with its socket: systemd's socket activation.
//!
//! ```text
//! cargo build --example activated
//! systemd-socket-activate --listen=/tmp/activated.sock target/debug/examples/activated
//! nc -N -U /tmp/activated.sock        # in a second terminal: it is started now
//! ```
//!
//! The units are in `examples/systemd`. Started without a socket it listens on one of its own.

use anyhow::Result;

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<()> {
    use sockpipe::os::unix::activated_listeners;
    use sockpipe::{ListenOptions, Listener, echo, serve, shutdown_signal};

    let mut given = activated_listeners::<Listener>(&ListenOptions::default())?;
    let listener = match given.len() {
        0 => Listener::bind("activated")?,
        _ => given.remove(0).1,
    };
    let stop = shutdown_signal();
    println!("listening on {}", listener.endpoint());
    serve(listener, |stream| echo::echo(stream, |_| ()))
        .on_error(|error| eprintln!("a connection ended: {error}"))
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    anyhow::bail!("only Unix has service managers that pass sockets")
}
