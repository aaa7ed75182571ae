//! Moves bytes both ways between two sides, until both directions have ended.

mod pump;
mod state;

use std::pin::{Pin, pin};
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use self::pump::pump;
pub use self::state::Ending;
use self::state::{Event, State, Way};
use crate::args::Ends;
use crate::exit::{Exit, OUTPUT_CLOSED};
use crate::os::Moved;
use crate::say;
use crate::side::{Side, Sink};

/// How long a command whose client has left may print nothing before the session ends.
const LEFT_BEHIND: Duration = Duration::from_millis(500);
/// More than the systems buffer. A peer that never stops sending is cut off after this many bytes.
const ARRIVED: u64 = 1024 * 1024;
/// A source that returns nothing for this long has returned all that has arrived. Windows takes a
/// moment to read what is there.
const SETTLED: Duration = Duration::from_millis(20);
/// Input that exists when the peer leaves is read within this time, even on a busy machine.
const UNREAD: Duration = Duration::from_millis(100);
/// The most looks at a source that never stops returning bytes.
const MOST_LOOKS: u32 = 10;

/// The result of a session from `near` to `far`.
pub struct Report {
    /// How the direction from near to far ended. `None` if it was still open when the session was
    /// over.
    pub up: Option<Ending>,
    /// How the direction from far to near ended.
    pub down: Option<Ending>,
    pub sent: u64,
    pub received: u64,
    /// Some bytes from `near` did not arrive.
    pub lost: bool,
    /// The session lingered in vain: an answer may have been cut.
    pub cut: bool,
}

/// Moves bytes until both directions have ended, or no more bytes can arrive.
///
/// When this returns, all received bytes are on standard output, whatever ended the session and
/// however long the reader takes. nc and socat also wait for it in their write. A signal still ends
/// the process, and bytes that no reader has taken are lost.
///
/// # Errors
///
/// Returns errors that no peer causes, such as one of standard input or output.
pub async fn run(near: &mut Side, far: &mut Side, ends: Ends) -> Result<Report> {
    let (sent, received) = (Moved::default(), Moved::default());
    let has_stdout = matches!(near.to, Sink::Stdout(_));
    let mut session = Session { state: State::Open, ends, up: None, down: None, failed: None };

    let last = {
        let mut up = pin!(pump(&mut near.from, &mut far.to, &sent, ends.half_close));
        let mut down = pin!(pump(&mut far.from, &mut near.to, &received, true));
        let mut near_gone = pin!(near.watch.gone());
        let mut far_gone = pin!(far.watch.gone());
        // A command need not read all that a departed client sent, or print anything.
        let mut left_behind = pin!(async {
            far.watch.gone().await;
            received.quiet_for(LEFT_BEHIND).await;
        });
        let is_command = near.watch.is_command();

        let last = loop {
            let state = session.state;
            let event = tokio::select! {
                end = &mut up, if state.flows(Way::Up) => session.ended(Way::Up, end),
                end = &mut down, if state.flows(Way::Down) => session.ended(Way::Down, end),
                () = &mut near_gone, if state.watches(Way::Up) => Event::Gone(Way::Up),
                () = &mut far_gone, if state.watches(Way::Down) => Event::Gone(Way::Down),
                () = &mut left_behind, if is_command => Event::Quiet,
                () = session.lingered(&sent, &received) => Event::Quiet,
            };
            session.state = state.after(event, ends.half_close);
            if session.state == State::Draining {
                break (state, event);
            }
        };

        // A relay does not drain: if its peer does not read, nothing shows whether it ever will.
        if has_stdout && session.down.is_none() && last.1 != Event::Gone(Way::Up) {
            if let Some(end) = drain(down.as_mut(), &received).await {
                session.ended(Way::Down, end);
            }
        }
        last
    };

    let reader_gone = has_stdout && last.1 == Event::Gone(Way::Up);
    let flushed = if reader_gone { Ok(()) } else { near.to.flush().await };
    let Session { up, down, failed, .. } = session;
    if let Some(error) = failed {
        return Err(error);
    }
    flushed?;
    if reader_gone {
        return Err(Exit::silent(OUTPUT_CLOSED).into());
    }

    let lost = match up {
        Some(end) => end == Ending::SinkGone,
        None => sent.is_under_way() || near.from.has_more(UNREAD).await,
    };
    let cut = matches!(last, (State::Lingering(_), Event::Quiet));
    Ok(Report { up, down, sent: sent.bytes(), received: received.bytes(), lost, cut })
}

struct Session {
    state: State,
    ends: Ends,
    up: Option<Ending>,
    down: Option<Ending>,
    failed: Option<anyhow::Error>,
}

impl Session {
    /// Notes how a direction ended.
    fn ended(&mut self, way: Way, done: Result<Ending>) -> Event {
        let ending = done.unwrap_or_else(|error| {
            self.failed = Some(error);
            Ending::SourceGone
        });

        match way {
            Way::Up => self.up = Some(ending),
            Way::Down => self.down = Some(ending),
        }
        let waits = self.state == State::Open && self.ends.linger.is_none();
        if waits && self.ends.half_close && (way, ending) == (Way::Up, Ending::Uncarried) {
            say::warning(
                "the server's pipe cannot carry the end of the input, so the server reads it when \
                 the connection is closed; --close does that at once, --linger=SECONDS after that \
                 long without an answer",
            );
        }
        Event::Ended(way, ending)
    }

    /// Returns when the session has lingered for long enough. It never returns if the session does
    /// not linger.
    async fn lingered(&self, sent: &Moved, received: &Moved) {
        match (self.state, self.ends.linger) {
            (State::Lingering(Way::Up), Some(linger)) => received.quiet_for(linger).await,
            (State::Lingering(Way::Down), Some(linger)) => sent.quiet_for(linger).await,
            _ => std::future::pending().await,
        }
    }
}

/// Continues `down` until its source has returned all that has arrived.
async fn drain(
    down: Pin<&mut impl Future<Output = Result<Ending>>>,
    received: &Moved,
) -> Option<Result<Ending>> {
    let taken = async {
        let mut before = received.bytes();
        let limit = before + ARRIVED;
        let mut looks = 0;
        loop {
            sleep(SETTLED).await;
            let now = received.bytes();
            let waits = !received.is_under_way();
            // A slow reader gets more time, a slow source does not.
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
