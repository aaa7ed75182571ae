//! Netcat for Unix domain sockets and Windows named pipes.

mod args;
mod clean;
mod client;
mod completions;
mod connect;
mod echo;
mod exit;
mod info;
mod latency;
mod listen;
mod os;
mod ping;
mod procfs;
mod relay;
mod say;
mod server;
mod session;
mod side;
mod stdio;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::runtime::Builder;

use crate::args::{Args, Verb};

fn main() -> ExitCode {
    let args = Args::parse();
    say::set_level(args.verbose, args.quiet);
    match run(args.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run(verb: Verb) -> Result<()> {
    let mut runtime = match verb {
        // Their clients are served side by side.
        Verb::Listen(_) | Verb::Echo(_) | Verb::Relay(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build().context("cannot start")?;
    let done = runtime.block_on(async {
        match verb {
            Verb::Listen(args) => listen::run(args).await,
            Verb::Connect(args) => connect::run(args).await,
            Verb::Echo(args) => echo::run(args).await,
            Verb::Relay(args) => relay::run(args).await,
            Verb::Info(args) => info::run(args).await,
            Verb::Ping(args) => ping::run(args).await,
            Verb::Clean(args) => clean::run(&args),
            Verb::Completions(args) => completions::run(&args),
        }
    });
    // What still waits, for a command's end or for input, must not keep the process.
    runtime.shutdown_background();
    done
}
