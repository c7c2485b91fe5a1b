//! How other nodes are reached. Calls between nodes provide it; tests have one of their own.

use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_wire::node::Node;

use crate::member::Member;
use crate::rpc::Peers;

/// The way to other nodes.
pub trait Carrier: Send + Sync + 'static {
    /// A log as this member answers for it. Nothing is sent before it is asked. Each call is one attempt; a follow ends, or says
    /// [`Away`](tailwater_wire::node::FollowEvent::Away), when its stream breaks.
    fn node(&self, log: LogId, member: &Member) -> Arc<dyn Node>;
}

impl Carrier for Peers {
    fn node(&self, log: LogId, member: &Member) -> Arc<dyn Node> {
        self.peer(member.grpc).node(log, &member.name)
    }
}
