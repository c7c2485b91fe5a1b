//! Housekeeping: what happens to blocks after they were cut.
//!
//! Day by day of each tenant, in this order:
//!
//! * **Removed** blocks are deleted. A block that is no longer listed stays in the manifest's list of removed blocks, with the time, and its
//!   object stays until [`Settings::delete_delay`] has passed: searches that found it in the catalog before may still read it. The list
//!   survives a restart.
//! * **Retention** takes out what is older than the tenant's periods: whole blocks where nothing of them is kept, otherwise the expired
//!   streams, by rewriting the block, where that pays (see [`retain`]). Only if [`Settings::retention`] is on.
//! * **Compaction** merges small blocks (see [`compaction`]).
//! * **Delete requests** whose time to be cancelled is over are carried out (see [`erase`]).
//!
//! Then, over all tenants, the oldest blocks beyond [`Settings::max_bytes`] are taken out (see [`cap`]), and now and then objects that no
//! manifest lists are looked for (see [`orphans`]).
//!
//! # In a cluster
//! All nodes have it, and one does it: the one that leads ([`Housekeeping::led`]), which is asked before each round and on the way. Two that do
//! it at a time, while they learn who leads, do no harm: a block is replaced or removed by one of them, the other one begins anew.
//!
//! Invariants:
//! * A manifest changes in one step from the blocks before to the blocks after: no search sees a line twice or not at all on account of
//!   housekeeping. If somebody else has removed one of the blocks first, nothing is changed and what was written is deleted again.
//! * No object is deleted that a manifest lists, or listed less than the delay ago.
//! * A block that cannot be read is left as it is, is told in the log once, and holds nothing else up.
//! * Memory: see [`rewrite`]; a round opens at most [`OPENED_MAX`] blocks and rewrites about [`REWRITTEN_MAX`] bytes of lines. What is left
//!   over is for the next round, which follows soon.
//! * Each step may be the last before a crash: what was uploaded and is not listed is an orphan, everything else is done or is not.

mod cap;
mod compaction;
mod erase;
mod input;
mod metrics;
mod orphans;
mod replace;
mod retain;
mod retention;
mod rewrite;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tailwater_model::{Clock, DeletionMode, TenantId, TenantLimits, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use ulid::Ulid;

use self::compaction::Candidate;
use self::metrics::{Metrics, Reason};
use self::rewrite::Filter;
use crate::block::Options;
use crate::catalog::{BlockMeta, Catalog, Change, Committed, Day};
use crate::deletes::Deletes;
use crate::{Error, Kind};

pub use self::retention::{Retention, StreamRule};

/// Most blocks that a round opens.
const OPENED_MAX: u64 = 2000;

/// Bytes of lines that a round rewrites, about.
const REWRITTEN_MAX: u64 = 8 << 30;

/// The pause before a round that has to go on where the last one ended.
const NEXT_PAUSE: Duration = Duration::from_secs(5);

/// How long after a day's end lines still come for it in numbers: out of order, or held back by a sender.
const STRAGGLERS: Duration = Duration::from_secs(2 * 3600);

/// Most blocks of which it is remembered that there is nothing to do.
const REMEMBERED_MAX: usize = 1 << 16;

/// How it is done.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between rounds.
    pub interval: Duration,
    /// How long the object of a removed block stays: longer than the longest search.
    pub delete_delay: Duration,
    /// How old an object must be that no manifest lists before it is deleted: longer than any upload.
    pub orphan_grace: Duration,
    /// How often such objects are looked for.
    pub orphan_interval: Duration,
    /// Most bytes of blocks of all tenants; 0: any number.
    pub max_bytes: u64,
    /// Whether the periods of the limits hold, and delete requests are carried out.
    pub retention: bool,
    /// Whether small blocks are merged.
    pub compaction: bool,
    /// Bytes of lines that a merged block has at most.
    pub block_bytes: u64,
    /// How blocks are written.
    pub block: Options,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            delete_delay: Duration::from_secs(15 * 60),
            orphan_grace: Duration::from_secs(24 * 3600),
            orphan_interval: Duration::from_secs(6 * 3600),
            max_bytes: 0,
            retention: false,
            compaction: true,
            block_bytes: 1 << 30,
            block: Options::default(),
        }
    }
}

