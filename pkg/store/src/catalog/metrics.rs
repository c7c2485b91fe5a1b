//! What is counted of the catalog.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Catalog, Committed};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// Counters of one catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    commits: Family<ByOutcome, Counter>,
    /// Attempts that lost a race.
    pub(super) conflicts: Counter,
}

impl Metrics {
    pub(super) fn committed(&self, committed: &Committed) {
        let outcome = match committed {
            Committed::Done => "done",
            Committed::Stale(_) => "stale",
            Committed::Gone(_) => "gone",
        };
        self.commits.get_or_create_owned(&ByOutcome { outcome }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tailwater_catalog_commits",
            "Changes of the catalog, by how they ended",
            self.commits.clone(),
        );
        registry.register(
            "tailwater_catalog_conflicts",
            "Attempts to change the catalog that others were faster than",
            self.conflicts.clone(),
        );
    }
}

/// How much is in memory, read when it is asked for.
#[derive(Debug)]
pub(super) struct Sizes(pub(super) Arc<Catalog>);

impl Collector for Sizes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (days, weight) = self.0.days.size();
        let (tenants, _) = self.0.tenants.size();
        let mut gauge = |name, help, value: usize| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)
        };
        gauge("tailwater_catalog_cached_days", "Days whose manifests are in memory", days)?;
        gauge("tailwater_catalog_cached_blocks", "Blocks in them, about", weight.saturating_sub(days))?;
        gauge("tailwater_catalog_cached_tenants", "Tenants whose days are in memory", tenants)
    }
}
