//! How far the copies are, as all who write them know together.
//!
//! Invariant: a copy's position only grows while its stream lives. Whatever is said to the log's owner is said in the order in which it
//! became true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tailwater_wire::host::{Copied, CopyState};
use tokio::sync::Notify;

use super::metrics::ReplicatorMetrics;

/// A node that a copy is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Follower {
    /// The node.
    pub node: String,
    /// The last batch that it has acknowledged.
    pub through: u64,
    /// Whether it has had everything there was once since its stream began.
    pub up_to_date: bool,
    #[serde(skip)]
    line: u64,
}

/// See the module.
pub(super) struct Shared {
    copied: Arc<dyn Copied>,
    /// Copies beside the owner that a push waits for.
    quorum: usize,
    followers: Mutex<BTreeMap<String, Follower>>,
    lines: AtomicU64,
    /// Somebody has caught up.
    pub(super) news: Notify,
    metrics: ReplicatorMetrics,
}

impl Shared {
    pub(super) fn new(copied: Arc<dyn Copied>, quorum: usize, metrics: ReplicatorMetrics) -> Self {
        copied.acknowledged_by(&[], quorum);
        Self { copied, quorum, followers: Mutex::default(), lines: AtomicU64::new(0), news: Notify::new(), metrics }
    }

    pub(super) fn followers(&self) -> Vec<Follower> {
        self.followers.lock().values().cloned().collect()
    }

    /// A number for a stream to a node, greater than those before.
    pub(super) fn enter(&self) -> u64 {
        self.lines.fetch_add(1, Ordering::Relaxed)
    }

    /// Answers whether that is more than before.
    pub(super) fn acknowledged(&self, node: &str, line: u64, through: u64) -> bool {
        let mut followers = self.followers.lock();
        let more = match followers.get_mut(node).filter(|follower| follower.line >= line) {
            Some(follower) if follower.line > line => false,
            Some(follower) if follower.through >= through => false,
            Some(follower) => {
                follower.through = through;
                true
            }
            None => {
                followers.insert(node.to_owned(), Follower { node: node.to_owned(), through, up_to_date: false, line });
                true
            }
        };
        if more {
            self.tell(&followers);
        }
        more
    }

    pub(super) fn caught_up(&self, node: &str, line: u64) {
        let mut followers = self.followers.lock();
        if let Some(follower) = followers.get_mut(node).filter(|follower| follower.line == line) {
            follower.up_to_date = true;
        }
        self.tell(&followers);
        drop(followers);
        self.news.notify_one();
    }

    pub(super) fn gone(&self, node: &str, line: u64) {
        let mut followers = self.followers.lock();
        if followers.get(node).is_some_and(|follower| follower.line == line) {
            followers.remove(node);
            self.tell(&followers);
        }
    }

    fn tell(&self, followers: &BTreeMap<String, Follower>) {
        let up_to_date = followers.values().filter(|follower| follower.up_to_date).count();
        self.metrics.copies.set(up_to_date as i64);
        self.metrics.catching_up.set((followers.len() - up_to_date) as i64);
        let copies: Vec<_> = followers
            .values()
            .map(|follower| CopyState { node: follower.node.clone(), through: follower.through })
            .collect();
        self.copied.acknowledged_by(&copies, self.quorum);
    }
}
