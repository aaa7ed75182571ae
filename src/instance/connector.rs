//! Connectors: the address of a server as a value, which tests can replace.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use crate::candidate::Occupancy;
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::error::{Operation, during, no_server};
use crate::instance::command::DaemonCommand;
use crate::instance::daemon::connect_or_spawn_with;
use crate::options::ConnectOptions;
use crate::stream::{LocalStream, Stream};

/// A source of connections for a client: a [`Connector`], a
/// [`memory::Connector`](crate::memory::Connector), or a type of your own. It is the client's
/// counterpart of [`LocalListener`](crate::LocalListener).
///
/// Write a client for any of them, and test it without a name on the machine:
///
/// ```
/// use sockpipe::{LocalConnector, memory};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// async fn ask(server: &impl LocalConnector, question: &[u8]) -> std::io::Result<String> {
///     let mut stream = server.connect().await?;
///     stream.write_all(question).await?;
///     stream.shutdown().await?;
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer).await?;
///     Ok(answer)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// // The program's: ask(&Connector::new("org.example.tool")?, b"ping")
/// let (listener, connector) = memory::pair();
/// # use std::future::IntoFuture;
/// # let server = sockpipe::serve(listener, |stream| sockpipe::echo::echo(stream, |_| ()));
/// # let server = tokio::spawn(server.into_future());
/// assert_eq!(ask(&connector, b"ping").await?, "ping");
/// # server.abort();
/// # Ok(())
/// # }
/// ```
pub trait LocalConnector: Send + Sync + 'static {
    /// The type of a connection.
    type Stream: LocalStream;

    /// Makes a connection.
    ///
    /// # Errors
    ///
    /// No server is listening, or the server cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// A connector to one endpoint, which can start the server there.
///
/// ```no_run
/// use std::process::Command;
/// use sockpipe::Connector;
///
/// # async fn run() -> std::io::Result<()> {
/// let connector = Connector::new("org.example.daemon")?.or_spawn(|| {
///     let mut daemon = Command::new("exampled");
///     daemon.args(["--listen", "org.example.daemon"]);
///     daemon
/// });
/// let stream = connector.connect().await?;
/// # drop(stream);
/// # Ok(())
/// # }
/// ```
///
/// With the feature `hyper-util`, clients of hyper and tonic connect through it: see
/// [embedding](crate::docs::embedding).
#[derive(Clone)]
pub struct Connector {
    endpoint: Endpoint,
    options: ConnectOptions,
    daemon: Option<Arc<dyn Fn() -> DaemonCommand + Send + Sync>>,
}

impl Connector {
    /// Creates a connector to `endpoint` with the default options. It does not connect yet.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the endpoint does not parse.
    pub fn new<E>(endpoint: E) -> io::Result<Self>
    where
        E: TryInto<Endpoint>,
        ParseEndpointError: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
        Ok(Self { endpoint, options: ConnectOptions::default(), daemon: None })
    }

    /// Sets the options of each connection.
    #[must_use]
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Starts the program that `daemon` returns if no server is listening, as
    /// [`connect_or_spawn`](crate::connect_or_spawn) does. It does so again when the server has
    /// ended.
    #[must_use]
    pub fn or_spawn<D>(mut self, daemon: impl Fn() -> D + Send + Sync + 'static) -> Self
    where
        D: Into<DaemonCommand>,
    {
        self.daemon = Some(Arc::new(move || daemon().into()));
        self
    }

    /// Returns the endpoint of the server.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes a connection.
    ///
    /// # Errors
    ///
    /// Those of [`Stream::connect_with`]; with [`or_spawn`](Self::or_spawn) those of
    /// [`connect_or_spawn_with`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind, except a daemon that it has started.
    pub async fn connect(&self) -> io::Result<Stream> {
        match &self.daemon {
            None => Stream::connect_with(&self.endpoint, &self.options).await,
            Some(daemon) => connect_or_spawn_with(&self.endpoint, daemon(), &self.options).await,
        }
    }
}

impl Connector {
    /// Returns the address of the server that a client reaches now, for a client that does not use
    /// sockpipe.
    ///
    /// The address is a path, a pipe or an abstract socket. This makes a connection that sends
    /// nothing to the server that [`connect`](Self::connect) would reach. With
    /// [`or_spawn`](Self::or_spawn) it starts the server if there is none.
    ///
    /// ```no_run
    /// # async fn run() -> std::io::Result<()> {
    /// let address = sockpipe::Connector::new("org.example.tool")?.locate().await?;
    /// println!("curl --unix-socket {address} http://localhost/version");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub async fn locate(&self) -> io::Result<Endpoint> {
        drop(self.connect().await?);
        let candidates = self.endpoint.resolve()?;
        if let [only] = &candidates[..] {
            return Ok(only.address());
        }
        let options = self.options.at_once(self.options.limit());
        let mut gone = None;
        for candidate in candidates {
            let address = candidate.address();
            match candidate.occupancy() {
                Ok(Occupancy::Held { .. }) => return Ok(address),
                // Either a server without a lock, or none: a connection shows which.
                Ok(Occupancy::Unclaimed) => match Stream::connect_with(&address, &options).await {
                    Ok(_) => return Ok(address),
                    Err(error) => gone = Some(error),
                },
                _ => {}
            }
        }
        Err(gone.unwrap_or_else(|| {
            during(Operation::Connect, &self.endpoint, no_server(&self.endpoint))
        }))
    }
}

impl Endpoint {
    /// Returns the address of the server that a client reaches now, as [`Connector::locate`] does
    /// with the default options.
    ///
    /// # Errors
    ///
    /// Those of [`Stream::connect`].
    pub async fn locate(&self) -> io::Result<Self> {
        Connector::new(self)?.locate().await
    }
}

impl LocalConnector for Connector {
    type Stream = Stream;

    async fn connect(&self) -> io::Result<Stream> {
        Self::connect(self).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spawns = self.daemon.is_some();
        let mut debug = f.debug_struct("Connector");
        debug.field("endpoint", &self.endpoint).field("options", &self.options);
        debug.field("spawns", &spawns).finish()
    }
}
