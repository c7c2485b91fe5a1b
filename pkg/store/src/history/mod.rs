//! History: what the catalog's blocks hold, as units of a search, read through one cache.
//!
//! Invariants:
//! * A line is answered from blocks if it is of an earlier log, or of the own log and not after the boundary that the caller chose. What is
//!   after it the caller has elsewhere, also if a block holds it as well.
//! * Searches run on threads of their own; fetches run on the runtime and are waited for.
//! * Memory: the cache has a bound, and a search has a bounded number of bytes under way.

mod block;
mod cache;
mod metrics;
mod parts;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tailwater_model::LogId;
use tailwater_wire::node::BlocksScanned;
use tokio::runtime::Handle;

pub use self::block::Block;
pub(crate) use self::block::{Kept, Need, Opened, Wanted};
use self::cache::Cache;
use self::metrics::Metrics;
pub(crate) use self::parts::Tally;
use crate::objects::Objects;
use crate::{Error, Kind};

/// Damage is logged once in this time at most.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// See the module's words. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    objects: Objects,
    cache: Cache,
    runtime: Handle,
    metrics: Metrics,
    complained: Mutex<Option<Instant>>,
}

/// A block as the catalog knows it.
#[derive(Clone, Debug)]
pub struct BlockRef {
    /// The path of its object.
    pub path: Arc<str>,
    /// The earliest timestamp in it.
    pub min: i64,
    /// The latest timestamp in it.
    pub max: i64,
    /// How many entries it has.
    pub lines: u64,
    /// Names it in the cache.
    key: u128,
}

impl BlockRef {
    /// A block whose object has this path.
    #[must_use]
    pub fn new(path: impl Into<Arc<str>>, (min, max): (i64, i64), lines: u64) -> Self {
        let path = path.into();
        Self { key: xxhash_rust::xxh3::xxh3_128(path.as_bytes()), path, min, max, lines }
    }
}

/// Which lines of blocks are answered.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The own log.
    pub own: LogId,
    /// Lines of the own log in batches after this one,
    pub after: u64,
    /// and up to this one: no further than the boundary.
    pub upto: u64,
    /// Whether all lines of other logs are, too.
    pub earlier: bool,
}

impl History {
    /// Reads the blocks of an object store. `cache_bytes`: the bound of the cache. `runtime`: where fetches run.
    #[must_use]
    pub fn new(objects: Objects, cache_bytes: usize, runtime: Handle) -> Self {
        let metrics = Metrics::default();
        let cache = Cache::new(cache_bytes, metrics.clone());
        Self(Arc::new(Inner { objects, cache, runtime, metrics, complained: Mutex::default() }))
    }

    /// Adds what is counted here to a registry.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// Blocks as units of a search.
    pub fn units(&self, blocks: impl IntoIterator<Item = BlockRef>, places: Places) -> Vec<crate::scan::Unit> {
        let unit = |of| crate::scan::Unit::Block(Arc::new(Block::new(self.clone(), of, places)));
        blocks.into_iter().map(unit).collect()
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
        let now = Instant::now();
        let mut complained = self.0.complained.lock();
        if complained.is_none_or(|at| now.duration_since(at) >= COMPLAINT_PAUSE) {
            *complained = Some(now);
            drop(complained);
            let url = self.0.objects.url_of(&block.path);
            tracing::error!(block = %url, %error, "a part of a block is lost, answers are partial");
        }
        match error {
            Error::Corrupt { what, reason } => {
                Error::Corrupt { what: format!("{what} in block {}", block.path), reason }
            }
            _ => Error::NotFound { path: format!("block {}", block.path) },
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
