//! What is counted of the pager.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tailwater_model::Clock;
use tailwater_store::catalog::BlockMeta;

use super::Reason;
use crate::log::ArrivalLog;

/// Upper bounds of the buckets of the duration of cuts, in seconds.
const SECONDS: [f64; 10] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// Counters of the pager.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    cuts: Family<ByReason, Counter>,
    seconds: Histogram,
    /// Attempts that failed.
    pub(super) failures: Counter,
    blocks: Counter,
    lines: Counter,
    line_bytes: Counter,
    stored_bytes: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            cuts: Family::default(),
            seconds: Histogram::new(SECONDS),
            failures: Counter::default(),
            blocks: Counter::default(),
            lines: Counter::default(),
            line_bytes: Counter::default(),
            stored_bytes: Counter::default(),
        }
    }

    /// Counts a cut.
    pub(super) fn cut(&self, reason: Reason, took: Duration) {
        let reason = match reason {
            Reason::Size => "size",
            Reason::Age => "age",
            Reason::Flush => "flush",
            Reason::Pressure => "pressure",
        };
        self.cuts.get_or_create_owned(&ByReason { reason }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts a block that the catalog lists.
    pub(super) fn block(&self, block: &BlockMeta) {
        self.blocks.inc();
        self.lines.inc_by(block.lines);
        self.line_bytes.inc_by(block.raw_bytes);
        self.stored_bytes.inc_by(block.bytes);
    }

    /// Adds them to a registry, and how far the pager is behind in a log.
    pub(crate) fn register(&self, registry: &mut Registry, log: &Arc<ArrivalLog>, clock: &Arc<dyn Clock>) {
        registry.register("tailwater_pager_cuts", "Stretches of the log put into blocks, by reason", self.cuts.clone());
        registry.register("tailwater_pager_cut_seconds", "Time of cuts, uploads included", self.seconds.clone());
        registry.register("tailwater_pager_failures", "Attempts at a cut that failed", self.failures.clone());
        registry.register("tailwater_pager_blocks", "Blocks added to the catalog", self.blocks.clone());
        registry.register("tailwater_pager_lines", "Lines put into blocks", self.lines.clone());
        registry.register("tailwater_pager_line_bytes", "Bytes of lines put into blocks", self.line_bytes.clone());
        registry.register("tailwater_pager_stored_bytes", "Bytes of blocks", self.stored_bytes.clone());
        registry.register_collector(Box::new(Lag { log: Arc::clone(log), clock: Arc::clone(clock) }));
    }
}

/// How far the pager is behind, read when it is asked for.
struct Lag {
    log: Arc<ArrivalLog>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lag").finish_non_exhaustive()
    }
}

impl Collector for Lag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let uncovered = self.log.uncovered();
        let age = uncovered.oldest.map_or(Duration::ZERO, |at| self.clock.now().since(at));
        let bytes = ConstGauge::new(i64::try_from(uncovered.bytes).unwrap_or(i64::MAX));
        let help = "Bytes of lines in the log that are in no block yet";
        bytes.encode(encoder.encode_descriptor(
            "tailwater_pager_uncovered_bytes",
            help,
            None,
            bytes.metric_type(),
        )?)?;
        let age = ConstGauge::new(age.as_secs_f64());
        let help = "Age of the oldest line in the log that is in no block yet";
        age.encode(encoder.encode_descriptor("tailwater_pager_uncovered_age_seconds", help, None, age.metric_type())?)
    }
}
