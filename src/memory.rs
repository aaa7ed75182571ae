//! A listener inside the process, of the same trait as the OS's: for tests without a name on the
//! machine, and for a program that is sometimes its own client.
//!
//! ```
//! use sockpipe::{LocalListener, memory};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let (mut listener, connector) = memory::pair();
//! let mut client = connector.connect().await?;
//! let mut server = listener.accept().await?;
//! client.write_all(b"hello").await?;
//! client.shutdown().await?;
//! let mut text = String::new();
//! server.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//! # Ok(())
//! # }
//! ```

use std::io;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::listener::LocalListener;
use crate::options::ConnectOptions;
use crate::stream::LocalStream;

/// Connections that wait for `accept`; the next one is busy.
const BACKLOG: usize = 128;
/// Bytes a stream holds in each direction before a write waits.
const BUFFER: usize = 64 * 1024;

/// A listener, and what connects to it.
#[must_use]
pub fn pair() -> (Listener, Connector) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (Listener { incoming: receiver }, Connector { listener: sender })
}

/// Accepts the connections of its [`Connector`].
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::Receiver<DuplexStream>,
}

impl LocalListener for Listener {
    type Stream = DuplexStream;

    /// # Errors
    ///
    /// `NotConnected` when every connector is gone, so that nobody can connect any more.
    async fn accept(&mut self) -> io::Result<DuplexStream> {
        self.incoming.recv().await.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, "every connector of this listener is gone")
        })
    }

    /// # Errors
    ///
    /// Always `Unsupported`: it has no address.
    fn endpoint(&self) -> io::Result<Endpoint> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a listener in memory has no address"))
    }

    fn into_pending(mut self) -> Vec<DuplexStream> {
        self.incoming.close();
        std::iter::from_fn(|| self.incoming.try_recv().ok()).collect()
    }
}

/// Connects to its [`Listener`]. Clones connect to the same one.
#[derive(Clone, Debug)]
pub struct Connector {
    listener: mpsc::Sender<DuplexStream>,
}

impl Connector {
    /// A new connection, with the default options.
    ///
    /// # Errors
    ///
    /// As for [`connect_with`](Self::connect_with).
    pub async fn connect(&self) -> io::Result<DuplexStream> {
        self.connect_with(&ConnectOptions::default()).await
    }

    /// A new connection. Of the options, the [deadline](ConnectOptions::deadline) counts.
    ///
    /// # Errors
    ///
    /// `NotFound` when the listener is gone, `TimedOut` when its backlog of 128 stays full.
    pub async fn connect_with(&self, options: &ConnectOptions) -> io::Result<DuplexStream> {
        let place = match timeout(options.deadline, self.listener.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the listener in memory is gone",
                ));
            }
            Err(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the listener in memory was too busy to accept within the deadline",
                ));
            }
        };
        let (client, server) = duplex(BUFFER);
        place.send(server);
        Ok(client)
    }
}

impl LocalStream for DuplexStream {}
