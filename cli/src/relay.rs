//! `sockpipe relay`.

mod address;

use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use sockpipe::{Listener, LocalListener, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::address::{places, reaches, resolve};
use crate::args::{self, Address, Client, Ends, Place, Spin};
use crate::connect::{CUT, join};
use crate::exit::{Exit, INTERRUPTED, USAGE, at_endpoint};
use crate::os::Descriptors;
use crate::server::{Bound, DRAIN, asked_to_finish, asked_to_stop, bind, tell_cut};
use crate::session::{self, Ending};
use crate::side::Side;
use crate::{client, os, say};

/// The number of clients up to which the freed memory is not worth giving back.
const MANY: usize = 64;
/// The pause after an error of `accept`, such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub async fn run(args: args::Relay) -> Result<()> {
    let links = Links::new(&args);
    let ends = args.linger.between_programs();

    let target =
        Arc::new(Target { to: args.to, remote: args.remote, client: args.client, links, ends });
    match (&args.from, &target.to) {
        (Address::Stdio, Address::Stdio) => {
            let what = "`stdio:` can be one end of the relay, not both";
            Err(Exit::new(USAGE, what).into())
        }
        (Address::Stdio, _) => {
            let far = target.connect().await?;
            join(&mut Side::stdio()?, far, ends).await
        }
        (_, Address::Stdio) => {
            let stop = asked_to_stop();

            let door = Door::open(&args.from, args.remote, &args.server, args.spin).await?;
            let work = async { join(&mut Side::stdio()?, door.first(links).await?, ends).await };
            tokio::select! {
                done = work => done,
                () = stop => Err(Exit::silent(INTERRUPTED).into()),
            }
        }

        (from, to) if is_one_connection(from) || matches!(to, Address::Passed(_)) => {
            let stop = asked_to_stop();
            target.check(&args.from).await?;
            let door = Door::open(&args.from, args.remote, &args.server, args.spin).await?;
            let work = async { pass_on(door.first(links).await?, &target, 1).await };
            tokio::select! {
                done = work => done,
                () = stop => Err(Exit::silent(INTERRUPTED).into()),
            }
        }

        _ => {
            let (stop, again) = asked_to_finish();
            target.check(&args.from).await?;
            let door = Door::open(&args.from, args.remote, &args.server, args.spin).await?;
            if links.descriptors == Descriptors::Refused {
                door.refuse_descriptors();
            }

            tokio::select! {
                served = serve(door, target, stop) => served,
                ended = again => ended,
            }
        }
    }
}

/// Whether the address is a connection, which can be passed on only once.
fn is_one_connection(address: &Address) -> bool {
    matches!(address, Address::Passed(number) if os::passed_is_connected(*number))
}

async fn serve(mut door: Door, target: Arc<Target>, stop: impl Future<Output = ()>) -> Result<()> {
    let mut clients = Clients::default();
    let mut stop = pin!(stop);
    let mut number = 0_u64;

    loop {
        let near = tokio::select! {
            near = door.accept(format!("client {}", number + 1), target.links) => near?,
            () = clients.one_has_left() => continue,
            () = &mut stop => break,
        };
        number += 1;
        let target = Arc::clone(&target);
        clients.add(async move {
            if let Err(error) = pass_on(near, &target, number).await {
                say::warning(format_args!("client {number}: {error:#}"));
            }
        });
    }

    drop(door);
    let drained = timeout(DRAIN, async { while clients.running.join_next().await.is_some() {} });
    if drained.await.is_err() {
        // Connections that ended meanwhile are no longer in the set.
        tell_cut(clients.running.len());
    }
    Ok(())
}

/// The connections that are passed on.
#[derive(Default)]
struct Clients {
    running: JoinSet<()>,
    /// The most connections at a time since memory was last given back.
    most: usize,
}

impl Clients {
    fn add(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(client);
        self.most = self.most.max(self.running.len());
    }

    /// Returns when a client has left. It never returns while there is none.
    async fn one_has_left(&mut self) {
        if self.running.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        // This takes a while, so it is not done for each client.
        if self.most > MANY && self.running.len() <= self.most / 2 {
            self.most = self.running.len();
            os::give_back_memory();
        }
    }
}

async fn pass_on(mut near: Side, target: &Target, number: u64) -> Result<()> {
    // If no server is listening, the client is closed, as a crashed server would close it.
    let mut far = Box::pin(target.connect()).await?;
    let report = session::run(&mut near, &mut far, target.ends).await?;
    if report.cut {
        say::warning(format_args!("client {number}: {CUT}"));
    }
    let (sent, received) = (report.sent, report.received);
    let reset = |ending| ending == Some(Ending::SourceGone);
    if reset(report.down) {
        say::warning(format_args!("client {number}: the server reset the connection"));
    } else if reset(report.up) {
        say::detail(format_args!("client {number} reset the connection"));
    }
    // The other side sees the reset, as it would without a relay.
    if reset(report.down) {
        near.reset();
    }
    if reset(report.up) {
        far.reset();
    }
    say::detail(format_args!("client {number}: done, {sent} bytes there, {received} back"));
    // Closes both at the same time. A side that has already left causes no error.
    drop(tokio::join!(near.close(DRAIN), far.close(DRAIN)));
    Ok(())
}

