//! Copies of this node's log on other nodes: who gets them, and getting them there.
//!
//! Invariants:
//! * The owner alone decides. It keeps `factor - 1` streams open as long as there are nodes for them; when one breaks or is stuck, the next
//!   candidate gets a copy at once, whatever gossip thinks of the old one.
//! * A copy that works is given up only for a node that has been a better candidate for [`STABLE`], or because its node is leaving; and
//!   only when the new copy is up to date.
//! * A node that failed is tried again after a pause that grows; sooner if it was started anew.

mod choose;
mod courier;
mod line;
mod metrics;
mod shared;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tailwater_model::Backoff;
use tailwater_wire::host::Copied;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::choose::choose;
pub use self::courier::{Acks, CopySink, CopyStream, Courier};
use self::line::{Ended, carry};
pub use self::metrics::ReplicatorMetrics;
pub use self::shared::Follower;
use self::shared::Shared;
use crate::member::{Member, Members, State};

/// How long a node must have been a candidate without a break before a copy that works is given up for it.
pub const STABLE: Duration = Duration::from_secs(30);

/// How often it is looked at whether something can be tried again, or be better.
const REFRESH: Duration = Duration::from_millis(250);

/// Too few copies are told of when there have been too few for so long.
const SHORT_AFTER: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How a log is copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replication {
    /// Copies that there should be, the log itself included.
    pub factor: usize,
    /// Followers that a push waits for.
    pub quorum: usize,
    /// Where copies are being written.
    pub followers: Vec<Follower>,
}

