//! Moves bytes in one direction.

use anyhow::Result;

use super::state::Ending;
use crate::os::Moved;
use crate::side::{Fault, Sink, Source};

/// Moves bytes until the source ends or one side is gone. At the end of the source, passes the end
/// of file on if `passed_on` is set.
pub async fn pump(
    from: &mut Source,
    to: &mut Sink,
    moved: &Moved,
    passed_on: bool,
) -> Result<Ending> {
    loop {
        let chunk = match from.read().await {
            Ok(chunk) => chunk,
            Err(Fault::Gone) => return Ok(Ending::SourceGone),
            Err(Fault::Failed(error)) => return Err(error),
        };
        if chunk.is_empty() {
            let told = if passed_on { to.end().await } else { Ok(true) };
            return match told {
                Ok(true) | Err(Fault::Gone) => Ok(Ending::Carried),
                Ok(false) => Ok(Ending::Uncarried),
                Err(Fault::Failed(error)) => Err(error),
            };
        }

        let length = chunk.len();
        let full = chunk.is_full();
        moved.begin();
        match to.write(chunk).await {
            Ok(()) => moved.finish(length),
            Err(Fault::Gone) => return Ok(Ending::SinkGone),
            Err(Fault::Failed(error)) => return Err(error),
        }

        if full {
            match from.splice(to, moved).await {
                Ok(()) => {}
                Err(Fault::Gone) => return Ok(Ending::SinkGone),
                Err(Fault::Failed(error)) => return Err(error),
            }
        }
    }
}
