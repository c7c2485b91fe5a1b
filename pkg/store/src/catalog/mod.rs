//! The catalog: which blocks there are.
//!
//! The truth is one object per tenant and day, `<tenant>/<day>/manifest.json`, which lists the day's blocks and, per arrival log, up to which
//! batch the lines of the day are in blocks (`covered`). `<tenant>/tenant.json` lists the days. Both are only ever replaced on the condition
//! that they are still what was read. docs/formats/catalog.md has the formats.
//!
//! Invariants:
//! * A block is in the catalog if and only if a manifest lists it; an object that no manifest lists is garbage, or about to be listed.
//! * A day is in `tenant.json` before its manifest lists a block. So queries find all days without listing the storage, which is done at the
//!   start ([`Catalog::load`]) and by housekeeping alone.
//! * A change is made whole or not at all: blocks added, blocks removed, and `covered`, in one replacement. Of two changes that remove the
//!   same block one is refused ([`Committed::Gone`]), so two compactions never both win. `covered` moves only from the value that the change
//!   expects ([`Committed::Stale`]), so no line is brought in twice: after a crash the pager reads [`Catalog::covered`], leaves out what is
//!   in already, and expects that value.
//! * With several writers ([`Refresh::Shared`]) what a query sees is at most as old as it allows, and what decides about a change is read
//!   for it. A day that is being dropped while somebody adds a block to it stays, or comes back: who drops it looks at the manifest again
//!   after it has left the list, who adds looks at the list again after the manifest was changed.
//! * Every replacement has a new `change` id, so no content ever comes back, and a write whose answer was lost is recognised.
//!
//! After an error of [`Catalog::commit`] the change may have been made, or be made yet. The same change may be tried again: if it was made,
//! the answer is [`Committed::Done`]. Objects of blocks may be deleted only when [`Catalog::manifest_now`] does not list them, and, of blocks
//! that were to be added, when no attempt to add them is under way any more: that is housekeeping's, some time later.
//!
//! Memory: days and tenants are cached within [`CACHED_DAYS`], [`CACHED_BLOCKS`] and [`CACHED_TENANTS`]; what does not fit is read again.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{StreamExt, iter};
use prometheus_client::registry::Registry;
use tailwater_model::{LogId, TenantId};

use crate::Error;
use crate::objects::{Objects, Version};

mod change;
mod day;
mod manifest;
mod metrics;
pub mod names;
mod slots;
#[cfg(test)]
mod tests;

pub use change::{Advance, Change, Committed};
pub use day::{Day, DayError};
pub use manifest::{BlockMeta, Covered, Days, Manifest, Removed, VERSION};

use manifest::{Document, Fault, Owner};
use metrics::Metrics;
use slots::{Fetched, Held, Slot, Slots};

/// Most days whose manifests are in memory.
pub const CACHED_DAYS: usize = 4096;

/// Most blocks in them, some 300 bytes each.
pub const CACHED_BLOCKS: usize = 200_000;

/// Most tenants whose days are in memory, those that have none included.
pub const CACHED_TENANTS: usize = 10_000;

/// Most objects of the catalog that one call reads at once.
const READS_AT_ONCE: usize = 16;

/// How often a change is tried while others change the same object. Each time one of them succeeds.
const ATTEMPTS_MAX: u32 = 64;

/// The pause after losing a race, on average, grows from this …
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Who else writes to the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Nobody. What was read or written once is known.
    Exclusive,
    /// Others, too: what was read longer ago is asked for again.
    Shared {
        /// How old what a query sees may be.
        max_age: Duration,
    },
}

/// How new what is known of an object must be.
#[derive(Clone, Copy, Debug)]
enum Freshness {
    /// As [`Refresh`] says.
    Known,
    /// That, and where others write, too, asked for at this time or later.
    Since(Instant),
    /// It is asked for again.
    Now,
}

/// The blocks of all tenants. Whoever shares it wraps it.
#[derive(Debug)]
pub struct Catalog {
    objects: Objects,
    refresh: Refresh,
    tenants: Slots<TenantId, Days>,
    days: Slots<(TenantId, Day), Manifest>,
    metrics: Metrics,
}

/// Blocks in a time range.
#[derive(Debug, Default)]
pub struct Found {
    /// The blocks.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// The objects of the catalog that could not be read; their blocks are missing ([`Error::Corrupt`]).
    pub corrupt: Vec<Error>,
}

/// What a start found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Tenants.
    pub tenants: usize,
    /// Their days.
    pub days: usize,
    /// Days that `tenant.json` did not have, and has now.
    pub mended: usize,
    /// The tenants whose days could not be read ([`Error::Corrupt`]).
    pub corrupt: Vec<Error>,
}

