//! What operators see of calls to other nodes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of all peers of a node.
#[derive(Clone, Debug, Default)]
pub struct RpcMetrics {
    pub(super) calls: Counter,
    pub(super) errors: Counter,
    pub(super) connections: Counter,
    pub(super) follows: Gauge,
    pub(super) received: Counter,
}

impl RpcMetrics {
    /// Registers them, under `tailwater_rpc`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("tailwater_rpc");
        r.register("calls", "Calls to other nodes", self.calls.clone());
        r.register("errors", "Calls to other nodes that failed", self.errors.clone());
        r.register("connections", "Attempts to connect to other nodes", self.connections.clone());
        r.register("follows_active", "Open follows of logs of other nodes", self.follows.clone());
        r.register("received_bytes", "Bytes received from other nodes that were called", self.received.clone());
    }
}