/// See the module. Dropped, it stops; pushes then wait for a quorum in vain.
pub struct Replicator {
    factor: usize,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Replicator {
    /// Begins to copy. `factor` counts the log itself; with 1 nothing is copied and no push waits. Needs a runtime.
    #[must_use]
    pub fn start(
        copied: Arc<dyn Copied>,
        members: watch::Receiver<Arc<Members>>,
        me: Member,
        courier: Arc<dyn Courier>,
        factor: usize,
        metrics: ReplicatorMetrics,
    ) -> Self {
        // A majority of all copies, of which the owner's is one.
        let quorum = factor / 2;
        let shared = Arc::new(Shared::new(Arc::clone(&copied), quorum, metrics.clone()));
        let wanted = factor.saturating_sub(1);
        metrics.wanted.set(wanted as i64);
        let manager = Manager {
            copied,
            me,
            courier,
            wanted,
            quorum,
            shared: Arc::clone(&shared),
            metrics,
            lines: JoinSet::new(),
            running: BTreeMap::new(),
            records: BTreeMap::new(),
            moving: None,
            short: None,
        };
        Self { factor, shared, task: tokio::spawn(manager.run(members)) }
    }

    /// How it goes.
    #[must_use]
    pub fn state(&self) -> Replication {
        Replication { factor: self.factor, quorum: self.factor / 2, followers: self.shared.followers() }
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of a node as a keeper of copies.
struct Record {
    generation: u64,
    /// Since when it has been a candidate without a break.
    since: Instant,
    /// It failed: not before then.
    not_before: Option<Instant>,
    backoff: Backoff,
}

/// A copy that is being written.
struct Running {
    member: Member,
    begun: Instant,
    task: AbortHandle,
}

struct Manager {
    copied: Arc<dyn Copied>,
    me: Member,
    courier: Arc<dyn Courier>,
    wanted: usize,
    quorum: usize,
    shared: Arc<Shared>,
    metrics: ReplicatorMetrics,
    lines: JoinSet<Ended>,
    running: BTreeMap<Id, Running>,
    records: BTreeMap<String, Record>,
    /// From where to where a copy is moving.
    moving: Option<(Id, Id)>,
    /// Since when there have been too few copies, and whether that was told.
    short: Option<(Instant, bool)>,
}

impl Manager {
    async fn run(mut self, mut members: watch::Receiver<Arc<Members>>) {
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changing = true;
        let shared = Arc::clone(&self.shared);
        while self.wanted > 0 {
            tokio::select! {
                Some(ended) = self.lines.join_next_with_id() => match ended {
                    Ok((id, ended)) => self.ended(id, &ended),
                    // It panicked; whatever was stopped on purpose is not looked for.
                    Err(error) => self.ended(error.id(), &Ended { reason: error.to_string(), stuck: false }),
                },
                // Without a sender they stay as they are.
                changed = members.changed(), if changing => changing = changed.is_ok(),
                () = shared.news.notified() => {}
                _ = refresh.tick() => {}
            }
            let now = members.borrow_and_update().clone();
            self.update(&now);
        }
    }

    fn ended(&mut self, id: Id, ended: &Ended) {
        let Some(Running { member, begun, .. }) = self.running.remove(&id) else { return };
        if self.moving.is_some_and(|(from, to)| from == id || to == id) {
            self.moving = None;
        }
        self.metrics.breaks.inc();
        if ended.stuck {
            self.metrics.stuck.inc();
        }
        let now = Instant::now();
        if let Some(record) = self.records.get_mut(&member.name) {
            if now.duration_since(begun) >= STABLE {
                record.backoff.reset();
            }
            record.since = now;
            record.not_before = Some(now + record.backoff.pause());
        }
        let (node, reason) = (&member.name, &ended.reason);
        if now.duration_since(begun) >= SHORT_AFTER {
            tracing::warn!(%node, %reason, "a copy of the log broke off; going on with the next node");
        } else {
            // It is tried again and again; that there are too few copies is told once.
            tracing::debug!(%node, %reason, "a copy of the log cannot be made");
        }
    }

    fn update(&mut self, members: &Members) {
        let now = Instant::now();
        let candidates: Vec<&Member> =
            members.members.iter().filter(|member| member.takes_pushes() && member.name != self.me.name).collect();
        self.note(now, &candidates);
        let ready: Vec<&Member> = candidates.iter().copied().filter(|member| self.is_ready(now, member)).collect();
        let log = self.copied.log_id();
        let zone = self.me.zone.clone();

        // Fill what is missing.
        let spare = usize::from(self.moving.is_some());
        let missing = (self.wanted + spare).saturating_sub(self.running.len());
        let chosen: Vec<Member> = self.running.values().map(|running| running.member.clone()).collect();
        let chosen: Vec<&Member> = chosen.iter().collect();
        for member in choose(log, zone.as_deref(), &chosen, &ready, missing) {
            self.begin(now, member);
        }
        self.tell(now, members.members.len());

        self.move_on(now, members, &ready, zone.as_deref());
    }

    /// Remembers since when they have been candidates.
    fn note(&mut self, now: Instant, candidates: &[&Member]) {
        self.records.retain(|name, record| {
            let is_candidate = candidates.iter().any(|member| member.name == *name);
            // What failed is remembered although it is no candidate for a while, if not for long.
            if !is_candidate {
                record.since = now;
            }
            is_candidate || record.not_before.is_some_and(|until| until + LONGEST_PAUSE > now)
        });
        for member in candidates {
            let new = || Record {
                generation: member.generation,
                since: now,
                not_before: None,
                backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            };
            let record = self.records.entry(member.name.clone()).or_insert_with(new);
            if record.generation != member.generation {
                *record = new();
            }
        }
    }

    fn is_ready(&self, now: Instant, member: &Member) -> bool {
        self.records.get(&member.name).is_none_or(|record| record.not_before.is_none_or(|until| until <= now))
    }

    fn begin(&mut self, now: Instant, member: &Member) -> Id {
        let line = carry(
            Arc::clone(&self.copied),
            Arc::clone(&self.courier),
            self.me.name.clone(),
            member.clone(),
            Arc::clone(&self.shared),
            self.metrics.clone(),
        );
        let task = self.lines.spawn(line);
        let id = task.id();
        self.running.insert(id, Running { member: member.clone(), begun: now, task });
        id
    }

    /// Goes on from a copy to one on a better node, one at a time.
    fn move_on(&mut self, now: Instant, members: &Members, ready: &[&Member], zone: Option<&str>) {
        if let Some((from, to)) = self.moving {
            let name = self.running.get(&to).map(|running| running.member.name.as_str());
            if self
                .shared
                .followers()
                .iter()
                .any(|follower| Some(follower.node.as_str()) == name && follower.up_to_date)
            {
                self.moving = None;
                self.stop(from);
            }
            return;
        }
        if self.running.len() > self.wanted {
            // What a move has left over when its first copy broke: the newest has not proved itself.
            let newest = self.running.iter().max_by_key(|(_, running)| running.begun).map(|(id, _)| *id);
            if let Some(newest) = newest {
                self.stop(newest);
            }
            return;
        }
        if self.running.len() < self.wanted {
            return;
        }
        // A node that fell silent is no candidate, but its copy works as long as it does. One that is leaving says so itself.
        let leaves = |member: &Member| members.get(&member.name).is_some_and(|now| now.state == State::Leaving);
        let mut good: Vec<&Member> =
            self.running.values().map(|running| &running.member).filter(|member| !leaves(member)).collect();
        let hurry = good.len() < self.running.len();
        let is_stable = |member: &Member| {
            let since = self.records.get(&member.name).map(|record| record.since);
            since.is_some_and(|since| now.duration_since(since) >= STABLE)
        };
        let is_running = |member: &Member| self.running.values().any(|running| running.member.name == member.name);
        good.extend(ready.iter().filter(|member| !is_running(member) && (hurry || is_stable(member))));
        let ideal = choose(self.copied.log_id(), zone, &[], &good, self.wanted);
        let Some(better) =
            ideal.iter().find(|member| !self.running.values().any(|running| running.member.name == member.name))
        else {
            return;
        };
        let worst = |running: &Running| {
            let wanted = ideal.iter().any(|member| member.name == running.member.name);
            (!wanted).then(|| (leaves(&running.member), running.begun))
        };
        let worst = self.running.iter().filter_map(|(id, running)| Some((worst(running)?, *id))).max();
        if let Some((_, from)) = worst {
            let better = Member::clone(better);
            self.metrics.moves.inc();
            let to = self.begin(now, &better);
            self.moving = Some((from, to));
        }
    }

    fn stop(&mut self, id: Id) {
        if let Some(running) = self.running.remove(&id) {
            running.task.abort();
        }
    }

    /// Says when there are too few copies for a while, and when there are enough again.
    fn tell(&mut self, now: Instant, known: usize) {
        let copies = self.shared.followers().len();
        let missing = self.wanted.saturating_sub(copies);
        self.metrics.missing.set(missing as i64);
        if missing == 0 {
            if let Some((_, true)) = self.short.take() {
                tracing::info!(copies, "there are enough copies of the log again");
            }
            return;
        }
        let (since, told) = self.short.get_or_insert((now, false));
        if *told || now.duration_since(*since) < SHORT_AFTER {
            return;
        }
        *told = true;
        if copies < self.quorum {
            tracing::warn!(
                copies,
                missing,
                known,
                "too few nodes keep copies of the log: pushes wait until there are more"
            );
        } else {
            tracing::warn!(copies, missing, known, "too few nodes keep copies of the log");
        }
    }
}
