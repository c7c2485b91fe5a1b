//! Where a log can be asked for, and what was learnt of asking there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tailwater_model::LogId;
use tailwater_wire::host::Host;
use tailwater_wire::node::{Node, StateRequest};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::metrics::DirectoryMetrics;

/// How long a node may take to say how far its copy is.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_millis(300);

/// The same of a node that gossip takes for alive, for answers that must not lack what it has.
const LONG_HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a node that could not be reached is asked last.
const SUSPECT_FOR: Duration = Duration::from_secs(1);

/// The way there.
pub(super) enum Way {
    Near(Arc<dyn Host>),
    Far(Arc<dyn Node>),
}

/// What was learnt of a node by asking it; it outlives changes of what gossip says of it.
#[derive(Default)]
pub(super) struct Learnt {
    suspect_until: Mutex<Option<Instant>>,
}

/// A node that can answer for a log.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) owner: bool,
    /// Whether gossip thinks that it is there.
    pub(super) usable: bool,
    pub(super) way: Arc<Way>,
    pub(super) learnt: Arc<Learnt>,
}

impl Place {
    /// The log there. None: this node has it no more.
    pub(super) fn node(&self, log: LogId) -> Option<Arc<dyn Node>> {
        match &*self.way {
            Way::Near(host) => host.log(log),
            Way::Far(node) => Some(Arc::clone(node)),
        }
    }

    pub(super) fn is_well(&self) -> bool {
        self.usable && self.learnt.suspect_until.lock().is_none_or(|until| until <= Instant::now())
    }

    pub(super) fn failed(&self) {
        *self.learnt.suspect_until.lock() = Some(Instant::now() + SUSPECT_FOR);
    }

    pub(super) fn answered(&self) {
        *self.learnt.suspect_until.lock() = None;
    }
}

/// All of them.
#[derive(Clone, Default)]
pub(super) struct Places {
    /// The owner first, then those that are worth asking.
    pub(super) list: Vec<Arc<Place>>,
    /// The log has ended for good.
    pub(super) ended: bool,
}

impl Places {
    pub(super) fn owner(&self) -> Option<&Arc<Place>> {
        self.list.first().filter(|place| place.owner)
    }
}

/// How far several nodes are with a log.
#[derive(Default)]
pub(super) struct Heads {
    /// The owner first, then those that have most without a loss of their own.
    pub(super) list: Vec<(u64, Arc<Place>)>,
    /// Those with a copy that did not say so in time: any of them may be further than all others.
    pub(super) silent: Vec<String>,
}

/// What is known of a log by everybody who asks it or follows it.
pub(super) struct Known {
    pub(super) log: LogId,
    /// Whether an answer that may lack something is none (`querier.allow_partial: false`).
    pub(super) certain: bool,
    pub(super) places: watch::Sender<Arc<Places>>,
    pub(super) metrics: DirectoryMetrics,
}

impl Known {
    pub(super) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places.borrow())
    }

    /// How far these are: the owner first, then those that have most without a loss of their own. `certain`: copies on those that gossip takes
    /// for being there are waited for longer, so that an answer lacks nothing.
    pub(super) async fn heads(&self, places: impl Iterator<Item = &Arc<Place>>, certain: bool) -> Heads {
        let asked: FuturesUnordered<_> = places
            .map(|place| {
                let node = place.node(self.log);
                let patience = if certain && place.usable && !place.owner { LONG_HEAD_TIMEOUT } else { HEAD_TIMEOUT };
                let place = Arc::clone(place);
                async move {
                    let state = match node {
                        Some(node) => timeout(patience, node.state(StateRequest::default())).await.ok(),
                        None => None,
                    };
                    match state {
                        Some(Ok(state)) => (Some((state.whole, state.head)), place),
                        _ => (None, place),
                    }
                }
            })
            .collect();
        let (mut all, mut silent) = (Vec::new(), Vec::new());
        for (head, place) in asked.collect::<Vec<_>>().await {
            match head {
                Some(head) => all.push((head, place)),
                None if place.owner => {}
                None => silent.push(place.name.clone()),
            }
        }
        all.sort_by(|(a, at_a), (b, at_b)| {
            at_b.owner.cmp(&at_a.owner).then(b.cmp(a)).then_with(|| at_a.name.cmp(&at_b.name))
        });
        silent.sort();
        Heads { list: all.into_iter().map(|((_, head), place)| (head, place)).collect(), silent }
    }
}
