//! A storm over sockpipe that judges itself. Clients of all kinds are killed and suspended. One
//! server lives for the whole run; another is killed every ten seconds.
//!
//! ```console
//! $ cargo run --release -p sockpipe-torture -- --seconds 600
//! ```
//!
//! The exit code is 0 without a fault, 1 with one, and 2 if the storm could not run.

#[cfg(target_os = "linux")]
mod checks;
#[cfg(target_os = "linux")]
mod cleaner;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod everything;
#[cfg(target_os = "linux")]
mod flat;
#[cfg(target_os = "linux")]
mod jobs;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod pattern;
#[cfg(target_os = "linux")]
mod places;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod renewed;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod storm;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(target_os = "linux")]
mod ways;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("torture: it suspends processes and reads /proc, so it runs on Linux only");
    std::process::ExitCode::from(2)
}
