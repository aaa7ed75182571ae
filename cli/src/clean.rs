//! `sockpipe clean`.

use std::io::ErrorKind;

use anyhow::Result;
use sockpipe::Occupancy;

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
            // There is no such directory, so there is nothing in it.
            Err(error) if error.kind() == ErrorKind::NotFound => say::detail(error),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let by = match candidate.occupancy() {
                    Ok(Occupancy::Held { process: Some(pid), .. }) => {
                        format!(", {},", client::process(pid))
                    }
                    _ => String::new(),
                };
                let what = format!(
                    "{address} is not stale: a server{by} is listening there, and is left alone"
                );
                failure = Some(Exit::new(TAKEN, what));
            }
            Err(error) => {
                let kind = error.kind();
                // The crate speaks of listening, for which it would be removed.
                let what = error.to_string().replace("cannot listen on ", "cannot clean ");
                failure = Some(at_endpoint(std::io::Error::new(kind, what)));
            }
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
