//! A storm over sockpipe that judges itself: clients of all sorts, killed and suspended, over a
//! server that lives for the whole run and one that is killed every ten seconds.
//!
//! ```console
//! $ cargo run --release -p sockpipe-torture -- --seconds 600
//! ```
//!
//! Exit code: 0 nothing is wrong, 1 something is, 2 it could not run.

#[cfg(target_os = "linux")]
mod checks;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod jobs;
#[cfg(target_os = "linux")]
mod pattern;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("torture: it suspends processes and reads /proc, so it runs on Linux only");
    std::process::ExitCode::from(2)
}
