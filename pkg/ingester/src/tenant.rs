//! Tenants and their streams.
//!
//! Invariants:
//! * In the steady state a stream is found by the bytes of its labels as sent, without parsing them. That cache is bounded by count and
//!   bytes and is emptied when it is full or when the limits that its streams were checked against change.
//! * A stream is active until it was idle for [`STREAM_IDLE`]; only active ones are registered and count against the limit. Batches keep
//!   the labels of forgotten ones.
//! * A tenant without streams, tails and batches, in memory and in the write-ahead log, is forgotten.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tailwater_model::{Labels, Limits, TenantId, Timestamp};

use crate::bucket::TokenBucket;
use crate::log::{Account, ArrivalLog};
use crate::metrics::{Metrics, TenantMetrics};
use crate::receipt::Turn;
use crate::stream::Stream;
use crate::tails::Tails;
use crate::validate::{Reason, stream_labels};

/// A stream that was not pushed to for so long is forgotten (Loki's `chunk_idle_period`).
const STREAM_IDLE: Duration = Duration::from_secs(30 * 60);

/// How often a tenant at its limit looks for idle streams.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Most active streams of all tenants together, whatever their limits say.
const MAX_STREAMS: usize = 1 << 20;

/// Most tenants that may push. (Few in tests.)
const MAX_TENANTS: usize = if cfg!(test) { 16 } else { 1 << 16 };

/// Label texts that a tenant's cache knows beyond [`TEXTS_PER_STREAM`].
const SPARE_TEXTS: usize = 64;

/// Label texts that a tenant's cache knows per active stream: senders may write the same labels differently.
const TEXTS_PER_STREAM: usize = 4;

/// Most bytes of label texts that a tenant's cache knows.
const MAX_TEXTS_BYTES: usize = 32 << 20;

/// Longest label text that is worth a place in the cache, in bytes.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// A tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) account: Arc<Account>,
    pub(crate) tails: Tails,
    pub(crate) metrics: TenantMetrics,
    /// See [`Turn`].
    pub(crate) turn: Turn,
    bucket: Mutex<TokenBucket>,
    streams: RwLock<StreamTable>,
    /// Active streams of all tenants.
    active: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct StreamTable {
    by_text: HashMap<u64, Cached, BuildHasherDefault<Hashed>>,
    text_bytes: usize,
    /// What the streams in `by_text` were checked against.
    checked: Option<Arc<Limits>>,
    by_labels: HashMap<Labels, Arc<Stream>>,
    swept: Option<Timestamp>,
}

#[derive(Debug)]
struct Cached {
    text: Box<[u8]>,
    stream: Arc<Stream>,
}

/// Keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What the labels of a pushed stream lead to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stream that is active.
    Known(Arc<Stream>),
    /// Labels of a stream that is not.
    New(Labels),
    /// Labels that are refused.
    Refused(Reason, String),
}

