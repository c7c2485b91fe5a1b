//! The ingester as others see it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::stream;
use prometheus_client::registry::Registry;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Clock, Labels, LogId, TenantId, TenantLimits, Timestamp};
use tailwater_store::scan::{self, Cancel};
use tailwater_wire::node::{
    Answer, Follow, FollowRequest, LabelsRequest, Node, NodeError, Partial, PatternsRequest, ReadChunk, ReadRequest,
    Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest, Stats, StreamVolume, VolumeRequest,
};
use tailwater_wire::push::Push;
use tokio::sync::Semaphore;

use crate::error::{PushError, PushErrorKind};
use crate::group::{Follower, Group};
use crate::log::ArrivalLog;
use crate::metrics::{LogCollector, Metrics};
use crate::push::{self, Accepted};
use crate::read;
use crate::tenant::{Tenant, Tenants};

/// How often idle streams and tenants are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Reads of history at a time, per core: they run on threads for blocking work, and more would only wait for each other.
const READS_PER_CORE: usize = 2;

/// What the ingester needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bound on the memory of the arrival log, in bytes.
    pub log_memory_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { log_memory_bytes: 256 << 20 }
    }
}

/// Streams, the arrival log, and its readers.
pub struct Ingester {
    pub(crate) log: Arc<ArrivalLog>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) limits: Arc<dyn TenantLimits>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Makes hashes of what senders choose unpredictable.
    pub(crate) seed: u64,
    metrics: Metrics,
    closed: Arc<AtomicBool>,
    reads: Arc<Semaphore>,
    swept: AtomicI64,
}

impl Ingester {
    /// An ingester with an empty log of its own.
    #[must_use]
    pub fn new(config: Config, limits: Arc<dyn TenantLimits>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let metrics = Metrics::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            log: Arc::new(ArrivalLog::new(LogId::generate(), config.log_memory_bytes, Arc::clone(&clock))),
            tenants: Arc::new(Tenants::new(metrics.clone())),
            limits,
            seed: RandomState::new().hash_one(0),
            metrics,
            closed: Arc::new(AtomicBool::new(false)),
            reads: Arc::new(Semaphore::new(cores * READS_PER_CORE)),
            swept: AtomicI64::new(clock.now().nanos()),
            clock,
        })
    }

    /// Checks a push, stores what is acceptable of it and wakes whom it concerns. Work of about 0.2 µs per line; never waits for a reader.
    ///
    /// # Errors
    /// What was refused. Everything else of the push is stored, unless the error's kind says otherwise.
    pub fn push(&self, tenant: &TenantId, push: Push) -> Result<Accepted, PushError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(PushError::new(PushErrorKind::Unavailable, "Ingester is shutting down"));
        }
        let answer = push::push(self, tenant, push);
        self.sweep_sometimes();
        answer
    }

    /// Adds the ingester's metrics to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        registry.register_collector(Box::new(LogCollector(Arc::clone(&self.log))));
    }

    /// Refuses pushes from now on; follows end once they have yielded everything.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.tenants.for_each(|tenant| tenant.tails.wake_all());
    }

    /// Tail groups and follows that are open.
    #[cfg(test)]
    pub(crate) fn metrics_of_tails(&self) -> (i64, i64) {
        (self.metrics.tail_groups.get(), self.metrics.followers.get())
    }

    fn sweep_sometimes(&self) {
        let now = self.clock.now();
        let last = self.swept.load(Ordering::Relaxed);
        let due = now.since(Timestamp(last)) >= SWEEP_INTERVAL;
        if due && self.swept.compare_exchange(last, now.nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.tenants.sweep(&self.log, now);
        }
    }

    /// What a search of a tenant's entries looks at.
    pub(crate) fn source(&self, tenant: &Tenant) -> read::InLog {
        read::InLog { log: Arc::clone(&self.log), account: Arc::clone(&tenant.account) }
    }

    /// Runs a read of history where it may block.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T, NodeError> + Send + 'static,
    ) -> Answer<T> {
        read::blocking(Arc::clone(&self.reads), self.log.id(), work)
    }
}

impl Node for Ingester {
    fn log_id(&self) -> LogId {
        self.log.id()
    }

    fn head(&self) -> Answer<u64> {
        let head = self.log.head();
        Box::pin(async move { Ok(head) })
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        self.sweep_sometimes();
        let tenant = self.tenants.get_or_create(&request.tenant);
        let group = Group::join(&self.log, &tenant, &self.metrics, &request);
        let follower = Follower::new(Arc::clone(&self.log), group, request, Arc::clone(&self.closed));
        Box::pin(stream::unfold(follower, |mut follower| async move {
            let event = follower.next().await?;
            Some((event, follower))
        }))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        // Of a tenant that is not known the log may still have trimmed something.
        let account = self.tenants.get(&request.tenant).map(|tenant| Arc::clone(&tenant.account)).unwrap_or_default();
        let log = Arc::clone(&self.log);
        self.blocking(move |cancel| Ok(read::chunk(&log, &account, &request, cancel)))
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        let Some(tenant) = self.tenants.get(&request.tenant) else {
            return Box::pin(async { Ok(Selected::default()) });
        };
        let (source, seed) = (self.source(&tenant), self.seed);
        self.blocking(move |cancel| scan::select(&source, &request, seed, cancel))
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        // Of a tenant that is not known there are no lines, but the log has a head and a clock all the same.
        let source = self.tenants.get(&request.tenant).map(|tenant| self.source(&tenant));
        let (log, seed) = (Arc::clone(&self.log), self.seed);
        self.blocking(move |cancel| match source {
            Some(source) => read::samples(&source, &request, seed, cancel),
            None => Ok(read::no_samples(&log, request.as_of)),
        })
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        let Some(tenant) = self.tenants.get(&request.tenant) else { return Box::pin(async { Ok(Partial::default()) }) };
        let source = self.source(&tenant);
        self.blocking(move |cancel| scan::labels(&source, &request, cancel))
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        let Some(tenant) = self.tenants.get(&request.tenant) else { return Box::pin(async { Ok(Partial::default()) }) };
        let source = self.source(&tenant);
        self.blocking(move |cancel| scan::series(&source, &request, cancel))
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        let Some(tenant) = self.tenants.get(&request.tenant) else {
            return Box::pin(async { Ok(Partial::default()) });
        };
        let source = self.source(&tenant);
        self.blocking(move |cancel| scan::stats(&source, &request, cancel))
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        let Some(tenant) = self.tenants.get(&request.series.tenant) else {
            return Box::pin(async { Ok(Partial::default()) });
        };
        let source = self.source(&tenant);
        self.blocking(move |cancel| scan::volume(&source, &request, cancel))
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        let Some(tenant) = self.tenants.get(&request.series.tenant) else {
            return Box::pin(async { Ok(Partial::default()) });
        };
        let source = self.source(&tenant);
        self.blocking(move |cancel| scan::patterns(&source, &request, cancel))
    }
}

impl fmt::Debug for Ingester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingester").field("log", &self.log).finish_non_exhaustive()
    }
}
