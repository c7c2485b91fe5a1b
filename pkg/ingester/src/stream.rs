//! A stream as the ingester knows it: its labels and what the checks of the next push need of the last one.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use tailwater_model::{Labels, Timestamp};

use crate::bucket::TokenBucket;
use crate::tails::TailMatches;

/// A stream that is pushed to.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What batches hold of it.
    pub(crate) shared: Arc<tailwater_store::Stream>,
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
            shared: Arc::new(tailwater_store::Stream::new(labels)),
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

impl Deref for Stream {
    type Target = tailwater_store::Stream;

    fn deref(&self) -> &tailwater_store::Stream {
        &self.shared
    }
}
