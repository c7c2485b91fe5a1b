//! Coming back after a restart: batches, accounts, streams and what the next push is checked against, from the write-ahead log.
//!
//! Invariants: until all of it is back nothing is accepted and nothing is answered. Streams come back with the labels they had, whatever the
//! limits are by now; what they were last sent and how far they are is that of the last batch, so that duplicates are known and the
//! out-of-order window is where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tailwater_model::Timestamp;
use tailwater_store::Error;
use tailwater_store::entries::Run;
use tailwater_store::wal::{Progress, Stored};
use tokio::sync::watch;

use crate::batch::Batch;
use crate::ingester::Ingester;
use crate::log::Texts;
use crate::stream::Stream;
use crate::tenant::Tenant;
use crate::validate::accepted_labels;

/// Time between two lines about progress.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// How far the recovery of an ingester is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovering {
    /// Batches that are back.
    pub batches: u64,
    /// Bytes of the write-ahead log that were gone through.
    pub done_bytes: u64,
    /// Bytes there are to go through.
    pub total_bytes: u64,
}

/// Whether an ingester is ready, and how far from it.
#[derive(Debug)]
pub(crate) struct Readiness {
    batches: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    /// Milliseconds that it took.
    millis: AtomicU64,
    ready: watch::Sender<bool>,
}

impl Readiness {
    pub(crate) fn new(is_ready: bool, total: u64) -> Self {
        let zero = AtomicU64::default;
        Self { batches: zero(), done: zero(), total: total.into(), millis: zero(), ready: watch::Sender::new(is_ready) }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// How far it is; none once it is ready.
    pub(crate) fn recovering(&self) -> Option<Recovering> {
        (!self.is_ready()).then(|| self.so_far())
    }

    pub(crate) fn so_far(&self) -> Recovering {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Recovering { batches: get(&self.batches), done_bytes: get(&self.done), total_bytes: get(&self.total) }
    }

    pub(crate) fn millis(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }
}

/// What is at hand while records are gone through.
struct Restoring<'a> {
    ingester: &'a Ingester,
    /// The tenant of the record.
    tenant: Option<Arc<Tenant>>,
    accepted_at: Timestamp,
    /// The streams of the record, in order.
    streams: Vec<Arc<Stream>>,
    texts: Texts<Arc<Stream>>,
}

/// Takes back what the write-ahead log holds; then the ingester is ready. Blocks.
pub(crate) fn recover(ingester: &Ingester) -> Result<(), Error> {
    let readiness = &ingester.readiness;
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut restoring =
        Restoring { ingester, tenant: None, accepted_at: Timestamp::MIN, streams: Vec::new(), texts: Texts::default() };
    let progress = |Progress { done, total }| {
        readiness.done.store(done, Ordering::Relaxed);
        readiness.total.store(total, Ordering::Relaxed);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let batches = readiness.batches.load(Ordering::Relaxed);
            tracing::info!(batches, done_bytes = done, total_bytes = total, "recovering from the write-ahead log");
        }
    };
    ingester.log.recover(
        &mut restoring,
        |restoring, stored| restoring.begin(stored),
        |restoring, text, service_name| restoring.stream(text, service_name).map(|stream| Arc::clone(&stream.shared)),
        Restoring::restore,
        progress,
    )?;
    drop(restoring);
    ingester.tenants.sweep(&ingester.log, ingester.clock.now());
    let Recovering { batches, done_bytes, .. } = readiness.so_far();
    let took = begun.elapsed();
    readiness.millis.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    tracing::info!(
        batches,
        bytes = done_bytes,
        head = ingester.log.head(),
        ?took,
        "recovered from the write-ahead log"
    );
    readiness.ready.send_replace(true);
    Ok(())
}

impl Restoring<'_> {
    fn begin(&mut self, stored: &Stored) -> Arc<crate::log::Account> {
        self.accepted_at = stored.accepted_at;
        self.streams.clear();
        let tenant = match self.tenant.take() {
            Some(tenant) if tenant.id == stored.tenant => tenant,
            _ => self.ingester.tenants.get_or_create(&stored.tenant),
        };
        let account = Arc::clone(&tenant.account);
        self.tenant = Some(tenant);
        account
    }

    fn stream(&mut self, text: &[u8], service_name: Option<&str>) -> Result<Arc<Stream>, tailwater_wire::Error> {
        let tenant = self.tenant.as_ref().ok_or_else(|| tailwater_wire::Error::Labels("of no tenant".into()))?;
        let at = self.accepted_at;
        let stream = self.texts.get(tenant.id.as_str(), text, service_name, || {
            accepted_labels(text, service_name).map(|labels| tenant.restore(labels, at))
        })?;
        stream.touch(at);
        self.streams.push(Arc::clone(&stream));
        Ok(stream)
    }

    /// A batch is back: its streams go on from its entries.
    fn restore(&mut self, batch: &Batch) {
        for (run, stream) in batch.runs.iter().zip(&self.streams) {
            self.restore_stream(batch, run, stream);
        }
        self.ingester.readiness.batches.fetch_add(1, Ordering::Relaxed);
    }

    fn restore_stream(&self, batch: &Batch, run: &Run, stream: &Stream) {
        let Some(last) = batch.entries(run).last() else { return };
        let mut state = stream.state.lock();
        state.last = Some((last.timestamp, batch.content_key(last, self.ingester.seed)));
        state.highest = Some(state.highest.map_or(run.max, |highest| highest.max(run.max)));
    }
}
