//! Copies of other nodes' logs.
//!
//! A copy is a log in a folder of its own, `<data-dir>/copies/<log id>/`, with the format and the reader of any arrival log: the same numbers, instants and
//! streams as the original. So it answers as a [`Node`] under the original's log id.
//!
//! Invariants:
//! * A copy is a contiguous part of the original, up to its head. What it has it passes over, what does not follow it refuses; a copy that is
//!   behind what is in blocks goes on from there.
//! * Only what is in blocks is let go of, and a copy as a whole only if all of it is, and nobody has written to it for [`FORGET_AFTER`].
//! * At most [`MAX_COPIES`], within [`CopiesConfig::memory_bytes`] of memory (each copy has an equal part) and
//!   [`CopiesConfig::max_bytes`] on disk. What does not fit is refused: the original finds another node.
//! * Folders are opened one after the other on a thread of their own; a copy answers once it is back.
//! * A log that was this node's own, and may lack records, is a copy like any other ([`retire`]).

mod copy;
mod flush;
mod metrics;
pub(crate) mod retire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::registry::Registry;
use tailwater_model::{Clock, LogId, TenantLimits};
use tailwater_store::Error;
use tailwater_store::catalog::Catalog;
use tailwater_store::history::History;
use tailwater_store::wal::{self, LocalDisk};
use tailwater_wire::host::{CopyBegin, Copying};
use tailwater_wire::node::{Answer, Node, NodeError};
use tokio::sync::watch;

use self::copy::{Copy, Slot, Writing};
use self::metrics::{CopiesCollector, Metrics};
use crate::ingester::Config;
use crate::pager::PagerConfig;
use crate::{COPIES_NEED_WAL, PagerFailure};

/// Most copies. More than there are owners that would choose one node.
pub(crate) const MAX_COPIES: usize = 256;

/// A copy that is wholly in blocks is deleted when it was not written to for so long.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// How often it is looked for such copies, and for folders that could not be opened.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// The memory of copies is shared out as if there were at least so many.
const FEWEST_SHARES: usize = 4;

/// The end of the name of a folder that is being deleted.
const GONE: &str = ".gone";

/// What copies may take.
#[derive(Clone, Debug)]
pub struct CopiesConfig {
    /// How the write-ahead log of each is kept. Its folder is not looked at.
    pub wal: wal::Config,
    /// Bound on the memory of all copies together, in bytes.
    pub memory_bytes: usize,
    /// Bound on the bytes of all copies on disk (`ingester.copies_max_mb`); 0: until the disk is full.
    pub max_bytes: u64,
}

impl CopiesConfig {
    /// Copies that are kept as a node's own log is.
    ///
    /// # Errors
    /// [`Error::Config`]: that log is in memory only.
    pub fn of(config: &Config, max_bytes: u64) -> Result<Self, Error> {
        let wal = config.wal.clone().ok_or_else(|| Error::Config { reason: COPIES_NEED_WAL.to_owned() })?;
        Ok(Self { wal: wal::Config { max_bytes: 0, ..wal }, memory_bytes: config.log_memory_bytes, max_bytes })
    }
}

/// A copy as an operator sees it.
#[derive(Clone, Debug)]
pub struct CopyInfo {
    /// The log.
    pub log: LogId,
    /// The last batch that the copy has.
    pub head: u64,
    /// Everything up to this batch is in blocks.
    pub in_blocks: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether it answers.
    pub is_ready: bool,
    /// Whether somebody writes to it: the original's node is there.
    pub is_written: bool,
    /// For how long nobody has.
    pub idle: Duration,
    /// Why its lines could not be put into blocks, if that was to be done and has failed last.
    pub failure: Option<PagerFailure>,
}

/// See the module's words. Clones are the same.
#[derive(Clone)]
pub struct Copies(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    config: CopiesConfig,
    limits: Arc<dyn TenantLimits>,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn wal::Disk>,
    slots: Mutex<BTreeMap<LogId, Arc<Slot>>>,
    history: OnceLock<History>,
    /// Bytes on disk, about: what was appended since they were counted is added.
    used: AtomicU64,
    metrics: Metrics,
    stop: Arc<(Mutex<bool>, Condvar)>,
    /// Whether every folder that was there at the start was opened, or could not be.
    opened: watch::Sender<bool>,
}

impl Copies {
    /// Keeps copies in a folder, which is made if it is not there. Those that are in it are opened in the background.
    ///
    /// # Errors
    /// The folder cannot be read or made.
    pub fn open(
        dir: impl Into<PathBuf>,
        config: CopiesConfig,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        Self::open_on(Arc::new(LocalDisk), dir.into(), config, limits, clock)
    }

