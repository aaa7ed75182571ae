//! The Docker example talks to servers that answer as a Docker engine does.

use std::process::Output;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use serde_json::json;
use sockpipe::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::process::{example, text};
use crate::common::{Backend, Os, within};

/// Returns a server with the engine's answers, without most of their fields.
fn engine() -> Router {
    let version = json!({
        "Platform": {"Name": "Docker Engine - Community"},
        "Version": "28.3.2",
        "ApiVersion": "1.51",
        "Os": "linux",
        "Arch": "amd64",
    });
    Router::new().route("/_ping", get(async || "OK")).route(
        "/version",
        get(async move || ([("content-type", "application/json")], version.to_string())),
    )
}

/// Returns the listener's address in the form of `DOCKER_HOST`.
fn docker_host(listener: &Listener) -> String {
    let address = listener.endpoint().to_string();
    match address.strip_prefix(r"\\.\pipe\") {
        Some(name) => format!("npipe:////./pipe/{name}"),
        None => format!("unix://{address}"),
    }
}

async fn ping(docker_host: Option<String>) -> Output {
    let mut command = example("docker_ping");
    match docker_host {
        Some(host) => command.env("DOCKER_HOST", host),
        None => command.env_remove("DOCKER_HOST"),
    };
    let output = tokio::task::spawn_blocking(move || command.output().expect("a process"));
    within(output).await.expect("no panic")
}

#[track_caller]
fn failed(output: &Output, says: &[&str]) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for part in says {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_example_prints_the_engines_version() {
    let os = Os::new();
    let listener = os.bind().expect("a free name");
    let (host, address) = (docker_host(&listener), listener.endpoint().to_string());
    tokio::spawn(async { axum::serve(listener, engine()).await });
    let output = ping(Some(host)).await;
    let expected = format!("{address} answers OK\nDocker 28.3.2, API 1.51, linux\n");
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_example_reports_a_wrong_address() {
    let os = Os::new();
    let listener = os.bind().expect("a free name");
    let host = docker_host(&listener);
    drop(listener);
    failed(&ping(Some(host.clone())).await, &["cannot talk to the Docker engine", "no server"]);

    for (host, says) in [
        ("tcp://127.0.0.1:2375", "reached by tcp"),
        ("ssh://me@there", "reached by ssh"),
        ("unix://relative", "wants an absolute path"),
        ("127.0.0.1:2375", "a portable name has no colon in it"),
    ] {
        failed(&ping(Some(host.to_owned())).await, &[says, host]);
    }
    // The example understands the other OS's form, and reports that it does not exist here.
    let (host, says) = if cfg!(windows) {
        ("unix:///var/run/docker.sock", "which Windows does not have")
    } else {
        ("npipe:////./pipe/docker_engine", "which only Windows has")
    };
    failed(&ping(Some(host.to_owned())).await, &[says]);

    // The default of this OS is used, whether this machine has an engine or not.
    let output = ping(None).await;
    let said = text(&output.stdout) + &text(&output.stderr);
    let default = if cfg!(windows) { r"\\.\pipe\docker_engine" } else { "/var/run/docker.sock" };
    assert!(said.contains(default), "{said}");

    let listener = os.bind().expect("a free name");
    let broken = Router::new().route("/_ping", get(async || StatusCode::INTERNAL_SERVER_ERROR));
    tokio::spawn(async { axum::serve(listener, broken).await });
    failed(&ping(Some(host_of(&os))).await, &["GET /_ping: 500"]);
}

/// Returns a portable name on Windows, and a path on Unix.
fn host_of(os: &Os) -> String {
    os.endpoint().to_owned()
}

/// No server, a server that sends half an answer, and a server whose answer does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_example_fails_at_servers_that_are_no_engine() {
    let endless = ["HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n", &"x".repeat(2 << 20)];
    let endless = endless.concat();
    for answer in
        ["", "SSH-2.0-no\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", &endless]
    {
        let os = Os::new();
        let mut listener = os.bind().expect("a free name");
        let answer = answer.to_owned();
        tokio::spawn(async move {
            while let Ok(mut stream) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        failed(&ping(Some(host_of(&os))).await, &["cannot talk to the Docker engine at"]);
    }
}
