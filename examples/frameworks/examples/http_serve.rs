//! axum with sockpipe's `serve`: limits per user, a graceful shutdown that open connections are
//! notified of, and a deadline between requests. The deadline does not end a slow handler, a quiet
//! stream of events or a WebSocket.
//!
//! ```text
//! cargo run --manifest-path examples/frameworks/Cargo.toml --example http_serve -- /tmp/http.sock
//! curl --unix-socket /tmp/http.sock http://localhost/whoami             # in a second terminal
//! ```

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use axum::extract::ConnectInfo;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream::{self, Stream as Events};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sockpipe::adapters::PeerInfo;
use sockpipe::{Listener, Stopping, Stream, serve_with, shutdown_signal};
use tokio::time::sleep;

/// The deadline for a request's head, which starts with the connection or the last answer.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "http".to_owned());
    let listener = Listener::bind(endpoint)?;
    let stop = shutdown_signal();
    println!("listening on {}", listener.endpoint());
    let app = Router::new()
        .route("/whoami", get(whoami))
        .route("/slow", get(slow))
        .route("/events", get(events))
        .route("/echo", get(echo));
    let drained =
        serve_with(listener, async move |stream, stopping| http(app, stream, stopping).await)
            .on_error(|error| eprintln!("a connection ended: {error}"))
            .max_connections_per_user(16)
            .with_graceful_shutdown(stop)
            .await?;
    println!("{} connections finished, {} were cut", drained.finished(), drained.cut());
    Ok(())
}

/// Serves one connection.
async fn http(app: Router, stream: Stream, stopping: Stopping) -> hyper::Result<()> {
    let peer = PeerInfo::from(stream.peer_credentials());
    let app = app.layer(Extension(ConnectInfo(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(BETWEEN_REQUESTS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        // The connection answers its current request, and then closes.
        () = stopping.requested() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn whoami(ConnectInfo(peer): ConnectInfo<PeerInfo>) -> String {
    peer.credentials().map_or_else(|error| error.to_string(), |peer| peer.user().to_string())
}

async fn slow() -> &'static str {
    sleep(2 * BETWEEN_REQUESTS).await;
    "at last"
}

async fn events() -> Sse<impl Events<Item = Result<Event, Infallible>>> {
    Sse::new(stream::once(async {
        sleep(2 * BETWEEN_REQUESTS).await;
        Ok(Event::default().data("news"))
    }))
}

async fn echo(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            let answered = match message {
                Message::Text(_) | Message::Binary(_) => socket.send(message).await,
                _ => Ok(()),
            };
            if answered.is_err() {
                break;
            }
        }
    })
}
