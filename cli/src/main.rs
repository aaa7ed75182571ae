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
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::args::{Args, Verb};
use crate::exit::{Exit, INTERRUPTED};

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

/// Prints the output of `--help` or `--version`. clap itself would not report that it cannot.
fn print(help: &clap::Error) -> ExitCode {
    // Writes nothing, as a test: the standard output of std accepts everything if it is closed.
    let takes = os::stdout().write(&[]);
    match takes.and_then(|_| help.print()).and_then(|()| stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&exit::at_output(error)),
    }
}

fn run(verb: Verb) -> Result<()> {
    // Checked before this process opens descriptors of its own, which would be taken for passed
    // ones.
    for number in verb.passed() {
        os::check_passed(number)?;
    }
    os::check_room().context("cannot start")?;
    let runtime = runtime(&verb)?;
    let done = runtime.block_on(async {
        os::bear_file_limit().context("cannot start")?;
        if !os::is_first_process() {
            return carry_out(verb).await;
        }
        os::take_orphans(command::is_one);
        let hears = verb.hears_signals();
        tokio::select! {
            done = carry_out(verb) => done,
            // The system ends the first process only by signals that it handles.
            () = server::asked_to_stop(), if !hears => Err(Exit::silent(INTERRUPTED).into()),
        }
    });
    command::end_all();
    // Threads that still wait for a command's end or for input must not keep the process alive.
    runtime.shutdown_background();
    os::restore_passed();
    done
}

async fn carry_out(verb: Verb) -> Result<()> {
    match verb {
        Verb::Listen(args) => listen::run(args).await,
        Verb::Connect(args) => connect::run(args).await,
        Verb::Echo(args) => echo::run(args).await,
        Verb::Relay(args) => relay::run(*args).await,
        Verb::Info(args) => info::run(args).await,
        Verb::Ping(args) => ping::run(args).await,
        Verb::Clean(args) => clean::run(&args),
        Verb::Completions(args) => completions::run(&args),
    }
}

fn runtime(verb: &Verb) -> Result<Runtime> {
    let mut builder = match verb {
        // These verbs serve several clients at the same time.
        Verb::Listen(_) | Verb::Echo(_) | Verb::Relay(_) => {
            let workers = thread::available_parallelism().map_or(1, NonZero::get);
            if can_start(workers) {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(workers);
                builder
            } else {
                say::detail("there are no threads to be had, so one serves all clients");
                Builder::new_current_thread()
            }
        }
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build().context("cannot start")
}

/// Whether `threads` threads can be started. A runtime that gets fewer than it needs panics.
fn can_start(threads: usize) -> bool {
    let all_run = Arc::new(Mutex::new(()));
    let hold = all_run.lock();
    let started: Result<Vec<_>, _> = (0..threads)
        .map(|_| {
            let all_run = Arc::clone(&all_run);
            thread::Builder::new().spawn(move || drop(all_run.lock()))
        })
        .collect();
    drop(hold);
    let Ok(started) = started else { return false };
    started.into_iter().all(|thread| thread.join().is_ok())
}
