//! Netcat for Unix domain sockets and Windows named pipes.

mod args;
mod clean;
mod client;
mod command;
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

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::runtime::Builder;

use crate::args::{Args, Verb};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => return print(&help),
    };
    say::set_level(args.verbose, args.quiet);
    match run(args.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

/// What was asked for, `--help` or `--version`; clap by itself would not say that it cannot.
fn print(help: &clap::Error) -> ExitCode {
    // Of nothing, for std's own takes a closed one for one that takes all.
    let takes = os::stdout().write(&[]);
    match takes.and_then(|_| help.print()).and_then(|()| stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&exit::at_output(error)),
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
        os::bear_file_limit().context("cannot start")?;
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
    command::end_all();
    // What still waits, for a command's end or for input, must not keep the process.
    runtime.shutdown_background();
    done
}
