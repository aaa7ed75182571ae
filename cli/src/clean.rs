//! `sockpipe clean`.

use std::io::ErrorKind;

use anyhow::Result;
use sockpipe::Reason;

use crate::exit::{Exit, TAKEN, at_endpoint};
use crate::{args, client, say};

pub fn run(args: &args::Clean) -> Result<()> {
    let endpoint = &args.endpoint;
    let (mut removed, mut failure) = (0, None);
    for candidate in endpoint.resolve().map_err(at_endpoint)? {
        let address = candidate.address();
        match candidate.remove_stale() {
            Ok(true) => {
                removed += 1;
                say::note(format_args!("removed {address}, which a server had left behind"));
            }
            Ok(false) => say::detail(format_args!("nothing to remove at {address}")),
            // The directory does not exist, so nothing can be in it.
            Err(error) if error.kind() == ErrorKind::NotFound => say::detail(error),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let by = match sockpipe::Error::of(&error).map(sockpipe::Error::reason) {
                    Some(Reason::LiveServer { process: Some(pid), .. }) => {
                        format!(", {},", client::process(*pid))
                    }
                    _ => String::new(),
                };

                let what = format!(
                    "{address} is not stale: a server{by} is listening there, and is left alone"
                );
                failure = Some(Exit::new(TAKEN, what));
            }
            Err(error) => failure = Some(at_endpoint(error)),
        }
    }

    match failure {
        Some(failure) => Err(failure.into()),
        None => {
            if removed == 0 {
                say::note(format_args!("nothing to remove: no dead server's name at {endpoint}"));
            }
            Ok(())
        }
    }
}
