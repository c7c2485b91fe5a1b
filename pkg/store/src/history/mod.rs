//! History: what the catalog's blocks hold, as units of a search, read through one cache.
//!
//! Invariants:
//! * A line is answered from blocks if it is not after the boundary that the caller chose for its log, or if no boundary was chosen for
//!   that: of a log that is no more everything is in blocks. What is after a boundary the caller has elsewhere, also if a block holds it.
//! * Searches run on threads of their own; fetches run on the runtime and are waited for.
//! * Memory: the cache has a bound, and a search has a bounded number of bytes under way.

mod block;
mod cache;
mod metrics;
mod parts;
mod up_to;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tailwater_model::{LogId, TenantId};
use tailwater_wire::node::{BlocksScanned, NodeError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use self::block::Block;
pub(crate) use self::block::{Kept, Need, Opened, Wanted};
use self::cache::Cache;
use self::metrics::Metrics;
pub(crate) use self::parts::Tally;
use crate::catalog::{BlockMeta, Catalog, Covered};
use crate::deletes::{Deletes, Deletion};
use crate::objects::Objects;
use crate::scan::Unit;
use crate::{Error, Kind};

/// Damage is logged once in this time at most.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// Reads of blocks alone at a time, per core: they run on threads for blocking work, and more would only wait for each other.
const READS_PER_CORE: usize = 2;

/// See the module's words. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    catalog: Arc<Catalog>,
    deletes: Option<Arc<Deletes>>,
    objects: Objects,
    cache: Cache,
    runtime: Handle,
    metrics: Metrics,
    complained: Mutex<Option<Instant>>,
    /// Bounds the reads of blocks alone.
    reads: Arc<Semaphore>,
    /// Makes hashes of what senders choose unpredictable.
    seed: u64,
}

/// A block as the catalog knows it.
#[derive(Clone, Debug)]
pub(crate) struct BlockRef {
    /// The path of its object.
    pub(crate) path: Arc<str>,
    /// The earliest timestamp in it.
    pub(crate) min: i64,
    /// The latest timestamp in it.
    pub(crate) max: i64,
    /// How many entries it has.
    pub(crate) lines: u64,
    /// Names it in the cache.
    key: u128,
}

impl BlockRef {
    /// A block whose object has this path.
    pub(crate) fn new(path: impl Into<Arc<str>>, (min, max): (i64, i64), lines: u64) -> Self {
        let path = path.into();
        Self { key: xxhash_rust::xxh3::xxh3_128(path.as_bytes()), path, min, max, lines }
    }

    /// A block of a tenant.
    fn of(meta: &BlockMeta, tenant: &TenantId) -> Self {
        Self::new(meta.path(tenant), (meta.min, meta.max), meta.lines)
    }
}

/// Up to where logs are read in blocks: each once, sorted by log. A log that is not among them is read entirely.
pub(crate) type Boundaries = Arc<[(LogId, u64)]>;

/// Which lines of blocks are answered.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The log whose lines keep their positions in answers.
    pub(crate) own: LogId,
    /// Lines of the own log in batches after this one,
    pub(crate) after: u64,
    /// and up to this one: no further than the boundary.
    pub(crate) upto: u64,
    /// Whether lines of other logs are, too,
    pub(crate) earlier: bool,
    /// of these only up to a position.
    pub(crate) boundaries: Boundaries,
}

impl Places {
    /// The batches of a log that are asked for: after the first and up to the second; none if no batch is.
    fn of(&self, log: LogId) -> Option<(u64, u64)> {
        let range = if log == self.own { (self.after, self.upto) } else { (0, boundary_of(&self.boundaries, log)) };
        (range.0 < range.1 && (log == self.own || self.earlier)).then_some(range)
    }

    /// Whether lines of these places may be in a block.
    fn may_be_in(&self, meta: &BlockMeta) -> bool {
        let may_be = |of: &Covered| self.of(of.log).is_some_and(|(after, upto)| of.first <= upto && of.last > after);
        // Nothing is said of a block that names no logs.
        meta.logs.is_empty() || meta.logs.iter().any(may_be)
    }
}

/// Up to where a log is read.
pub(crate) fn boundary_of(boundaries: &[(LogId, u64)], log: LogId) -> u64 {
    let found = boundaries.binary_search_by_key(&log, |(log, _)| *log).ok().and_then(|at| boundaries.get(at));
    found.map_or(u64::MAX, |(_, upto)| *upto)
}

