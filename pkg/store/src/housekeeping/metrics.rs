//! What is counted of housekeeping.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why lines are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// They are older than the tenant wants.
    Retention,
    /// There is no room for them.
    Cap,
    /// Their tenant asked for it.
    Deleted,
    /// They were there twice.
    Repeated,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// Counters of housekeeping.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    /// Rounds that came to their end.
    pub(super) rounds: Counter,
    /// What failed.
    pub(super) failures: Counter,
    /// Blocks that were merged into others.
    pub(super) merged_blocks: Counter,
    /// Blocks that were written in place of others.
    pub(super) written_blocks: Counter,
    /// Removed blocks whose objects were deleted.
    pub(super) deleted_blocks: Counter,
    /// Blocks that cannot be read.
    pub(super) damaged_blocks: Counter,
    /// Objects deleted that no manifest lists.
    pub(super) orphans: Counter,
    /// Bytes of all blocks that are listed.
    pub(super) stored_bytes: Gauge,
    dropped_lines: Family<ByReason, Counter>,
    dropped_bytes: Family<ByReason, Counter>,
}

impl Metrics {
    /// Counts lines that are no longer in blocks, and their bytes.
    pub(super) fn dropped(&self, reason: Reason, lines: u64, bytes: u64) {
        if lines == 0 {
            return;
        }
        let by = ByReason {
            reason: match reason {
                Reason::Retention => "retention",
                Reason::Cap => "max_bytes",
                Reason::Deleted => "deleted",
                Reason::Repeated => "repeated",
            },
        };
        self.dropped_lines.get_or_create_owned(&by).inc_by(lines);
        self.dropped_bytes.get_or_create_owned(&by).inc_by(bytes);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter("tailwater_housekeeping_rounds", "Rounds of housekeeping", &self.rounds);
        counter("tailwater_housekeeping_failures", "What failed in housekeeping", &self.failures);
        counter("tailwater_housekeeping_merged_blocks", "Blocks merged into others", &self.merged_blocks);
        counter("tailwater_housekeeping_written_blocks", "Blocks written in place of others", &self.written_blocks);
        counter("tailwater_housekeeping_deleted_blocks", "Removed blocks deleted", &self.deleted_blocks);
        counter("tailwater_housekeeping_damaged_blocks", "Blocks that cannot be read", &self.damaged_blocks);
        counter("tailwater_housekeeping_orphans", "Objects deleted that no manifest lists", &self.orphans);
        registry.register("tailwater_stored_bytes", "Bytes of all blocks that are listed", self.stored_bytes.clone());
        registry.register(
            "tailwater_housekeeping_dropped_lines",
            "Lines taken out of blocks, by reason",
            self.dropped_lines.clone(),
        );
        registry.register(
            "tailwater_housekeeping_dropped_bytes",
            "Bytes of lines taken out of blocks, by reason",
            self.dropped_bytes.clone(),
        );
    }
}
