//! Members made by hand.

use std::sync::Arc;

use tailwater_model::LogId;

use crate::member::{Member, Members, Role, State};

/// An active, living member. Its addresses follow from its name.
pub(crate) fn member(name: &str, role: Role, zone: Option<&str>, logs: &[u128]) -> Member {
    let port = 1000 + name.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 60_000;
    Member {
        name: name.to_owned(),
        generation: 1,
        role,
        state: State::Active,
        zone: zone.map(str::to_owned),
        version: "0.1.0".to_owned(),
        http: format!("http://127.0.0.1:{port}"),
        grpc: ([127, 0, 0, 2], port).into(),
        gossip: ([127, 0, 0, 3], port).into(),
        logs: logs.iter().copied().map(LogId::from_u128).collect(),
        alive: true,
    }
}

/// These, sorted by name.
pub(crate) fn members(members: &[Member]) -> Arc<Members> {
    let mut members = members.to_vec();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Arc::new(Members { members })
}
