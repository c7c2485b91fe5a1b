//! Why a node cannot be part of a cluster.

use std::net::SocketAddr;

/// Why a node cannot be part of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Gossip cannot be listened for.
    #[error("cannot gossip on {listen}: {reason}")]
    Gossip {
        /// Where.
        listen: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// Others could not reach it.
    #[error("{listen} is no address that other nodes can reach; name one to advertise")]
    Advertise {
        /// What would be advertised.
        listen: SocketAddr,
    },
    /// A name that no node may bear.
    #[error("{name:?} cannot be the name of a node: 1 to 253 bytes without white space are needed")]
    Name {
        /// The name.
        name: String,
    },
}
