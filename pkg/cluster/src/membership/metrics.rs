//! What operators see of gossip.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Why a datagram was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Cut short, or of another program.
    Malformed,
    /// Not made with our secret and the name of our cluster.
    Forged,
    /// It says that it is of another cluster.
    OtherCluster,
    /// Too long to be sent.
    TooLong,
}

/// What the gossip of this node is like.
#[derive(Clone, Debug, Default)]
pub struct MembershipMetrics {
    pub(super) alive: Gauge,
    pub(super) silent: Gauge,
    pub(super) unready: Gauge,
    pub(super) changes: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) restarts: Counter,
    pub(super) conflicts: Gauge,
    dropped: Family<ReasonLabels, Counter>,
}

impl MembershipMetrics {
    pub(super) fn drop(&self, why: Dropped) {
        let reason = match why {
            Dropped::Malformed => "malformed",
            Dropped::Forged => "forged",
            Dropped::OtherCluster => "other_cluster",
            Dropped::TooLong => "too_long",
        };
        self.dropped.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// How many datagrams were dropped.
    #[cfg(test)]
    pub(super) fn dropped(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&ReasonLabels { reason }).get()
    }

    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("tailwater_membership");
        r.register("members_alive", "Nodes of the cluster that are heard of, this one included", self.alive.clone());
        r.register("members_silent", "Nodes of the cluster that have fallen silent", self.silent.clone());
        r.register("members_unready", "Nodes of which too little is known to use them", self.unready.clone());
        r.register("name_conflicts", "Names that more than one running node bears; must be 0", self.conflicts.clone());
        r.register("changes", "Changes of who is there and what they say of themselves", self.changes.clone());
        r.register("gossip_received", "Gossip messages taken in", self.received.clone());
        r.register("gossip_sent", "Gossip messages sent", self.sent.clone());
        r.register("gossip_dropped", "Gossip datagrams dropped unread", self.dropped.clone());
        r.register("gossip_restarts", "Times gossip broke down and was begun again", self.restarts.clone());
    }
}