/// The settings of both sides of the relay's connections.
#[derive(Clone, Copy)]
struct Links {
    descriptors: Descriptors,
    spin: Spin,
}

impl Links {
    fn new(args: &args::Relay) -> Self {
        let descriptors = match (&args.from, &args.to) {
            (Address::Stdio, _) | (_, Address::Stdio) => Descriptors::Closed,
            (Address::Local(_) | Address::Passed(_), Address::Local(_) | Address::Passed(_))
                if !args.no_descriptors =>
            {
                Descriptors::PassedOn
            }
            _ => Descriptors::Refused,
        };
        Self { descriptors, spin: args.spin }
    }
}

/// The address at which the relay accepts clients.
#[allow(clippy::large_enum_variant, reason = "a relay has one")]
enum Door {
    Local(Bound),
    /// A passed connection, until it is taken.
    Passed(Option<Stream>),
    Tcp(TcpListener),
}

impl Door {
    async fn open(from: &Address, remote: bool, server: &args::Server, spin: Spin) -> Result<Self> {
        let address = match from {
            Address::Local(endpoint) => {
                let place = Place::Endpoint(endpoint.clone());
                return Ok(Self::Local(bind(&place, server, spin)?));
            }
            Address::Passed(number) if os::passed_is_connected(*number) => {
                return Ok(Self::Passed(Some(os::passed_stream(*number)?)));
            }
            Address::Passed(number) => {
                return Ok(Self::Local(bind(&Place::Passed(*number), server, spin)?));
            }
            Address::Tcp(address) => address,
            Address::Stdio => bail!("a relay cannot listen on `stdio:`"),
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
            say::warning(format_args!(
                "any machine that reaches this one can connect to tcp:{local}"
            ));
        }
        Ok(Self::Tcp(listener))
    }

    /// Accepts the next client, and prints its peer as that of `it`.
    async fn accept(&mut self, it: impl Display, links: Links) -> Result<Side> {
        match self {
            Self::Local(listener) => {
                let stream = listener.accept().await.map_err(at_endpoint)?;
                say::detail(format_args!("{it}: {}", client::peer(&stream)));
                Ok(Side::local(stream, links.descriptors, links.spin)?)
            }
            Self::Passed(stream) => match stream.take() {
                Some(stream) => {
                    say::detail(format_args!("{it}: {}", client::peer(&stream)));
                    Ok(Side::local(stream, links.descriptors, links.spin)?)
                }
                None => std::future::pending().await,
            },

            Self::Tcp(listener) => loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        say::detail(format_args!("{it}: tcp:{peer}"));
                        return Ok(Side::tcp(stream, links.spin)?);
                    }
                    // The client has left again, or there are no descriptors for it.
                    Err(error) => {
                        say::detail(format_args!("cannot accept a client: {error}"));
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            },
        }
    }

    /// Keeps clients from passing descriptors, pending clients included.
    fn refuse_descriptors(&self) {
        if let Self::Local(bound) = self {
            let listener: &Listener = bound;
            os::refuse_descriptors(listener);
        }
    }

    /// Accepts the only client.
    async fn first(mut self, links: Links) -> Result<Side> {
        self.accept("a client is there", links).await
    }
}

/// The address that clients are passed on to.
struct Target {
    to: Address,
    remote: bool,
    client: Client,
    links: Links,
    ends: Ends,
}

impl Target {
    /// Reports errors that every client would meet, before there is a client.
    async fn check(&self, from: &Address) -> Result<()> {
        let itself = match (from, &self.to) {
            (Address::Local(from), Address::Local(to)) => {
                let (from, to) = (places(from)?, places(to)?);
                from.iter().any(|from| to.contains(from))
            }
            (Address::Tcp(from), Address::Tcp(to)) => {
                // The relay listens on the first address.
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

            (_, Address::Passed(number)) => {
                drop(os::passed_stream(*number)?);
                false
            }
            (_, Address::Stdio) => false,
        };

        if itself {
            let what = "the relay would connect to itself: FROM and TO are the same address; \
                        choose another one for FROM";
            return Err(Exit::new(USAGE, what).into());
        }
        Ok(())
    }

    /// Returns the addresses of TO. If TO may be on another machine, a failure is only a warning,
    /// because the name may be found later.
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
            Address::Local(endpoint) => self.connect_to(&Place::Endpoint(endpoint.clone())).await,
            Address::Passed(number) => self.connect_to(&Place::Passed(*number)).await,
            Address::Tcp(address) => {
                let found = resolve(address, self.remote).await?;
                let stream = TcpStream::connect(&found[..]).await.map_err(|error| {
                    let message = format!("cannot connect to tcp:{address}: {error}");
                    at_endpoint(std::io::Error::new(error.kind(), message))
                })?;
                Ok(Side::tcp(stream, self.links.spin)?)
            }
            Address::Stdio => bail!("`stdio:` is no place to connect to"),
        }
    }

    async fn connect_to(&self, place: &Place) -> Result<Side> {
        let stream = client::connect(place, &self.client, self.links.spin).await?;
        Ok(Side::local(stream, self.links.descriptors, self.links.spin)?)
    }
}
