//! What every request handler can reach, and the life of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tailwater_ingester::Ingester;
use tailwater_model::{Clock, TenantLimits};
use tailwater_querier::Querier;
use tailwater_store::deletes::Deletes;
use tokio::sync::{mpsc, watch};

use crate::Config;
use crate::body::{InFlight, Room};
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
    pub(crate) ingester: Arc<Ingester>,
    pub(crate) storage: Storage,
    pub(crate) querier: Arc<Querier>,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Registry,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) room: Room,
    pub(crate) tails: Tails,
    pub(crate) gates: Arc<Gates>,
    stopping: AtomicBool,
}

impl App {
    #[expect(clippy::too_many_arguments, reason = "the parts of the process, put together in one place")]
    pub(crate) fn new(
        config: Config,
        tenancy: Tenancy,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
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
            ingester: Arc::clone(&storage.ingester),
            storage,
            querier,
            metrics,
            registry,
            in_flight: Arc::default(),
            room: Room::default(),
            tails: Tails::new(),
            gates: Arc::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The delete requests; none where there are no such things.
    pub(crate) fn deletes(&self) -> Option<Arc<Deletes>> {
        self.storage.deletes.clone()
    }

    /// Whether the process is going down.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Nothing new is taken in; tails come to their end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.ingester.close();
        self.querier.close();
    }
}

/// The tail sockets of the process, as far as going down is concerned.
pub(crate) struct Tails {
    cut: watch::Sender<Option<Arc<End>>>,
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
        Self { cut, open: Mutex::new(Some(open)), closed: tokio::sync::Mutex::new(closed) }
    }

    /// Counts a tail as open until the answer is dropped.
    pub(crate) fn open(&self) -> OpenTail {
        OpenTail { _open: self.open.lock().clone() }
    }

    /// What tells a tail to end at once.
    pub(crate) fn cut(&self) -> watch::Receiver<Option<Arc<End>>> {
        self.cut.subscribe()
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