impl Tenant {
    /// Looks streams up by the texts of their labels.
    pub(crate) fn find<'a>(
        &self,
        texts: impl Iterator<Item = &'a [u8]>,
        limits: &Arc<Limits>,
        seed: u64,
        now: Timestamp,
    ) -> Vec<Found> {
        let texts: Vec<_> = texts.collect();
        let mut found: Vec<Option<Found>> = Vec::with_capacity(texts.len());
        {
            let table = self.streams.read();
            let valid = table.is_checked_against(limits);
            found.extend(texts.iter().map(|text| {
                let cached = if valid { table.cached(text, seed) } else { None }?;
                cached.touch(now);
                Some(Found::Known(Arc::clone(cached)))
            }));
        }
        let found = found.into_iter().zip(texts);
        found.map(|(found, text)| found.unwrap_or_else(|| self.find_by_labels(text, limits, seed, now))).collect()
    }

    fn find_by_labels(&self, text: &[u8], limits: &Arc<Limits>, seed: u64, now: Timestamp) -> Found {
        let labels = match stream_labels(text, limits) {
            Ok(labels) => labels,
            Err((reason, text)) => return Found::Refused(reason, text),
        };
        let mut table = self.streams.write();
        let Some(stream) = table.by_labels.get(&labels).cloned() else { return Found::New(labels) };
        stream.touch(now);
        table.remember(text, &stream, limits, seed);
        Found::Known(stream)
    }

    /// Makes a stream active. None if that is one too many.
    pub(crate) fn create(
        &self,
        text: &[u8],
        labels: &Labels,
        limits: &Arc<Limits>,
        seed: u64,
        now: Timestamp,
    ) -> Option<Arc<Stream>> {
        let max = match limits.max_global_streams_per_user {
            0 => usize::MAX,
            max => max,
        };
        let mut table = self.streams.write();
        let is_full =
            |table: &StreamTable| table.by_labels.len() >= max || self.active.load(Ordering::Relaxed) >= MAX_STREAMS;
        if is_full(&table) && table.swept.is_none_or(|at| now.since(at) >= SWEEP_PAUSE) {
            self.sweep_table(&mut table, now);
        }
        let is_full = is_full(&table);
        let stream = match table.by_labels.entry(labels.clone()) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(free) => {
                self.active.fetch_add(1, Ordering::Relaxed);
                self.metrics.streams.inc();
                self.metrics.streams_created.inc();
                Arc::clone(free.insert(Arc::new(Stream::new(labels.clone(), now))))
            }
        };
        table.remember(text, &stream, limits, seed);
        Some(stream)
    }

    /// Takes a push's bytes from the tenant's rate, all or nothing.
    pub(crate) fn take(&self, now: Timestamp, limits: &Limits, bytes: u64) -> bool {
        let mib = |mb: f64| mb * f64::from(1 << 20);
        let (rate, burst) = (mib(limits.ingestion_rate_mb), mib(limits.ingestion_burst_size_mb));
        #[expect(clippy::cast_precision_loss, reason = "a push has less than 2^53 bytes")]
        let cost = bytes as f64;
        self.bucket.lock().take(now, rate, burst, cost)
    }

    /// Gives back what [`Tenant::take`] took.
    pub(crate) fn give_back(&self, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a push has less than 2^53 bytes")]
        self.bucket.lock().give_back(bytes as f64);
    }

    /// The stream of these labels, which was pushed to at some time; it counts as active since. If there are too many streams, it is not
    /// registered: pushes to it are checked as if it were new.
    pub(crate) fn restore(&self, labels: Labels, at: Timestamp) -> Arc<Stream> {
        let mut table = self.streams.write();
        if let Some(stream) = table.by_labels.get(&labels) {
            stream.touch(at);
            return Arc::clone(stream);
        }
        let stream = Arc::new(Stream::new(labels.clone(), at));
        if self.active.load(Ordering::Relaxed) < MAX_STREAMS {
            self.active.fetch_add(1, Ordering::Relaxed);
            self.metrics.streams.inc();
            self.metrics.streams_created.inc();
            table.by_labels.insert(labels, Arc::clone(&stream));
        }
        stream
    }

    fn sweep(&self, now: Timestamp) {
        self.sweep_table(&mut self.streams.write(), now);
    }

    fn sweep_table(&self, table: &mut StreamTable, now: Timestamp) {
        let gone = table.sweep(now);
        self.active.fetch_sub(gone, Ordering::Relaxed);
        self.metrics.streams.dec_by(i64::try_from(gone).unwrap_or(i64::MAX));
    }

    fn is_empty(&self, log: &ArrivalLog) -> bool {
        self.streams.read().by_labels.is_empty() && self.tails.is_empty() && log.is_rid_of(&self.account)
    }
}

impl StreamTable {
    fn is_checked_against(&self, limits: &Arc<Limits>) -> bool {
        self.checked.as_ref().is_some_and(|checked| {
            Arc::ptr_eq(checked, limits)
                || (checked.max_label_names_per_series == limits.max_label_names_per_series
                    && checked.max_label_name_length == limits.max_label_name_length
                    && checked.max_label_value_length == limits.max_label_value_length
                    && checked.discover_service_name == limits.discover_service_name)
        })
    }

