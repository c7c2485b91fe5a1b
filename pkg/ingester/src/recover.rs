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
use tailwater_store::wal::{Progress, Stored, Why};
use tokio::sync::watch;

use crate::batch::Batch;
use crate::ingester::Ingester;
use crate::log::{Maker as _, Texts};
use crate::receipt::Pushed;
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
pub(crate) struct Restoring {
    /// The tenant of the record.
    tenant: Option<Arc<Tenant>>,
    accepted_at: Timestamp,
    /// The streams of the record, in order.
    streams: Vec<Arc<Stream>>,
    texts: Texts<Arc<Stream>>,
}

impl Default for Restoring {
    fn default() -> Self {
        Self { tenant: None, accepted_at: Timestamp::MIN, streams: Vec::new(), texts: Texts::default() }
    }
}

/// Takes back what the write-ahead log holds; then the ingester is ready. Blocks.
pub(crate) fn recover(ingester: &Ingester) -> Result<(), Error> {
    let readiness = &ingester.readiness;
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut restoring = Restoring::default();
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
        |restoring, stored| restoring.begin(ingester, stored),
        Restoring::stream,
        |restoring, batch| restoring.restore(ingester, batch),
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

/// Takes the next record of another node's log into a copy of it. The caller sees to it that only one is taken in at a time. Blocks.
///
/// # Errors
/// It could not be written; it is not in the copy.
pub(crate) fn take_record(ingester: &Ingester, restoring: &mut Restoring, stored: &Stored) -> Result<(), Error> {
    let account = restoring.begin(ingester, stored);
    let made = |restoring: &mut Restoring, batch: Option<&Batch>| {
        if let Some(batch) = batch {
            restoring.restore(ingester, batch);
        }
        restoring.pushed(batch)
    };
    let mut pushed = ingester.log.take_record(restoring, stored, &account, Restoring::stream, made)?;
    if let Some(pushed) = &mut pushed {
        pushed.published();
    }
    Ok(())
}

/// Passes over numbers of a copy that the other node's log has nothing for, as [`take_record`] takes records.
///
/// # Errors
/// It could not be written; nothing has changed.
pub(crate) fn take_missing(ingester: &Ingester, last: u64, why: Why) -> Result<(), Error> {
    // What is missing may concern every tail.
    let mut tenants = Vec::new();
    ingester.tenants.for_each(|tenant| tenants.push(Arc::clone(tenant)));
    ingester.log.take_missing(last, why, || {
        for tenant in &tenants {
            tenant.tails.mark(None, last);
        }
    })?;
    for tenant in &tenants {
        tenant.tails.wake_all();
    }
    Ok(())
}

impl Restoring {
    fn begin(&mut self, ingester: &Ingester, stored: &Stored) -> Arc<crate::log::Account> {
        self.accepted_at = stored.accepted_at;
        self.streams.clear();
        let tenant = match self.tenant.take() {
            Some(tenant) if tenant.id == stored.tenant => tenant,
            _ => ingester.tenants.get_or_create(&stored.tenant),
        };
        let account = Arc::clone(&tenant.account);
        self.tenant = Some(tenant);
        account
    }

    fn stream(
        &mut self,
        text: &[u8],
        service_name: Option<&str>,
    ) -> Result<Arc<tailwater_store::Stream>, tailwater_wire::Error> {
        let tenant = self.tenant.as_ref().ok_or_else(|| tailwater_wire::Error::Labels("of no tenant".into()))?;
        let at = self.accepted_at;
        let stream = self.texts.get(tenant.id.as_str(), text, service_name, || {
            accepted_labels(text, service_name).map(|labels| tenant.restore(labels, at))
        })?;
        stream.touch(at);
        let shared = Arc::clone(&stream.shared);
        self.streams.push(stream);
        Ok(shared)
    }

    /// A batch is back: its streams go on from its entries.
    fn restore(&mut self, ingester: &Ingester, batch: &Batch) {
        for (run, stream) in batch.runs.iter().zip(&self.streams) {
            restore_stream(ingester, batch, run, stream);
        }
        ingester.readiness.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// The record as something that was pushed just now, so that tails hear of it; nothing if it has no tenant.
    fn pushed(&self, batch: Option<&Batch>) -> Option<Pushed> {
        let tenant = self.tenant.as_ref()?;
        let mut concerned = tenant.tails.concerned().filter(|_| batch.is_some());
        if let Some(concerned) = &mut concerned {
            for stream in &self.streams {
                concerned.add(&mut stream.state.lock().tails, &stream.labels);
            }
        }
        let (lines, bytes) = batch.map_or((0, 0), |batch| (batch.lines(), batch.line_bytes));
        Some(Pushed::new(Arc::clone(tenant), concerned, (lines, bytes), 0, Vec::new()))
    }
}

fn restore_stream(ingester: &Ingester, batch: &Batch, run: &Run, stream: &Stream) {
    let Some(last) = batch.entries(run).last() else { return };
    let mut state = stream.state.lock();
    state.last = Some((last.timestamp, batch.content_key(last, ingester.seed)));
    state.highest = Some(state.highest.map_or(run.max, |highest| highest.max(run.max)));
}
