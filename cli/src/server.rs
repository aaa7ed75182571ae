//! Listening as the options say, until asked to stop.

use std::future::{Future, pending};
use std::process::exit;

use anyhow::Result;
use sockpipe::{Access, Endpoint, ListenOptions, Listener, shutdown_signal};

use crate::args::Server;
use crate::exit::{INTERRUPTED, at_endpoint};
use crate::say;

pub fn bind(endpoint: &Endpoint, args: &Server) -> Result<Listener> {
    let access = if args.everyone { Access::Everyone } else { Access::Owner };
    let options = ListenOptions::new().access(access);
    let listener = Listener::bind_with(endpoint, &options).map_err(at_endpoint)?;
    say::note(format_args!("listening on {}", listener.endpoint()));
    Ok(listener)
}

/// Completes when the process is asked to stop. A second time ends it at once.
pub async fn stop_asked_for() {
    asked_to_stop().await;
    say::detail("stopping: connections may finish, for up to 5 s");
    let mut second = Box::pin(asked_to_stop());
    // Begun here and now, so that a second one is heard from this moment on.
    tokio::select! {
        biased;
        () = &mut second => exit(i32::from(INTERRUPTED)),
        () = std::future::ready(()) => {}
    }
    tokio::spawn(async {
        second.await;
        exit(i32::from(INTERRUPTED));
    });
}

pub fn asked_to_stop() -> impl Future<Output = ()> {
    async {
        if let Err(error) = shutdown_signal().await {
            say::warning(format_args!("cannot listen for signals: {error}"));
            pending::<()>().await;
        }
    }
}
