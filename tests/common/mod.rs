//! Helpers that the test files share. Those that need the async API exist only with its feature.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses a part")]
#![allow(unreachable_pub, reason = "the same files are a crate for others")]
#![allow(clippy::new_without_default, reason = "one way to make a thing is enough for a test")]

#[cfg(feature = "tokio")]
mod backend;
#[cfg(feature = "blocking")]
pub mod bounded;
#[cfg(all(unix, feature = "tokio"))]
pub mod calls;
#[cfg(feature = "tokio")]
pub mod daemon;
#[cfg(windows)]
pub mod foreign;
#[cfg(unix)]
pub mod fork;
pub mod process;
pub mod reason;
#[cfg(all(unix, feature = "tokio"))]
pub mod unix;
#[cfg(windows)]
pub mod wine;

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sockpipe::{ConnectOptions, ListenOptions, SpinPolicy};
use tokio::io::{AsyncRead, AsyncReadExt};

#[cfg(feature = "tokio")]
pub use self::backend::*;
pub use self::reason::*;

/// Long enough for a busy machine. Only a test that fails waits this long.
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

pub async fn read_all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("a read");
    bytes
}

/// Reads to the end, slowly. A writer that ends too early does so while the OS still holds more
/// than it buffers.
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

/// Returns a portable name that no other test and no other process uses.
pub fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Returns the policy of this run. One test of the contract runs all the others again with
/// busy-polling.
pub fn spin_policy() -> SpinPolicy {
    if std::env::var_os(SPIN).is_some() { SpinPolicy::Auto } else { SpinPolicy::Off }
}

/// Returns the options of this run's listeners.
pub fn listen_options() -> ListenOptions {
    let options = ListenOptions::new().spin(spin_policy());
    #[cfg(feature = "shared-memory")]
    let options = options.shared_memory(memory_policy());
    options
}

/// Adds the options of this run's clients to `options`.
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

/// Asserts that a stream that has been busy uses the transport that this run is about.
#[cfg(feature = "shared-memory")]
#[track_caller]
pub fn assert_transport_of_this_run(transport: sockpipe::Transport) {
    let linux = cfg!(all(target_os = "linux", not(sockpipe_posix)));
    let expected = match memory_policy() {
        sockpipe::SharedMemory::Off => sockpipe::Transport::Socket,
        _ if linux => sockpipe::Transport::SharedMemory,
        _ => sockpipe::Transport::Socket,
    };
    assert_eq!(transport, expected);
}

/// The variable that moves streams into shared memory: "auto" or "eager".
pub const MEMORY: &str = "SOCKPIPE_TEST_MEMORY";

/// The variable that turns busy-polling on.
pub const SPIN: &str = "SOCKPIPE_TEST_SPIN";

/// Runs the test `helper` of the calling test file in a process of its own, with its argument in
/// [`argument`]. Without one the helper is a test that does nothing.
pub fn spawn_helper(helper: &str, argument: &str) -> Child {
    helper_command(helper, argument).spawn().expect("a process")
}

/// Runs the test `helper` of the calling test file in a process of its own, to its end, because it
/// looks at what the process has.
#[track_caller]
pub fn run_alone(helper: &str) {
    let output = helper_command(helper, "alone").output().expect("a process");
    let out = String::from_utf8_lossy(&output.stdout);
    println!("{out}");
    assert!(output.status.success(), "{out} {}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains(" 1 passed"), "no test has this name");
}

/// Returns the command that [`spawn_helper`] runs.
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
