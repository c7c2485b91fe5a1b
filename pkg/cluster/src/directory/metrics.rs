//! What operators see of the ways to logs.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What finding logs is like on this node.
#[derive(Clone, Debug, Default)]
pub struct DirectoryMetrics {
    pub(super) logs: Gauge,
    pub(super) unreachable: Gauge,
    pub(super) failovers: Counter,
    pub(super) uncertain: Counter,
    pub(super) unavailable: Counter,
    pub(super) follows: Gauge,
    pub(super) follows_away: Gauge,
    pub(super) follow_breaks: Counter,
    pub(super) follow_returns: Counter,
}

impl DirectoryMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("tailwater_directory");
        r.register("logs", "Arrival logs that are known", self.logs.clone());
        r.register("logs_unreachable", "Of these, logs that no living node answers for", self.unreachable.clone());
        r.register("calls_failed_over", "Calls that a copy answered instead of its owner", self.failovers.clone());
        r.register(
            "calls_uncertain",
            "Of these, answers that may lack lines: another node that has a copy did not say how far it is",
            self.uncertain.clone(),
        );
        r.register("calls_unavailable", "Calls that nobody answered", self.unavailable.clone());
        r.register("follows", "Follows of logs", self.follows.clone());
        r.register("follows_away", "Of these, follows that have no stream now", self.follows_away.clone());
        r.register("follow_breaks", "Streams of follows that broke", self.follow_breaks.clone());
        r.register(
            "follow_returns",
            "Times that a follow went back from a copy to a log's owner",
            self.follow_returns.clone(),
        );
    }
}
