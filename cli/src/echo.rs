//! `sockpipe echo`.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use sockpipe::{Stream, echo, serve};

use crate::exit::at_endpoint;
use crate::server::{DRAIN, asked_to_finish, bind_fast, tell_cut};
use crate::{args, client, say};

pub async fn run(args: args::Echo) -> Result<()> {
    let (stop, again) = asked_to_finish();
    let linger = args.linger.for_the_rest();
    let listener = bind_fast(&args.endpoint, &args.server, args.spin, args.memory)?;
    let served = serve(listener, move |stream| handle(stream, linger))
        .with_graceful_shutdown(stop)
        .drain_deadline(DRAIN);
    tokio::select! {
        served = served => tell_cut(served.map_err(at_endpoint)?.cut()),
        // This drops the listener, and with it its name.
        ended = again => return ended,
    }
    Ok(())
}

async fn handle(mut stream: Stream, linger: Duration) {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    say::detail(format_args!("client {number}: {}", client::peer(&stream)));
    let mut done = echo::echo(&mut stream, |_| ()).await;
    if let Ok(bytes) = done {
        done = stream.close(linger).await.map(|()| bytes);
    }
    match done {
        Ok(bytes) => say::detail(format_args!("client {number}: {bytes} bytes")),
        // A client need not wait for its answer, so this deserves no warning.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            say::detail(format_args!("client {number}: left"));
        }
        Err(error) => say::warning(format_args!("client {number}: {error}")),
    }
}
