//! What one accepted push leaves in the log.

use std::ops::Deref;
use std::sync::Arc;

use tailwater_model::Timestamp;
use tailwater_store::entries::{Entries, Run};
use tailwater_wire::push::Push;

use crate::error::{PushError, PushErrorKind};
use crate::log::Account;

/// What an allocation costs beyond what was asked for, in bytes: bookkeeping and rounding of common allocators.
const ALLOCATION_OVERHEAD: usize = 16;

/// Allocations of a batch: itself, its entries, body and its counter, runs, spans, metadata.
const ALLOCATIONS: usize = 7;

/// The counters of two `Arc`s, the shared header of a `Bytes`, the log's slot.
const HEADERS: usize = 2 * 16 + 32 + 8;

/// The accepted entries of one push. It never changes once it is in the log.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Its place in the log; given by the log.
    pub(crate) seq: u64,
    /// When it was accepted; given by the log, never decreasing with `seq`.
    pub(crate) accepted_at: Timestamp,
    /// Lines of the tenant in the log's whole life up to and including this batch; given by the log.
    pub(crate) tenant_lines: u64,
    /// Whose it is.
    pub(crate) account: Arc<Account>,
    /// The latest timestamp of this batch and all before it; given by the log, never decreasing with `seq`.
    pub(crate) reach: i64,
    /// Bytes of its lines.
    pub(crate) line_bytes: u64,
    /// Bytes of the lines of all batches before it since the log was opened; given by the log.
    pub(crate) bytes_before: u64,
    /// Shared with searches.
    pub(crate) entries: Arc<Entries>,
}

impl Batch {
    /// `push.entries` are those of the runs, in order; there is at least one.
    pub(crate) fn new(account: Arc<Account>, runs: Vec<Run>, push: Push) -> Self {
        Self {
            seq: 0,
            accepted_at: Timestamp::MIN,
            tenant_lines: 0,
            account,
            reach: i64::MIN,
            line_bytes: runs.iter().map(|run| run.bytes).sum(),
            bytes_before: 0,
            entries: Arc::new(Entries::of_batch(runs, push)),
        }
    }

    /// Gives it its place, before anybody else can see it.
    pub(crate) fn set_place(&mut self, seq: u64, accepted_at: Timestamp, tenant_lines: u64) {
        self.seq = seq;
        self.accepted_at = accepted_at;
        self.tenant_lines = tenant_lines;
        Arc::get_mut(&mut self.entries)
            .expect("a batch without a place has not been shared")
            .set_place(seq, accepted_at);
    }

    /// A push of these entries. `texts`: those of the labels of the runs.
    ///
    /// # Errors
    /// There is too much of it.
    pub(crate) fn extract(&self, texts: &[Vec<u8>]) -> Result<Push, PushError> {
        let streams =
            texts.iter().zip(&self.entries.runs).map(|(text, run)| (text.as_slice(), self.entries.entries(run)));
        let extracted = self.entries.extract(streams);
        extracted.map_err(|error| PushError::new(PushErrorKind::TooLarge, error.to_string()))
    }

    /// What it costs in memory, in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + HEADERS + ALLOCATIONS * ALLOCATION_OVERHEAD + self.entries.memory()
    }
}

impl Deref for Batch {
    type Target = Entries;

    fn deref(&self) -> &Entries {
        &self.entries
    }
}
