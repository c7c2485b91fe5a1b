//! What operators see of calls between nodes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
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
    pub(super) sent: Counter,
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
        r.register("sent_bytes", "Bytes sent to other nodes that were called", self.sent.clone());
    }
}

/// Which method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Method {
    pub(super) method: &'static str,
}

/// Counters of what a node answers.
#[derive(Clone, Debug, Default)]
pub struct ServeMetrics {
    pub(super) calls: Family<Method, Counter>,
    pub(super) refused: Family<Method, Counter>,
    pub(super) connections: Gauge,
    pub(super) closed: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
}

impl ServeMetrics {
    /// Registers them, under `tailwater_rpc_served`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("tailwater_rpc_served");
        r.register("calls", "Calls of other nodes", self.calls.clone());
        r.register("refused", "Calls of other nodes that were refused or could not begin", self.refused.clone());
        r.register("connections_active", "Open connections of other nodes", self.connections.clone());
        r.register(
            "connections_closed",
            "Connections of other nodes closed for there being too many",
            self.closed.clone(),
        );
        r.register("received_bytes", "Bytes received from other nodes that call", self.received.clone());
        r.register("sent_bytes", "Bytes sent to other nodes that call", self.sent.clone());
    }
}
