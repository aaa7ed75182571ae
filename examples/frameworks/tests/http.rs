//! HTTP with several frameworks over one endpoint: axum, the clients of hyper and reqwest, and
//! WebSockets.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sockpipe::{Connector, Endpoint, TimedListener};
use sockpipe_testing::process::{Running, example};
use sockpipe_testing::{Backend, Os, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

type HttpClient = Client<Connector, Empty<Bytes>>;

/// Longer than the example's deadline between requests.
const LONG: Duration = Duration::from_millis(1500);

fn client(endpoint: &str) -> HttpClient {
    let connector = Connector::new(endpoint).expect("an endpoint");
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn text(client: &HttpClient, path: &str) -> String {
    let address = format!("http://localhost/{path}").parse().expect("an address");
    let answer = within(client.get(address)).await.expect("an answer");
    let body = within(answer.into_body().collect()).await.expect("a body");
    String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8")
}

fn server(os: &Os) -> Running {
    let mut command = example("http_serve");
    command.arg(os.endpoint());
    let server = Running::start(command);
    assert!(server.next_line().starts_with("listening on "));
    server
}

#[tokio::test]
async fn an_idle_client_is_disconnected_and_a_waiting_one_is_not() {
    let os = Os::new();
    let _server = server(&os);
    let client = client(os.endpoint());
    let (slow, events) = tokio::join!(text(&client, "slow"), text(&client, "events"));
    assert_eq!((slow.as_str(), events.as_str()), ("at last", "data: news\n\n"));

    let stream = within(os.connect()).await.expect("a connection");
    let handshake = tokio_tungstenite::client_async("ws://localhost/echo", stream);
    let (mut socket, _) = within(handshake).await.expect("a WebSocket");
    let mut idle = within(os.connect()).await.expect("a connection");
    let begun = Instant::now();
    assert_eq!(within(idle.read(&mut [0; 512])).await.expect("an end"), 0);
    assert!(begun.elapsed() < Duration::from_secs(30));
    tokio::time::sleep(LONG).await;
    within(socket.send(Message::text("still there"))).await.expect("a write");
    let said = within(socket.next()).await.expect("a message").expect("a message");
    assert_eq!(said.into_text().expect("a text").as_str(), "still there");
}

/// The deadline of the server below.
const LIMIT: Duration = Duration::from_millis(300);

/// Uses axum's own loop over a listener with a deadline, which is the obvious way.
fn serve_with_idle_deadline(os: &Os) -> tokio::task::JoinHandle<std::io::Result<()>> {
    let news = async || {
        Sse::new(stream::once(async {
            tokio::time::sleep(3 * LIMIT).await;
            Ok::<_, Infallible>(Event::default().data("news"))
        }))
    };
    let slow = async || {
        tokio::time::sleep(3 * LIMIT).await;
        "at last"
    };
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                drop(socket.send(message).await);
            }
        })
    };

    let listener = TimedListener::new(os.bind().expect("a free name")).idle_deadline(LIMIT);
    let app = Router::new()
        .route("/slow", get(slow))
        .route("/events", get(news))
        .route("/echo", get(echo))
        .route("/hello", get(async || "hello"));
    tokio::spawn(axum::serve(listener, app).into_future())
}

#[tokio::test]
async fn an_idle_deadline_under_axum_serve_keeps_a_waiting_client() {
    let os = Os::new();
    let server = serve_with_idle_deadline(&os);
    let client = client(os.endpoint());
    let (slow, events) = tokio::join!(text(&client, "slow"), text(&client, "events"));
    assert_eq!((slow.as_str(), events.as_str()), ("at last", "data: news\n\n"));

    let stream = within(os.connect()).await.expect("a connection");
    let handshake = tokio_tungstenite::client_async("ws://localhost/echo", stream);
    let (mut socket, _) = within(handshake).await.expect("a WebSocket");
    for _ in 0..2 {
        tokio::time::sleep(3 * LIMIT).await;
        within(socket.send(Message::text("still there"))).await.expect("a write");
        let said = within(socket.next()).await.expect("a message").expect("a message");
        assert_eq!(said.into_text().expect("a text").as_str(), "still there");
    }
    server.abort();
}

#[tokio::test]
async fn an_idle_deadline_under_axum_serve_ends_a_connection_between_requests() {
    let os = Os::new();
    let server = serve_with_idle_deadline(&os);
    for (method, path, end) in [
        ("GET", "hello", "hello"),
        ("HEAD", "hello", "\r\n\r\n"),
        ("GET", "events", "\r\n0\r\n\r\n"),
        ("GET", "slow", "at last"),
    ] {
        let mut stream = within(os.connect()).await.expect("a connection");
        let request = format!("{method} /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        // The second request on a connection is answered like the first.
        for _ in 0..2 {
            within(stream.write_all(request.as_bytes())).await.expect("a request");
            let mut answer = Vec::new();
            while !answer.ends_with(end.as_bytes()) {
                let read = within(stream.read_buf(&mut answer)).await.expect("an answer");
                assert_ne!(read, 0, "{method} {path}: {}", String::from_utf8_lossy(&answer));
            }
        }
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.expect("an end");
        assert!(rest.is_empty(), "{method} {path}: {}", String::from_utf8_lossy(&rest));
    }

    // A client that never sends a request is disconnected as well.
    let mut silent = within(os.connect()).await.expect("a connection");
    assert_eq!(within(silent.read(&mut [0; 512])).await.expect("an end"), 0);
    server.abort();
}

#[tokio::test]
async fn reqwest_connects_to_the_located_address() {
    let os = Os::new();
    let app = Router::new().route("/", get(async || "hello"));
    let server = tokio::spawn(axum::serve(os.bind().expect("a free name"), app).into_future());
    let endpoint = Endpoint::try_from(os.endpoint()).expect("an endpoint");
    let address = within(endpoint.locate()).await.expect("a server");
    let builder = reqwest::Client::builder();
    #[cfg(unix)]
    let builder = builder.unix_socket(address.as_path().expect("a path"));
    #[cfg(windows)]
    let builder = builder.windows_named_pipe(address.to_string());
    let client = builder.build().expect("a client");
    let answer = within(client.get("http://localhost/").send()).await.expect("an answer");
    assert_eq!(within(answer.text()).await.expect("a body"), "hello");
    server.abort();
}
