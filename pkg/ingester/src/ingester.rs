//! The ingester as others see it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use prometheus_client::registry::Registry;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Clock, Labels, LogId, TenantId, TenantLimits, Timestamp};
use tailwater_store::Error;
use tailwater_store::history::History;
use tailwater_store::scan::{self, Cancel};
use tailwater_store::wal::{self, LocalDisk, Origin, Wal};
use tailwater_wire::node::{
    Answer, Follow, FollowRequest, LabelsRequest, LogState, Node, NodeError, Part, Partial, PatternsRequest, ReadChunk,
    ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest, StateRequest, Stats, StreamVolume,
    VolumeRequest,
};
use tailwater_wire::push::Push;
use tokio::sync::Semaphore;

use crate::copied::COPIES_NEED_WAL;
use crate::copies::retire;
use crate::error::{PushError, PushErrorKind};
use crate::group::{Follower, Group};
use crate::log::{Account, ArrivalLog};
use crate::metrics::{LogCollector, Metrics};
use crate::pager::{Pager, PagerMetrics};
use crate::quorum::{Quorum, Replication};
use crate::read::Everything;
use crate::receipt::Receipt;
use crate::recover::{Readiness, Recovering};
use crate::tenant::Tenants;
use crate::{push, read, recover};

/// How often idle streams and tenants are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Reads of history at a time, per core: they run on threads for blocking work, and more would only wait for each other.
const READS_PER_CORE: usize = 2;

/// What the ingester needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bound on the memory of the arrival log, in bytes.
    pub log_memory_bytes: usize,
    /// The write-ahead log; without one, what was accepted is gone with the process.
    pub wal: Option<wal::Config>,
    /// When pushes are acknowledged that are to be in copies of the log, too. It needs a write-ahead log.
    pub replication: Replication,
    /// Where copies of logs are ([`Copies::folder`](crate::Copies::folder)): a write-ahead log that may lack its last records becomes one
    /// of them, and a new log begins. Without it the log goes on.
    pub copies: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { log_memory_bytes: 256 << 20, wal: None, replication: Replication::default(), copies: None }
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
    pub(crate) pager: OnceLock<Pager>,
    pub(crate) pager_metrics: PagerMetrics,
    wal_metrics: wal::Metrics,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) quorum: Arc<Quorum>,
    closed: Arc<AtomicBool>,
    reads: Arc<Semaphore>,
    swept: AtomicI64,
    history: OnceLock<History>,
}

impl Ingester {
    /// An ingester whose log is in memory only and empty; a write-ahead log in the configuration is not looked at. It is ready.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "as Ingester::open")]
    pub fn new(config: Config, limits: Arc<dyn TenantLimits>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let log = Arc::new(ArrivalLog::in_memory(config.log_memory_bytes, Arc::clone(&clock)));
        Self::on(log, wal::Metrics::default(), Replication::default(), limits, clock)
    }

