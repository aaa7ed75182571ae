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

/// How long to wait for the peer to read the last bytes when everything else is done. It is long
/// enough to mean no limit.
const PATIENCE: Duration = Duration::from_secs(u32::MAX as u64);

/// The warning for a session that lingered in vain.
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
/// Fails if standard input or output fails, if not all input has arrived, or if the peer reset the
/// connection, because there may have been more to receive.
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
    // If the peer left before the input ended, a failed close loses nothing.
    if report.up.is_some() { closed.map_err(|error| at_endpoint(error).into()) } else { Ok(()) }
}
