//! What a client has had, said so that it holds on any feed: marks whose sources have names.
//!
//! A feed numbers its sources for itself, and the numbers are part of the order in which it gives lines out. So a mark is only ever read in
//! its own numbering: a [`Placed`] mark says which source each number means.
//!
//! Invariants:
//! * A line has been had if any mark contains it. There are rarely more than two: a mark that another one covers is left out.
//! * A mark says nothing of a source that it does not name. Of a log that no mark names, what was accepted before `origin` is nobody's
//!   business, as for the tail that began then.

use std::sync::Arc;

use tailwater_model::{LogId, TenantId, Timestamp};
use tailwater_wire::node::MatchedLine;

use crate::mark::{Extent, Key, Mark};
use crate::source::{Positions, SourceId};

/// What a source is, whoever numbers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) log: LogId,
    pub(crate) tenant: TenantId,
}

/// A mark, and what its numbers mean.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    names: Arc<[Name]>,
    mark: Mark,
}

impl Placed {
    /// A mark whose sources have these names. Names beyond those that the mark knows are no part of it.
    pub(crate) fn new(names: Arc<[Name]>, mark: Mark) -> Self {
        Self { names, mark }
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The sources of the mark, by number.
    pub(crate) fn names(&self) -> &[Name] {
        let known = self.mark.floor.len().min(self.names.len());
        self.names.get(..known).unwrap_or_default()
    }

    /// Up to where everything of a source is contained.
    pub(crate) fn complete(&self, source: SourceId) -> u64 {
        self.mark.complete.seq(source).max(self.mark.floor.seq(source))
    }

    pub(crate) fn number(&self, name: &Name) -> Option<SourceId> {
        self.names().iter().position(|known| known == name).map(SourceId::new)
    }

    /// With another source, of which everything up to `seq` is contained. Returns its number.
    pub(crate) fn add(&mut self, name: Name, seq: u64) -> SourceId {
        let id = SourceId::new(self.names().len());
        self.names = self.names().iter().cloned().chain([name]).collect();
        self.set(id, seq);
        id
    }

    /// Everything of the source up to `seq`, and no more, is contained.
    pub(crate) fn set(&mut self, source: SourceId, seq: u64) {
        let set = |positions: &Positions| -> Arc<Positions> {
            let at = source.at();
            let mut seqs: Vec<u64> = positions.iter().map(|(_, seq)| seq).collect();
            seqs.resize(seqs.len().max(at + 1), 0);
            if let Some(place) = seqs.get_mut(at) {
                *place = seq;
            }
            Arc::new(seqs.into_iter().collect())
        };
        let Mark { floor, base, round, complete } = &self.mark;
        let extent = |extent: &Extent| Extent { consumed: set(&extent.consumed), until: extent.until };
        self.mark = Mark { floor: set(floor), base: extent(base), round: extent(round), complete: set(complete) };
    }

    /// Whether everything that `other` contains of its source `id` is contained; none if the source has no name here.
    fn covers_source(&self, other: &Self, id: SourceId, name: &Name) -> Option<bool> {
        let mine = self.number(name)?;
        let complete = self.complete(mine);
        let same_numbers = Arc::ptr_eq(&self.names, &other.names) || self.names().starts_with(other.names());
        // Sources have different numbers there: only whole moments can be compared.
        let moment = |key: &Key| (key.parts().0, key.parts().1);
        let reaches = |until: &Key| {
            let base = &self.mark.base.until;
            *base == Key::MAX || moment(base) > moment(until) || (same_numbers && base >= until)
        };
        let covers = |extent: &Extent| {
            let seq = extent.consumed.seq(id);
            seq <= complete || (seq <= self.mark.base.consumed.seq(mine) && reaches(&extent.until))
        };
        let mark = &other.mark;
        Some(mark.floor.seq(id) <= complete && covers(&mark.base) && covers(&mark.round))
    }

    fn sources(&self) -> impl Iterator<Item = (SourceId, &Name)> {
        self.names().iter().enumerate().map(|(at, name)| (SourceId::new(at), name))
    }

    /// Whether it is certain that every line of `other` is contained.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.sources().all(|(id, name)| self.covers_source(other, id, name) == Some(true))
    }

    /// Whether `other` may contain a line, of a source that is known here, that is not contained.
    pub(crate) fn lags(&self, other: &Self) -> bool {
        other.sources().any(|(id, name)| self.covers_source(other, id, name) == Some(false))
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Had {
    /// When the tail began, by the clock of the querier where it did.
    pub(crate) origin: Timestamp,
    pub(crate) marks: Vec<Placed>,
}

impl Had {
    /// What a tail has had that stands at this mark.
    pub(crate) fn of(origin: Timestamp, mark: Placed) -> Self {
        Self { origin, marks: vec![mark] }
    }

    /// Has had all that the mark contains, too.
    pub(crate) fn add(&mut self, mark: Placed) {
        self.marks.retain(|known| !mark.covers(known));
        self.marks.push(mark);
    }

    /// What the marks call a source: for each that names it, its place in `marks` and the number.
    pub(crate) fn numbers(&self, name: &Name) -> Vec<(usize, SourceId)> {
        let number = |(at, mark): (usize, &Placed)| mark.number(name).map(|id| (at, id));
        self.marks.iter().enumerate().filter_map(number).collect()
    }

    /// Up to where everything of a source has been had. `numbers` are those of [`Had::numbers`]; without any, nothing is known.
    pub(crate) fn complete(&self, numbers: &[(usize, SourceId)]) -> Option<u64> {
        let complete = |(at, id): &(usize, SourceId)| self.marks.get(*at).map(|placed| placed.complete(*id));
        numbers.iter().filter_map(complete).max()
    }

    pub(crate) fn contains(&self, numbers: &[(usize, SourceId)], line: &MatchedLine) -> bool {
        let contains = |(at, id): &(usize, SourceId)| self.marks.get(*at).is_some_and(|p| p.mark.contains(*id, line));
        numbers.iter().any(contains)
    }

    /// Sources that `feed` does not name.
    pub(crate) fn absent(&self, feed: &Placed) -> Vec<Name> {
        let mut absent: Vec<Name> = Vec::new();
        for name in self.marks.iter().flat_map(Placed::names) {
            if feed.number(name).is_none() && !absent.contains(name) {
                absent.push(name.clone());
            }
        }
        absent
    }
}