/// Says up to when all that was accepted is in blocks.
///
/// In a cluster that is the earliest of what all logs say that may still put lines into blocks, each about itself; a log of which nothing can
/// be learnt counts with the last that it said, or as [`Timestamp::MIN`]. If one was left out, lines that were deleted by a request could
/// come into blocks after the request was processed.
pub type Settled = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Says whether it is this process that does it.
pub type Leads = Arc<dyn Fn() -> bool + Send + Sync>;

/// See the module's words. It stops when it is dropped.
pub struct Housekeeping {
    keeper: Arc<Keeper>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What a round needs.
pub(super) struct Keeper {
    catalog: Arc<Catalog>,
    deletes: Arc<Deletes>,
    limits: Arc<dyn TenantLimits>,
    settled: Settled,
    leads: Leads,
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    wake: Notify,
    stop: Arc<AtomicBool>,
    memory: Mutex<Remembered>,
}

/// What is remembered between rounds; nothing of it is needed.
#[derive(Default)]
struct Remembered {
    /// What was found of blocks: the number of expired periods, or the delete requests, with which there was nothing to do.
    looked: HashMap<(Ulid, Question), u64>,
    /// Blocks that cannot be read.
    damaged: HashMap<Ulid, ()>,
    /// Where the last round ended early.
    resume: Option<TenantId>,
    /// When orphans were looked for last.
    orphans: Option<Timestamp>,
    /// When a removed block was first seen, by this clock: the time in the manifest is by another's, maybe.
    removed: HashMap<Ulid, Timestamp>,
}

/// What a block was looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Question {
    Retention,
    Deletes,
}

/// What is left of a round's share of work.
struct Work {
    opened: u64,
    bytes: u64,
}

impl Work {
    fn is_done(&self) -> bool {
        self.opened == 0 || self.bytes == 0
    }

    /// Takes a block's share.
    fn take(&mut self, block: &BlockMeta) {
        self.opened = self.opened.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(block.raw_bytes);
    }
}

impl Housekeeping {
    /// Housekeeping that has not begun. `settled` is asked before delete requests are carried out.
    #[must_use]
    pub fn new(
        catalog: Arc<Catalog>,
        deletes: Arc<Deletes>,
        limits: Arc<dyn TenantLimits>,
        settled: Settled,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::led(catalog, deletes, limits, settled, Arc::new(|| true), settings, clock)
    }

    /// The same, of which rounds do nothing unless `leads` says so.
    #[must_use]
    pub fn led(
        catalog: Arc<Catalog>,
        deletes: Arc<Deletes>,
        limits: Arc<dyn TenantLimits>,
        settled: Settled,
        leads: Leads,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let keeper = Keeper {
            catalog,
            deletes,
            limits,
            settled,
            leads,
            settings,
            clock,
            metrics: Metrics::default(),
            wake: Notify::new(),
            stop: Arc::new(AtomicBool::new(false)),
            memory: Mutex::default(),
        };
        Self { keeper: Arc::new(keeper), task: Mutex::new(None) }
    }

    /// Begins to do it every [`Settings::interval`], in a task of its own. Needs a runtime. Once.
    pub fn start(&self) {
        let mut task = self.task.lock();
        if task.is_none() {
            *task = Some(tokio::spawn(Arc::clone(&self.keeper).run()));
        }
    }

    /// Does a round now. Whether another one has to follow soon.
    ///
    /// # Errors
    /// The storage cannot be reached. Whatever was done is done.
    pub async fn round(&self) -> Result<bool, Error> {
        self.keeper.round().await
    }

    /// Stops after the step that is under way, if any.
    pub async fn stop(&self) {
        self.keeper.stop();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // Whatever became of it, it has ended.
            let _ = task.await;
        }
    }

    /// Adds what is counted here.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.keeper.metrics.register(registry);
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.keeper.stop();
    }
}

impl fmt::Debug for Housekeeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Housekeeping").field("settings", &self.keeper.settings).finish_non_exhaustive()
    }
}

impl Keeper {
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether a round has to end.
    fn is_over(&self) -> bool {
        self.is_stopped() || !(self.leads)()
    }

