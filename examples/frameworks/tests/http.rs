//! HTTP by several frameworks over one endpoint: axum, hyper's and reqwest's clients, WebSockets.

mod common;

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use common::process::{Running, example};
use common::{Backend, Os, within};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sockpipe::{Connector, Endpoint, Stream, TimedListener};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

type HttpClient = Client<Connector, Empty<Bytes>>;

/// Longer than the example lets pass between requests.
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
async fn a_client_that_waits_is_not_cut_and_one_that_is_idle_is() {
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

/// In the form that comes to mind first.
#[tokio::test]
async fn an_idle_deadline_under_axum_serve_cuts_no_slow_handler() {
    let os = Os::new();
    let limit = Duration::from_millis(200);
    let listener = TimedListener::new(os.bind().expect("a free name")).idle_deadline(limit);
    let app = Router::new().route(
        "/slow",
        get(async move || {
            tokio::time::sleep(3 * limit).await;
            "at last"
        }),
    );
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    assert_eq!(text(&client(os.endpoint()), "slow").await, "at last");
    // Between requests it does cut.
    let mut idle = within(Stream::connect(os.endpoint())).await.expect("a connection");
    assert_eq!(within(idle.read(&mut [0; 512])).await.expect("an end"), 0);
    server.abort();
}

#[tokio::test]
async fn reqwest_asks_at_the_address_that_is_located() {
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
