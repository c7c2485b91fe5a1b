//! How much there is between a position and the head, about: bytes of lines, and how old.
//!
//! Invariants: the marks are in order, and at most [`MAX_MARKS`]; what is told is off by no more than what lies between two of them.

use std::collections::VecDeque;

use tailwater_model::Timestamp;

/// Bytes of lines between two marks at most, unless there would be too many.
const MARK_BYTES: u64 = 1 << 20;

/// Time between two marks at most, in nanoseconds.
const MARK_NANOS: i64 = 10_000_000_000;

/// Most marks; of more, every other one goes.
const MAX_MARKS: usize = 1 << 16;

/// See the module's words.
#[derive(Debug, Default)]
pub(super) struct Tide {
    marks: VecDeque<TideMark>,
}

/// A batch of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TideMark {
    pub(super) seq: u64,
    /// Bytes of all lines before it.
    pub(super) before: u64,
    pub(super) accepted_at: Timestamp,
}

impl Tide {
    /// A batch has come.
    pub(super) fn add(&mut self, seq: u64, before: u64, accepted_at: Timestamp) {
        let is_far = |last: &TideMark| {
            before.saturating_sub(last.before) >= MARK_BYTES
                || accepted_at.nanos().saturating_sub(last.accepted_at.nanos()) >= MARK_NANOS
        };
        if self.marks.back().is_none_or(is_far) {
            if self.marks.len() >= MAX_MARKS {
                let mut odd = false;
                self.marks.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
            self.marks.push_back(TideMark { seq, before, accepted_at });
        }
    }

    /// The mark of a batch, or the last one before it.
    pub(super) fn at(&self, seq: u64) -> Option<TideMark> {
        let after = self.marks.partition_point(|mark| mark.seq <= seq);
        self.marks.get(after.saturating_sub(1)).copied()
    }

    /// The last mark of a batch that was accepted before a time; 0 if there is none.
    pub(super) fn before(&self, time: Timestamp) -> u64 {
        let later = self.marks.partition_point(|mark| mark.accepted_at < time);
        later.checked_sub(1).and_then(|last| self.marks.get(last)).map_or(0, |mark| mark.seq)
    }

    /// Nobody will ask for anything up to this batch.
    pub(super) fn forget(&mut self, covered: u64) {
        while self.marks.get(1).is_some_and(|next| next.seq <= covered + 1) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_close_enough_and_leave() {
        let mut tide = Tide::default();
        for seq in 1..=10_000_u64 {
            tide.add(seq, seq * 10_000, Timestamp(seq as i64));
        }
        assert!(tide.marks.len() <= 101, "{}", tide.marks.len());
        let mark = tide.at(5000).unwrap();
        assert!(mark.seq <= 5000 && 5000 * 10_000 - mark.before <= MARK_BYTES);
        tide.forget(5000);
        assert!(tide.at(5001).unwrap().seq <= 5001 && tide.marks.len() <= 51);
        assert_eq!(tide.at(1), tide.marks.front().copied());
        let before = tide.marks.len();
        tide.add(10_001, 100_010_001, Timestamp(20_000_000_000));
        assert_eq!(tide.marks.len(), before + 1, "time makes a mark, too");
    }

    #[test]
    fn marks_are_bounded() {
        let mut tide = Tide::default();
        for seq in 1..=(2 * MAX_MARKS as u64) {
            tide.add(seq, seq * MARK_BYTES, Timestamp(0));
        }
        assert!(tide.marks.len() <= MAX_MARKS);
        assert!(tide.marks.iter().is_sorted_by_key(|mark| mark.seq));
    }
}
