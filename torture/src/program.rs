//! The verbs of the program: the storm, and the processes that it runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

use crate::ways::Ways;
use crate::{client, control, server};

const USAGE: &str = "\
usage: torture [--seconds N] [--seed N] [--shared-memory] [--everything]

  --seconds N   how long the mixed load goes on (default 60)
  --seed N      what decides what happens (default: another one each time, printed)
  --shared-memory   everybody moves into memory from the first bytes on, as far as there is some
  --everything      names of living servers are removed, a cleaner runs, and a third server is
                    upgraded; some processes use shared memory, poll, or use the blocking API";

pub(crate) struct Options {
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    pub(crate) everything: bool,
}

enum Verb {
    Storm(Options),
    Serve { path: PathBuf, log: PathBuf, upgradable: bool },
    Client { path: PathBuf, client: client::Options },
    Victim { path: PathBuf },
    Greedy { path: PathBuf, seed: u64 },
    Usage,
}

pub(crate) fn main() -> ExitCode {
    let verb = match parse() {
        Ok(verb) => verb,
        Err(error) => {
            eprintln!("torture: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(verb: Verb) -> Result<bool> {
    // These clients are many and are only there to be killed or suspended, so one thread each is
    // enough.
    let small = matches!(verb, Verb::Victim { .. } | Verb::Greedy { .. });
    let mut builder = if small {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        match verb {
            Verb::Storm(options) => return control::run(&options).await,
            Verb::Serve { path, log, upgradable } => server::run(&path, &log, upgradable).await?,
            Verb::Client { path, client } => client::run(path, client).await?,
            Verb::Victim { path } => client::victim(&path).await?,
            Verb::Greedy { path, seed } => client::greedy(&path, seed).await?,
            Verb::Usage => println!("{USAGE}"),
        }
        Ok(true)
    })
}

fn parse() -> Result<Verb> {
    let mut parser = lexopt::Parser::from_env();
    let mut options = Options { seconds: 60, seed: fastrand::u64(..1 << 32), everything: false };
    let mut words = Vec::new();
    let mut client = client::Options::default();
    let mut ways = Ways::default();
    let mut upgradable = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("seed") => {
                options.seed = parser.value()?.parse()?;
                client.seed = options.seed;
            }
            Long("log") => client.log = Some(parser.value()?.into()),
            Long("steady") => client.steady = true,
            Long("tasks") => client.tasks = parser.value()?.parse()?,
            Long("upgradable") => upgradable = true,
            Long("shared-memory") => ways.memory = true,
            Long("spin") => ways.spin = true,
            Long("blocking") => ways.blocking = true,
            Long("patient") => ways.patient = true,
            Long("everything") => {
                options.everything = true;
                // The checks before the storm are done in shared memory.
                ways = Ways { memory: true, patient: true, ..ways };
            }
            Long("help") => return Ok(Verb::Usage),
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    ways.set();
    let text: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let path = |at: usize| PathBuf::from(&words[at]);
    Ok(match &text.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        [] => Verb::Storm(options),
        ["serve", _, _] => Verb::Serve { path: path(1), log: path(2), upgradable },
        ["client", _] => Verb::Client { path: path(1), client },
        ["victim", _] => Verb::Victim { path: path(1) },
        ["greedy", _] => Verb::Greedy { path: path(1), seed: options.seed },
        _ => bail!("{:?} is not understood", text.join(" ")),
    })
}