impl Catalog {
    /// A catalog of what is stored there.
    #[must_use]
    pub fn new(objects: Objects, refresh: Refresh) -> Self {
        Self {
            objects,
            refresh,
            tenants: Slots::new(CACHED_TENANTS, CACHED_TENANTS.saturating_mul(8)),
            days: Slots::new(CACHED_DAYS, CACHED_BLOCKS),
            metrics: Metrics::default(),
        }
    }

    /// The storage.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Whether others write to the storage, too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.refresh != Refresh::Exclusive
    }

    /// Adds what is counted here.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        self.metrics.register(registry);
        registry.register_collector(Box::new(metrics::Sizes(Arc::clone(self))));
    }

    /// Looks through the storage at the start: reads which tenants and days there are, and adds to `tenant.json` the days that it should
    /// list and does not (it was lost, is damaged, or was restored from somewhere).
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn load(&self) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        let mut tenants = iter(self.tenants().await?)
            .map(|tenant| async move {
                let days = self.load_tenant(&tenant).await;
                (tenant, days)
            })
            .buffer_unordered(READS_AT_ONCE);
        while let Some((tenant, days)) = tenants.next().await {
            match days {
                Ok((days, mended)) => {
                    loaded.tenants += 1;
                    loaded.days += days;
                    loaded.mended += mended;
                    if mended > 0 {
                        tracing::warn!(%tenant, days = mended, "the list of days lacked some that are in storage");
                    }
                }
                Err(error @ Error::Corrupt { .. }) => loaded.corrupt.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(loaded)
    }

    /// How many days a tenant has, and how many of them its list lacked.
    async fn load_tenant(&self, tenant: &TenantId) -> Result<(usize, usize), Error> {
        let stored = self.stored_days(tenant).await?;
        let (listed, sound) = match self.read_days(tenant, Freshness::Now).await {
            Ok(days) => (days.0.clone(), true),
            // Whether it can be mended is seen below.
            Err(Error::Corrupt { .. }) if !self.objects.read_only() => (BTreeSet::new(), false),
            Err(error) => return Err(error),
        };
        let missing: BTreeSet<_> = stored.difference(&listed).copied().collect();
        let all = listed.len() + missing.len();
        if (missing.is_empty() && sound) || self.objects.read_only() {
            return Ok((all, 0));
        }
        self.list_days(tenant, &missing).await?;
        Ok((all, missing.len()))
    }

    /// The tenants there are. Lists the storage: for starts, housekeeping and commands.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn tenants(&self) -> Result<Vec<TenantId>, Error> {
        let folders = self.objects.list_folders("").await?;
        Ok(folders.iter().filter_map(|folder| names::tenant_of_folder(folder)).collect())
    }

    /// The days that a tenant has, or has had, blocks in.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn days(&self, tenant: &TenantId) -> Result<Arc<Days>, Error> {
        self.read_days(tenant, Freshness::Known).await
    }

    /// The same, read now, whatever is known.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn days_now(&self, tenant: &TenantId) -> Result<Arc<Days>, Error> {
        self.read_days(tenant, Freshness::Now).await
    }

    /// The blocks of a day.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn manifest(&self, tenant: &TenantId, day: Day) -> Result<Arc<Manifest>, Error> {
        self.read_manifest(tenant, day, Freshness::Known).await
    }

    /// The same, read now, whatever is known.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn manifest_now(&self, tenant: &TenantId, day: Day) -> Result<Arc<Manifest>, Error> {
        self.read_manifest(tenant, day, Freshness::Now).await
    }

    /// The last batch of a log whose lines of that day are in blocks, or were; 0: none. Read now.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn covered(&self, tenant: &TenantId, day: Day, log: LogId) -> Result<u64, Error> {
        let manifest = self.manifest_now(tenant, day).await?;
        Ok(manifest.covered.get(&log).copied().unwrap_or(0))
    }

    /// The blocks of a tenant that may have entries in `[start, end]`, in nanoseconds. From memory, once they were asked for.
    ///
    /// # Errors
    /// [`Error::Unavailable`]. What is damaged is told in [`Found::corrupt`], and the rest found.
    pub async fn blocks(&self, tenant: &TenantId, start: i64, end: i64) -> Result<Found, Error> {
        self.blocks_since(tenant, start, end, None).await
    }

    /// The same. What was asked for before `since` is asked for again, where others write to the storage: all that was in the catalog at that
    /// time is found.
    ///
    /// # Errors
    /// As [`Catalog::blocks`].
    pub async fn blocks_since(
        &self,
        tenant: &TenantId,
        start: i64,
        end: i64,
        since: Option<Instant>,
    ) -> Result<Found, Error> {
        let freshness = since.map_or(Freshness::Known, Freshness::Since);
        let mut found = Found::default();
        if start > end {
            return Ok(found);
        }
        let days = match self.read_days(tenant, freshness).await {
            Ok(days) => days,
            Err(error @ Error::Corrupt { .. }) => {
                found.corrupt.push(error);
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        let range = (Bound::Included(Day::of(start)), Bound::Included(Day::of(end)));
        let days: Vec<_> = days.0.range(range).copied().collect();
        let mut manifests = iter(days).map(|day| self.read_manifest(tenant, day, freshness)).buffered(READS_AT_ONCE);
        while let Some(manifest) = manifests.next().await {
            match manifest {
                Ok(manifest) => {
                    found.blocks.extend(manifest.blocks.iter().filter(|block| block.overlaps(start, end)).cloned());
                }
                Err(error @ Error::Corrupt { .. }) => found.corrupt.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Changes the blocks of a day.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Full`]: see the module about what they leave open. [`Error::Corrupt`]: the manifest cannot be
    /// read, or a block to be added does not lie in the day; nothing was changed. [`Error::Conflict`]: others were always faster.
    pub async fn commit(&self, tenant: &TenantId, day: Day, change: &Change) -> Result<Committed, Error> {
        if let Some((block, reason)) = change.add.iter().find_map(|block| Some((block, block.fault(day)?))) {
            return Err(Error::Corrupt { what: self.objects.url_of(&block.path(tenant)), reason });
        }
        let key = (tenant.clone(), day);
        let slot = self.days.slot(&key);
        let turn = slot.turn.lock().await;
        self.list_days(tenant, &BTreeSet::from([day])).await?;
        let committed = self.commit_in_turn(&slot, tenant, day, change).await;
        self.days.weigh(&key, slot.held().map_or(1, |held| held.value.weight()));
        drop(turn);
        if let Ok(committed) = &committed {
            self.metrics.committed(committed);
        }
        let adds = matches!(committed, Ok(Committed::Done)) && !change.add.is_empty();
        if adds && self.is_shared() && !self.days_now(tenant).await?.0.contains(&day) {
            // Somebody has dropped the day, which had no blocks when it was looked at.
            self.change_days(tenant, |listed| listed.insert(day)).await?;
        }
        committed
    }

    async fn commit_in_turn(
        &self,
        slot: &Slot<Manifest>,
        tenant: &TenantId,
        day: Day,
        change: &Change,
    ) -> Result<Committed, Error> {
        let (path, owner) = (names::manifest_path(tenant, day), Owner { tenant, day: Some(day) });
        let mut known = slot.held().filter(|_| self.refresh == Refresh::Exclusive);
        let mut tried = false;
        for attempt in 0..ATTEMPTS_MAX {
            let from_memory = known.is_some();
            let held = match known.take() {
                Some(held) => held,
                None => self.sound(slot.fetch(&self.objects, &path, owner).await?, &path)?,
            };
            if change.is_in(&held.value, tried) {
                return Ok(Committed::Done);
            }
            let next = match change.apply(&held.value) {
                Ok(next) => next,
                // A write that was in doubt may have happened since: only what is read now refuses a change.
                Err(_) if from_memory => continue,
                Err(refused) => return Ok(refused),
            };
            if slot.replace(&self.objects, &path, owner, next, held.version.as_ref()).await?.is_some() {
                return Ok(Committed::Done);
            }
            tried = true;
            self.metrics.conflicts.inc();
            pause(attempt).await;
        }
        Err(Error::Conflict)
    }

    /// Takes a day without blocks out of the catalog: for retention. False: it has blocks. What the logs had covered is forgotten with it, and
    /// a block that somebody else adds in the same instant may be, so it must be a day of which nothing would be kept, long past.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`], [`Error::Conflict`].
    pub async fn drop_day(&self, tenant: &TenantId, day: Day) -> Result<bool, Error> {
        let (path, owner) = (names::manifest_path(tenant, day), Owner { tenant, day: Some(day) });
        let slot = self.days.slot(&(tenant.clone(), day));
        let _turn = slot.turn.lock().await;
        let is_empty = async || {
            let held = self.sound(slot.fetch(&self.objects, &path, owner).await?, &path)?;
            Ok::<_, Error>(held.value.blocks.is_empty() && held.value.removed.is_empty())
        };
        if !is_empty().await? {
            return Ok(false);
        }
        self.change_days(tenant, |days| days.remove(&day)).await?;
        // Who has added a block since then has seen that the day is not listed, or is seen here.
        if self.is_shared() && !is_empty().await? {
            self.change_days(tenant, |days| days.insert(day)).await?;
            return Ok(false);
        }
        slot.forget();
        self.objects.delete(&path).await?;
        Ok(true)
    }

    /// Makes sure that `tenant.json` lists days.
    async fn list_days(&self, tenant: &TenantId, days: &BTreeSet<Day>) -> Result<(), Error> {
        let slot = self.tenants.slot(tenant);
        if slot.held().is_some_and(|held| days.is_subset(&held.value.0)) {
            return Ok(());
        }
        drop(slot);
        self.change_days(tenant, |listed| {
            let before = listed.len();
            listed.extend(days);
            listed.len() > before
        })
        .await
    }

    /// Changes the days of a tenant. `edit` says whether there is anything to change.
    async fn change_days(&self, tenant: &TenantId, edit: impl Fn(&mut BTreeSet<Day>) -> bool) -> Result<(), Error> {
        let slot = self.tenants.slot(tenant);
        let _turn = slot.turn.lock().await;
        let (path, owner) = (names::tenant_path(tenant), Owner { tenant, day: None });
        for attempt in 0..ATTEMPTS_MAX {
            let (mut days, version) = match slot.fetch(&self.objects, &path, owner).await? {
                Fetched::Held(held) => (held.value.0.clone(), held.version),
                // The folders say the same, so nothing is lost.
                Fetched::Faulty(Fault::Damaged(reason), version) => {
                    tracing::warn!(object = self.objects.url_of(&path), reason, "damaged, made again from the folders");
                    (self.stored_days(tenant).await?, Some(version))
                }
                faulty @ Fetched::Faulty(..) => return self.sound(faulty, &path).map(|_| ()),
            };
            let sound = slot.held().is_some();
            if !edit(&mut days) && sound {
                self.tenants.weigh(tenant, Days(days).weight());
                return Ok(());
            }
            let weight = 1 + days.len() / 16;
            if slot.replace(&self.objects, &path, owner, Days(days), version.as_ref()).await?.is_some() {
                self.tenants.weigh(tenant, weight);
                return Ok(());
            }
            self.metrics.conflicts.inc();
            pause(attempt).await;
        }
        Err(Error::Conflict)
    }

    /// The days that have folders.
    async fn stored_days(&self, tenant: &TenantId) -> Result<BTreeSet<Day>, Error> {
        let folders = self.objects.list_folders(&names::tenant_folder(tenant)).await?;
        Ok(folders.iter().filter_map(|folder| folder.parse().ok()).collect())
    }

    async fn read_days(&self, tenant: &TenantId, freshness: Freshness) -> Result<Arc<Days>, Error> {
        let slot = self.tenants.slot(tenant);
        if let Some(held) = self.fresh(&slot, freshness) {
            return Ok(held.value);
        }
        let path = names::tenant_path(tenant);
        let held = self.read(&slot, &path, Owner { tenant, day: None }, freshness).await?;
        self.tenants.weigh(tenant, held.value.weight());
        Ok(held.value)
    }

    async fn read_manifest(&self, tenant: &TenantId, day: Day, freshness: Freshness) -> Result<Arc<Manifest>, Error> {
        let key = (tenant.clone(), day);
        let slot = self.days.slot(&key);
        if let Some(held) = self.fresh(&slot, freshness) {
            return Ok(held.value);
        }
        let path = names::manifest_path(tenant, day);
        let held = self.read(&slot, &path, Owner { tenant, day: Some(day) }, freshness).await?;
        self.days.weigh(&key, held.value.weight());
        Ok(held.value)
    }

    async fn read<T: Document>(
        &self,
        slot: &Slot<T>,
        path: &str,
        owner: Owner<'_>,
        freshness: Freshness,
    ) -> Result<Held<T>, Error> {
        let _turn = slot.turn.lock().await;
        // Somebody else may have read it while this one waited.
        match self.fresh(slot, freshness) {
            Some(held) => Ok(held),
            None => self.sound(slot.fetch(&self.objects, path, owner).await?, path),
        }
    }

    /// What is known, if it is new enough.
    fn fresh<T: Document>(&self, slot: &Slot<T>, freshness: Freshness) -> Option<Held<T>> {
        slot.held().filter(|held| match (self.refresh, freshness) {
            (_, Freshness::Now) => false,
            (Refresh::Exclusive, _) => true,
            (Refresh::Shared { .. }, Freshness::Since(since)) if held.read_at < since => false,
            (Refresh::Shared { max_age }, _) => held.read_at.elapsed() <= max_age,
        })
    }

    fn sound<T>(&self, fetched: Fetched<T>, path: &str) -> Result<Held<T>, Error> {
        match fetched {
            Fetched::Held(held) => Ok(held),
            Fetched::Faulty(fault, Version { .. }) => {
                Err(Error::Corrupt { what: self.objects.url_of(path), reason: fault.into_text() })
            }
        }
    }
}

/// Waits before the next attempt, so that those who race do not do so in step.
async fn pause(attempt: u32) {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
    tokio::time::sleep(longest.mul_f64(0.5 + fastrand::f64())).await;
}
