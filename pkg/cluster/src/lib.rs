//! Several nodes as one: who is there, calls between them, and logs that outlive a node.

mod directory;
mod error;
mod member;
mod membership;
mod replicate;
pub mod rpc;
#[cfg(test)]
mod testing;

pub use directory::{Carrier, Directory, DirectoryMetrics, Logs, Pick};
pub use error::Error;
pub use member::{Member, Members, Role, State};
pub use membership::{Membership, MembershipConfig, MembershipMetrics, SILENT_GRACE, Secret, generation};
pub use replicate::{
    Acks, CopySink, CopyStream, Courier, Follower, Replication, Replicator, ReplicatorMetrics, STABLE,
};
