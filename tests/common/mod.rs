//! What the test files share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod daemon;
#[cfg(windows)]
pub mod foreign;
pub mod process;
#[cfg(unix)]
pub mod unix;
#[cfg(windows)]
pub mod wine;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sockpipe::{
    ConnectOptions, ListenOptions, Listener, LocalListener, LocalStream, SpinPolicy, Stream, memory,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Long enough for a machine under load: only a test that fails waits this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[track_caller]
pub fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("no end after {PATIENCE:?}, at {caller}"),
        }
    }
}

#[track_caller]
pub fn assert_error<T>(outcome: io::Result<T>, kind: io::ErrorKind, says: &[&str]) -> io::Error {
    let Err(error) = outcome else { panic!("no error, where {kind:?} was to be") };
    assert_eq!(error.kind(), kind, "{error}");
    for part in says {
        assert!(error.to_string().contains(part), "{part:?} is not in {error:?}");
    }
    error
}

pub async fn read_all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("a read");
    bytes
}

/// Reads to the end as a reader that is late does: a writer that could end too early has the time
/// to, while the OS still has more than it buffers.
pub async fn read_late(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(async {
        while (&mut *stream).take(32 * 1024).read_to_end(&mut bytes).await.expect("a read") > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    bytes
}

/// A portable name that no other test and no other process has.
pub fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A transport as the contract sees it: one name, to bind and to connect to.
pub trait Backend: Send + Sync + 'static {
    type Listener: LocalListener<Stream = Self::Stream>;
    type Stream: LocalStream;

    /// With a name that nobody has.
    fn new() -> Self;
    fn bind(&self) -> io::Result<Self::Listener>;
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// The transport of this OS.
pub struct Os {
    endpoint: String,
    /// Unix: where the socket is, alone but for what sockpipe puts beside it.
    dir: Option<TempDir>,
}

impl Os {
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What stands in the socket's directory; on Windows there is none.
    pub fn files(&self) -> Vec<String> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let entries = dir.path().read_dir().expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// With the socket called `name`.
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

/// That of the run: a test of the contract runs all the others again with busy-polling.
pub fn spin_policy() -> SpinPolicy {
    if std::env::var_os(SPIN).is_some() { SpinPolicy::Auto } else { SpinPolicy::Off }
}

/// What the listeners of the run have.
pub fn listen_options() -> ListenOptions {
    let options = ListenOptions::new().spin(spin_policy());
    #[cfg(feature = "shared-memory")]
    let options = options.shared_memory(memory_policy());
    options
}

/// What the clients of the run have besides.
pub fn of_this_run(options: ConnectOptions) -> ConnectOptions {
    let options = options.spin(spin_policy());
    #[cfg(feature = "shared-memory")]
    let options = options.shared_memory(memory_policy());
    options
}

#[cfg(feature = "shared-memory")]
fn memory_policy() -> sockpipe::SharedMemory {
    match std::env::var(MEMORY).as_deref() {
        Ok("eager") => sockpipe::SharedMemory::Eager,
        Ok(_) => sockpipe::SharedMemory::Auto,
        Err(_) => sockpipe::SharedMemory::Off,
    }
}

/// The variable that moves streams into shared memory: "auto" or "eager".
pub const MEMORY: &str = "SOCKPIPE_TEST_MEMORY";

/// The variable that turns busy-polling on.
pub const SPIN: &str = "SOCKPIPE_TEST_SPIN";

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

/// Runs the test `helper` of the calling test file in a process of its own, with its argument in
/// [`argument`]. Without one the helper is a test that does nothing.
pub fn spawn_helper(helper: &str, argument: &str) -> Child {
    helper_command(helper, argument).spawn().expect("a process")
}

/// What [`spawn_helper`] runs.
pub fn helper_command(helper: &str, argument: &str) -> Command {
    let program = std::env::current_exe().expect("the test's own program");
    let mut command = Command::new(program);
    command
        .args(["--exact", helper, "--nocapture"])
        .env("SOCKPIPE_TEST_HELPER", argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

pub fn argument() -> Option<String> {
    std::env::var("SOCKPIPE_TEST_HELPER").ok()
}
