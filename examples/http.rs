//! An HTTP server, by axum, that knows which user asks.
//!
//! ```text
//! cargo run --example http --features axum -- /tmp/http.sock            # in a first terminal
//! curl --unix-socket /tmp/http.sock http://localhost/whoami             # in a second one
//! curl --unix-socket /tmp/http.sock http://localhost/shout -d 'olá mundo'
//! ```

use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use sockpipe::adapters::PeerInfo;
use sockpipe::{Listener, TimedListener, shutdown_signal};

#[tokio::main]
async fn main() -> Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "http".to_owned());
    let listener = Listener::bind(endpoint)?;
    let stop = shutdown_signal();
    println!("listening on {}", listener.endpoint());
    // axum's `serve` waits for ever for a request, and at a stop. An idle deadline would cut those
    // who wait for a slow answer.
    let listener = TimedListener::new(listener).first_byte_deadline(Duration::from_secs(10));

    let app = Router::new()
        .route("/whoami", get(whoami))
        // axum refuses bodies of more than 2 MB by itself.
        .route("/shout", post(async |text: String| text.to_uppercase()));
    axum::serve(listener, app.into_make_service_with_connect_info::<PeerInfo>())
        .with_graceful_shutdown(async {
            if let Err(error) = stop.await {
                eprintln!("{error}, so this server stops now");
            }
        })
        .await?;
    Ok(())
}

async fn whoami(ConnectInfo(peer): ConnectInfo<PeerInfo>) -> Result<String, StatusCode> {
    match peer.credentials() {
        Ok(peer) => Ok(format!("{}\n", peer.user())),
        Err(error) => {
            eprintln!("cannot identify a client: {error}");
            Err(StatusCode::FORBIDDEN)
        }
    }
}
