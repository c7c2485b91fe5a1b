//! The logs as a session sees them: those of its feed, others that there are, and blocks.

use std::sync::Arc;

use tailwater_model::{Clock, LogId, TenantId};
use tailwater_wire::node::Node;

use crate::feed::Feed;
use crate::had::Name;
use crate::querier::Nodes;
use crate::source::Source;
use crate::tenant_labels::TenantLabels;

/// See the module.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) feed: Arc<Feed>,
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Outside {
    /// What answers for a source, if anything does.
    pub(crate) fn source(&self, name: &Name) -> Option<Source> {
        let nodes = self.nodes.nodes();
        let listed = nodes.borrow().iter().find(|node| node.log_id() == name.log).cloned();
        // A feed keeps what it follows after it has left the list.
        let followed =
            || self.feed.sources.iter().map(|(_, s)| Arc::clone(&s.node)).find(|node| node.log_id() == name.log);
        self.answered_by(&name.tenant, listed.or_else(followed)?)
    }

    /// Blocks as the answer for a source up to a position, if the querier reads them.
    pub(crate) fn blocks(&self, name: &Name, through: u64) -> Option<Source> {
        let boundary: Arc<[(LogId, u64)]> = Arc::new([(name.log, through)]);
        let node = self.nodes.blocks()?.up_to(boundary, name.log, std::time::Instant::now());
        self.answered_by(&name.tenant, node)
    }

    /// A node as the answer for a tenant; none if that is not one of the tail's.
    pub(crate) fn answered_by(&self, tenant: &TenantId, node: Arc<dyn Node>) -> Option<Source> {
        let of_feed = self.feed.key().tenants.iter().find(|known| known.id == *tenant)?;
        Some(Source { node, tenant: tenant.clone(), detect_level: of_feed.detect_level })
    }

    /// What names the tenants of lines, if they are named, of sources by their places.
    pub(crate) fn tenant_labels<'a>(&self, names: impl Iterator<Item = &'a Name>) -> Option<TenantLabels> {
        self.feed.key().names_tenants.then(|| TenantLabels::of(names.map(|name| name.tenant.clone()).collect()))
    }
}
