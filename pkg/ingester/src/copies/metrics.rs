//! What is counted of copies.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{CopyInfo, Shared};
use crate::pager::PagerMetrics;

/// Counters of all copies.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) pager: PagerMetrics,
    /// Logs that were put into blocks from here.
    pub(super) adopted: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { pager: PagerMetrics::new(), adopted: Counter::default() }
    }
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tailwater_copies_flushed",
            "Copies of logs whose node is gone that were put into blocks",
            self.adopted.clone(),
        );
    }
}

/// The copies' own numbers, read when they are asked for.
#[derive(Debug)]
pub(super) struct CopiesCollector(pub(super) Arc<Shared>);

impl Collector for CopiesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let copies: Vec<CopyInfo> = self.0.copies().iter().map(|copy| copy.info()).collect();
        let number = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let count = number(copies.len() as u64);
        count.encode(encoder.encode_descriptor("tailwater_copies", "Copies of logs", None, MetricType::Gauge)?)?;
        let mut of_each = |name, help, value: fn(&CopyInfo) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for copy in &copies {
                number(value(copy)).encode(family.encode_family(&[("log", copy.log.to_string())])?)?;
            }
            Ok::<_, std::fmt::Error>(())
        };
        of_each("tailwater_copy_head", "Sequence number of the last batch of a copy", |copy| copy.head)?;
        of_each("tailwater_copy_covered", "Everything of a copy up to this batch is in blocks", |copy| copy.in_blocks)?;
        of_each("tailwater_copy_bytes", "Bytes of a copy on disk", |copy| copy.bytes)?;
        of_each("tailwater_copy_written", "Whether the log's node writes to the copy now", |copy| {
            copy.is_written.into()
        })
    }
}
