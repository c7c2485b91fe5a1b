//! What every request handler can reach, and the life of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tailwater_cluster::State;
use tailwater_model::{Clock, TenantLimits};
use tailwater_querier::Querier;
use tailwater_store::deletes::Deletes;
use tokio::sync::{mpsc, watch};

use crate::Config;
use crate::cluster::Cluster;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::read::gate::Gates;
use crate::storage::Storage;
use crate::tail::{End, GOING_DOWN};
use crate::tenancy::Tenancy;

/// See the module.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) tenancy: Tenancy,
    pub(crate) limits: Arc<dyn TenantLimits>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) intake: Arc<Intake>,
    /// None where this process is alone.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) storage: Storage,
    pub(crate) querier: Arc<Querier>,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Registry,
    pub(crate) tails: Tails,
    pub(crate) gates: Arc<Gates>,
    active: AtomicBool,
    stopping: AtomicBool,
}

impl App {
    #[expect(clippy::too_many_arguments, reason = "the parts of the process, put together in one place")]
    pub(crate) fn new(
        config: Config,
        tenancy: Tenancy,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
        intake: Arc<Intake>,
        cluster: Option<Cluster>,
        storage: Storage,
        querier: Arc<Querier>,
        metrics: Metrics,
        registry: Registry,
    ) -> Self {
        Self {
            config,
            tenancy,
            limits,
            clock,
            intake,
            cluster,
            storage,
            querier,
            metrics,
            registry,
            tails: Tails::new(),
            gates: Arc::default(),
            active: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// The delete requests; none where there are no such things.
    pub(crate) fn deletes(&self) -> Option<Arc<Deletes>> {
        self.storage.deletes.clone()
    }

    /// Whether the process is going down.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether others were told that this process is there.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Everything is there that others may ask for: they are told so, unless the process is going down already.
    pub(crate) fn activate(&self) {
        let Some(cluster) = &self.cluster else { return };
        cluster.set_state(State::Active);
        self.active.store(true, Ordering::Relaxed);
        if self.stopping() {
            cluster.set_state(State::Leaving);
        }
    }

    /// Nothing new is taken in; tails come to their end. The other members are told first, and what is pushed from then on goes to them.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(cluster) = &self.cluster {
            cluster.set_state(State::Leaving);
            self.intake.leave();
            self.tails.tell(cluster.others());
        }
        if let Some(ingester) = self.intake.ingester() {
            ingester.close();
        }
        self.querier.close();
    }
}

/// The tail sockets of the process, as far as going down is concerned.
pub(crate) struct Tails {
    cut: watch::Sender<Option<Arc<End>>>,
    /// Where to go instead, once this process is going down.
    draining: watch::Sender<Option<Arc<[String]>>>,
    /// Every open tail has a clone; when this one is gone, too, the receiver hears of the last.
    open: Mutex<Option<mpsc::Sender<()>>>,
    closed: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

/// An open tail.
pub(crate) struct OpenTail {
    _open: Option<mpsc::Sender<()>>,
}

impl Tails {
    fn new() -> Self {
        let (open, closed) = mpsc::channel(1);
        let (cut, _) = watch::channel(None);
        let (draining, _) = watch::channel(None);
        Self { cut, draining, open: Mutex::new(Some(open)), closed: tokio::sync::Mutex::new(closed) }
    }

    /// Counts a tail as open until the answer is dropped.
    pub(crate) fn open(&self) -> OpenTail {
        OpenTail { _open: self.open.lock().clone() }
    }

    /// What tells a tail to end at once.
    pub(crate) fn cut(&self) -> watch::Receiver<Option<Arc<End>>> {
        self.cut.subscribe()
    }

    /// Tells tails that this process is going down, and which other nodes there are: their URLs.
    pub(crate) fn tell(&self, nodes: Vec<String>) {
        self.draining.send_replace(Some(nodes.into()));
    }

    /// What tells a tail where it had better go on; none as long as it can stay.
    pub(crate) fn draining(&self) -> watch::Receiver<Option<Arc<[String]>>> {
        self.draining.subscribe()
    }

    /// Waits for all tails to end: for `patience` by themselves, then as told.
    pub(crate) async fn drain(&self, patience: Duration, last: Duration) {
        self.open.lock().take();
        let mut closed = self.closed.lock().await;
        if tokio::time::timeout(patience, closed.recv()).await.is_ok() {
            return;
        }
        let end = End { label: "cut", reason: GOING_DOWN.to_owned(), resumable: true };
        self.cut.send_replace(Some(Arc::new(end)));
        let _all_gone = tokio::time::timeout(last, closed.recv()).await;
    }
}
