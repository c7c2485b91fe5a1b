//! A stream as the ingester knows it: its labels and what the checks of the next push need of the last one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use tailwater_model::{Labels, Timestamp};

use crate::bucket::TokenBucket;
use crate::tails::TailMatches;

/// Ids are never reused in a process, so that caches may be keyed by them.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Something per stream, by [`Stream::id`] or [`Stream::hash`]. Looked into for every run of a read.
pub(crate) type ByStream<T> = HashMap<u64, T, BuildHasherDefault<Spread>>;

/// Spreads ids, which count up, and hashes, over all bits (Knuth's multiplicative hashing). No sender chooses an id, and what a chosen
/// hash could do is bounded by the streams of its tenant.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

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