    /// As [`Copies::open`], on a file system of the caller's.
    pub(crate) fn open_on(
        disk: Arc<dyn wal::Disk>,
        dir: PathBuf,
        config: CopiesConfig,
        limits: Arc<dyn TenantLimits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let io = |source| Error::Io { what: format!("read the copies of logs in {}", dir.display()), source };
        std::fs::create_dir_all(&dir).map_err(io)?;
        let mut slots = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(GONE) {
                copy::delete(&entry.path());
            } else if let Ok(log) = name.parse::<LogId>() {
                slots.insert(log, Arc::new(Slot::new(log, entry.path())));
            }
        }
        let shared = Arc::new(Shared {
            dir,
            config,
            limits,
            clock,
            disk,
            slots: Mutex::new(slots),
            history: OnceLock::new(),
            used: AtomicU64::new(0),
            metrics: Metrics::default(),
            stop: Arc::default(),
            opened: watch::Sender::new(false),
        });
        let (stop, weak) = (Arc::clone(&shared.stop), Arc::downgrade(&shared));
        let thread = std::thread::Builder::new().name("copies".to_owned()).spawn(move || keep(&stop, &weak));
        thread.map_err(|source| Error::Io { what: "start the thread that keeps copies of logs".into(), source })?;
        Ok(Self(shared))
    }

    /// Begins, or goes on with, a copy of a log; see [`Host::copy`](tailwater_wire::host::Host::copy). Needs a runtime.
    #[must_use]
    pub fn begin(&self, begin: CopyBegin) -> Answer<Arc<dyn Copying>> {
        let shared = Arc::clone(&self.0);
        let log = begin.log;
        Box::pin(async move {
            let begun = tokio::task::spawn_blocking(move || shared.begin(&begin)).await;
            begun.unwrap_or_else(|error| Err(NodeError::Unavailable { log, reason: error.to_string() }))
        })
    }

    /// The copy of a log, if there is one. It answers once it is back.
    #[must_use]
    pub fn node(&self, log: LogId) -> Option<Arc<dyn Node>> {
        let node: Arc<dyn Node> = Arc::clone(&self.0.copy(log)?.ingester) as _;
        Some(node)
    }

    /// The logs of which there are copies, those included that do not answer yet: what they have must not be thought to be nowhere.
    #[must_use]
    pub fn logs(&self) -> Vec<LogId> {
        self.0.slots.lock().keys().copied().collect()
    }

    /// What copies there are.
    #[must_use]
    pub fn state(&self) -> Vec<CopyInfo> {
        self.0.copies().iter().map(|copy| copy.info()).collect()
    }

    /// From now on copies look into blocks, too. To be called once, before anything is asked.
    pub fn attach(&self, history: History) {
        let history = self.0.history.get_or_init(|| history);
        for copy in self.0.copies() {
            copy.ingester.attach(history.clone());
        }
    }

    /// The catalog has everything of a log up to this batch, as somebody has learnt who is not writing to the copy. May block a little.
    pub fn in_blocks(&self, log: LogId, through: u64) {
        if let Some(copy) = self.0.copy(log) {
            copy.in_blocks(through);
        }
    }

    /// The same of a log whose node is gone: a copy that ends before the batch goes on from there, as if it had been written by the node. It
    /// can then be forgotten, and until it is does not hide what others have put into blocks. May block a little.
    pub fn catch_up(&self, log: LogId, in_blocks: u64) {
        if let Some(copy) = self.0.copy(log).filter(|copy| copy.is_ready() && !copy.is_written())
            && let Err(error) = copy.catch_up(in_blocks)
        {
            tracing::debug!(%error, %log, "a copy of a log cannot note what is in blocks");
        }
    }

    /// Begins to put what a copy has and no block into blocks: the node of the original is gone. Whatever else writes of the same log, the
    /// original's node included, no line gets into blocks twice. False: there is no such copy, it is not ready, or it is being written to. Needs
    /// a runtime.
    pub fn adopt(&self, log: LogId, catalog: Arc<Catalog>, config: PagerConfig) -> bool {
        self.0.copy(log).is_some_and(|copy| copy.adopt(catalog, config, Arc::clone(&self.0.clock), &self.0.metrics))
    }

    /// Ends what [`Copies::adopt`] has begun. So does everybody who begins to write to the copy.
    pub fn abandon(&self, log: LogId) {
        if let Some(copy) = self.0.copy(log) {
            copy.abandon();
        }
    }

    /// Adds what is counted of copies to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
        registry.register_collector(Box::new(CopiesCollector(Arc::clone(&self.0))));
    }

    /// Ends all copies in good order; they answer and take nothing any more. Blocks.
    pub fn close(&self) {
        self.0.stop();
        let slots = std::mem::take(&mut *self.0.slots.lock());
        for slot in slots.into_values() {
            slot.close();
        }
    }

    /// The copy of a log, which there is.
    #[cfg(test)]
    pub(crate) fn copy_of(&self, log: LogId) -> Arc<crate::Ingester> {
        Arc::clone(&self.0.copy(log).expect("there is one").ingester)
    }

    /// Waits until every copy that was there at the start answers, or could not be opened.
    #[cfg(test)]
    pub(crate) async fn opened(&self) {
        // Whoever would say it lives as long as this.
        let _ = self.0.opened.subscribe().wait_for(|opened| *opened).await;
    }

    /// As if the process had ended: nobody has the folders open any more.
    #[cfg(test)]
    pub(crate) fn end_abruptly(&self) {
        self.0.stop();
        for slot in std::mem::take(&mut *self.0.slots.lock()).into_values() {
            slot.end_abruptly();
        }
    }

    /// Deletes copies that nobody needs and opens those that could not be opened. Blocks.
    #[cfg(test)]
    pub(crate) fn tidy(&self) {
        self.0.tidy();
    }
}

