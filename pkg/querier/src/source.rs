//! What a feed follows: each of its tenants in each of its logs.
//!
//! Invariants:
//! * The sources of a feed are numbered when it opens, and a number never changes its meaning. Whatever is said of the feed's progress
//!   is said per source: the same log is followed once per tenant, and the follows are not equally far.
//! * A batch has one tenant, so within a feed (source, seq, index) names a line, as (log, seq, index) does.

use std::sync::Arc;

use smallvec::SmallVec;
use tailwater_logql::LogQuery;
use tailwater_model::{TenantId, Timestamp};
use tailwater_wire::node::{
    Answer, Direction, Follow, FollowRequest, Node, Part, ReadChunk, ReadRequest, SelectRequest, Selected,
};

/// The number of a source in its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceId(u32);

impl SourceId {
    /// After every source.
    pub(crate) const MAX: Self = Self(u32::MAX);

    /// The source at this place of [`Sources`].
    pub(crate) const fn new(at: usize) -> Self {
        Self(at as u32)
    }

    /// Its place in [`Sources`].
    pub(crate) const fn at(self) -> usize {
        self.0 as usize
    }
}

/// A tenant in a log.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) tenant: TenantId,
    /// By the tenant's own limits.
    pub(crate) detect_level: bool,
}

impl Source {
    pub(crate) fn follow(&self, query: &Arc<LogQuery>, after: u64) -> Follow {
        self.node.follow(FollowRequest {
            tenant: self.tenant.clone(),
            query: Arc::clone(query),
            detect_level: self.detect_level,
            after,
        })
    }

    pub(crate) fn read(&self, query: &Arc<LogQuery>, after: u64, through: u64, max_bytes: usize) -> Answer<ReadChunk> {
        self.node.read(ReadRequest {
            tenant: self.tenant.clone(),
            query: Arc::clone(query),
            detect_level: self.detect_level,
            after,
            through,
            max_bytes,
        })
    }

    /// The newest `limit` lines from `start` on.
    pub(crate) fn newest(&self, query: &Arc<LogQuery>, as_of: u64, start: Timestamp, limit: usize) -> Answer<Selected> {
        self.node.select(SelectRequest {
            tenant: self.tenant.clone(),
            part: Part::Whole,
            query: Arc::clone(query),
            detect_level: self.detect_level,
            as_of,
            start,
            end: Timestamp::MAX,
            direction: Direction::Backward,
            limit,
        })
    }
}

/// The sources of a feed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sources(Arc<[Source]>);

impl Sources {
    /// Numbers sources in the order in which they come.
    pub(crate) fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self(sources.into_iter().collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SourceId, &Source)> {
        (0..).map(SourceId).zip(self.0.iter())
    }

    pub(crate) fn get(&self, id: SourceId) -> Option<&Source> {
        self.0.get(id.at())
    }
}

/// A place in the history of every source: for each the number of the last batch that lies before it. A source that is not named
/// has been read up to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions(SmallVec<[u64; 2]>);

impl Positions {
    pub(crate) fn seq(&self, source: SourceId) -> u64 {
        self.0.get(source.at()).copied().unwrap_or(0)
    }

    /// Moves a source to `seq`. Never moves backwards.
    pub(crate) fn advance(&mut self, source: SourceId, seq: u64) {
        if self.0.len() <= source.at() {
            self.0.resize(source.at() + 1, 0);
        }
        self.0[source.at()] = self.0[source.at()].max(seq);
    }

    /// How many sources are named.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SourceId, u64)> {
        (0..).map(SourceId).zip(self.0.iter().copied())
    }
}

impl FromIterator<u64> for Positions {
    /// The positions of sources 0, 1, 2, …
    fn from_iter<T: IntoIterator<Item = u64>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_only_move_forward() {
        let [a, b, c] = [0, 1, 2].map(SourceId::new);
        let mut positions: Positions = [3, 7].into_iter().collect();
        positions.advance(b, 5);
        assert_eq!([a, b, c].map(|source| positions.seq(source)), [3, 7, 0]);
        positions.advance(c, 2);
        positions.advance(a, 4);
        assert_eq!(positions.iter().collect::<Vec<_>>(), [(a, 4), (b, 7), (c, 2)]);
    }
}
