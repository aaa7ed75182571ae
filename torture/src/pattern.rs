//! The bytes that are sent. A seed determines them, so both ends know each of them.

/// The bytes of a seed, one after the other.
pub(crate) struct Pattern {
    seed: u64,
    at: u64,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }

    /// Fills `into` with the next bytes.
    pub(crate) fn fill(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            let word = self.word().to_le_bytes();
            let start = (self.at % 8) as usize;
            let length = into.len().min(8 - start);
            let (now, later) = into.split_at_mut(length);
            now.copy_from_slice(&word[start..start + length]);
            into = later;
            self.at += length as u64;
        }
    }

    /// Reports whether these are the next bytes.
    pub(crate) fn is_next(&mut self, bytes: &[u8]) -> bool {
        let mut right = [0; 4096];
        bytes.chunks(right.len()).all(|bytes| {
            let right = &mut right[..bytes.len()];
            self.fill(right);
            right == bytes
        })
    }

    /// Returns the word that contains the next byte: a mix of the seed and the word's position, so
    /// that lost, duplicated or swapped bytes show.
    fn word(&self) -> u64 {
        let mut word = self.seed ^ (self.at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_same_in_pieces_of_any_length() {
        let mut whole = vec![0; 100_003];
        Pattern::new(7).fill(&mut whole);
        let (mut writer, mut reader) = (Pattern::new(7), Pattern::new(7));
        let mut rest = &whole[..];
        for length in (0..).map(|turn| turn * 37 % 5000) {
            if length > rest.len() {
                break;
            }
            let mut piece = vec![0; length];
            writer.fill(&mut piece);
            assert_eq!(piece, rest[..length]);
            assert!(reader.is_next(&piece));
            rest = &rest[length..];
        }
        assert!(!Pattern::new(7).is_next(&whole[1..]));
        assert!(!Pattern::new(8).is_next(&whole));
    }
}
