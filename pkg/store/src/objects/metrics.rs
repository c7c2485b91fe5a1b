//! What is counted of the traffic with the object store.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets of the latency, in seconds: a page from a local disk up to an operation that used up its budget.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// What is done with objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Get,
    Ranges,
    Tail,
    Put,
    PutIf,
    Delete,
    List,
}

impl Operation {
    /// The word for texts and labels.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Ranges => "read",
            Self::Tail => "tail",
            Self::Put => "put",
            Self::PutIf => "put_if",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }

    /// Whether it changes something.
    pub(super) fn writes(self) -> bool {
        matches!(self, Self::Put | Self::PutIf | Self::Delete)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOperation {
    operation: &'static str,
}

#[derive(Clone, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// Counters of one [`Objects`](super::Objects).
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    operations: Family<ByOutcome, Counter>,
    retries: Family<ByOperation, Counter>,
    seconds: Family<ByOperation, Histogram, Buckets>,
    /// Bytes of objects written.
    pub(super) written: Counter,
    /// Bytes of objects read.
    pub(super) read: Counter,
    /// Operations that hold one of the bounded number of places.
    pub(super) in_flight: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            operations: Family::default(),
            retries: Family::default(),
            seconds: Family::new_with_constructor(Buckets),
            written: Counter::default(),
            read: Counter::default(),
            in_flight: Gauge::default(),
        }
    }

    /// Counts an operation that has come to an end.
    pub(super) fn ended(&self, operation: Operation, outcome: &'static str, took: Duration) {
        let operation = operation.word();
        self.operations.get_or_create_owned(&ByOutcome { operation, outcome }).inc();
        self.seconds.get_or_create_owned(&ByOperation { operation }).observe(took.as_secs_f64());
    }

    /// Counts that an operation begins once more.
    pub(super) fn retried(&self, operation: Operation) {
        self.retries.get_or_create_owned(&ByOperation { operation: operation.word() }).inc();
    }

    #[cfg(test)]
    pub(super) fn retries(&self, operation: Operation) -> u64 {
        self.retries.get_or_create_owned(&ByOperation { operation: operation.word() }).get()
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tailwater_objects_operations",
            "Operations on objects, by how they ended",
            self.operations.clone(),
        );
        registry.register("tailwater_objects_retries", "Operations begun once more", self.retries.clone());
        registry.register("tailwater_objects_seconds", "Time of operations, retries included", self.seconds.clone());
        registry.register("tailwater_objects_written_bytes", "Bytes of objects written", self.written.clone());
        registry.register("tailwater_objects_read_bytes", "Bytes of objects read", self.read.clone());
        registry.register("tailwater_objects_in_flight", "Operations under way", self.in_flight.clone());
    }
}
