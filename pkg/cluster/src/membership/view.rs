//! What is gossiped, as members: one of each name.

use std::collections::{BTreeMap, HashSet};

use chitchat::{ChitchatId, NodeState};

use super::keys;
use crate::member::{Member, Members};

/// See the module.
pub(super) struct View {
    pub(super) members: Members,
    /// Known, but not well enough to be shown.
    pub(super) unready: usize,
    /// Names that more than one address is heard of under: the name, whom we take for it, who else there is.
    pub(super) conflicts: Vec<(String, String, String)>,
}

/// Of several nodes of one name the one that started last counts; on this node itself this node does.
pub(super) fn view<'a>(
    states: impl Iterator<Item = (&'a ChitchatId, &'a NodeState)>,
    live: &HashSet<&ChitchatId>,
    me: &Member,
) -> View {
    let mut by_name: BTreeMap<String, Member> = BTreeMap::new();
    by_name.insert(me.name.clone(), Member { alive: true, ..me.clone() });
    let mut unready = 0;
    let mut conflicts = Vec::new();
    for (id, state) in states {
        let mine = *id.node_id == *me.name;
        if mine && id.gossip_advertise_addr == me.gossip {
            // This node, now or before a restart.
            continue;
        }
        let alive = live.contains(id);
        let member = keys::read((&id.node_id, id.generation_id, id.gossip_advertise_addr), |key| state.get(key));
        let Some(member) = member.map(|member| Member { alive, ..member }) else {
            unready += usize::from(alive);
            continue;
        };
        let Some(other) = by_name.get(&member.name) else {
            by_name.insert(member.name.clone(), member);
            continue;
        };
        let wins = !mine && member.generation > other.generation;
        if alive && other.alive && member.gossip != other.gossip {
            let (winner, loser) = if wins { (&member, other) } else { (other, &member) };
            conflicts.push((member.name.clone(), winner.gossip.to_string(), loser.gossip.to_string()));
        }
        if wins {
            by_name.insert(member.name.clone(), member);
        }
    }
    conflicts.sort();
    View { members: Members { members: by_name.into_values().collect() }, unready, conflicts }
}
