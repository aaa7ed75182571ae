//! Finds the addresses of both ends of a relay.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use sockpipe::{Candidate, Endpoint};
use tokio::sync::oneshot;

use crate::exit::{Exit, USAGE, at_endpoint};

/// How many links to follow: as many as a system follows, or more.
const MOST_LINKS: usize = 40;

/// Returns the addresses of an endpoint, each in a canonical form.
pub fn places(endpoint: &Endpoint) -> Result<Vec<OsString>> {
    let candidates = endpoint.resolve().map_err(at_endpoint)?;
    let place = |candidate: &Candidate| {
        let address = candidate.address();
        match address.as_path() {
            Some(path) => leads_to(path).into(),
            // Windows ignores the case of pipe names.
            None if cfg!(windows) => address.to_string().to_lowercase().into(),
            None => address.to_string().into(),
        }
    };
    Ok(candidates.iter().map(place).collect())
}

/// Returns the path that a client of `path` reaches, whether or not something is there.
fn leads_to(path: &Path) -> PathBuf {
    let real = |path: &Path| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or_else(|| Path::new(".")).canonicalize().ok();
        dir.zip(path.file_name()).map_or_else(|| path.to_owned(), |(dir, name)| dir.join(name))
    };
    let mut path = real(path);
    for _ in 0..MOST_LINKS {
        let Ok(to) = path.read_link() else { break };
        path = real(&path.with_file_name(to));
    }
    path
}

/// Whether a client of `to` reaches the server on `from`.
pub fn reaches(to: SocketAddr, from: SocketAddr) -> bool {
    // A server that listens on all IPv6 addresses usually accepts IPv4 clients too.
    let heard = from.is_ipv6() || to.is_ipv4();
    let every = from.ip().is_unspecified() && to.ip().is_loopback() && heard;
    // Port 0 stands for any free port.
    from.port() == to.port() && from.port() != 0 && (from.ip() == to.ip() || every)
}

/// Returns the addresses of `HOST:PORT`. All of them have to be loopback addresses unless `remote`
/// ones are allowed.
pub async fn resolve(address: &str, remote: bool) -> Result<Vec<SocketAddr>> {
    let found = look_up(address).await.with_context(|| format!("cannot find tcp:{address}"))?;
    match found.iter().find(|found| !found.ip().is_loopback()) {
        Some(beyond) if !remote => {
            let what = format!(
                "tcp:{address} is {beyond}, which is not this machine's loopback; use \
                 tcp:127.0.0.1:PORT, or allow it with --remote"
            );
            Err(Exit::new(USAGE, what).into())
        }
        _ => Ok(found),
    }
}

/// Resolves the name on a thread of its own, because the runtime may be unable to start one.
async fn look_up(address: &str) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(number) = address.parse() {
        return Ok(vec![number]);
    }
    let (tell, told) = oneshot::channel();
    let address = address.to_owned();
    let look = move || {
        // The task may have ended.
        let _ = tell.send(address.to_socket_addrs().map(Iterator::collect));
    };
    thread::Builder::new().name("lookup".to_owned()).spawn(look)?;
    told.await.unwrap_or_else(|_| Err(ErrorKind::Other.into()))
}
