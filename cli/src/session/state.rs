//! Decides what a session does next, as netcat does: half-close, linger, drain.

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the near side to the far side.
    Up,
    /// From the far side to the near side.
    Down,
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The source ended, and the sink knows.
    Carried,
    /// The source ended, and the sink takes no end of file.
    Uncarried,
    /// The source disappeared before the end of its data.
    SourceGone,
    /// The sink takes no more.
    SinkGone,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Bytes go both ways.
    Open,
    /// This direction has ended and its sink knows. The other goes on until it ends too, or until
    /// the side that has ended is gone.
    HalfClosed(Way),
    /// This direction has ended and its sink takes no end of file. The other goes on until it has
    /// been quiet for as long as the session lingers.
    Lingering(Way),
    /// The sink of this direction takes no more. The other direction goes on until it ends.
    Refused(Way),
    /// Only bytes that have already arrived are still moved.
    Draining,
}

/// What happens to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Ended(Way, Ending),
    /// The source of this direction is gone.
    Gone(Way),
    /// The direction that goes on has been quiet for long enough.
    Quiet,
}

impl State {
    /// Returns the state after `event`. With `half_close`, the near side's end is passed on, and
    /// the far side may still answer. Otherwise that end closes the session.
    pub fn after(self, event: Event, half_close: bool) -> Self {
        match (self, event) {
            (Self::Open, Event::Ended(Way::Up, _)) if !half_close => Self::Draining,
            (Self::Open, Event::Ended(way, ending)) => match ending {
                Ending::Carried => Self::HalfClosed(way),
                Ending::Uncarried => Self::Lingering(way),
                Ending::SinkGone => Self::Refused(way),
                Ending::SourceGone => Self::Draining,
            },
            // The second direction has ended as well, or there is no use in going on with it.
            (_, Event::Ended(..) | Event::Quiet) => Self::Draining,
            (state, Event::Gone(way)) if state.watches(way) => Self::Draining,
            (state, Event::Gone(_)) => state,
        }
    }

    /// Whether bytes still go this way.
    pub fn flows(self, way: Way) -> bool {
        match self {
            Self::Open => true,
            Self::HalfClosed(ended) | Self::Lingering(ended) | Self::Refused(ended) => ended != way,
            Self::Draining => false,
        }
    }

    /// Whether it matters that the source of this direction is gone: it has ended its side, and
    /// without it the other direction is useless.
    pub fn watches(self, way: Way) -> bool {
        matches!(self, Self::HalfClosed(ended) | Self::Lingering(ended) if ended == way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the state after `events`, in a session that passes on the near side's end.
    fn follow(events: &[Event]) -> State {
        events.iter().fold(State::Open, |state, event| state.after(*event, true))
    }

    #[test]
    fn a_half_closed_session_ends_with_its_second_direction() {
        for (first, second) in [(Way::Up, Way::Down), (Way::Down, Way::Up)] {
            let half = follow(&[Event::Ended(first, Ending::Carried)]);
            assert_eq!(half, State::HalfClosed(first));
            assert!(half.flows(second) && !half.flows(first));
            assert_eq!(half.after(Event::Ended(second, Ending::Carried), true), State::Draining);
        }
    }

    #[test]
    fn a_side_that_has_ended_and_is_gone_ends_the_session() {
        for (way, other) in [(Way::Up, Way::Down), (Way::Down, Way::Up)] {
            for ending in [Ending::Carried, Ending::Uncarried] {
                let state = follow(&[Event::Ended(way, ending)]);
                assert_eq!(state.after(Event::Gone(way), true), State::Draining);
                // The other side still reads or writes, and will find out by itself.
                assert_eq!(state.after(Event::Gone(other), true), state);
            }
        }
        assert_eq!(follow(&[Event::Gone(Way::Up)]), State::Open);
    }

    #[test]
    fn a_sink_without_half_close_lingers_until_it_is_quiet() {
        let state = follow(&[Event::Ended(Way::Up, Ending::Uncarried)]);
        assert_eq!(state, State::Lingering(Way::Up));
        assert_eq!(state.after(Event::Quiet, true), State::Draining);
    }

    #[test]
    fn a_closed_sink_leaves_the_other_direction_alone() {
        let state = follow(&[Event::Ended(Way::Down, Ending::SinkGone)]);
        assert!(state.flows(Way::Up) && !state.watches(Way::Down));
        assert_eq!(state.after(Event::Ended(Way::Up, Ending::SinkGone), true), State::Draining);
    }

    #[test]
    fn a_source_that_is_gone_ends_the_session() {
        for way in [Way::Up, Way::Down] {
            assert_eq!(follow(&[Event::Ended(way, Ending::SourceGone)]), State::Draining);
        }
    }

    #[test]
    fn without_half_close_the_near_end_ends_the_session() {
        let ended = |way| State::Open.after(Event::Ended(way, Ending::Carried), false);
        assert_eq!(ended(Way::Up), State::Draining);
        assert_eq!(ended(Way::Down), State::HalfClosed(Way::Down));
    }
}
