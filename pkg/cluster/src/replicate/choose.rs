//! Which nodes keep the copies of a log. Sans-I/O.
//!
//! Invariants:
//! * The same nodes in the same state are chosen whenever they are: rendezvous hashing of (log, name). Each log has its own order.
//! * A zone that has neither the owner nor a copy yet comes first.

use ring::digest::{SHA256, digest};
use tailwater_model::LogId;

use crate::member::Member;

/// How good a node is for a log.
pub(super) fn score(log: LogId, name: &str) -> u64 {
    let hash = digest(&SHA256, &[&log.as_u128().to_le_bytes(), name.as_bytes()].concat());
    hash.as_ref().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// The best `count` of the candidates for a log, beside those that were `chosen` before. `zone` is the owner's.
pub(super) fn choose<'a>(
    log: LogId,
    zone: Option<&str>,
    chosen: &[&Member],
    candidates: &[&'a Member],
    count: usize,
) -> Vec<&'a Member> {
    let mut zones: Vec<&str> =
        zone.into_iter().chain(chosen.iter().filter_map(|member| member.zone.as_deref())).collect();
    let mut left: Vec<_> = candidates.iter().map(|member| (score(log, &member.name), *member)).collect();
    left.retain(|(_, member)| !chosen.iter().any(|chosen| chosen.name == member.name));
    let mut best = Vec::new();
    while best.len() < count {
        let is_new = |member: &Member| member.zone.as_deref().is_some_and(|zone| !zones.contains(&zone));
        let Some(at) = (0..left.len()).max_by_key(|at| left.get(*at).map(|(score, member)| (is_new(member), *score)))
        else {
            break;
        };
        let (_, member) = left.swap_remove(at);
        zones.extend(member.zone.as_deref());
        best.push(member);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Role;
    use crate::testing::member;

    #[test]
    fn other_zones_come_first_and_logs_are_spread() {
        let members: Vec<_> =
            (0..9).map(|n| member(&format!("n{n}"), Role::All, Some(["a", "b", "c"][n % 3]), &[])).collect();
        let all: Vec<_> = members.iter().collect();
        let mut counts = std::collections::BTreeMap::new();
        for log in (0..300).map(LogId::from_u128) {
            let two = choose(log, Some("a"), &[], &all, 2);
            let mut zones: Vec<_> = two.iter().filter_map(|member| member.zone.as_deref()).collect();
            zones.sort_unstable();
            assert_eq!(zones, ["b", "c"]);
            let mut shuffled = all.clone();
            fastrand::shuffle(&mut shuffled);
            assert_eq!(choose(log, Some("a"), &[], &shuffled, 2), two);
            for member in two {
                *counts.entry(member.name.clone()).or_insert(0) += 1;
            }
            // One is there: the other one goes where neither it nor the owner is.
            let rest = choose(log, Some("a"), &[all[1]], &all, 1);
            assert_eq!(rest[0].zone.as_deref(), Some("c"));
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (50..150).contains(count)), "{counts:?}");
    }

    #[test]
    fn without_other_zones_the_best_of_all_are_taken() {
        let members: Vec<_> = (0..4).map(|n| member(&format!("n{n}"), Role::All, None, &[])).collect();
        let all: Vec<_> = members.iter().collect();
        let log = LogId::from_u128(7);
        assert_eq!(choose(log, Some("a"), &[], &all, 9).len(), 4);
        let best = choose(log, None, &[], &all, 1);
        assert_eq!(best[0].name, all.iter().max_by_key(|m| score(log, &m.name)).unwrap().name);
        assert!(choose(log, None, &[], &[], 2).is_empty());
    }
}