impl History {
    /// Reads the blocks that a catalog lists. `cache_bytes`: the bound of the cache. `runtime`: where fetches run.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, deletes: Option<Arc<Deletes>>, cache_bytes: usize, runtime: Handle) -> Self {
        let metrics = Metrics::default();
        let cache = Cache::new(cache_bytes, metrics.clone());
        let objects = catalog.objects().clone();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Inner {
            catalog,
            deletes,
            objects,
            cache,
            runtime,
            metrics,
            complained: Mutex::default(),
            reads: Arc::new(Semaphore::new(cores * READS_PER_CORE)),
            seed: RandomState::new().hash_one(0),
        }))
    }

    /// See [`Objects::unanswered`].
    #[must_use]
    pub fn unanswered(&self) -> Duration {
        self.0.objects.unanswered()
    }

    /// Adds what is counted here to a registry.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// What a tenant's blocks hold of the times `[first, last]`: of the log `own` the batches after the first position and up to the second,
    /// but none after `boundary`; after 0 also all entries of other logs. Blocks: for threads where that is allowed.
    ///
    /// # Errors
    /// [`NodeError::Unavailable`]: the catalog cannot be read now. What of it is damaged is a unit that is lost.
    pub fn units(
        &self,
        tenant: &TenantId,
        (first, last): (i64, i64),
        (own, boundary): (LogId, u64),
        (after, upto): (u64, u64),
    ) -> Result<Vec<Unit>, NodeError> {
        let boundaries = Boundaries::default();
        let places = Places { own, after, upto: upto.min(boundary), earlier: after == 0, boundaries };
        self.units_at(tenant, (first, last), &places, None)
    }

    /// The same for any places. What the catalog says is asked for again if it was known before `since`. Blocks.
    ///
    /// # Errors
    /// As [`History::units`].
    pub(crate) fn units_at(
        &self,
        tenant: &TenantId,
        times: (i64, i64),
        places: &Places,
        since: Option<Instant>,
    ) -> Result<Vec<Unit>, NodeError> {
        let (listed, mut units) = self.listed(tenant, times, places, since)?;
        units.extend(self.blocks(listed.iter().map(|meta| BlockRef::of(meta, tenant)), places));
        Ok(units)
    }

    /// The blocks that may hold lines of these times and places, and units that tell what of the catalog is lost.
    fn listed(
        &self,
        tenant: &TenantId,
        (first, last): (i64, i64),
        places: &Places,
        since: Option<Instant>,
    ) -> Result<(Vec<Arc<BlockMeta>>, Vec<Unit>), NodeError> {
        let found = self.0.runtime.block_on(self.0.catalog.blocks_since(tenant, first, last, since));
        let found = found.map_err(|e| NodeError::Unavailable { log: places.own, reason: e.to_string() })?;
        let mut lost = Vec::new();
        for error in found.corrupt {
            self.0.metrics.damaged("catalog");
            self.complain(self.0.objects.url().as_str(), &error);
            lost.push(Unit::Lost(Arc::new(error)));
        }
        let mut blocks = found.blocks;
        blocks.retain(|meta| places.may_be_in(meta));
        Ok((blocks, lost))
    }

    /// What is deleted of a tenant's lines. Asked for before [`History::units`]. Blocks.
    ///
    /// # Errors
    /// [`NodeError::Unavailable`]: it cannot be learnt now.
    pub fn deletions(&self, tenant: &TenantId, own: LogId) -> Result<Arc<[Deletion]>, NodeError> {
        let Some(deletes) = &self.0.deletes else { return Ok(Arc::default()) };
        let filter = self.0.runtime.block_on(deletes.filter(tenant));
        filter.map_err(|e| NodeError::Unavailable { log: own, reason: e.to_string() })
    }

    /// Whether lines of the tenant may have been deleted from blocks, and must not be answered from anywhere else. As of the last
    /// [`History::deletions`].
    #[must_use]
    pub fn has_deleted(&self, tenant: &TenantId) -> bool {
        self.0.deletes.as_ref().is_some_and(|deletes| deletes.has_any(tenant))
    }

    /// Blocks as units of a search.
    pub(crate) fn blocks(&self, blocks: impl IntoIterator<Item = BlockRef>, places: &Places) -> Vec<Unit> {
        blocks.into_iter().map(|of| self.unit(of, places.clone())).collect()
    }

    fn unit(&self, of: BlockRef, places: Places) -> Unit {
        Unit::Block(Arc::new(Block::new(self.clone(), of, places)))
    }

    /// See [`Objects::is_near`].
    pub(crate) fn is_near(&self) -> bool {
        self.0.objects.is_near()
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// Counts what a search has looked at.
    pub(crate) fn searched(&self, scanned: &BlocksScanned) {
        self.0.metrics.searched(scanned);
    }

    /// Takes note of a part of a block that is lost, and names the block in the error.
    fn damage(&self, block: &BlockRef, error: Error) -> Error {
        let reason = match error.kind() {
            Kind::Corrupt => "corrupt",
            Kind::NotFound => "missing",
            _ => return error,
        };
        self.0.metrics.damaged(reason);
        self.complain(&self.0.objects.url_of(&block.path), &error);
        match error {
            Error::Corrupt { what, reason } => {
                Error::Corrupt { what: format!("{what} in block {}", block.path), reason }
            }
            _ => Error::NotFound { path: format!("block {}", block.path) },
        }
    }
}

impl History {
    /// Logs that something is lost, not too often.
    fn complain(&self, object: &str, error: &Error) {
        let now = Instant::now();
        let mut complained = self.0.complained.lock();
        if complained.is_none_or(|at| now.duration_since(at) >= COMPLAINT_PAUSE) {
            *complained = Some(now);
            drop(complained);
            tracing::error!(object, %error, "a part of history is lost, answers are partial");
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("objects", &self.0.objects)
            .field("cache", &self.0.cache)
            .finish_non_exhaustive()
    }
}
