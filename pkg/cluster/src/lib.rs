//! Several nodes as one: who is there, calls between them, and logs that outlive a node.

mod member;
pub mod rpc;

pub use member::{Member, Members, Role, State};
