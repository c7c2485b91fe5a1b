//! Which lines a feed has given out, said exactly in a few words.
//!
//! A feed takes the lines of each source in log order and gives them out in time order, so at no moment has it given out a plain
//! prefix of the logs. But the set of what it has given out always has this form:
//!
//! ```text
//! position ≤ floor                          what was there before its source began: history's business, counted as given out
//! position ≤ base.consumed  and key ≤ base.until      everything given out up to the last complete round
//! position ≤ round.consumed and key ≤ round.until     what this round has given out so far, in key order
//! ```
//!
//! Positions are those of the line's source. That is a [`Mark`]. It makes three things exact, with no buffer of what was sent: a session that joins (history is the lines
//! a mark contains, live is the rest), a session that fell behind (it reads again the difference of two marks), and, in
//! time, a resume token.
//!
//! Invariants:
//! * `until` and `consumed` never move backwards, so each mark of a feed contains all earlier ones, apart from what lies before a floor.
//! * Sources begin while the feed is open. One that a mark does not name had not begun: of two marks the newer one knows its floor, and what
//!   lies before that is in neither.
//! * A round gives out lines in ascending [`Key`] order; within one (source, seq) `index` ascends, so lines of one stream with equal
//!   timestamps keep the order in which they were accepted.

use std::sync::Arc;

use tailwater_model::Timestamp;
use tailwater_wire::node::MatchedLine;

use crate::source::{Positions, SourceId};

/// The order in which a feed gives lines out.
///
/// Time comes first; a timestamp that lies in the future counts as the moment of acceptance, so that a sender whose clock is
/// fast delays nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    release: Timestamp,
    timestamp: Timestamp,
    source: SourceId,
    seq: u64,
    index: u32,
}

impl Key {
    /// After every line.
    pub(crate) const MAX: Self = Self::end_of(Timestamp::MAX);

    /// The key of a line of `source`.
    pub(crate) fn of(source: SourceId, line: &MatchedLine) -> Self {
        Self {
            release: line.timestamp.min(line.accepted_at),
            timestamp: line.timestamp,
            source,
            seq: line.seq,
            index: line.index,
        }
    }

    /// After every line that is due at `time`, before every later one.
    pub(crate) const fn end_of(time: Timestamp) -> Self {
        Self { release: time, timestamp: Timestamp::MAX, source: SourceId::MAX, seq: u64::MAX, index: u32::MAX }
    }

    /// Its parts, for who writes it down: release, timestamp, source, sequence number and index.
    pub(crate) const fn parts(&self) -> (Timestamp, Timestamp, SourceId, u64, u32) {
        (self.release, self.timestamp, self.source, self.seq, self.index)
    }

    /// The key of these parts.
    pub(crate) const fn from_parts(parts: (Timestamp, Timestamp, SourceId, u64, u32)) -> Self {
        let (release, timestamp, source, seq, index) = parts;
        Self { release, timestamp, source, seq, index }
    }

    /// Where the line came from.
    pub(crate) const fn source(&self) -> SourceId {
        self.source
    }

    /// When the line is due, apart from the feed's delay.
    pub(crate) const fn release(&self) -> Timestamp {
        self.release
    }
}

/// Lines up to a position and a key.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) consumed: Arc<Positions>,
    pub(crate) until: Key,
}

impl Extent {
    fn contains(&self, source: SourceId, seq: u64, key: &Key) -> bool {
        seq <= self.consumed.seq(source) && *key <= self.until
    }
}

/// What a feed has given out at some moment. See the module.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) floor: Arc<Positions>,
    pub(crate) base: Extent,
    pub(crate) round: Extent,
    /// Per source: every line of this batch and those before it is contained in the mark or was never matched. Where a reader that
    /// wants what the mark lacks has to begin.
    pub(crate) complete: Arc<Positions>,
}

impl Mark {
    /// A feed whose first sources begin after `heads`.
    pub(crate) fn beginning(heads: Positions) -> Self {
        let floor = Arc::new(heads);
        let extent = Extent { consumed: Arc::clone(&floor), until: Key::end_of(Timestamp::MIN) };
        Self { base: extent.clone(), round: extent, complete: Arc::clone(&floor), floor }
    }

    /// Whether the line had been given out.
    pub(crate) fn contains(&self, source: SourceId, line: &MatchedLine) -> bool {
        if line.seq <= self.floor.seq(source) {
            return true;
        }
        let key = Key::of(source, line);
        self.base.contains(source, line.seq, &key) || self.round.contains(source, line.seq, &key)
    }

    /// The last batch of which the feed had seen what is of `source`.
    pub(crate) fn consumed(&self, source: SourceId) -> u64 {
        self.round.consumed.seq(source).max(self.floor.seq(source))
    }
}
