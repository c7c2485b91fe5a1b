//! What operators see of replication.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How the log of this node is copied.
#[derive(Clone, Debug, Default)]
pub struct ReplicatorMetrics {
    pub(super) wanted: Gauge,
    pub(super) copies: Gauge,
    pub(super) catching_up: Gauge,
    pub(super) missing: Gauge,
    pub(super) in_flight_bytes: Gauge,
    pub(super) sent_records: Counter,
    pub(super) sent_bytes: Counter,
    pub(super) breaks: Counter,
    pub(super) stuck: Counter,
    pub(super) moves: Counter,
}

impl ReplicatorMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("tailwater_replication");
        r.register(
            "copies_wanted",
            "Copies of this node's log that there should be on other nodes",
            self.wanted.clone(),
        );
        r.register("copies", "Copies that are up to date", self.copies.clone());
        r.register("copies_catching_up", "Copies that are being made", self.catching_up.clone());
        r.register("copies_missing", "Copies that no node can be found for; pushes may wait", self.missing.clone());
        r.register(
            "in_flight_bytes",
            "Bytes on their way to copies, not yet acknowledged",
            self.in_flight_bytes.clone(),
        );
        r.register("records_sent", "Records sent to copies", self.sent_records.clone());
        r.register("bytes_sent", "Bytes of records sent to copies", self.sent_bytes.clone());
        r.register("breaks", "Streams to copies that broke", self.breaks.clone());
        r.register("stuck", "Of these, streams whose node had stopped acknowledging", self.stuck.clone());
        r.register("moves", "Copies that were replaced by one on a better node", self.moves.clone());
    }
}