    /// An ingester that goes on with the write-ahead log that is configured, if there is one. It is not ready before
    /// [`Ingester::recover`] has ended. Reads the headers of all records; blocks.
    ///
    /// # Errors
    /// The write-ahead log cannot be opened.
    pub fn open(config: Config, limits: Arc<dyn TenantLimits>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Error> {
        Self::open_on(Arc::new(LocalDisk), config, limits, clock)
    }

    /// As [`Ingester::open`], on a file system of the caller's.
    pub(crate) fn open_on(
        disk: Arc<dyn wal::Disk>,
        config: Config,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, Error> {
        let Config { log_memory_bytes: memory, wal: Some(wal), replication, copies } = config else {
            if config.replication.quorum > 0 {
                return Err(Error::Config { reason: COPIES_NEED_WAL.to_owned() });
            }
            return Ok(Self::new(config, limits, clock));
        };
        let metrics = wal::Metrics::default();
        let of = (wal.dir.clone(), wal.sync);
        let opened = match &copies {
            Some(copies) => retire::open(wal, copies, &disk, &metrics)?,
            None => Wal::open(wal, disk, metrics.clone())?,
        };
        let (log, found) = ArrivalLog::open(memory, of, opened, Arc::clone(&clock))?;
        tracing::info!(log = %log.id(), ?found, "opened the write-ahead log");
        Ok(Self::on(log, metrics, replication, limits, clock))
    }

    /// A copy of another node's log, which takes no pushes and answers as that log does. Otherwise as [`Ingester::open`].
    pub(crate) fn open_copy(
        disk: Arc<dyn wal::Disk>,
        memory: usize,
        wal: wal::Config,
        origin: Origin,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, Error> {
        let (log, found) = ArrivalLog::open_copy(memory, wal, disk, origin, Arc::clone(&clock))?;
        tracing::info!(log = %log.id(), ?found, "opened a copy of a log");
        Ok(Self::on(log, wal::Metrics::default(), Replication::default(), limits, clock))
    }

    fn on(
        log: Arc<ArrivalLog>,
        wal_metrics: wal::Metrics,
        replication: Replication,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let metrics = Metrics::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            readiness: Arc::new(Readiness::new(!log.is_durable(), log.bytes_on_disk())),
            log,
            pager: OnceLock::new(),
            pager_metrics: PagerMetrics::new(),
            wal_metrics,
            quorum: Arc::new(Quorum::new(replication)),
            tenants: Arc::new(Tenants::new(metrics.clone())),
            limits,
            seed: RandomState::new().hash_one(0),
            metrics,
            closed: Arc::new(AtomicBool::new(false)),
            reads: Arc::new(Semaphore::new(cores * READS_PER_CORE)),
            swept: AtomicI64::new(clock.now().nanos()),
            clock,
            history: OnceLock::new(),
        })
    }

    /// Takes back what the write-ahead log holds; the ingester is ready then. To be called once, on a thread that may block.
    ///
    /// # Errors
    /// The write-ahead log cannot be read. The ingester does not become ready; this may be tried again only with another one.
    pub fn recover(&self) -> Result<(), Error> {
        recover::recover(self)
    }

    /// From now on searches look into blocks, too. To be called once, before anything is asked. It is for an ingester with a write-ahead log
    /// and a pager ([`Ingester::start_pager`]).
    pub fn attach(&self, history: History) {
        self.history.get_or_init(|| history);
    }

    /// How far the recovery is; none once the ingester is ready.
    #[must_use]
    pub fn recovering(&self) -> Option<Recovering> {
        self.readiness.recovering()
    }

    /// Whether a push might have to wait for another that is being written to a disk: on a thread that must not block it is better not
    /// made now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.log.is_busy()
    }

    /// Checks a push, stores what is acceptable of it and wakes whom it concerns. Work of about 0.2 µs per line; never waits for a reader,
    /// and for the disk only as far as the operating system makes a write wait. What became of it is known at once, unless it must survive
    /// a loss of power first. If the answer is not waited for, the push is stored all the same.
    ///
    /// `packed`: the snappy-compressed protobuf body that `push` was decoded from, if that is how it came.
    ///
    /// # Errors
    /// What was refused. Everything else of the push is stored, unless the error's kind says otherwise.
    pub fn push(&self, tenant: &TenantId, push: Push, packed: Option<&[u8]>) -> Receipt {
        let unavailable = |text| Receipt::known(Err(PushError::new(PushErrorKind::Unavailable, text)));
        if self.closed.load(Ordering::Acquire) {
            return unavailable("Ingester is shutting down");
        }
        if !self.readiness.is_ready() {
            return unavailable("Ingester is starting");
        }
        if self.log.is_copy() {
            return unavailable("a copy of a log takes no pushes");
        }
        if self.quorum.is_full() {
            return unavailable("too many pushes wait for replicas to confirm them");
        }
        let answer = push::push(self, tenant, push, packed);
        self.sweep_sometimes();
        answer
    }

    /// Adds the ingester's metrics to a registry, and those of its history if it has one by now.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        let (log, readiness) = (Arc::clone(&self.log), Arc::clone(&self.readiness));
        if log.is_durable() {
            self.wal_metrics.register(registry);
            self.pager_metrics.register(registry, &log, &self.clock);
            self.quorum.register(registry, &log);
        }
        registry.register_collector(Box::new(LogCollector { log, readiness }));
        if let Some(history) = self.history.get() {
            history.register(registry);
        }
    }

    /// Refuses pushes from now on; follows end once they have yielded everything.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.tenants.for_each(|tenant| tenant.tails.wake_all());
    }

    /// Ends the write-ahead log in good order: everything in it survives a loss of power, and the next start is quick. After
    /// [`Ingester::close`]; blocks.
    ///
    /// # Errors
    /// Not everything could be written. What was accepted is as safe as it was before.
    pub fn end(&self) -> Result<(), Error> {
        self.log.close()
    }

    /// Tail groups and follows that are open.
    #[cfg(test)]
    pub(crate) fn metrics_of_tails(&self) -> (i64, i64) {
        (self.metrics.tail_groups.get(), self.metrics.followers.get())
    }

    /// Forgets idle streams and tenants, if that is due.
    pub(crate) fn sweep_sometimes(&self) {
        let now = self.clock.now();
        if !self.readiness.is_ready() {
            // Streams that come back are old until they have all come.
            return;
        }
        let last = self.swept.load(Ordering::Relaxed);
        let due = now.since(Timestamp(last)) >= SWEEP_INTERVAL;
        if due && self.swept.compare_exchange(last, now.nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.tenants.sweep(&self.log, now);
        }
    }

    /// What a search of a tenant's entries looks at. Asking makes no tenant.
    pub(crate) fn source(&self, tenant: &TenantId, part: Part) -> Everything {
        let known = self.tenants.get(tenant).map(|tenant| Arc::clone(&tenant.account));
        Everything {
            log: Arc::clone(&self.log),
            account: known.unwrap_or_else(|| Arc::new(Account::new(tenant.clone()))),
            history: self.history.get().cloned(),
            part,
        }
    }

    fn ready(&self) -> Result<(), NodeError> {
        let starting = || NodeError::Unavailable { log: self.log.id(), reason: "it is starting".to_owned() };
        self.readiness.is_ready().then_some(()).ok_or_else(starting)
    }

    /// Searches what a tenant has, where it may block.
    fn search<T: Send + 'static>(
        &self,
        (tenant, part): (&TenantId, Part),
        work: impl FnOnce(&Everything, &Cancel) -> Result<T, NodeError> + Send + 'static,
    ) -> Answer<T> {
        let source = self.source(tenant, part);
        self.blocking(move |cancel| work(&source, cancel))
    }

    /// Runs a read of history where it may block.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T, NodeError> + Send + 'static,
    ) -> Answer<T> {
        if let Err(error) = self.ready() {
            return Box::pin(async { Err(error) });
        }
        scan::blocking(Arc::clone(&self.reads), self.log.id(), work)
    }
}

