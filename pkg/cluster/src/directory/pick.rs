//! Whom to send a push: of two by chance the one that has less of ours to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::member::{Member, Members};

/// Requests of this node that are under way, by the name of who has them.
#[derive(Default)]
pub(super) struct Loads(Mutex<BTreeMap<String, Arc<AtomicUsize>>>);

/// A node that was picked. It counts as busy with one more request until this is dropped.
#[derive(Debug)]
pub struct Pick {
    /// The node.
    pub member: Member,
    load: Arc<AtomicUsize>,
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Loads {
    /// One of those that take pushes, but neither `me` nor any of `tried`.
    pub(super) fn pick(&self, members: &Members, me: &str, tried: &[String]) -> Option<Pick> {
        let takers = members.members.iter().filter(|m| m.takes_pushes() && m.name != me && !tried.contains(&m.name));
        let mut two = fastrand::choose_multiple(takers, 2);
        // Which of them is drawn first is not by chance.
        fastrand::shuffle(&mut two);
        let mut loads = self.0.lock();
        loads.retain(|name, load| load.load(Ordering::Relaxed) > 0 || members.get(name).is_some());
        let mut load = |name: &str| Arc::clone(loads.entry(name.to_owned()).or_default());
        let (member, load) = two
            .into_iter()
            .map(|member| (member, load(&member.name)))
            .min_by_key(|(_, load)| load.load(Ordering::Relaxed))?;
        load.fetch_add(1, Ordering::Relaxed);
        Some(Pick { member: member.clone(), load })
    }
}
