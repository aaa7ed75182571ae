//! `sockpipe relay`.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sockpipe::{Candidate, Endpoint, Listener};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::args::{self, Address, Client};
use crate::connect::join;
use crate::exit::{Exit, INTERRUPTED, USAGE, at_endpoint};
use crate::server::{DRAIN, asked_to_finish, asked_to_stop, bind, tell_cut};
use crate::session::{self, AtEnd};
use crate::side::Side;
use crate::{client, say};

/// As many as a system follows, or more.
const MOST_LINKS: usize = 40;
/// After an error of `accept`, such as no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub async fn run(args: args::Relay) -> Result<()> {
    let target = Arc::new(Target { to: args.to, remote: args.remote, client: args.client });
    match (&args.from, &target.to) {
        (Address::Stdio, Address::Stdio) => {
            let what = "`stdio:` can be one end of the relay, not both";
            Err(Exit::new(USAGE, what).into())
        }
        (Address::Stdio, _) => {
            let far = target.connect().await?;
            join(&mut Side::stdio()?, far, AtEnd::WaitsIfTold).await
        }
        (_, Address::Stdio) => {
            let stop = asked_to_stop();
            let door = Door::open(&args.from, args.remote, &args.server).await?;
            let work =
                async { join(&mut Side::stdio()?, door.first().await?, AtEnd::WaitsIfTold).await };
            tokio::select! {
                done = work => done,
                () = stop => Err(Exit::silent(INTERRUPTED).into()),
            }
        }
        _ => {
            let stop = asked_to_finish();
            target.check(&args.from).await?;
            let door = Door::open(&args.from, args.remote, &args.server).await?;
            serve(door, target, stop).await
        }
    }
}

async fn serve(mut door: Door, target: Arc<Target>, stop: impl Future<Output = ()>) -> Result<()> {
    let mut clients = JoinSet::new();
    let mut stop = pin!(stop);
    for number in 1_u64.. {
        let near = tokio::select! {
            accepted = door.accept(format!("client {number}")) => accepted?,
            () = &mut stop => break,
        };
        let target = Arc::clone(&target);
        clients.spawn(async move {
            if let Err(error) = pass_on(near, &target, number).await {
                say::warning(format_args!("client {number}: {error:#}"));
            }
        });
        while clients.try_join_next().is_some() {}
    }
    drop(door);
    let drained = timeout(DRAIN, async { while clients.join_next().await.is_some() {} });
    if drained.await.is_err() {
        // Those that ended meanwhile were taken out.
        tell_cut(clients.len());
    }
    Ok(())
}

async fn pass_on(mut near: Side, target: &Target, number: u64) -> Result<()> {
    // Where there is nobody the client is closed, as it would be by a server that crashed.
    let mut far = target.connect().await?;
    let report = session::run(&mut near, &mut far, AtEnd::WaitsIfTold).await?;
    let (sent, received) = (report.sent, report.received);
    say::detail(format_args!("client {number}: done, {sent} bytes there, {received} back"));
    // Both at a time. That one has left is no news.
    drop(tokio::join!(near.close(DRAIN), far.close(DRAIN)));
    Ok(())
}

/// Where clients come in.
#[allow(clippy::large_enum_variant, reason = "a relay has one")]
enum Door {
    Local(Listener),
    Tcp(TcpListener),
}

impl Door {
    async fn open(from: &Address, remote: bool, server: &args::Server) -> Result<Self> {
        let address = match from {
            Address::Local(endpoint) => return Ok(Self::Local(bind(endpoint, server)?)),
            Address::Tcp(address) => address,
            Address::Stdio => bail!("`stdio:` is no place to listen"),
        };
        let found = resolve(address, remote).await?;
        let cannot = |error: std::io::Error| {
            let message = format!("cannot listen on tcp:{address}: {error}; choose another port");
            at_endpoint(std::io::Error::new(error.kind(), message))
        };
        let listener = TcpListener::bind(&found[..]).await.map_err(cannot)?;
        let local = listener.local_addr().map_err(cannot)?;
        say::note(format_args!("listening on tcp:{local}"));
        if local.ip().is_loopback() {
            say::detail("every user of this machine can connect to it");
        } else {
            say::warning(format_args!("whoever reaches this machine can connect to tcp:{local}"));
        }
        Ok(Self::Tcp(listener))
    }