impl Node for Ingester {
    fn log_id(&self) -> LogId {
        self.log.id()
    }

    fn state(&self, request: StateRequest) -> Answer<LogState> {
        let state = self.ready().map(|()| self.log.state_of(request.age));
        Box::pin(async move { state })
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        self.sweep_sometimes();
        let (log, tenants) = (Arc::clone(&self.log), Arc::clone(&self.tenants));
        let (metrics, closed) = (self.metrics.clone(), Arc::clone(&self.closed));
        let after = request.after;
        let begin = move || {
            let tenant = tenants.get_or_create(&request.tenant);
            let group = Group::join(&log, &tenant, &metrics, &request);
            stream::unfold(Follower::new(log, group, request, closed), |mut follower| async move {
                let event = follower.next().await?;
                Some((event, follower))
            })
        };
        if self.log.is_copy() {
            // Whoever has seen more of the log than this copy has waits for it to get there.
            let (reached, closed) = (Arc::clone(&self.log), Arc::clone(&self.closed));
            let begin = async move { stream::iter([begin()]).flatten() };
            return Box::pin(
                read::not_beyond(reached, closed, self.readiness.subscribe(), after)
                    .chain(stream::once(begin).flatten()),
            );
        }
        if self.readiness.is_ready() {
            return Box::pin(begin());
        }
        // Where it begins is not known before everything is back.
        let mut ready = self.readiness.subscribe();
        let begin = async move {
            let is_ready = ready.wait_for(|is_ready| *is_ready).await.is_ok();
            stream::iter(is_ready.then(begin)).flatten()
        };
        Box::pin(stream::once(begin).flatten())
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        // Of a tenant that is not known the log may still have trimmed something.
        let Everything { log, account, .. } = self.source(&request.tenant, Part::Whole);
        self.blocking(move |cancel| read::chunk(&log, &account, &request, cancel))
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        let seed = self.seed;
        let (tenant, part) = (request.tenant.clone(), request.part);
        self.search((&tenant, part), move |source, cancel| scan::select(source, &request, seed, cancel))
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        let seed = self.seed;
        let (tenant, part) = (request.tenant.clone(), request.part);
        self.search((&tenant, part), move |source, cancel| read::samples(source, &request, seed, cancel))
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        let (tenant, part) = (request.tenant.clone(), request.part);
        self.search((&tenant, part), move |source, cancel| scan::labels(source, &request, cancel))
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        let (tenant, part) = (request.tenant.clone(), request.part);
        self.search((&tenant, part), move |source, cancel| scan::series(source, &request, cancel))
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        let (tenant, part) = (request.tenant.clone(), request.part);
        self.search((&tenant, part), move |source, cancel| scan::stats(source, &request, cancel))
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        let (tenant, part) = (request.series.tenant.clone(), request.series.part);
        self.search((&tenant, part), move |source, cancel| scan::volume(source, &request, cancel))
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        let (tenant, part) = (request.series.tenant.clone(), request.series.part);
        self.search((&tenant, part), move |source, cancel| scan::patterns(source, &request, cancel))
    }
}

impl fmt::Debug for Ingester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingester").field("log", &self.log).finish_non_exhaustive()
    }
}
