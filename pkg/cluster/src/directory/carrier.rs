//! How other nodes are reached. Calls between nodes provide it; tests have one of their own.

use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_wire::node::Node;

use crate::member::Member;
use crate::rpc::Peers;

/// The way to other nodes.
pub trait Carrier: Send + Sync + 'static {
    /// A log as this member answers for it. Nothing is sent before it is asked. Each call is one attempt; a follow ends, or says
    /// [`Away`](tailwater_wire::node::FollowEvent::Away), when its stream breaks. `owner`: only as the owner of the log; it refuses if it
    /// has only a copy.
    fn node(&self, log: LogId, member: &Member, owner: bool) -> Arc<dyn Node>;
}

impl Carrier for Peers {
    fn node(&self, log: LogId, member: &Member, owner: bool) -> Arc<dyn Node> {
        let peer = self.peer(member.grpc);
        if owner { peer.owner(log, &member.name) } else { peer.node(log, &member.name) }
    }
}