    async fn run(self: Arc<Self>) {
        let mut pause = NEXT_PAUSE;
        while !self.is_stopped() {
            tokio::select! {
                () = self.wake.notified() => continue,
                () = tokio::time::sleep(pause) => {}
            }
            let round = tokio::select! {
                round = self.round() => round,
                () = self.wake.notified() => continue,
            };
            pause = match round {
                Ok(true) => NEXT_PAUSE.min(self.settings.interval),
                Ok(false) => self.settings.interval,
                Err(error) => {
                    self.metrics.failures.inc();
                    tracing::warn!(%error, "housekeeping failed, going on later");
                    self.settings.interval
                }
            };
        }
    }

    async fn round(&self) -> Result<bool, Error> {
        if !(self.leads)() {
            return Ok(false);
        }
        let mut work = Work { opened: OPENED_MAX, bytes: REWRITTEN_MAX };
        let mut tenants = self.catalog.tenants().await?;
        tenants.sort();
        // A round that ended early goes on with the tenant that it did not get to.
        let resume = self.memory.lock().resume.take();
        let begin = resume.map_or(0, |resume| tenants.partition_point(|tenant| *tenant < resume));
        tenants.rotate_left(begin);
        for tenant in &tenants {
            if work.is_done() {
                self.memory.lock().resume = Some(tenant.clone());
                break;
            }
            match self.tenant(tenant, &mut work).await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                Err(error) => self.complain(tenant, &error),
            }
        }
        if !(self.leads)() {
            return Ok(false);
        }
        self.cap(&tenants).await?;
        self.orphans(&tenants).await?;
        self.metrics.rounds.inc();
        Ok(work.is_done())
    }

    async fn tenant(&self, tenant: &TenantId, work: &mut Work) -> Result<(), Error> {
        // Asked for before manifests are read: what was accepted until then is in the blocks that they list.
        let settled = (self.settled)();
        let retention = self.retention_of(tenant);
        let days = self.catalog.days(tenant).await?;
        for day in &days.0 {
            let done = self.day(tenant, *day, retention.as_ref(), work).await;
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                Err(error) => self.complain(tenant, &error),
            }
            if work.is_done() || self.is_over() {
                return Ok(());
            }
        }
        let may_erase = self.limits.limits(tenant).deletion_mode == DeletionMode::FilterAndDelete;
        if self.settings.retention && may_erase { self.erase(tenant, settled, work).await } else { Ok(()) }
    }

    async fn day(
        &self,
        tenant: &TenantId,
        day: Day,
        retention: Option<&Retention>,
        work: &mut Work,
    ) -> Result<(), Error> {
        self.purge(tenant, day).await?;
        if let Some(retention) = retention {
            self.retain(tenant, day, retention, work).await?;
        }
        if self.settings.compaction {
            while !work.is_done() && self.compact(tenant, day, work).await? {}
        }
        Ok(())
    }

    /// The tenant's periods, if they hold.
    fn retention_of(&self, tenant: &TenantId) -> Option<Retention> {
        if !self.settings.retention {
            return None;
        }
        match Retention::new(&self.limits.limits(tenant)) {
            Ok(retention) => Some(retention),
            Err(error) => {
                // Too long is better than too short.
                tracing::error!(%tenant, %error, "the retention of a tenant cannot be understood, nothing is expired");
                None
            }
        }
    }

    /// Deletes the objects of blocks that were removed long enough ago.
    async fn purge(&self, tenant: &TenantId, day: Day) -> Result<(), Error> {
        let manifest = self.catalog.manifest(tenant, day).await?;
        let now = self.clock.now();
        let is_old = |at: Timestamp| now.since(at) >= self.settings.delete_delay;
        let due = manifest.removed.iter().filter(|block| {
            let seen = self.seen(block.id, now);
            is_old(Timestamp(block.at)) && is_old(seen)
        });
        let mut purged = Vec::new();
        for block in due {
            self.catalog.objects().delete(&block.path(tenant, day)).await?;
            purged.push(block.id);
        }
        if purged.is_empty() {
            return Ok(());
        }
        self.memory.lock().removed.retain(|id, _| !purged.contains(id));
        self.metrics.deleted_blocks.inc_by(purged.len() as u64);
        match self.catalog.commit(tenant, day, &Change { purge: purged, ..Change::default() }).await? {
            Committed::Done => Ok(()),
            // Such a change expects nothing.
            Committed::Stale(_) | Committed::Gone(_) => Err(Error::Conflict),
        }
    }

    /// When a removed block was first seen here. In a cluster the time in the manifest is by the clock of whoever removed it, so the delay has
    /// to have passed by this clock, too.
    fn seen(&self, id: Ulid, now: Timestamp) -> Timestamp {
        if !self.catalog.is_shared() {
            return Timestamp::MIN;
        }
        let mut memory = self.memory.lock();
        if memory.removed.len() >= REMEMBERED_MAX {
            memory.removed.retain(|_, at| now.since(*at) <= self.settings.delete_delay);
        }
        if memory.removed.len() >= REMEMBERED_MAX {
            return now;
        }
        *memory.removed.entry(id).or_insert(now)
    }

    /// Merges some blocks of a day. Whether there may be more to do.
    async fn compact(&self, tenant: &TenantId, day: Day, work: &mut Work) -> Result<bool, Error> {
        let manifest = self.catalog.manifest(tenant, day).await?;
        let candidates = {
            let memory = self.memory.lock();
            let sound = manifest.blocks.iter().enumerate().filter(|(_, b)| !memory.damaged.contains_key(&b.id));
            sound.map(|(number, b)| Candidate { number, bytes: b.raw_bytes, min: b.min }).collect()
        };
        let over = self.clock.now() > Timestamp(*day.range().end()).saturating_add(STRAGGLERS);
        let Some(chosen) = compaction::choose(candidates, self.settings.block_bytes, over) else { return Ok(false) };
        let blocks: Vec<_> = chosen.iter().filter_map(|number| manifest.blocks.get(*number).cloned()).collect();
        for block in &blocks {
            work.take(block);
        }
        let merged = self.replace(tenant, day, &blocks, Filter::nothing(), false).await?;
        if let Some(dropped) = merged {
            self.metrics.merged_blocks.inc_by(blocks.len() as u64);
            self.metrics.dropped(Reason::Repeated, dropped.lines, dropped.bytes);
        }
        Ok(merged.is_some())
    }

    /// Takes blocks out of the catalog as they are. False if somebody else was first.
    async fn remove(
        &self,
        tenant: &TenantId,
        day: Day,
        blocks: &[Arc<BlockMeta>],
        reason: Reason,
    ) -> Result<bool, Error> {
        if blocks.is_empty() {
            return Ok(true);
        }
        let remove = blocks.iter().map(|block| block.id).collect();
        let change = Change { remove, removed_at: self.clock.now().nanos(), ..Change::default() };
        if self.catalog.commit(tenant, day, &change).await? != Committed::Done {
            return Ok(false);
        }
        let sum = |of: fn(&BlockMeta) -> u64| blocks.iter().map(|block| of(block)).sum();
        self.metrics.dropped(reason, sum(|b| b.lines), sum(|b| b.raw_bytes));
        Ok(true)
    }

    /// Whether a block was looked at with the same result to expect.
    fn has_looked(&self, block: &BlockMeta, question: Question, answer: u64) -> bool {
        self.memory.lock().looked.get(&(block.id, question)) == Some(&answer)
    }

    fn looked(&self, block: &BlockMeta, question: Question, answer: u64) {
        let mut memory = self.memory.lock();
        if memory.looked.len() >= REMEMBERED_MAX {
            memory.looked.clear();
        }
        memory.looked.insert((block.id, question), answer);
    }

    /// Takes note of a block that cannot be read.
    fn damaged(&self, tenant: &TenantId, block: &BlockMeta, error: &Error) {
        let mut memory = self.memory.lock();
        if memory.damaged.len() >= REMEMBERED_MAX {
            memory.damaged.clear();
        }
        if memory.damaged.insert(block.id, ()).is_none() {
            self.metrics.damaged_blocks.inc();
            let (path, lines) = (block.path(tenant), block.lines);
            tracing::error!(path, lines, %error, "a block cannot be read; housekeeping leaves it alone");
        }
    }

    fn complain(&self, tenant: &TenantId, error: &Error) {
        self.metrics.failures.inc();
        tracing::warn!(%tenant, %error, "housekeeping of a tenant failed, going on with others");
    }
}

fn stopped() -> Error {
    Error::Unavailable { what: "housekeeping".into(), reason: "it is stopped".into() }
}
