//! The transports of the async API as the contract sees them.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use sockpipe::{ConnectOptions, Listener, LocalListener, LocalStream, Stream, memory};
use tempfile::TempDir;

use super::{listen_options, of_this_run, unique_name};

/// A transport as the contract sees it: one name to bind and to connect to.
pub trait Backend: Send + Sync + 'static {
    type Listener: LocalListener<Stream = Self::Stream>;
    type Stream: LocalStream;

    /// Creates a transport with an unused name.
    fn new() -> Self;
    fn bind(&self) -> io::Result<Self::Listener>;
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// The transport of this OS.
pub struct Os {
    endpoint: String,
    /// The socket's directory on Unix, which contains only what sockpipe puts there.
    dir: Option<TempDir>,
}

impl Os {
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the names of the files in the socket's directory. On Windows there is none.
    pub fn files(&self) -> Vec<String> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let entries = dir.path().read_dir().expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Returns the transport with `name` as the file name of its socket.
    pub fn named(self, name: &str) -> Self {
        let endpoint = self.dir().join(name).to_str().expect("UTF-8").to_owned();
        Self { endpoint, ..self }
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.as_ref().expect("Unix only").path().to_owned()
    }

    pub async fn connect_with(&self, options: &ConnectOptions) -> io::Result<Stream> {
        Stream::connect_with(self.endpoint(), &of_this_run(options.clone())).await
    }
}

impl Backend for Os {
    type Listener = Listener;
    type Stream = Stream;

    fn new() -> Self {
        if cfg!(windows) {
            return Self { endpoint: unique_name(), dir: None };
        }
        let dir = tempfile::Builder::new().prefix("sockpipe").tempdir().expect("a directory");
        let endpoint = dir.path().join("s.sock").to_str().expect("UTF-8").to_owned();
        Self { endpoint, dir: Some(dir) }
    }

    fn bind(&self) -> io::Result<Listener> {
        Listener::bind_with(&self.endpoint, &listen_options())
    }

    async fn connect(&self) -> io::Result<Stream> {
        self.connect_with(&ConnectOptions::new()).await
    }
}

/// The listener inside the process.
pub struct Memory {
    listener: Mutex<Option<memory::Listener>>,
    connector: memory::Connector,
}

impl Backend for Memory {
    type Listener = memory::Listener;
    type Stream = memory::Stream;

    fn new() -> Self {
        let (listener, connector) = memory::pair();
        Self { listener: Mutex::new(Some(listener)), connector }
    }

    fn bind(&self) -> io::Result<memory::Listener> {
        let listener = self.listener.lock().expect("no panic").take();
        Ok(listener.expect("a listener in memory has no name to bind again"))
    }

    async fn connect(&self) -> io::Result<memory::Stream> {
        self.connector.connect().await
    }
}
