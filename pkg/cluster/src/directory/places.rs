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

/// The same for a copy on one that gossip takes for being there, where what it has must not be left out.
pub(super) const HEAD_PATIENCE: Duration = Duration::from_secs(2);

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

/// What is known of a log by everybody who asks it or follows it.
pub(super) struct Known {
    pub(super) log: LogId,
    pub(super) places: watch::Sender<Arc<Places>>,
    pub(super) metrics: DirectoryMetrics,
}

impl Known {
    pub(super) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places.borrow())
    }

    /// How far these are, first those that have most without a loss of their own. Who does not say so in time is left out. `patience`: how
    /// long copies may take on those that are there.
    pub(super) async fn heads(
        &self,
        places: impl Iterator<Item = &Arc<Place>>,
        patience: Duration,
    ) -> Vec<(u64, Arc<Place>)> {
        let asked: FuturesUnordered<_> = places
            .filter_map(|place| {
                let asked = self.log_at(place)?.state(StateRequest::default());
                let place = Arc::clone(place);
                let patience = if place.usable && !place.owner { patience } else { HEAD_TIMEOUT };
                Some(async move {
                    match timeout(patience, asked).await {
                        Ok(Ok(state)) => Some((state.whole, state.head, place)),
                        _ => None,
                    }
                })
            })
            .collect();
        let mut heads: Vec<_> = asked.filter_map(std::future::ready).collect().await;
        heads.sort_by(|(a_whole, a, at_a), (b_whole, b, at_b)| {
            (b_whole, b).cmp(&(a_whole, a)).then_with(|| at_a.name.cmp(&at_b.name))
        });
        heads.into_iter().map(|(_, head, place)| (head, place)).collect()
    }

    fn log_at(&self, place: &Place) -> Option<Arc<dyn Node>> {
        place.node(self.log)
    }
}
