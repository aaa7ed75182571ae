//! `sockpipe connect`.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::args::Ends;
use crate::client::connect;
use crate::exit::at_endpoint;
use crate::os::Descriptors;
use crate::session::{self, Ending};
use crate::side::Side;
use crate::{args, say};

/// For the bytes that the peer has not taken yet when all else is done: as long as it takes.
const PATIENCE: Duration = Duration::from_secs(u32::MAX as u64);

/// Of a session that lingered in vain.
pub const CUT: &str = "closed although one side had not ended: the other cannot pass its end on, \
                       and nothing more came; --linger waits longer for an answer";

pub async fn run(args: args::Connect) -> Result<()> {
    let stream = connect(&args.endpoint, &args.client, args.spin).await?;
    let far = Side::local(stream, Descriptors::Closed, args.spin)?;
    join(&mut Side::stdio()?, far, args.end.ends()).await
}

/// Joins standard input and output to `far`, until both have ended or the peer is gone.
///
/// # Errors
///
/// Those of standard input and output; that not all input has arrived; that the peer did not end
/// but reset the connection, so that there may have been more to receive.
pub async fn join(near: &mut Side, mut far: Side, ends: Ends) -> Result<()> {
    let report = session::run(near, &mut far, ends).await?;
    say::detail(format_args!("sent {} bytes, received {}", report.sent, report.received));
    if report.down == Some(Ending::SourceGone) {
        bail!("the peer reset the connection");
    }
    if report.lost {
        bail!("the peer closed the connection before it had taken all of the input");
    }
    if report.cut {
        say::warning(CUT);
    }
    let closed = far.close(ends.linger.unwrap_or(PATIENCE)).await;
    // A peer that left before the input ended was told nothing that could be lost.
    if report.up.is_some() { closed.map_err(|error| at_endpoint(error).into()) } else { Ok(()) }
}
