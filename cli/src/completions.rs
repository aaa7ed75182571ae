//! `sockpipe completions`.

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::generate;

use crate::exit::at_output;
use crate::{args, os};

pub fn run(args: &args::Completions) -> Result<()> {
    // `generate` panics if it cannot write.
    let mut script = Vec::new();
    generate(args.shell, &mut args::Args::command(), "sockpipe", &mut script);
    let mut out = os::stdout();
    out.write_all(&script).and_then(|()| out.flush()).map_err(at_output)
}
