//! A stream as entries know it, and tables by stream.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use tailwater_model::Labels;

/// Ids are never reused in a process, so that caches may be keyed by them.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The labels of a stream, shared by all its entries that came or were read together.
#[derive(Debug)]
pub struct Stream {
    /// Unique in this process. A stream that was forgotten and came back, or that was read from another block, has another.
    pub id: u64,
    /// Its labels.
    pub labels: Labels,
    /// [`Labels::loki_hash`].
    pub hash: u64,
}

impl Stream {
    /// A stream with an id of its own.
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), hash: labels.loki_hash(), labels }
    }
}

/// Something per stream, by [`Stream::id`] or [`Stream::hash`]. Looked into for every run of a read.
pub type ByStream<T> = HashMap<u64, T, BuildHasherDefault<Spread>>;

/// Spreads ids, which count up, and hashes, over all bits (Knuth's multiplicative hashing). No sender chooses an id, and what a chosen
/// hash could do is bounded by the streams of its tenant.
#[derive(Debug, Default)]
pub struct Spread(u64);

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
