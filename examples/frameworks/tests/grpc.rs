//! tonic's server and client.

use std::io;

use sockpipe::adapters::{Incoming, PeerInfo};
use sockpipe::{ConnectOptions, Connector, LocalListener, TimedListener, memory};
use sockpipe_testing::process::{Running, example};
use sockpipe_testing::{Backend, Os, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::service::InterceptorLayer;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Answer;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::{HealthReporter, health_reporter};

/// A listener whose `accept` always fails.
struct Failing(memory::Listener);

impl LocalListener for Failing {
    type Stream = memory::Stream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        Err(io::Error::other("a failure of the test's"))
    }

    fn endpoint(&self) -> io::Result<sockpipe::Endpoint> {
        self.0.endpoint()
    }
}

fn question() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

/// Starts a server that accepts only callers whose user it knows.
fn start<L>(listener: L) -> HealthReporter
where
    L: LocalListener<Stream: tonic::transport::server::Connected<ConnectInfo = PeerInfo>>,
{
    let (reporter, service) = health_reporter();
    let server = Server::builder()
        .layer(InterceptorLayer::new(own_process_only))
        .add_service(service)
        .serve_with_incoming(Incoming::new(listener));
    tokio::spawn(server);
    reporter
}

#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn own_process_only(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<PeerInfo>().map(PeerInfo::credentials) {
        Some(Ok(peer)) if peer.pid() == Some(std::process::id()) => Ok(request),
        other => Err(Status::permission_denied(format!("{other:?}"))),
    }
}

async fn connect(os: &Os) -> HealthClient<Channel> {
    let connector = Connector::new(os.endpoint()).expect("an endpoint");
    let connector = connector.options(ConnectOptions::new());
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector);
    HealthClient::new(within(channel).await.expect("a connection"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_get_their_own_answers() {
    const CHANNELS: usize = 8;
    const TASKS: usize = 4;
    const CALLS: usize = 10_000;

    let os = Os::new();
    let _reporter = start(os.bind().expect("a free name"));
    let mut tasks = JoinSet::new();
    let mut first = 0;
    for _ in 0..CHANNELS {
        let client = connect(&os).await;
        for _ in 0..TASKS {
            let mut client = client.clone();
            tasks.spawn(async move {
                let (mut right, mut wrong) = (0, Vec::new());
                for _ in (first..CALLS).step_by(CHANNELS * TASKS) {
                    match within(client.check(question())).await {
                        Ok(answer) if answer.get_ref().status() == Answer::Serving => right += 1,
                        other => wrong.push(format!("{other:?}")),
                    }
                }
                (right, wrong)
            });
            first += 1;
        }
    }
    let (mut right, mut wrong) = (0, Vec::new());
    for (rights, wrongs) in tasks.join_all().await {
        right += rights;
        wrong.extend(wrongs);
    }
    println!("{right} calls over {CHANNELS} connections, {} errors", wrong.len());
    assert_eq!((right, wrong), (CALLS, Vec::new()));
}

#[tokio::test]
async fn a_watch_receives_changes() {
    let os = Os::new();
    let reporter = start(TimedListener::new(os.bind().expect("a free name")));
    let mut client = connect(&os).await;
    let mut changes = within(client.watch(question())).await.expect("a stream").into_inner();
    for status in [ServingStatus::NotServing, ServingStatus::Serving] {
        let was = within(changes.message()).await.expect("a message").expect("a message");
        reporter.set_service_status("", status).await;
        assert_ne!(was.status().as_str_name(), status.to_string());
    }
    let unknown = HealthCheckRequest { service: "unknown".to_owned() };
    let error = within(client.check(unknown)).await.expect_err("no such service");
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_ends_its_own_connection() {
    let os = Os::new();
    let _reporter = start(os.bind().expect("a free name"));
    let mut good = connect(&os).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // A frame of 16 MiB, which HTTP/2 forbids by default.
    let huge = [&preface[..], b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"].concat();
    for garbage in [&b"no HTTP/2 at all\r\n\r\n"[..], preface, &huge] {
        let mut stream = within(os.connect()).await.expect("a connection");
        let _ = within(stream.write_all(garbage)).await;
        let _ = stream.shutdown().await;
        within(stream.read_to_end(&mut Vec::new())).await.expect("an end");
        within(good.check(question())).await.expect("an answer");
    }
    // A client leaves in the middle of a stream of answers.
    let mut vanishing = connect(&os).await;
    let changes = within(vanishing.watch(question())).await.expect("a stream");
    drop((changes, vanishing));
    within(good.check(question())).await.expect("an answer");
}

/// tonic polls its stream again after an error, so the stream has to end.
#[tokio::test]
async fn a_listener_that_failed_ends_the_server() {
    let (listener, _connector) = memory::pair();
    let incoming = Incoming::new(TimedListener::new(Failing(listener)));
    let (_reporter, service) = health_reporter();
    let server = Server::builder().add_service(service).serve_with_incoming(incoming);
    within(server).await.expect("an end");
}

#[tokio::test]
async fn a_stop_releases_the_name() {
    let os = Os::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let (_reporter, service) = health_reporter();
    let incoming = Incoming::new(os.bind().expect("a free name"));
    let server =
        Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        });
    let server = tokio::spawn(server);
    let mut client = connect(&os).await;
    within(client.check(question())).await.expect("an answer");
    drop(stop);
    drop(client);
    within(server).await.expect("no panic").expect("a stop");
    drop(os.bind().expect("a free name"));
}

#[test]
fn the_grpc_example_prints_its_calls() {
    let (status, out, err) = Running::start(example("grpc")).wait();
    assert!(status.success(), "{err:?}");
    let said = |line: &str| out.iter().any(|said| said == line);
    for line in [
        "client: checked   Serving",
        "client: watching  Serving",
        "client: changed   NotServing",
        "server: stopped",
    ] {
        assert!(said(line), "{line:?} is not in {out:?}");
    }
    let who = if cfg!(windows) { "server: a call by S-1-5-" } else { "server: a call by uid " };
    assert_eq!(out.iter().filter(|line| line.starts_with(who)).count(), 2, "{out:?}");
}
