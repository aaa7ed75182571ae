//! Bytes both ways between two ends, until both have ended.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::say;
use crate::side::{Fault, Side, Sink, Source};

/// How long the other direction may be still before an end that cannot be carried closes all.
const STILL: Duration = Duration::from_millis(500);

/// Of what has arrived when a session ends, more than the systems buffer. A peer that never stops
/// sending is cut off after it.
const ARRIVED: u64 = 1024 * 1024;

/// A source that gives nothing for so long has given what has arrived. Windows takes a moment to
/// read what is there.
const SETTLED: Duration = Duration::from_millis(20);
/// Input that is there when the peer is gone is read within this, also on a busy machine.
const UNREAD: Duration = Duration::from_millis(100);
/// For a source that never gives nothing.
const MOST_LOOKS: u32 = 10;

/// What the end of the near side does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// It is passed on, and the far side can answer until it ends too, whether or not it can be told.
    Waits,
    /// It is passed on; a side that cannot be told is closed when it has nothing more to say. So
    /// for both sides.
    WaitsIfTold,
    /// It closes the far side, once what has arrived from there is taken.
    Closes,
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The source ended, and the sink knows.
    Carried,
    /// The source ended, and the sink cannot be told.
    Uncarried,
    /// The source is gone, in the midst of what it had to say.
    SourceGone,
    /// The sink takes no more.
    SinkGone,
}

/// What became of a session from `near` to `far`.
pub struct Report {
    /// How near to far ended; `None`: it was going on when the session was over.
    pub up: Option<Ending>,
    /// And far to near.
    pub down: Option<Ending>,
    pub sent: u64,
    pub received: u64,
    /// Some of what `near` has given did not arrive.
    pub lost: bool,
}

/// What has been moved in one direction.
#[derive(Default)]
struct Moved {
    bytes: AtomicU64,
    /// Some have been read and not written.
    under_way: AtomicBool,
}

/// Moves bytes until both directions have ended, or no more can come of it.
///
/// What has been received by then is on standard output when this returns, whatever ended the
/// session and however long the reader takes: nc and socat wait for it in their write as well. A
/// signal ends the process all the same, and with it what no reader has taken.
///
/// # Errors
///
/// What is no peer's doing, such as an error of standard input or output.
pub async fn run(near: &mut Side, far: &mut Side, at_end: AtEnd) -> Result<Report> {
    let (sent, received) = (Moved::default(), Moved::default());
    // Of a peer of a relay that does not read, nobody can tell whether it will.
    let kept = matches!(near.to, Sink::Stdout(_));
    let for_command = matches!(near.to, Sink::Command(_));
    let Side { from: near_from, to: near_to, watch: near_watch } = &mut *near;
    let Side { from: far_from, to: far_to, watch: far_watch } = far;
    let (mut up_end, mut down_end) = (None, None);
    let mut failed = None;
    {
        let mut up = pin!(pump(near_from, far_to, &sent, at_end != AtEnd::Closes));
        let mut down = pin!(pump(far_from, near_to, &received, true));
        // One that has ended its side may be gone: then the other direction comes to nothing.
        let mut near_gone = pin!(near_watch.gone());
        let mut far_gone = pin!(far_watch.gone());
        // A command need not read to the end of what a client has left behind, nor say anything.
        let mut left_behind = pin!(async {
            far_watch.gone().await;
            stands_still(&received).await;
        });
        let mut or_failed = |done: Result<Ending>| {
            done.unwrap_or_else(|error| {
                failed = Some(error);
                Ending::SourceGone
            })
        };
        while up_end.is_none() || down_end.is_none() {
            let ends = [up_end, down_end];
            let closed = at_end == AtEnd::Closes && up_end.is_some();
            if closed || ends.contains(&Some(Ending::SourceGone)) {
                break;
            }
            let untold = at_end == AtEnd::WaitsIfTold && ends.contains(&Some(Ending::Uncarried));
            let left = if up_end.is_none() { &sent } else { &received };
            let has_ended = |end: Option<Ending>| end.is_some_and(|end| end != Ending::SinkGone);
            tokio::select! {
                end = &mut up, if up_end.is_none() => up_end = Some(or_failed(end)),
                end = &mut down, if down_end.is_none() => down_end = Some(or_failed(end)),
                () = &mut near_gone, if has_ended(up_end) => break,
                () = &mut far_gone, if has_ended(down_end) => break,
                () = &mut left_behind, if for_command => break,
                () = stands_still(left), if untold => break,
            }
            if at_end == AtEnd::Waits && up_end == Some(Ending::Uncarried) && down_end.is_none() {
                say::warning(
                    "the server's pipe cannot carry the end of the input, so the server reads it \
                     when the connection is closed; --close does that at once",
                );
            }
        }
        if kept && down_end.is_none() {
            down_end = arrived(down.as_mut(), &received).await.map(&mut or_failed);
        }
    }
    let flushed = near.to.flush().await;
    if let Some(error) = failed {
        return Err(error);
    }
    flushed?;
    let lost = match up_end {
        Some(end) => end == Ending::SinkGone,
        None => sent.under_way.into_inner() || near.from.has_more(UNREAD).await,
    };
    let (sent, received) = (sent.bytes.into_inner(), received.bytes.into_inner());
    Ok(Report { up: up_end, down: down_end, sent, received, lost })
}

/// Moves bytes one way, and then the end if the sink is to be `told`.
async fn pump(from: &mut Source, to: &mut Sink, moved: &Moved, told: bool) -> Result<Ending> {
    loop {
        let bytes = match from.read().await {
            Ok(bytes) => bytes,
            Err(Fault::Gone) => return Ok(Ending::SourceGone),
            Err(Fault::Failed(error)) => return Err(error),
        };
        if bytes.is_empty() {
            let told = if told { to.end().await } else { Ok(true) };
            return match told {
                Ok(true) | Err(Fault::Gone) => Ok(Ending::Carried),
                Ok(false) => Ok(Ending::Uncarried),
                Err(Fault::Failed(error)) => Err(error),
            };
        }
        moved.under_way.store(true, Ordering::Relaxed);
        match to.write(bytes).await {
            Ok(()) => moved.under_way.store(false, Ordering::Relaxed),
            Err(Fault::Gone) => return Ok(Ending::SinkGone),
            Err(Fault::Failed(error)) => return Err(error),
        }
        moved.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// Goes on with `down` until its source has given all that has arrived.
async fn arrived(
    down: Pin<&mut impl Future<Output = Result<Ending>>>,
    received: &Moved,
) -> Option<Result<Ending>> {
    let taken = async {
        let mut before = received.bytes.load(Ordering::Relaxed);
        let limit = before + ARRIVED;
        let mut looks = 0;
        loop {
            sleep(SETTLED).await;
            let now = received.bytes.load(Ordering::Relaxed);
            let waits = !received.under_way.load(Ordering::Relaxed);
            // For a slow reader it goes on, for a slow source not.
            looks += u32::from(waits);
            if (waits && (now == before || looks == MOST_LOOKS)) || now >= limit {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        biased;
        end = down => Some(end),
        () = taken => None,
    }
}

async fn stands_still(moved: &Moved) {
    let mut before = moved.bytes.load(Ordering::Relaxed);
    loop {
        sleep(STILL).await;
        let now = moved.bytes.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}
