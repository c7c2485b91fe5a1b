//! What the ingester counts. Where a dashboard made for Loki relies on a counter, it is there under Loki's name too.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tailwater_model::TenantId;
use tailwater_wire::host::CopyState;

use crate::log::ArrivalLog;
use crate::quorum::Quorum;
use crate::recover::Readiness;
use crate::validate::Reason;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTenant {
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
    tenant: String,
}

/// Counters of all tenants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    lines: Family<ByTenant, Counter>,
    bytes: Family<ByTenant, Counter>,
    received_lines: Family<ByTenant, Counter>,
    received_bytes: Family<ByTenant, Counter>,
    streams: Family<ByTenant, Gauge>,
    streams_created: Family<ByTenant, Counter>,
    discarded_lines: Family<ByReason, Counter>,
    discarded_bytes: Family<ByReason, Counter>,
    truncated_lines: Family<ByTenant, Counter>,
    duplicate_lines: Family<ByTenant, Counter>,
    pub(crate) tail_groups: Gauge,
    pub(crate) followers: Gauge,
}

/// Counters of one tenant, without a look-up.
#[derive(Clone, Debug)]
pub(crate) struct TenantMetrics {
    all: Metrics,
    tenant: String,
    /// Lines accepted.
    pub(crate) lines: Counter,
    /// Bytes of lines and structured metadata accepted.
    pub(crate) bytes: Counter,
    /// Lines that passed the checks of entries.
    pub(crate) received_lines: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) streams: Gauge,
    pub(crate) streams_created: Counter,
    /// Lines that were cut to the longest length allowed.
    pub(crate) truncated_lines: Counter,
    /// Lines equal to the one before them in their stream.
    pub(crate) duplicate_lines: Counter,
}

