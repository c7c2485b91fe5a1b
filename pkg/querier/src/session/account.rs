//! What a tail has been given and what not, for operators and for itself.
//!
//! Invariant: `matched = delivered + dropped` after every event of its session.

use std::sync::atomic::{AtomicU64, Ordering};

use tailwater_model::{TenantIds, Timestamp};

/// A session's account, of a metric query in steps instead of lines. `matched = delivered + dropped` after every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Lines that matched since the tail began, history included.
    pub matched: u64,
    /// Lines handed to the socket.
    pub delivered: u64,
    /// Lines that matched and were not delivered.
    pub dropped: u64,
    /// Lines, matching or not, that were trimmed from a log before anybody could look whether they match.
    pub trimmed: u64,
}

/// An open tail as operators see it.
#[derive(Clone, Debug)]
pub struct TailInfo {
    /// Number of the tail in this process.
    pub id: u64,
    /// Whose: the tenants that the request named.
    pub tenants: TenantIds,
    /// The canonical query.
    pub query: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Its account.
    pub ledger: Ledger,
}

/// The part of a session that others may look at.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) tenants: TenantIds,
    pub(crate) query: String,
    pub(crate) opened_at: Timestamp,
    matched: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
    trimmed: AtomicU64,
}

impl Account {
    pub(crate) fn new(id: u64, tenants: TenantIds, query: String, opened_at: Timestamp) -> Self {
        let zero = || AtomicU64::new(0);
        Self { id, tenants, query, opened_at, matched: zero(), delivered: zero(), dropped: zero(), trimmed: zero() }
    }

    /// A tail of steps has delivered one.
    pub(crate) fn step_delivered(&self) {
        self.matched.fetch_add(1, Ordering::Relaxed);
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// So many lines have been found for the tail.
    pub(crate) fn lines_matched(&self, lines: u64) {
        self.matched.fetch_add(lines, Ordering::Relaxed);
    }

    /// So many of them have been handed over.
    pub(crate) fn lines_delivered(&self, lines: u64) {
        self.delivered.fetch_add(lines, Ordering::Relaxed);
    }

    /// So many of them will not be.
    pub(crate) fn lines_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// The tail has told that so many lines were trimmed.
    pub(crate) fn lines_trimmed(&self, lines: u64) {
        self.trimmed.fetch_add(lines, Ordering::Relaxed);
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Ledger {
            matched: get(&self.matched),
            delivered: get(&self.delivered),
            dropped: get(&self.dropped),
            trimmed: get(&self.trimmed),
        }
    }
}
