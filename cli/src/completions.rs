//! `sockpipe completions`.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::generate;

use crate::args;
use crate::exit::at_output;

pub fn run(args: &args::Completions) -> Result<()> {
    // `generate` panics where it cannot write.
    let mut script = Vec::new();
    generate(args.shell, &mut args::Args::command(), "sockpipe", &mut script);
    stdout().write_all(&script).and_then(|()| stdout().flush()).map_err(at_output)
}
