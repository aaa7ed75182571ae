//! HTTP with axum's server, and with hyper's client and curl.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes as BodyBytes;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use axum::serve::Listener as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sockpipe::adapters::{Connector, PeerInfo};
use sockpipe::{
    ConnectOptions, ExpectServer, PeerCredentials, Reason, Stream, TimedListener, UserId,
    WithCredentials, memory,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tower_service::Service;

use crate::common::process::{Running, example, is_here, text};
use crate::common::{Backend, Os, PATIENCE, assert_reason, within};
use crate::{Failing, HttpClient, client};

fn app() -> Router {
    Router::new().route("/whoami", get(whoami)).route("/shout", post(shout))
}

async fn shout(body: BodyBytes) -> Vec<u8> {
    body.to_ascii_uppercase()
}

/// Answers with `USER PID`, or with the reason why they are unknown.
async fn whoami(ConnectInfo(peer): ConnectInfo<PeerInfo>) -> String {
    match peer.credentials() {
        Ok(peer) => format!("{} {}", peer.user(), peer.pid().unwrap_or(0)),
        Err(error) => format!("{:?}: {error}", error.kind()),
    }
}

fn start<L>(listener: L)
where
    L: axum::serve::Listener<Addr: std::fmt::Debug>,
    PeerInfo: for<'a> axum::extract::connect_info::Connected<axum::serve::IncomingStream<'a, L>>,
{
    let app = app().into_make_service_with_connect_info::<PeerInfo>();
    tokio::spawn(async { axum::serve(listener, app).await });
}

fn started() -> Os {
    let os = Os::new();
    start(os.bind().expect("a free name"));
    os
}

async fn ask(client: &HttpClient, method: &str, path: &str, body: Bytes) -> (StatusCode, Bytes) {
    let uri = format!("http://localhost{path}");
    let request = Request::builder().method(method).uri(uri).body(Full::new(body));
    let answer = within(client.request(request.expect("a request"))).await.expect("an answer");
    let status = answer.status();
    let body = within(answer.into_body().collect()).await.expect("a body").to_bytes();
    (status, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_over_64_connections_get_their_own_answers() {
    const CONNECTIONS: usize = 64;
    const REQUESTS: usize = 10_000;

    let os = started();
    let mut connector = Connector::new(os.endpoint()).expect("an endpoint");
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        let stream = within(connector.call(hyper::Uri::from_static("http://localhost/")));
        let stream = stream.await.expect("a connection");
        let (mut sender, connection) = within(http1::handshake(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        clients.spawn(async move {
            let (mut right, mut wrong) = (0, 0);
            for request in (number..REQUESTS).step_by(CONNECTIONS) {
                let body = Bytes::from(format!("request {request} ").repeat(1 + request % 400));
                let shouted = body.to_ascii_uppercase();
                let request = Request::post("/shout").header("host", "localhost");
                let request = request.body(Full::new(body)).expect("a request");
                let answer = async {
                    let answer = sender.send_request(request).await.ok()?;
                    let status = answer.status();
                    let body = answer.into_body().collect().await.ok()?.to_bytes();
                    (status == StatusCode::OK).then_some(body)
                };
                match within(answer).await {
                    Some(body) if body == shouted => right += 1,
                    _ => wrong += 1,
                }
            }
            (right, wrong)
        });
    }
    let (mut right, mut wrong) = (0, 0);
    for (rights, wrongs) in clients.join_all().await {
        right += rights;
        wrong += wrongs;
    }
    println!("{right} requests over {CONNECTIONS} connections, {wrong} errors");
    assert_eq!((right, wrong), (REQUESTS, 0));
}

#[tokio::test]
async fn handlers_see_the_user_and_process_of_their_client() {
    let os = started();
    let (status, body) = ask(&client(os.endpoint()), "GET", "/whoami", Bytes::new()).await;
    assert_eq!(status, StatusCode::OK);
    let told = String::from_utf8(body.into()).expect("UTF-8");
    let (user, pid) = told.rsplit_once(' ').expect("two words");
    assert_eq!(pid, std::process::id().to_string());
    let kind = if cfg!(windows) { "S-1-5-" } else { "uid " };
    assert!(user.starts_with(kind), "{user:?}");
}

/// Users have connections at the same time, and each handler sees its own user.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_see_the_user_of_each_connection() {
    use crate::common::process::Users;
    use crate::common::unix::{OTHER_STRANGER, STRANGER, open_to_all};
    use sockpipe::{Access, ListenOptions, Listener};

    if Users::new().is_none() || !is_here("curl") {
        return;
    }
    let os = open_to_all();
    let options = ListenOptions::new().access(Access::Everyone);
    start(Listener::bind_with(os.endpoint(), &options).expect("a free name"));
    let kept = client(os.endpoint());
    for _ in 0..3 {
        for uid in [STRANGER, OTHER_STRANGER] {
            let path = os.endpoint().to_owned();
            let asked = tokio::task::spawn_blocking(move || {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
                command.args(["--clear-groups", "curl", "--silent", "--fail", "--max-time", "60"]);
                command.args(["--unix-socket", &path, "http://localhost/whoami"]);
                command.output().expect("a process")
            });
            let output = asked.await.expect("no panic");
            let told = text(&output.stdout);
            assert!(told.starts_with(&format!("uid {uid} ")), "{told:?} {output:?}");
        }
        // The kept connection still belongs to its own user.
        let (_, body) = ask(&kept, "GET", "/whoami", Bytes::new()).await;
        let own = format!("uid 0 {}", std::process::id());
        assert_eq!(String::from_utf8(body.into()).expect("UTF-8"), own);
    }
}

#[tokio::test]
async fn a_handler_sees_the_user_that_a_test_chose() {
    let (listener, connector) = memory::pair();
    let visitor = PeerCredentials::from(UserId::Uid(61_034));
    start(WithCredentials::new(listener, visitor));
    let stream = within(connector.connect()).await.expect("a connection");
    let (mut sender, connection) =
        within(http1::handshake(TokioIo::new(stream))).await.expect("HTTP");
    tokio::spawn(connection);
    let request =
        Request::get("http://x/whoami").body(Full::<Bytes>::default()).expect("a request");
    let answer = within(sender.send_request(request)).await.expect("an answer");
    let body = within(answer.into_body().collect()).await.expect("a body").to_bytes();
    assert_eq!(body, "uid 61034 0");
}

#[tokio::test]
async fn in_memory_requests_are_served_without_credentials() {
    let (listener, connector) = memory::pair();
    assert_eq!(axum::serve::Listener::local_addr(&listener).expect("no address"), None);
    start(listener);
    let stream = TokioIo::new(connector.connect().await.expect("a connection"));
    let (mut sender, connection) = http1::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::get("/whoami").header("host", "localhost");
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let answer = within(sender.send_request(request)).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    assert!(body.starts_with(b"Unsupported: "), "{body:?}");
}

#[tokio::test]
async fn a_listener_has_an_address_and_its_clients_have_none() {
    let os = Os::new();
    let mut listener = TimedListener::new(os.bind().expect("a free name"));
    let (_client, (_, address)) =
        within(async { tokio::join!(os.connect(), listener.accept()) }).await;
    assert_eq!(address, None);
    let address = axum::serve::Listener::local_addr(&listener).expect("an address");
    let expected = sockpipe::LocalListener::endpoint(&listener).expect("an address");
    assert_eq!(address, Some(expected));
}

/// The next attempt follows after a pause.
#[tokio::test(start_paused = true)]
async fn a_listener_that_failed_is_tried_again() {
    let (listener, connector) = memory::pair();
    let mut listener = TimedListener::new(Failing::new(listener, 3));
    let _client = connector.connect().await.expect("a connection");
    let started = std::time::Instant::now();
    let clock = tokio::time::Instant::now();
    listener.accept().await;
    // Windows waits by its own clock, which is not paused.
    let waited = clock.elapsed().max(started.elapsed());
    assert!(waited >= Duration::from_millis(2900), "{waited:?}");
}

/// Input that is not HTTP ends its connection, with or without an answer. Other connections go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_ends_its_own_connection() {
    let os = started();
    let good = client(os.endpoint());
    let works = async || {
        let (status, body) = ask(&good, "POST", "/shout", Bytes::from_static(b"hello")).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"HELLO"[..]));
    };
    works().await;
    let endless_header = ["GET / HTTP/1.1\r\nx: ", &"x".repeat(1 << 20)].concat();
    // axum accepts at most 2 MB.
    let header = "POST /shout HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n";
    let large = [header, &"x".repeat(3_000_000)].concat();
    for (garbage, answer) in [
        ("\x16\x03\x01\x02\0\x01\0 no HTTP at all\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/7.7\r\n\r\n", "HTTP/1.1 400"),
        ("POST /shout HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "HTTP/1.1 400"),
        ("POST /shout HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\nhalf", "HTTP/1.1 400"),
        (&large, "HTTP/1.1 413"),
        (&endless_header, "HTTP/1.1 431"),
    ] {
        let mut stream = within(os.connect()).await.expect("a connection");
        // The server may close before it has read everything.
        let _ = within(stream.write_all(garbage.as_bytes())).await;
        let _ = stream.shutdown().await;
        let mut answered = Vec::new();
        within(stream.read_to_end(&mut answered)).await.expect("an end");
        let answered = String::from_utf8_lossy(&answered);
        let start: String = garbage.chars().take(40).collect();
        assert!(answered.is_empty() || answered.starts_with(answer), "{start:?}: {answered}");
        works().await;
    }
    // Clients that leave in the middle of the header or of the body.
    for part in ["GET /who", "POST /shout HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf"] {
        let mut stream = within(os.connect()).await.expect("a connection");
        within(stream.write_all(part.as_bytes())).await.expect("a write");
        drop(stream);
        works().await;
    }
}

#[tokio::test]
async fn a_silent_client_is_disconnected_at_its_deadline() {
    let os = Os::new();
    let deadline = Duration::from_millis(300);
    start(TimedListener::new(os.bind().expect("a free name")).first_byte_deadline(deadline));
    let mut silent = within(os.connect()).await.expect("a connection");
    let mut nothing = Vec::new();
    within(silent.read_to_end(&mut nothing)).await.expect("an end");
    assert!(nothing.is_empty());
    let (_, body) = ask(&client(os.endpoint()), "GET", "/whoami", Bytes::new()).await;
    assert!(!body.is_empty());
}

#[test]
fn a_connector_refuses_an_invalid_endpoint() {
    let error = Connector::new("a/b").expect_err("no endpoint");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn the_connector_fails_with_the_errors_of_connect() {
    let os = Os::new();
    let mut connector = Connector::new(os.endpoint()).expect("an endpoint");
    let error = within(connector.call(hyper::Uri::from_static("http://localhost/"))).await;
    assert_reason!(error, Reason::NoServer, os.endpoint());
    // The connector's options apply: this server is not the expected one.
    start(os.bind().expect("a free name"));
    let expected = ExpectServer::Exactly(UserId::Uid(61_012));
    let mut connector = connector.options(ConnectOptions::new().expect_server(expected));
    let error = within(connector.call(hyper::Uri::from_static("http://localhost/"))).await;
    if cfg!(windows) {
        assert_reason!(error, Reason::Unsupported, os.endpoint());
    } else {
        assert_reason!(error, Reason::UnexpectedServer, os.endpoint());
    }
}

#[tokio::test]
async fn the_client_error_has_the_connect_error_as_source() {
    let os = Os::new();
    let error = within(client(os.endpoint()).get(hyper::Uri::from_static("http://localhost/")));
    let error = anyhow::Error::from(error.await.expect_err("no server"));
    let reason = error.chain().find_map(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>()?;
        sockpipe::Error::of(cause).map(sockpipe::Error::reason)
    });
    assert_eq!(reason, Some(&Reason::NoServer), "{error:#}");
}

/// Runs the example as its header describes. Our client asks it, and curl does where it is
/// installed.
#[tokio::test]
async fn the_http_example_answers_our_client_and_curl() {
    let os = Os::new();
    let mut command = example("http");
    command.arg(os.endpoint());
    let server = Running::start(command);
    let line = server.next_line();
    let address = line.strip_prefix("listening on ").expect("an address").to_owned();
    assert!(Stream::connect(&address).await.is_ok());

    let client = client(os.endpoint());
    let shouted = ask(&client, "POST", "/shout", Bytes::from("olá mundo")).await;
    assert_eq!(shouted, (StatusCode::OK, Bytes::from("OLÁ MUNDO")));
    let (status, body) = ask(&client, "GET", "/whoami", Bytes::new()).await;
    let who = String::from_utf8(body.into()).expect("UTF-8");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(ask(&client, "GET", "/nowhere", Bytes::new()).await.0, StatusCode::NOT_FOUND);

    if cfg!(unix) && is_here("curl") {
        let curl = |arguments: &[&str]| {
            let mut command = Command::new("curl");
            command.args(["--silent", "--max-time", &PATIENCE.as_secs().to_string()]);
            command.args(["--unix-socket", os.endpoint()]).args(arguments);
            text(&command.output().expect("a process").stdout)
        };
        assert_eq!(curl(&["http://localhost/whoami"]), who);
        assert_eq!(curl(&["http://localhost/shout", "-d", "olá mundo"]), "OLÁ MUNDO");
    }
    drop(client);
    #[cfg(unix)]
    {
        server.signal(rustix::process::Signal::TERM);
        let (status, _, err) = server.wait();
        assert!(status.success(), "{err:?}");
        assert!(os.files().is_empty(), "{:?}", os.files());
    }
    #[cfg(windows)]
    server.crash();
}