impl Shared {
    fn copies(&self) -> Vec<Arc<Copy>> {
        self.slots.lock().values().filter_map(|slot| slot.get()).collect()
    }

    fn copy(&self, log: LogId) -> Option<Arc<Copy>> {
        self.slots.lock().get(&log)?.get()
    }

    fn begin(self: &Arc<Self>, begin: &CopyBegin) -> Result<Arc<dyn Copying>, NodeError> {
        let unavailable = |reason: String| NodeError::Unavailable { log: begin.log, reason };
        loop {
            let slot = {
                let mut slots = self.slots.lock();
                if self.is_stopped() {
                    return Err(unavailable("this node is shutting down".to_owned()));
                }
                if slots.len() >= MAX_COPIES && !slots.contains_key(&begin.log) {
                    return Err(unavailable(format!("this node has {MAX_COPIES} copies of logs already")));
                }
                let new = || Arc::new(Slot::new(begin.log, retire::place(&self.dir, begin.log)));
                Arc::clone(slots.entry(begin.log).or_insert_with(new))
            };
            let opened = slot.open(self, Some(begin.in_blocks)).map_err(|error| unavailable(error.to_string()))?;
            // Nothing: it was deleted just now.
            let Some(copy) = opened else { continue };
            let writing = Writing::begin(Arc::clone(self), copy);
            writing.catch_up(begin.in_blocks).map_err(|error| unavailable(error.to_string()))?;
            return Ok(Arc::new(writing));
        }
    }

    /// Makes sure that so many bytes may be written.
    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        let max = self.config.max_bytes;
        let fits = |used: u64| max == 0 || used.saturating_add(bytes) <= max;
        if fits(self.used.fetch_add(bytes, Ordering::Relaxed)) {
            return Ok(());
        }
        for copy in self.copies() {
            copy.ingester.log.make_room();
        }
        if fits(self.count()) {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        self.forget(Duration::ZERO);
        if fits(self.count()) {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        Err(Error::Full { what: "copies of logs (ingester.copies_max_mb)".into() })
    }

    /// Counts bytes on disk anew.
    fn count(&self) -> u64 {
        let bytes = self.copies().iter().map(|copy| copy.ingester.log.bytes_on_disk()).sum();
        self.used.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Shares memory out among the copies there are.
    fn share(&self) {
        let copies = self.copies();
        let share = self.share_of(copies.len());
        copies.iter().for_each(|copy| copy.ingester.log.set_memory(share));
    }

    fn share_of(&self, copies: usize) -> usize {
        self.config.memory_bytes / copies.max(FEWEST_SHARES)
    }

    /// Deletes copies that are wholly in blocks and were not written to for so long.
    fn forget(&self, idle: Duration) {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        for slot in slots {
            if slot.forget(idle) {
                self.slots.lock().retain(|_, other| !Arc::ptr_eq(other, &slot));
                tracing::info!(log = %slot.log, "deleted a copy of a log: all of it is in blocks");
                self.share();
            }
        }
    }

    fn tidy(self: &Arc<Self>) {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        for slot in slots.into_iter().filter(|slot| slot.get().is_none()) {
            if self.is_stopped() {
                return;
            }
            match slot.open(self, None) {
                Ok(Some(_)) => {}
                Ok(None) => self.slots.lock().retain(|_, other| !Arc::ptr_eq(other, &slot)),
                Err(error) => tracing::error!(%error, log = %slot.log, "a copy of a log cannot be opened"),
            }
        }
        self.opened.send_replace(true);
        self.forget(FORGET_AFTER);
        self.count();
    }

    fn is_stopped(&self) -> bool {
        *self.stop.0.lock()
    }

    fn stop(&self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
    }
}

/// What the thread of the copies does.
fn keep(stop: &(Mutex<bool>, Condvar), shared: &Weak<Shared>) {
    let (stopped, changed) = stop;
    loop {
        if let Some(shared) = shared.upgrade() {
            shared.tidy();
        }
        let mut stopped = stopped.lock();
        if !*stopped {
            changed.wait_for(&mut stopped, TIDY_INTERVAL);
        }
        if *stopped {
            return;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("dir", &self.dir).finish_non_exhaustive()
    }
}
