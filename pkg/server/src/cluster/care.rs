//! What one member does for all: it looks after blocks, and puts the lines of logs into blocks whose owners are gone.
//!
//! Invariants:
//! * Who does it follows from who is there, so that usually it is one. That two do it at once, because they do not see the same members, is
//!   harmless: the catalog is changed by compare-and-swap.
//! * Of a log whose owner is gone every copy comes into blocks, one after the other: each may have what the others lack.
//! * Delete requests are carried out up to an instant before which everything that was accepted is in blocks, in every log. If one of them
//!   cannot be asked nothing is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tailwater_cluster::{Members, State};
use tailwater_ingester::{Copies, PagerConfig};
use tailwater_model::{LogId, Timestamp};
use tailwater_querier::Nodes;
use tailwater_store::catalog::Catalog;
use tailwater_wire::node::{Node, NodeError, StateRequest};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How often copies are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How often logs are asked how far they are in blocks.
const ASK: Duration = Duration::from_secs(30);

/// How long a log may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long ago everything may have come to be in blocks, tried in this order.
const AGES: [Duration; 7] = [
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(3600),
    Duration::from_secs(3 * 3600),
    Duration::from_secs(12 * 3600),
    Duration::from_secs(48 * 3600),
];

/// See the module.
pub(crate) struct Care {
    seen: OnceLock<Seen>,
    /// Everything that was accepted before this is in blocks.
    settled: AtomicI64,
}

/// Who is there.
struct Seen {
    members: watch::Receiver<Arc<Members>>,
    me: String,
}

/// Copies of logs, and where their lines go when the owner is gone.
pub(crate) struct Orphans {
    pub(crate) copies: Copies,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) pager: PagerConfig,
    /// How long an owner may be gone, and how long after each other those come who have a copy.
    pub(crate) after: Duration,
}

impl Care {
    /// Before anything is known of others this process does nothing for them.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { seen: OnceLock::new(), settled: AtomicI64::new(i64::MIN) })
    }

    /// Whether it is this process that looks after blocks.
    pub(crate) fn leads(&self) -> bool {
        let Some(Seen { members, me }) = self.seen.get() else { return false };
        let members = members.borrow();
        let first = members.members.iter().find(|m| m.alive && m.role.ingests() && m.state == State::Active);
        first.is_some_and(|first| first.name == *me)
    }

    /// Everything that was accepted before this instant is in blocks, as far as is known.
    pub(crate) fn settled(&self) -> Timestamp {
        Timestamp(self.settled.load(Ordering::Relaxed))
    }

    /// Begins. It ends when the care is dropped.
    pub(crate) fn begin(
        self: &Arc<Self>,
        members: watch::Receiver<Arc<Members>>,
        me: String,
        nodes: Arc<dyn Nodes>,
        orphans: Option<Orphans>,
    ) {
        self.seen.get_or_init(|| Seen { members, me });
        tokio::spawn(settle(Arc::downgrade(self), Arc::clone(&nodes)));
        if let Some(orphans) = orphans {
            tokio::spawn(look_after(Arc::downgrade(self), nodes, orphans));
        }
    }
}

