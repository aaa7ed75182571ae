//! Asks the Docker engine of this machine for its version: the same source on every OS.
//!
//! ```text
//! cargo run --example docker_ping --features hyper-util
//! export DOCKER_HOST=unix:///run/user/1000/docker.sock
//! cargo run --example docker_ping --features hyper-util
//! ```

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sockpipe::Endpoint;
use sockpipe::adapters::Connector;
use tokio::time::timeout;

/// All that differs from one OS to the next.
const DEFAULT: &str =
    if cfg!(windows) { "npipe:////./pipe/docker_engine" } else { "unix:///var/run/docker.sock" };
const DEADLINE: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: usize = 1 << 20;

type Engine = Client<Connector, Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<()> {
    let endpoint = endpoint(std::env::var("DOCKER_HOST").ok().as_deref())?;
    timeout(DEADLINE, ask(&endpoint))
        .await
        .with_context(|| format!("the engine at {endpoint} did not answer in time"))?
        .with_context(|| format!("cannot talk to the Docker engine at {endpoint}"))
}

/// Either form of a local address, on every OS; one that this OS does not have is an error that
/// appears on connecting.
fn endpoint(docker_host: Option<&str>) -> Result<Endpoint> {
    let host = match docker_host {
        None | Some("") => DEFAULT,
        Some(host) => host,
    };
    if let Some((scheme @ ("tcp" | "http" | "https" | "ssh" | "fd"), _)) = host.split_once("://") {
        bail!(
            "DOCKER_HOST={host} is reached by {scheme}, and this program speaks to an engine on \
             this machine only: use unix:///PATH or npipe:////./pipe/NAME"
        );
    }
    host.parse().with_context(|| format!("DOCKER_HOST={host}"))
}

async fn ask(endpoint: &Endpoint) -> Result<()> {
    let engine = Client::builder(TokioExecutor::new()).build(Connector::new(endpoint)?);
    println!("{endpoint} answers {}", get(&engine, "/_ping").await?);
    let version: Value = serde_json::from_str(&get(&engine, "/version").await?)?;
    let field = |name: &str| version[name].as_str().unwrap_or("unknown");
    println!("Docker {}, API {}, {}", field("Version"), field("ApiVersion"), field("Os"));
    Ok(())
}

async fn get(engine: &Engine, path: &str) -> Result<String> {
    // The engine asks for a host and does not look at it.
    let answer = engine.get(format!("http://docker{path}").parse()?).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    ensure!(status.is_success(), "GET {path}: {status}");
    Ok(String::from_utf8(body.into())?)
}