    fn cached(&self, text: &[u8], seed: u64) -> Option<&Arc<Stream>> {
        let cached = self.by_text.get(&text_hash(text, seed))?;
        (*cached.text == *text).then_some(&cached.stream)
    }

    fn remember(&mut self, text: &[u8], stream: &Arc<Stream>, limits: &Arc<Limits>, seed: u64) {
        if text.len() > MAX_TEXT_BYTES {
            return;
        }
        let full = self.by_text.len() >= TEXTS_PER_STREAM * self.by_labels.len() + SPARE_TEXTS
            || self.text_bytes + text.len() > MAX_TEXTS_BYTES;
        if full || !self.is_checked_against(limits) {
            self.by_text.clear();
            self.text_bytes = 0;
            self.checked = Some(Arc::clone(limits));
        }
        let cached = Cached { text: text.into(), stream: Arc::clone(stream) };
        self.text_bytes += text.len();
        if let Some(old) = self.by_text.insert(text_hash(text, seed), cached) {
            self.text_bytes -= old.text.len();
        }
    }

    /// How many streams were idle.
    fn sweep(&mut self, now: Timestamp) -> usize {
        self.swept = Some(now);
        let before = self.by_labels.len();
        let is_active = |stream: &Stream| now.since(stream.used()) < STREAM_IDLE;
        self.by_labels.retain(|_, stream| is_active(stream));
        self.by_text.retain(|_, cached| is_active(&cached.stream));
        self.text_bytes = self.by_text.values().map(|cached| cached.text.len()).sum();
        before - self.by_labels.len()
    }
}

fn text_hash(text: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(text, seed)
}

/// All tenants.
#[derive(Debug)]
pub(crate) struct Tenants {
    metrics: Metrics,
    active: Arc<AtomicUsize>,
    all: RwLock<HashMap<TenantId, Arc<Tenant>>>,
}

impl Tenants {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, active: Arc::default(), all: RwLock::default() }
    }

    /// The tenant, if anything is known of it.
    pub(crate) fn get(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.all.read().get(id).cloned()
    }

    /// The tenant of a follow. There are no more of them than there are connections.
    pub(crate) fn get_or_create(&self, id: &TenantId) -> Arc<Tenant> {
        if let Some(tenant) = self.get(id) {
            return tenant;
        }
        let make = || {
            Arc::new(Tenant {
                id: id.clone(),
                account: Arc::new(Account::new(id.clone())),
                tails: Tails::default(),
                metrics: self.metrics.of(id),
                turn: Turn::default(),
                bucket: Mutex::default(),
                streams: RwLock::default(),
                active: Arc::clone(&self.active),
            })
        };
        Arc::clone(self.all.write().entry(id.clone()).or_insert_with(make))
    }

    /// The tenant of a push. None if that is one too many.
    pub(crate) fn admit(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        let room = || self.all.read().len() < MAX_TENANTS;
        self.get(id).or_else(|| room().then(|| self.get_or_create(id)))
    }

    pub(crate) fn for_each(&self, f: impl FnMut(&Arc<Tenant>)) {
        self.all.read().values().for_each(f);
    }

    /// Forgets idle streams, and tenants of which nothing is left.
    pub(crate) fn sweep(&self, log: &ArrivalLog, now: Timestamp) {
        let tenants: Vec<_> = self.all.read().values().cloned().collect();
        let mut maybe_empty = Vec::new();
        for tenant in tenants {
            tenant.sweep(now);
            if tenant.is_empty(log) {
                maybe_empty.push(tenant.id.clone());
            }
        }
        if maybe_empty.is_empty() {
            return;
        }
        let mut all = self.all.write();
        for id in maybe_empty {
            // Whoever works with the tenant holds it; nobody can take it up meanwhile.
            let idle = |tenant: &Arc<Tenant>| Arc::strong_count(tenant) == 1 && tenant.is_empty(log);
            if all.get(&id).is_some_and(idle)
                && let Some(tenant) = all.remove(&id)
            {
                log.forget(&tenant.account);
                self.metrics.forget(&id);
            }
        }
    }
}
