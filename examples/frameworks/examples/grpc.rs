//! gRPC, by tonic: the standard health service, asked once and then watched. Server and client are
//! in one process here; nothing about them would be different in two.
//!
//! ```text
//! cargo run --manifest-path examples/frameworks/Cargo.toml --example grpc
//! ```
//!
//! A program of its own needs sockpipe with the feature `tonic` and what its services are made of;
//! these are tonic-health's, which come generated.

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

    // The address is for the `:authority` header; where to connect is the connector's affair.
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

    // Streams that are open hold up tonic's stop.
    drop((changes, client));
    drop(stop);
    server.await??;
    println!("server: stopped");
    Ok(())
}

/// Every call carries who makes it.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn named(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<PeerInfo>().map(PeerInfo::credentials);
    match peer {
        Some(Ok(peer)) => println!("server: a call by {}", peer.user()),
        _ => return Err(Status::unauthenticated("who you are cannot be told")),
    }
    Ok(request)
}
