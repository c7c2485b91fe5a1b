//! Logs by their id, whoever answers for them: the owner, or a copy on another node when the owner cannot be reached.
//!
//! Invariants:
//! * There is one [`Node`] per log, the same object from when the log is first heard of until it has ended for good.
//! * This node's own logs are asked in process.
//! * Gossip is a hint of whom to try first. What decides is whether a call is answered and a stream is alive.

mod book;
mod carrier;
mod follow;
mod lacking;
mod metrics;
mod node;
mod pick;
mod places;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tailwater_model::LogId;
use tailwater_wire::host::Host;
use tailwater_wire::node::Node;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::book::Book;
pub use self::carrier::Carrier;
pub use self::metrics::DirectoryMetrics;
use self::node::LogNode;
use self::pick::Loads;
pub use self::pick::Pick;
use self::places::{Known, Learnt, Place, Places, Way};
use crate::member::Members;

/// How often it is looked at which logs this node has, and which have ended.
const REFRESH: Duration = Duration::from_millis(500);

/// The logs there are.
pub type Logs = Arc<[Arc<dyn Node>]>;

/// See the module. Its nodes end with it.
pub struct Directory {
    logs: watch::Receiver<Logs>,
    members: watch::Receiver<Arc<Members>>,
    me: String,
    loads: Loads,
    task: JoinHandle<()>,
}

impl Directory {
    /// Of the logs of these members, as the node `me` sees them. `certain`: an answer that may lack something is none. Needs a runtime.
    #[must_use]
    pub fn new(
        members: watch::Receiver<Arc<Members>>,
        me: String,
        certain: bool,
        own: Arc<dyn Host>,
        carrier: Arc<dyn Carrier>,
        metrics: DirectoryMetrics,
    ) -> Arc<Self> {
        let (shown, logs) = watch::channel(Logs::default());
        let mut table = Table {
            me: me.clone(),
            certain,
            own,
            carrier,
            metrics,
            book: Book::default(),
            logs: BTreeMap::new(),
            shown,
        };
        table.update(&members.borrow().clone());
        let task = tokio::spawn(table.run(members.clone()));
        Arc::new(Self { logs, members, me, loads: Loads::default(), task })
    }

    /// One node per log, kept as long as the log may come back; and word of changes.
    #[must_use]
    pub fn nodes(&self) -> watch::Receiver<Logs> {
        self.logs.clone()
    }

    /// A node to send a push: the one of two by chance that has less of ours to do. Never this one, nor one that is leaving or dead,
    /// nor any of `tried`. None: there is no such node.
    #[must_use]
    pub fn pick(&self, tried: &[String]) -> Option<Pick> {
        self.loads.pick(&self.members.borrow(), &self.me, tried)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A log, and the ways to those who have it, as long as they are the same process at the same address.
struct Entry {
    known: Arc<Known>,
    node: Arc<dyn Node>,
    ways: BTreeMap<String, Reached>,
}

/// The address and the generation of a node and whether it is the owner, the way there, and what was learnt of it.
type Reached = ((SocketAddr, u64, bool), Arc<Way>, Arc<Learnt>);

/// What the task of a [`Directory`] works with.
struct Table {
    me: String,
    certain: bool,
    own: Arc<dyn Host>,
    carrier: Arc<dyn Carrier>,
    metrics: DirectoryMetrics,
    book: Book,
    logs: BTreeMap<LogId, Entry>,
    shown: watch::Sender<Logs>,
}

impl Table {
    async fn run(mut self, mut members: watch::Receiver<Arc<Members>>) {
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changing = true;
        loop {
            tokio::select! {
                // Without a sender they stay as they are.
                changed = members.changed(), if changing => changing = changed.is_ok(),
                _ = refresh.tick() => {}
            }
            let now = members.borrow_and_update().clone();
            self.update(&now);
        }
    }

    fn update(&mut self, members: &Members) {
        self.book.update(Instant::now(), members, &self.me, &self.own.logs());
        let mut entries = std::mem::take(&mut self.logs);
        let mut changed = false;
        let mut unreachable = 0;
        let mut current = BTreeMap::new();
        for (log, seen) in self.book.logs() {
            let mut entry = entries.remove(&log).unwrap_or_else(|| {
                changed = true;
                let (places, metrics) = (watch::Sender::new(Arc::default()), self.metrics.clone());
                let known = Arc::new(Known { log, certain: self.certain, places, metrics });
                Entry { node: Arc::new(LogNode(Arc::clone(&known))), known, ways: BTreeMap::new() }
            });
            entry.ways.retain(|name, _| seen.iter().any(|seen| seen.member.name == *name));
            let list: Vec<_> = seen
                .iter()
                .map(|seen| {
                    let (name, at) = (&seen.member.name, (seen.member.grpc, seen.member.generation, seen.owner));
                    let way = entry
                        .ways
                        .get(name)
                        .filter(|(known, ..)| *known == at)
                        .map(|(_, way, learnt)| (Arc::clone(way), Arc::clone(learnt)));
                    let (way, learnt) = way.unwrap_or_else(|| {
                        let way = if *name == self.me {
                            Way::Near(Arc::clone(&self.own))
                        } else {
                            Way::Far(self.carrier.node(log, &seen.member, seen.owner))
                        };
                        let (way, learnt) = (Arc::new(way), Arc::<Learnt>::default());
                        entry.ways.insert(name.clone(), (at, Arc::clone(&way), Arc::clone(&learnt)));
                        (way, learnt)
                    });
                    Arc::new(Place { name: name.clone(), owner: seen.owner, usable: seen.is_usable(), way, learnt })
                })
                .collect();
            unreachable += i64::from(!list.iter().any(|place| place.usable));
            entry.known.places.send_if_modified(|places| {
                let same = |(a, b): (&Arc<Place>, &Arc<Place>)| {
                    (&a.name, a.owner, a.usable) == (&b.name, b.owner, b.usable) && Arc::ptr_eq(&a.way, &b.way)
                };
                let changed = places.list.len() != list.len() || !places.list.iter().zip(&list).all(same);
                if changed {
                    // A node that is found to be there again is asked at once, whatever happened before.
                    for place in list.iter().filter(|place| place.usable) {
                        if places.list.iter().any(|before| before.name == place.name && !before.usable) {
                            place.answered();
                        }
                    }
                    *places = Arc::new(Places { list, ended: false });
                }
                changed
            });
            current.insert(log, entry);
        }
        for (_, entry) in entries {
            changed = true;
            entry.known.places.send_replace(Arc::new(Places { list: Vec::new(), ended: true }));
        }
        self.logs = current;
        self.metrics.logs.set(self.logs.len() as i64);
        self.metrics.unreachable.set(unreachable);
        if changed {
            self.shown.send_replace(self.logs.values().map(|entry| Arc::clone(&entry.node)).collect());
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for entry in self.logs.values() {
            entry.known.places.send_replace(Arc::new(Places { list: Vec::new(), ended: true }));
        }
    }
}
