//! What the log counts, and what it tells the operator: loss is loud, what repeats is not.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Time between two reports of the same trouble.
const QUIET: Duration = Duration::from_secs(10);

/// Counters of one log. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Records appended.
    pub records: Counter,
    /// Bytes appended, headers included.
    pub appended_bytes: Counter,
    /// Appends that failed.
    pub append_failures: Counter,
    /// Rounds of fdatasync that wrote something.
    pub syncs: Counter,
    /// Those that failed.
    pub sync_failures: Counter,
    /// Stretches that could not be read because they are corrupt, counted each time one is come upon.
    pub corrupt_stretches: Counter,
    /// Sequence numbers that lie in them.
    pub lost_records: Counter,
    /// Segments deleted because everything in them is in blocks.
    pub trimmed_segments: Counter,
    /// Bytes of all segments.
    pub bytes: Gauge,
    /// Segments.
    pub segments: Gauge,
}

impl Metrics {
    /// Makes the counters known.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tailwater_wal_records", "Records appended", self.records.clone());
        registry.register("tailwater_wal_appended_bytes", "Bytes appended", self.appended_bytes.clone());
        registry.register("tailwater_wal_append_failures", "Appends that failed", self.append_failures.clone());
        registry.register("tailwater_wal_syncs", "Rounds of fdatasync", self.syncs.clone());
        registry.register("tailwater_wal_sync_failures", "Rounds of fdatasync that failed", self.sync_failures.clone());
        registry.register(
            "tailwater_wal_corrupt_stretches",
            "Times that a corrupt stretch was come upon",
            self.corrupt_stretches.clone(),
        );
        registry.register("tailwater_wal_lost_records", "Records in corrupt stretches", self.lost_records.clone());
        registry.register("tailwater_wal_trimmed_segments", "Segments deleted", self.trimmed_segments.clone());
        registry.register("tailwater_wal_bytes", "Bytes of all segments", self.bytes.clone());
        registry.register("tailwater_wal_segments", "Segments", self.segments.clone());
    }

    /// Tells loudly that records are lost.
    pub(super) fn lost(&self, segment: &str, offset: u64, records: u64, reason: &str) {
        self.corrupt_stretches.inc();
        self.lost_records.inc_by(records);
        tracing::error!(
            segment,
            offset,
            records,
            reason,
            "a stretch of the write-ahead log cannot be read, its records are lost"
        );
    }
}

/// Keeps a report that would repeat from filling the log.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<(Option<Instant>, u64)>);

impl Quiet {
    /// How many reports were kept back since the last one, if it is time for another.
    pub(super) fn speak(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let (said, kept) = &mut *state;
        if said.is_some_and(|at| at.elapsed() < QUIET) {
            *kept += 1;
            return None;
        }
        *said = Some(Instant::now());
        Some(std::mem::take(kept))
    }
}
