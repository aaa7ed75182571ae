//! `sockpipe connect`.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::client::connect;
use crate::exit::at_endpoint;
use crate::session::{self, AtEnd, Ending};
use crate::side::Side;
use crate::{args, say};

/// For the bytes that the peer has not taken yet when all else is done: as long as it takes.
const PATIENCE: Duration = Duration::from_secs(u32::MAX as u64);

pub async fn run(args: args::Connect) -> Result<()> {
    let stream = connect(&args.endpoint, &args.client).await?;
    join(&mut Side::stdio()?, Side::local(stream), args.end.at_end()).await
}

/// Joins standard input and output to `far`, until both have ended or the peer is gone.
///
/// # Errors
///
/// Those of standard input and output; that not all input has arrived; that the peer did not end but
/// reset the connection, so that there may have been more to receive.
pub async fn join(near: &mut Side, mut far: Side, at_end: AtEnd) -> Result<()> {
    let report = session::run(near, &mut far, at_end).await?;
    say::detail(format_args!("sent {} bytes, received {}", report.sent, report.received));
    if report.down == Some(Ending::SourceGone) {
        bail!("the peer reset the connection");
    }
    if report.lost {
        bail!("the peer closed the connection before it had taken all of the input");
    }
    let closed = far.close(PATIENCE).await;
    // A peer that left before the input ended was told nothing that could be lost.
    if report.up.is_some() { closed.map_err(|error| at_endpoint(error).into()) } else { Ok(()) }
}
