//! The instants of acceptance.
//!
//! Invariants: no instant is before one that was given out earlier, to a batch or as a watermark; while a batch has its instant but cannot be
//! seen yet, no watermark is given out beyond that instant. Instants and whether a batch can be seen change under the log's lock together,
//! so that a watermark that is given out with a head is true of everything after it.

use std::collections::VecDeque;

use tailwater_model::Timestamp;

/// See the module's words.
#[derive(Debug)]
pub(super) struct Stamps {
    /// The latest instant given out.
    last: Timestamp,
    /// Batches that cannot be seen yet, and their instants.
    pending: VecDeque<(u64, Timestamp)>,
}

impl Default for Stamps {
    fn default() -> Self {
        Self { last: Timestamp::MIN, pending: VecDeque::new() }
    }
}

impl Stamps {
    /// The instant of something that is seen at once.
    pub(super) fn stamp(&mut self, now: Timestamp) -> Timestamp {
        self.last = self.last.max(now);
        self.last
    }

    /// The instant of a batch that is to be seen later.
    pub(super) fn begin(&mut self, seq: u64, now: Timestamp) -> Timestamp {
        let at = self.stamp(now);
        self.pending.push_back((seq, at));
        at
    }

    /// A batch can be seen, or never will be.
    pub(super) fn settle(&mut self, seq: u64) {
        match self.pending.front() {
            Some((first, _)) if *first == seq => drop(self.pending.pop_front()),
            _ => self.pending.retain(|(pending, _)| *pending != seq),
        }
    }

    /// Whatever can be seen later was accepted at or after this.
    pub(super) fn watermark(&mut self, now: Timestamp) -> Timestamp {
        match self.pending.front() {
            Some((_, at)) => *at,
            None => self.stamp(now),
        }
    }

    /// Nothing is accepted before this any more.
    pub(super) fn advance(&mut self, to: Timestamp) {
        self.last = self.last.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_waits_for_what_is_pending_and_nothing_goes_back() {
        let mut stamps = Stamps::default();
        let at = Timestamp;
        assert_eq!(stamps.watermark(at(10)), at(10));
        assert_eq!(stamps.begin(1, at(5)), at(10));
        assert_eq!(stamps.begin(2, at(20)), at(20));
        assert_eq!(stamps.watermark(at(30)), at(10));
        stamps.settle(1);
        assert_eq!(stamps.watermark(at(30)), at(20));
        assert_eq!(stamps.begin(3, at(25)), at(25));
        stamps.settle(3);
        stamps.settle(2);
        assert_eq!(stamps.watermark(at(30)), at(30));
        assert_eq!(stamps.stamp(at(1)), at(30));
    }
}
