//! The choices of a schedule: at random, or one list after the other.

/// Makes the choices of one schedule.
#[derive(Debug)]
pub(super) enum Choices {
    /// The state of a generator. A seed always gives the same schedule.
    Random(u64),
    Listed(Listed),
}

/// One of all schedules that differ from the usual one in at most a number of choices. The usual
/// one takes the first option of each choice.
#[derive(Debug)]
pub(super) struct Listed {
    /// Each choice so far, as the option taken and the number of options.
    taken: Vec<(u64, u64)>,
    /// How many choices of `taken` this schedule has made.
    at: usize,
    most: usize,
}

impl Choices {
    pub(super) fn random(seed: u64) -> Self {
        Self::Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns the choices of the usual schedule, from which others differ in at most `most`
    /// choices.
    pub(super) fn listed(most: usize) -> Self {
        Self::Listed(Listed { taken: Vec::new(), at: 0, most })
    }

    /// Returns a number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        match self {
            Self::Random(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state % limit
            }
            Self::Listed(listed) => listed.below(limit),
        }
    }

    /// Returns `true` in one of `limit` random cases, and as the second option of a listed choice.
    pub(super) fn happens(&mut self, limit: u64) -> bool {
        match self {
            Self::Random(_) => self.below(limit) == 0,
            Self::Listed(listed) => listed.below(2) == 1,
        }
    }

    pub(super) fn are_listed(&self) -> bool {
        matches!(self, Self::Listed(_))
    }

    /// Returns the choices of the next schedule, depth first.
    pub(super) fn next(self) -> Option<Self> {
        let Self::Listed(Listed { mut taken, at, most }) = self else { return None };
        assert_eq!(at, taken.len(), "a schedule that has made other choices than before");
        while let Some((option, options)) = taken.pop() {
            let differs = taken.iter().filter(|(option, _)| *option > 0).count();
            if option + 1 < options && differs < most {
                taken.push((option + 1, options));
                return Some(Self::Listed(Listed { taken, at: 0, most }));
            }
        }
        None
    }
}

impl Listed {
    fn below(&mut self, limit: u64) -> u64 {
        if limit == 1 {
            return 0;
        }
        if self.at == self.taken.len() {
            self.taken.push((0, limit));
        }
        let (option, options) = self.taken[self.at];
        assert_eq!(options, limit, "another choice than before");
        self.at += 1;
        option
    }
}

#[test]
fn each_list_of_choices_comes_once() {
    let (mut choices, mut lists) = (Choices::listed(2), Vec::new());
    loop {
        lists.push([choices.below(2), choices.below(3), choices.below(1), choices.below(2)]);
        let Some(next) = choices.next() else { break };
        choices = next;
    }
    // All lists but the two in which three choices differ.
    assert_eq!(lists.len(), 2 * 3 * 2 - 2);
    lists.sort_unstable();
    lists.dedup();
    assert_eq!(lists.len(), 2 * 3 * 2 - 2);
}
