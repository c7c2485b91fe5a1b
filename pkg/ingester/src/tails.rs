//! Which tail groups a tenant has and which of them a push may concern.
//!
//! Invariants:
//! * A push without tails pays one relaxed load. With tails it wakes only groups that may match one of its streams.
//! * [`Signal::wanted`] is never behind a batch that a reader can see and that may match the group: pushes look the groups up before
//!   the batch gets its place, and look again under the log's lock, where it gets it, whether the table has changed since. A group
//!   joins the table before it looks at the head. So a group at position P with `wanted <= P` may skip to the head.
//! * The table owns no group, only its signal; a group that is dropped leaves the table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tailwater_logql::LogQuery;
use tailwater_model::Labels;
use tokio::sync::Notify;

use crate::group::Group;

/// The groups of a tenant.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    /// The table's generation; 0 = there are no groups.
    generation: AtomicU64,
    table: ArcSwap<TailTable>,
    groups: Mutex<Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    by_key: HashMap<GroupKey, Weak<Group>>,
    /// Generations and ids of signals given out.
    generations: u64,
    ids: u64,
}

/// What makes follows share one evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    pub(crate) query: Box<str>,
    pub(crate) detect_level: bool,
}

#[derive(Debug, Default)]
pub(crate) struct TailTable {
    generation: u64,
    /// Sorted by id.
    signals: Vec<Arc<Signal>>,
}

/// How a group learns of pushes.
#[derive(Debug)]
pub(crate) struct Signal {
    id: u64,
    query: Arc<LogQuery>,
    wanted: AtomicU64,
    pub(crate) notify: Notify,
}

/// What a stream remembers of the table: which groups match it. Ids only, so that it owns nothing of theirs.
#[derive(Debug, Default)]
pub(crate) struct TailMatches {
    /// Signals up to this id have been looked at.
    looked: u64,
    matching: SmallVec<[u64; 2]>,
}

/// The groups that one push may concern.
pub(crate) struct Concerned {
    table: Arc<TailTable>,
    /// Indexes into the table.
    signals: SmallVec<[u32; 8]>,
    /// The same as bits.
    seen: SmallVec<[u64; 4]>,
}

impl Signal {
    /// The last batch that may match the group.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }

    pub(crate) fn want(&self, seq: u64) {
        self.wanted.fetch_max(seq, Ordering::AcqRel);
    }
}

impl Tails {
    /// The table, if there are groups.
    pub(crate) fn concerned(&self) -> Option<Concerned> {
        if self.generation.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let table = self.table.load_full();
        let seen = SmallVec::from_elem(0, table.signals.len().div_ceil(64));
        Some(Concerned { table, signals: SmallVec::new(), seen })
    }

    /// Tells the groups of the batch's place. Called under the log's write lock, before readers can see the batch.
    pub(crate) fn mark(&self, concerned: Option<&Concerned>, seq: u64) -> bool {
        let generation = self.generation.load(Ordering::Acquire);
        let known = concerned.map_or(0, |c| c.table.generation);
        if generation == known {
            concerned.into_iter().flat_map(Concerned::signals).for_each(|s| s.want(seq));
            return false;
        }
        // A group came or went since the push looked: rare, so all are told.
        self.table.load().signals.iter().for_each(|s| s.want(seq));
        true
    }

    /// Wakes the groups that [`Tails::mark`] has told. `all`: what it answered.
    pub(crate) fn wake(&self, concerned: Option<&Concerned>, all: bool) {
        if all {
            self.wake_all();
        } else {
            concerned.into_iter().flat_map(Concerned::signals).for_each(|s| s.notify.notify_waiters());
        }
    }

    /// Wakes every group.
    pub(crate) fn wake_all(&self) {
        self.table.load().signals.iter().for_each(|s| s.notify.notify_waiters());
    }

    /// Whether there is no group.
    pub(crate) fn is_empty(&self) -> bool {
        self.generation.load(Ordering::Relaxed) == 0
    }

    /// The group of a key; `make` makes a new one around its signal, which is in the table by then.
    pub(crate) fn join(
        &self,
        key: GroupKey,
        query: &Arc<LogQuery>,
        make: impl FnOnce(GroupKey, Arc<Signal>) -> Group,
    ) -> Arc<Group> {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.by_key.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        groups.ids += 1;
        let signal = Arc::new(Signal {
            id: groups.ids,
            query: Arc::clone(query),
            wanted: AtomicU64::new(0),
            notify: Notify::new(),
        });
        let mut signals = self.table.load().signals.clone();
        signals.push(Arc::clone(&signal));
        self.publish(&mut groups, signals);
        let group = Arc::new(make(key.clone(), signal));
        groups.by_key.insert(key, Arc::downgrade(&group));
        group
    }

    /// Removes a group that is being dropped.
    pub(crate) fn leave(&self, key: &GroupKey, signal: &Signal) {
        let mut groups = self.groups.lock();
        // Another group of the key may have come since.
        if groups.by_key.get(key).is_some_and(|g| g.strong_count() == 0) {
            groups.by_key.remove(key);
        }
        let signals = self.table.load().signals.iter().filter(|s| s.id != signal.id).cloned().collect();
        self.publish(&mut groups, signals);
    }

    fn publish(&self, groups: &mut Groups, signals: Vec<Arc<Signal>>) {
        groups.generations += 1;
        let generation = if signals.is_empty() { 0 } else { groups.generations };
        self.table.store(Arc::new(TailTable { generation, signals }));
        self.generation.store(generation, Ordering::Release);
    }
}

impl Concerned {
    /// A stream is pushed to. `matches`: what it remembers.
    pub(crate) fn add(&mut self, matches: &mut TailMatches, labels: &Labels) {
        let Self { table, signals, seen } = self;
        let newest = table.signals.last().map_or(0, |s| s.id);
        if matches.looked < newest {
            let known = table.signals.partition_point(|s| s.id <= matches.looked);
            let fresh = table.signals[known..].iter().filter(|s| s.query.matchers().matches(labels)).map(|s| s.id);
            matches.matching.extend(fresh);
            matches.looked = newest;
        }
        matches.matching.retain(|id| {
            let Ok(index) = table.signals.binary_search_by_key(id, |s| s.id) else {
                // Gone, unless this push holds an older table than the stream has seen.
                return *id > newest;
            };
            let (word, bit) = (index / 64, 1 << (index % 64));
            if seen[word] & bit == 0 {
                seen[word] |= bit;
                signals.push(u32::try_from(index).unwrap_or(u32::MAX));
            }
            true
        });
    }

    fn signals(&self) -> impl Iterator<Item = &Signal> {
        self.signals.iter().filter_map(|i| self.table.signals.get(*i as usize)).map(Arc::as_ref)
    }
}