impl Metrics {
    pub(crate) fn of(&self, tenant: &TenantId) -> TenantMetrics {
        let by = ByTenant { tenant: tenant.to_string() };
        TenantMetrics {
            all: self.clone(),
            tenant: tenant.to_string(),
            lines: self.lines.get_or_create_owned(&by),
            bytes: self.bytes.get_or_create_owned(&by),
            received_lines: self.received_lines.get_or_create_owned(&by),
            received_bytes: self.received_bytes.get_or_create_owned(&by),
            streams: self.streams.get_or_create_owned(&by),
            streams_created: self.streams_created.get_or_create_owned(&by),
            truncated_lines: self.truncated_lines.get_or_create_owned(&by),
            duplicate_lines: self.duplicate_lines.get_or_create_owned(&by),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("tailwater_ingester_lines", "Lines accepted", self.lines.clone());
        registry.register(
            "tailwater_ingester_bytes",
            "Bytes of lines and structured metadata accepted",
            self.bytes.clone(),
        );
        registry.register("tailwater_ingester_streams", "Active streams", self.streams.clone());
        registry.register("tailwater_ingester_streams_created", "Streams created", self.streams_created.clone());
        registry.register("tailwater_discarded_lines", "Lines refused", self.discarded_lines.clone());
        registry.register("tailwater_discarded_bytes", "Bytes refused", self.discarded_bytes.clone());
        registry.register("tailwater_truncated_lines", "Lines cut to max_line_size", self.truncated_lines.clone());
        registry.register(
            "tailwater_duplicate_lines",
            "Lines dropped because they equal the one before them in their stream",
            self.duplicate_lines.clone(),
        );
        registry.register("tailwater_tail_groups", "Distinct queries being tailed", self.tail_groups.clone());
        registry.register("tailwater_followers", "Open follows", self.followers.clone());
        registry.register(
            "loki_distributor_lines_received",
            "Lines that passed the checks of entries",
            self.received_lines.clone(),
        );
        registry.register(
            "loki_distributor_bytes_received",
            "Bytes that passed the checks of entries",
            self.received_bytes.clone(),
        );
        registry.register("loki_ingester_memory_streams", "Active streams", self.streams.clone());
        registry.register("loki_ingester_streams_created", "Streams created", self.streams_created.clone());
        registry.register("loki_discarded_samples", "Lines refused", self.discarded_lines.clone());
        registry.register("loki_discarded_bytes", "Bytes refused", self.discarded_bytes.clone());
    }

    /// Lets go of what was counted of a tenant that was forgotten; refusals stay, they are few.
    pub(crate) fn forget(&self, tenant: &TenantId) {
        let by = ByTenant { tenant: tenant.to_string() };
        for family in [
            &self.lines,
            &self.bytes,
            &self.received_lines,
            &self.received_bytes,
            &self.streams_created,
            &self.truncated_lines,
            &self.duplicate_lines,
        ] {
            family.remove(&by);
        }
        self.streams.remove(&by);
        for reason in Reason::ALL {
            let by = ByReason { reason: reason.label().to_owned(), tenant: tenant.to_string() };
            self.discarded_lines.remove(&by);
            self.discarded_bytes.remove(&by);
        }
    }
}

impl TenantMetrics {
    pub(crate) fn discarded(&self, reason: Reason, lines: u64, bytes: u64) {
        let by = ByReason { reason: reason.label().to_owned(), tenant: self.tenant.clone() };
        self.all.discarded_lines.get_or_create_owned(&by).inc_by(lines);
        self.all.discarded_bytes.get_or_create_owned(&by).inc_by(bytes);
    }
}

/// The log's own numbers, read when they are asked for.
#[derive(Debug)]
pub(crate) struct LogCollector {
    pub(crate) log: Arc<ArrivalLog>,
    pub(crate) readiness: Arc<Readiness>,
}

impl Collector for LogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self { log, readiness } = self;
        let size = log.size();
        let mut gauge = |name, help, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)
        };
        gauge("tailwater_log_head", "Sequence number of the last batch", size.head)?;
        gauge("tailwater_log_batches", "Batches in memory", size.batches)?;
        gauge("tailwater_log_memory_bytes", "Memory of the arrival log", size.bytes)?;
        gauge("tailwater_log_memory_limit_bytes", "Bound on the memory of the arrival log", log.memory() as u64)?;
        if log.is_durable() {
            let (uncovered, recovered) = (log.uncovered(), readiness.so_far());
            gauge("tailwater_log_covered", "Everything up to this batch is in blocks", uncovered.first - 1)?;
            gauge("tailwater_log_recovered_batches", "Batches taken back when the process started", recovered.batches)?;
            gauge(
                "tailwater_log_recovered_bytes",
                "Bytes of the write-ahead log gone through then",
                recovered.done_bytes,
            )?;
            gauge("tailwater_log_recovery_milliseconds", "How long that took", readiness.millis())?;
        }
        let mut counter = |name, help, value: u64| {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)
        };
        counter("tailwater_log_trimmed_batches", "Batches trimmed", size.trimmed.batches)?;
        counter("tailwater_log_trimmed_lines", "Lines trimmed", size.trimmed.lines)
    }
}

/// How pushes wait for copies, and how far those are, read when it is asked for.
#[derive(Debug)]
struct Copied {
    log: Arc<ArrivalLog>,
    quorum: Arc<Quorum>,
}

impl Quorum {
    /// Adds what is counted of copies of a log to a registry.
    pub(crate) fn register(self: &Arc<Self>, registry: &mut Registry, log: &Arc<ArrivalLog>) {
        registry.register(
            "tailwater_replication_timeouts",
            "Pushes that too few replicas have confirmed in time",
            self.timeouts.clone(),
        );
        registry.register_collector(Box::new(Copied { log: Arc::clone(log), quorum: Arc::clone(self) }));
    }
}

impl Collector for Copied {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let number = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let mut gauge = |name, help, value: usize| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            number(value as u64).encode(metric)
        };
        gauge("tailwater_replication_waiting_pushes", "Pushes that wait for replicas", self.quorum.waiting())?;
        gauge("tailwater_replication_quorum", "Replicas that must confirm a push", self.quorum.needed())?;
        let copies = self.quorum.copies();
        let head = self.log.head();
        let mut of_each = |name, help, value: &dyn Fn(&CopyState) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for copy in &copies {
                number(value(copy)).encode(family.encode_family(&[("node", copy.node.as_str())])?)?;
            }
            Ok::<_, std::fmt::Error>(())
        };
        of_each("tailwater_replication_lag_batches", "Batches that a replica has not confirmed", &|copy| {
            head.saturating_sub(copy.through)
        })?;
        of_each("tailwater_replication_lag_bytes", "Bytes of lines that a replica has not confirmed, about", &|copy| {
            self.log.bytes_after(copy.through)
        })
    }
}
