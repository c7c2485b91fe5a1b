//! A stream as the ingester knows it: its labels and what the checks of the next push need of the last one.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use tailwater_model::{Labels, Timestamp};

use crate::bucket::TokenBucket;
use crate::tails::TailMatches;

/// Ids are never reused in a process, so that caches may be keyed by them.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A stream. Batches hold it, so it outlives its place in the registry.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Unique in this process; a stream that was forgotten and came back has a new one.
    pub(crate) id: u64,
    pub(crate) labels: Labels,
    /// [`Labels::loki_hash`].
    pub(crate) hash: u64,
    /// When it was last pushed to, in nanoseconds.
    used: AtomicI64,
    pub(crate) state: Mutex<StreamState>,
}

/// What the next push is checked against.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// Timestamp and content of the entry accepted last: an equal one that follows at once is dropped.
    pub(crate) last: Option<(i64, u128)>,
    /// The highest timestamp accepted.
    pub(crate) highest: Option<i64>,
    pub(crate) bucket: TokenBucket,
    pub(crate) tails: TailMatches,
}

impl Stream {
    pub(crate) fn new(labels: Labels, now: Timestamp) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            hash: labels.loki_hash(),
            labels,
            used: AtomicI64::new(now.nanos()),
            state: Mutex::default(),
        }
    }

    pub(crate) fn touch(&self, now: Timestamp) {
        self.used.store(now.nanos(), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> Timestamp {
        Timestamp(self.used.load(Ordering::Relaxed))
    }
}