/// Keeps [`Care::settled`] up to date, if it is this process that asks for it.
async fn settle(care: Weak<Care>, nodes: Arc<dyn Nodes>) {
    loop {
        let Some(leads) = care.upgrade().map(|care| care.leads()) else { return };
        if leads {
            let all = nodes.nodes().borrow().to_vec();
            let mut settled = Timestamp::MAX;
            for node in all {
                settled = settled.min(in_blocks_until(node.as_ref()).await.unwrap_or(Timestamp::MIN));
            }
            let Some(care) = care.upgrade() else { return };
            care.settled.store(if settled == Timestamp::MAX { i64::MIN } else { settled.nanos() }, Ordering::Relaxed);
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Everything that a log accepted before this instant is in blocks.
async fn in_blocks_until(node: &dyn Node) -> Result<Timestamp, NodeError> {
    let now = state(node, None).await?;
    if now.in_blocks >= now.head {
        return Ok(now.watermark);
    }
    for age in AGES {
        let then = state(node, Some(age)).await?;
        if then.in_blocks >= then.before {
            return Ok(then.watermark.saturating_sub(age));
        }
    }
    Ok(Timestamp::MIN)
}

async fn state(node: &dyn Node, age: Option<Duration>) -> Result<tailwater_wire::node::LogState, NodeError> {
    let late = |_elapsed| {
        let reason = format!("it did not answer within {PATIENCE:?}");
        Err(NodeError::Unavailable { log: node.log_id(), reason })
    };
    timeout(PATIENCE, node.state(StateRequest { age })).await.unwrap_or_else(late)
}

/// Puts copies into blocks whose owners are gone, and lets go of what owners have put there.
async fn look_after(care: Weak<Care>, nodes: Arc<dyn Nodes>, orphans: Orphans) {
    let Orphans { copies, catalog, pager, after } = orphans;
    let mut asked: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(care) = care.upgrade() else { return };
        let Some(Seen { members, me }) = care.seen.get() else { return };
        let members = members.borrow().clone();
        let ask = asked.is_none_or(|at| at.elapsed() >= ASK);
        for copy in copies.state() {
            let is_orphan = !owner_is_there(&members, copy.log) && !copy.is_written;
            if !is_orphan {
                copies.abandon(copy.log);
            }
            if ask && !copy.is_written {
                // Nobody tells a copy that is not written to any more how far the log is in blocks. Of an orphan, the furthest copy does.
                let known = nodes.nodes().borrow().iter().find(|node| node.log_id() == copy.log).cloned();
                let state = match known {
                    Some(node) => state(node.as_ref(), None).await.ok(),
                    None => None,
                };
                match state {
                    Some(state) if is_orphan => copies.catch_up(copy.log, state.in_blocks),
                    Some(state) => copies.in_blocks(copy.log, state.in_blocks),
                    None => {}
                }
            }
            if is_orphan && copy.is_ready && turn(&members, copy.log, me, after).is_some_and(|turn| copy.idle >= turn) {
                copies.adopt(copy.log, Arc::clone(&catalog), pager);
            }
        }
        if ask {
            asked = Some(Instant::now());
        }
    }
}

fn owner_is_there(members: &Members, log: LogId) -> bool {
    members.members.iter().any(|m| m.alive && m.own_log() == Some(log))
}

/// How long the owner of a log must have been gone before this member acts: those who have a copy take turns, by name. All of them come to
/// act, since the first one's copy need not be the longest; the later ones find that what they share is in blocks. None: it has no copy.
fn turn(members: &Members, log: LogId, me: &str, after: Duration) -> Option<Duration> {
    let carries = |m: &&tailwater_cluster::Member| m.alive && m.own_log() != Some(log) && m.logs.contains(&log);
    let rank = members.members.iter().filter(carries).position(|m| m.name == me)?;
    Some(after.saturating_mul(u32::try_from(rank + 1).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use tailwater_cluster::{Member, Role};

    use super::*;

    fn member(name: &str, role: Role, state: State, alive: bool, logs: &[u128]) -> Member {
        let at = ([127, 0, 0, 1], 1).into();
        Member {
            name: name.to_owned(),
            generation: 1,
            role,
            state,
            zone: None,
            version: String::new(),
            http: String::new(),
            grpc: at,
            gossip: at,
            logs: logs.iter().map(|log| LogId::from_u128(*log)).collect(),
            alive,
        }
    }

    #[test]
    fn all_who_have_a_copy_take_turns() {
        let mut members = Members {
            members: vec![
                member("a", Role::All, State::Active, false, &[5, 1]),
                member("b", Role::All, State::Active, true, &[6, 1]),
                // It was the owner, and has given the log up.
                member("c", Role::Ingester, State::Active, true, &[7, 2, 1]),
                member("d", Role::All, State::Active, true, &[8]),
                member("e", Role::All, State::Active, true, &[9, 1]),
            ],
        };
        let after = Duration::from_secs(60);
        let turns = |members: &Members| {
            ["a", "b", "c", "d", "e"].map(|me| turn(members, LogId::from_u128(1), me, after).map(|turn| turn.as_secs()))
        };
        assert!(!owner_is_there(&members, LogId::from_u128(1)));
        assert_eq!(turns(&members), [None, Some(60), Some(120), None, Some(180)]);
        // Whoever goes lets the others move up; the owner itself has no turn.
        members.members[1].alive = false;
        members.members[4].logs.swap(0, 1);
        assert!(owner_is_there(&members, LogId::from_u128(1)));
        assert_eq!(turns(&members), [None, None, Some(60), None, None]);
        assert_eq!(turn(&members, LogId::from_u128(2), "c", Duration::MAX), Some(Duration::MAX));
    }

    #[test]
    fn the_first_ingester_that_is_there_leads() {
        let members = Members {
            members: vec![
                member("a", Role::Querier, State::Active, true, &[]),
                member("b", Role::All, State::Active, false, &[1]),
                member("c", Role::Ingester, State::Leaving, true, &[2]),
                member("d", Role::Ingester, State::Active, true, &[3, 1]),
                member("e", Role::All, State::Active, true, &[4, 1]),
            ],
        };
        assert!(!owner_is_there(&members, LogId::from_u128(1)) && owner_is_there(&members, LogId::from_u128(2)));
        let (_sender, members) = watch::channel(Arc::new(members));
        for (me, leads) in [("a", false), ("b", false), ("c", false), ("d", true), ("e", false)] {
            let care = Care::new();
            assert!(!care.leads());
            care.seen.get_or_init(|| Seen { members: members.clone(), me: me.to_owned() });
            assert_eq!(care.leads(), leads, "{me}");
        }
    }
}