    /// The next client. Who it is, is said of `it`.
    async fn accept(&mut self, it: impl Display) -> Result<Side> {
        match self {
            Self::Local(listener) => {
                let stream = listener.accept().await.map_err(at_endpoint)?;
                say::detail(format_args!("{it}: {}", client::peer(&stream)));
                Ok(Side::local(stream))
            }
            Self::Tcp(listener) => loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        say::detail(format_args!("{it}: tcp:{peer}"));
                        return Ok(Side::tcp(stream));
                    }
                    // It has left again, or there are no descriptors for it.
                    Err(error) => {
                        say::detail(format_args!("cannot accept a client: {error}"));
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            },
        }
    }

    /// The one client that there is to be.
    async fn first(mut self) -> Result<Side> {
        self.accept("a client is there").await
    }
}

/// Where clients are passed on to.
struct Target {
    to: Address,
    remote: bool,
    client: Client,
}

impl Target {
    /// What would fail for every client is said before there is one.
    async fn check(&self, from: &Address) -> Result<()> {
        let itself = match (from, &self.to) {
            (Address::Local(from), Address::Local(to)) => {
                let (from, to) = (places(from)?, places(to)?);
                from.iter().any(|from| to.contains(from))
            }
            (Address::Tcp(from), Address::Tcp(to)) => {
                // It listens on the first.
                let from = resolve(from, self.remote).await?.first().copied();
                let to = self.found(to).await?;
                from.is_some_and(|from| to.iter().any(|to| reaches(*to, from)))
            }
            (_, Address::Tcp(to)) => {
                self.found(to).await?;
                false
            }
            (_, Address::Local(to)) => {
                places(to)?;
                false
            }
            (_, Address::Stdio) => false,
        };
        if itself {
            let what = "the relay would connect to itself: FROM and TO are the same address; choose \
                        another one for FROM";
            return Err(Exit::new(USAGE, what).into());
        }
        Ok(())
    }

    /// The addresses of a TO that may be beyond this machine: its name may be found later then.
    async fn found(&self, to: &str) -> Result<Vec<SocketAddr>> {
        match resolve(to, self.remote).await {
            Err(error) if self.remote && !error.is::<Exit>() => {
                say::warning(format_args!("{error:#}"));
                Ok(Vec::new())
            }
            found => found,
        }
    }

    async fn connect(&self) -> Result<Side> {
        match &self.to {
            Address::Local(endpoint) => {
                Ok(Side::local(client::connect(endpoint, &self.client).await?))
            }
            Address::Tcp(address) => {
                let found = resolve(address, self.remote).await?;
                Ok(Side::tcp(TcpStream::connect(&found[..]).await.map_err(|error| {
                    let message = format!("cannot connect to tcp:{address}: {error}");
                    at_endpoint(std::io::Error::new(error.kind(), message))
                })?))
            }
            Address::Stdio => bail!("`stdio:` is no place to connect to"),
        }
    }
}

/// The addresses of an endpoint, each written in one way.
fn places(endpoint: &Endpoint) -> Result<Vec<OsString>> {
    let candidates = endpoint.resolve().map_err(at_endpoint)?;
    let place = |candidate: &Candidate| {
        let address = candidate.address();
        match address.as_path() {
            Some(path) => leads_to(path).into(),
            // Windows takes pipes that differ in case for one.
            None if cfg!(windows) => address.to_string().to_lowercase().into(),
            None => address.to_string().into(),
        }
    };
    Ok(candidates.iter().map(place).collect())
}

/// Where a client of `path` gets to, whether or not something is there.
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

/// Whether who connects to `to` gets to who listens on `from`.
fn reaches(to: SocketAddr, from: SocketAddr) -> bool {
    // One that listens on all addresses of IPv6 hears those of IPv4 too, as a rule.
    let heard = from.is_ipv6() || to.is_ipv4();
    let every = from.ip().is_unspecified() && to.ip().is_loopback() && heard;
    // Port 0 is any that is free.
    from.port() == to.port() && from.port() != 0 && (from.ip() == to.ip() || every)
}

/// The addresses of `HOST:PORT`, all of this machine unless `remote` ones are allowed.
async fn resolve(address: &str, remote: bool) -> Result<Vec<SocketAddr>> {
    let found: Vec<_> =
        lookup_host(address).await.with_context(|| format!("cannot find tcp:{address}"))?.collect();
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
