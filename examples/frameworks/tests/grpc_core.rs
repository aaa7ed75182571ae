//! A client with gRPC's C core, which Python, C++, Ruby and C# use: Python's `grpcio`.
#![cfg(unix)] // On Windows gRPC's C core has no local endpoints.

use std::process::{Command, Output};

use sockpipe::adapters::Incoming;
use sockpipe_testing::{Backend, Os, within};
use tonic::transport::Server;
use tonic_health::server::health_reporter;

const CLIENT: &str = "
import grpc, sys
from grpc_health.v1 import health_pb2, health_pb2_grpc
target, options = sys.argv[1], [tuple(option.split('=')) for option in sys.argv[2:]]
with grpc.insecure_channel(target, options=options) as channel:
    try:
        request = health_pb2.HealthCheckRequest()
        print(health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status)
    except grpc.RpcError as error:
        print(error.details())
";

/// Returns a Python that has grpcio and grpcio-health-checking, and prints if there is none. With
/// `SOCKPIPE_REQUIRE_PEERS` set it panics instead.
fn python() -> Option<String> {
    let python = std::env::var("SOCKPIPE_GRPC_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import grpc, grpc_health.v1"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let required = std::env::var_os("SOCKPIPE_REQUIRE_PEERS").is_some();
    assert!(!required, "{python} has no grpcio, and SOCKPIPE_REQUIRE_PEERS is set");
    println!("NOT RUN: {python} has no grpcio; SOCKPIPE_GRPC_PYTHON names one that has");
    None
}

async fn ask(python: &str, os: &Os, options: &[&str]) -> String {
    let mut command = tokio::process::Command::new(python);
    command.args(["-c", CLIENT, &format!("unix:{}", os.endpoint())]).args(options);
    let Output { stdout, stderr, .. } = within(command.output()).await.expect("a process");
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    String::from_utf8_lossy(&stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sets_its_authority_is_served() {
    let Some(python) = python() else { return };
    let os = Os::new();
    let (_reporter, service) = health_reporter();
    let incoming = Incoming::new(os.bind().expect("a free name"));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));

    // 1 is SERVING.
    let authority = "grpc.default_authority=localhost";
    assert_eq!(ask(&python, &os, &[authority]).await, "1");
    // A client without the setting fails as the documentation says.
    let refused = ask(&python, &os, &[]).await;
    assert!(refused.contains("RST_STREAM"), "{refused}");
}
