//! gRPC with tonic: a client asks the standard health service once, and then watches it. Server and
//! client run in one process here; in two processes the code would be the same.
//!
//! ```text
//! cargo run --manifest-path examples/frameworks/Cargo.toml --example grpc
//! ```
//!
//! Your program needs sockpipe with the feature `tonic`, and the code of its services. This example
//! uses tonic-health, which contains generated code.

use anyhow::{Context, Result};
use sockpipe::Listener;
use sockpipe::adapters::{Connector, Incoming, PeerInfo};
use tokio::sync::oneshot;
use tonic::service::InterceptorLayer;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;

#[tokio::main]
async fn main() -> Result<()> {
    let name = format!("sockpipe-example-grpc-{}", std::process::id());
    let listener = Listener::bind(&name)?;
    println!("server: listening on {}", listener.endpoint());
    let (reporter, service) = health_reporter();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .layer(InterceptorLayer::new(named))
        .add_service(service)
        .serve_with_incoming_shutdown(Incoming::new(listener), async {
            let _ = stopped.await;
        });
    let server = tokio::spawn(server);

    // The address is only for the `:authority` header. The connector determines where to connect.
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(Connector::new(&name)?)
        .await?;
    let mut client = HealthClient::new(channel);
    let question = HealthCheckRequest { service: String::new() };
    let answer = client.check(question.clone()).await?.into_inner();
    println!("client: checked   {:?}", answer.status());

    let mut changes = client.watch(question).await?.into_inner();
    let now = changes.message().await?.context("the server said nothing")?;
    println!("client: watching  {:?}", now.status());
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let then = changes.message().await?.context("the server said nothing more")?;
    println!("client: changed   {:?}", then.status());

    // tonic's graceful shutdown waits for open streams.
    drop((changes, client));
    drop(stop);
    server.await??;
    println!("server: stopped");
    Ok(())
}

/// Adds the caller's user to each call.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn named(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<PeerInfo>().map(PeerInfo::credentials);
    match peer {
        Some(Ok(peer)) => println!("server: a call by {}", peer.user()),
        _ => return Err(Status::unauthenticated("the client's user is unknown")),
    }
    Ok(request)
}
