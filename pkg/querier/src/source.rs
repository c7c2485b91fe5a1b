//! What a feed follows: each of its tenants in each of its logs.
//!
//! Invariants:
//! * A source gets its number when it begins, and a number never changes its meaning: it is that tenant in that log for as long as the feed
//!   lives. There are never fewer; what is known of the first ones says nothing of those that begin later.
//! * Whatever is said of the feed's progress is said per source: the same log is followed once per tenant, and the follows are not equally
//!   far.
//! * A batch has one tenant, so within a feed (source, seq, index) names a line, as (log, seq, index) does.

use std::sync::Arc;

use parking_lot::RwLock;
use smallvec::SmallVec;
use tailwater_logql::LogQuery;
use tailwater_model::{TenantId, Timestamp};
use tailwater_wire::node::{
    Answer, Direction, Follow, FollowRequest, Node, Part, ReadChunk, ReadRequest, SelectRequest, Selected,
};

/// Most sources that a feed ever has.
pub(crate) const MAX_SOURCES: usize = 1 << 14;

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
    pub(crate) fn newest(
        &self,
        query: &Arc<LogQuery>,
        (part, as_of): (Part, u64),
        start: Timestamp,
        limit: usize,
    ) -> Answer<Selected> {
        self.node.select(SelectRequest {
            tenant: self.tenant.clone(),
            part,
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

/// The sources that a feed has begun, shared by its task and its sessions. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sources(Arc<RwLock<Vec<Arc<Source>>>>);

impl Sources {
    /// Adds one. `None`: there are [`MAX_SOURCES`].
    pub(crate) fn add(&self, source: Source) -> Option<SourceId> {
        let mut sources = self.0.write();
        let id = SourceId::new(sources.len());
        (sources.len() < MAX_SOURCES).then(|| {
            sources.push(Arc::new(source));
            id
        })
    }

    /// Has somebody else answer for the log of a source.
    pub(crate) fn answered_by(&self, id: SourceId, node: &Arc<dyn Node>) {
        if let Some(source) = self.0.write().get_mut(id.at()) {
            let Source { tenant, detect_level, .. } = source.as_ref();
            let (tenant, detect_level) = (tenant.clone(), *detect_level);
            *source = Arc::new(Source { node: Arc::clone(node), tenant, detect_level });
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// Those of now.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SourceId, Arc<Source>)> + use<> {
        let sources = self.0.read().clone();
        (0..).map(SourceId).zip(sources)
    }

    pub(crate) fn get(&self, id: SourceId) -> Option<Arc<Source>> {
        self.0.read().get(id.at()).cloned()
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

    /// Whether anything is said of a source, be it that nothing of it has been read.
    #[cfg(test)]
    pub(crate) fn names(&self, source: SourceId) -> bool {
        source.at() < self.0.len()
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
