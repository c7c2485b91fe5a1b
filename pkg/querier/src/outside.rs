//! The logs as a session sees them: those of its feed, others that there are, and blocks.

use std::sync::Arc;

use tailwater_model::{Clock, LogId};
use tailwater_wire::node::Node;

use crate::feed::{Feed, FeedTenant};
use crate::had::Name;
use crate::querier::Nodes;
use crate::source::{Source, Sources};
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
        let FeedTenant { id, detect_level } = self.feed.key().tenants.iter().find(|tenant| tenant.id == name.tenant)?;
        let nodes = self.nodes.nodes();
        let listed = nodes.borrow().iter().find(|node| node.log_id() == name.log).cloned();
        // A feed keeps what it follows after it has left the list.
        let followed =
            || self.feed.sources.iter().map(|(_, s)| Arc::clone(&s.node)).find(|node| node.log_id() == name.log);
        let node = listed.or_else(followed)?;
        Some(Source { node, tenant: id.clone(), detect_level: *detect_level })
    }

    /// Blocks as the answer for a source up to a position, if the querier reads them.
    pub(crate) fn blocks(&self, name: &Name, through: u64) -> Option<Source> {
        let FeedTenant { id, detect_level } = self.feed.key().tenants.iter().find(|tenant| tenant.id == name.tenant)?;
        let boundary: Arc<[(LogId, u64)]> = Arc::new([(name.log, through)]);
        let node: Arc<dyn Node> = self.nodes.blocks()?.up_to(boundary, name.log, std::time::Instant::now());
        Some(Source { node, tenant: id.clone(), detect_level: *detect_level })
    }

    /// What names the tenants of lines, if they are named, of sources by their places.
    pub(crate) fn tenant_labels<'a>(&self, names: impl Iterator<Item = &'a Name>) -> Option<TenantLabels> {
        let node = self.feed.sources.iter().map(|(_, source)| Arc::clone(&source.node)).next()?;
        let source = |name: &Name| Source { node: Arc::clone(&node), tenant: name.tenant.clone(), detect_level: false };
        self.feed.key().names_tenants.then(|| TenantLabels::new(Sources::new(names.map(source))))
    }
}
