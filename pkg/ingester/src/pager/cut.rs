//! One cut: steps 1 to 5 of the protocol in [`super`].

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::stream::{self, StreamExt as _};
use tailwater_model::Clock;
use tailwater_store::Error;
use tailwater_store::block::{Built, Options};
use tailwater_store::catalog::{Advance, BlockMeta, Catalog, Change, Committed};
use tokio::sync::Semaphore;

use super::build::Builder;
use super::metrics::Metrics;
use super::plan::{Group, Plan};
use crate::batch::Batch;
use crate::log::ArrivalLog;

/// Attempts to be the one who changes a manifest's position of this log. Nobody but this process does, so the second one succeeds unless
/// answers get lost.
const ATTEMPTS: usize = 5;

/// Tenants and days that are on their way at a time: most of it is waiting for the object store. All blocks of a cut together are smaller
/// than its lines.
const GROUPS_AT_ONCE: usize = 8;

/// A step that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The stretch is at hand and durable.
    Fetched,
    /// It is known how far a manifest covers the log.
    Asked,
    /// A block is in the object store.
    Uploaded,
    /// A manifest lists the blocks of its day.
    Committed,
    /// All of them do.
    Paged,
}

/// What a test does after a step: nothing, something on the side, or failing as if the process ended there.
#[cfg(test)]
pub(super) type Probe =
    Arc<dyn Fn(Step) -> futures_util::future::BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static>;

/// Makes cuts.
pub(super) struct Cutter {
    log: Arc<ArrivalLog>,
    clock: Arc<dyn Clock>,
    catalog: Arc<Catalog>,
    options: Options,
    metrics: Metrics,
    cancel: Arc<AtomicBool>,
    /// Whose turn it is to build.
    building: Semaphore,
    #[cfg(test)]
    pub(super) probe: Option<Probe>,
}

/// What a cut has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Everything up to this batch is covered.
    pub(super) through: u64,
    /// Blocks added to the catalog.
    pub(super) blocks: u64,
    /// Their lines.
    pub(super) lines: u64,
}

impl Cutter {
    pub(super) fn new(
        log: Arc<ArrivalLog>,
        clock: Arc<dyn Clock>,
        catalog: Arc<Catalog>,
        options: Options,
        metrics: Metrics,
        cancel: Arc<AtomicBool>,
    ) -> Self {
        Self {
            log,
            clock,
            catalog,
            options,
            metrics,
            cancel,
            building: Semaphore::new(1),
            #[cfg(test)]
            probe: None,
        }
    }

    /// Puts lines into blocks: those that no block has, up to a batch, and of about so many bytes at most.
    ///
    /// # Errors
    /// Whatever fails first. It can be repeated, and has to be.
    pub(super) async fn cut(&self, upto: u64, max_bytes: u64) -> Result<Done, Error> {
        let after = self.log.covered();
        let log = Arc::clone(&self.log);
        let plan = blocking("fetching lines from the log", move || {
            let (batches, through) = log.stretch(after, upto, max_bytes)?;
            if let Some(last) = batches.last() {
                log.sync(last.seq)?;
            }
            Ok(Plan::new(batches, through))
        })
        .await?;
        self.after(Step::Fetched).await?;
        let through = plan.through;
        let mut done = Done { through, ..Done::default() };
        let groups = stream::iter(plan.groups).map(|group| self.page(&plan.batches, Arc::new(group), through));
        let mut paged = groups.buffer_unordered(GROUPS_AT_ONCE);
        // The first error ends the others where they are.
        while let Some((blocks, lines)) = paged.next().await.transpose()? {
            done.blocks += blocks;
            done.lines += lines;
        }
        drop(paged);
        self.after(Step::Paged).await?;
        let log = Arc::clone(&self.log);
        blocking("remembering what is in blocks", move || {
            log.set_covered(through);
            Ok(())
        })
        .await?;
        Ok(done)
    }

    /// Steps 2 to 4 for a tenant and a day. Answers how many blocks were added, and their lines.
    async fn page(&self, batches: &Arc<[Arc<Batch>]>, group: Arc<Group>, through: u64) -> Result<(u64, u64), Error> {
        let log = self.log.id();
        let mut known = self.catalog.covered(&group.tenant, group.day, log).await?;
        self.after(Step::Asked).await?;
        for _ in 0..ATTEMPTS {
            if group.last <= known {
                return Ok((0, 0));
            }
            let blocks = self.upload(batches, &group, known).await?;
            let covered = Some(Advance { log, expected: known, to: through });
            let change = Change { add: blocks, covered, ..Change::default() };
            match self.catalog.commit(&group.tenant, group.day, &change).await? {
                Committed::Done => {
                    change.add.iter().for_each(|block| self.metrics.block(block));
                    self.after(Step::Committed).await?;
                    return Ok((change.add.len() as u64, change.add.iter().map(|block| block.lines).sum()));
                }
                Committed::Stale(actual) => {
                    self.withdraw(&group, &change.add).await?;
                    known = actual;
                }
                // No block was to be removed.
                Committed::Gone(_) => return Err(Error::Conflict),
            }
        }
        Err(Error::Conflict)
    }

    /// Builds and uploads the blocks of a group, one after the other.
    async fn upload(
        &self,
        batches: &Arc<[Arc<Batch>]>,
        group: &Arc<Group>,
        covered: u64,
    ) -> Result<Vec<BlockMeta>, Error> {
        let mut builder = Builder::new(self.log.id(), batches, group, self.options, covered, &self.cancel);
        let mut blocks = Vec::new();
        loop {
            // One at a time: the other cores are for pushes and searches.
            let turn = self.building.acquire().await;
            let built;
            (builder, built) = blocking("building a block", move || {
                let built = builder.next_block()?;
                Ok((builder, built))
            })
            .await?;
            drop(turn);
            let Some(Built { parts, summary }) = built else { return Ok(blocks) };
            let block = BlockMeta::new(group.day, &summary, 0, self.clock.now());
            self.catalog.objects().put(&block.path(&group.tenant), parts).await?;
            blocks.push(block);
            self.after(Step::Uploaded).await?;
        }
    }

    /// Deletes blocks that were not added since another change came first, but none that the manifest lists or has listed: an earlier answer
    /// may have been lost.
    async fn withdraw(&self, group: &Group, blocks: &[BlockMeta]) -> Result<(), Error> {
        let listed = self.catalog.manifest_now(&group.tenant, group.day).await?;
        for block in blocks {
            if listed.knows(block.id) {
                continue;
            }
            let path = block.path(&group.tenant);
            if let Err(error) = self.catalog.objects().delete(&path).await {
                tracing::warn!(path, %error, "a block that is not needed could not be deleted; housekeeping will");
            }
        }
        Ok(())
    }

    #[cfg(test)]
    async fn after(&self, step: Step) -> Result<(), Error> {
        match &self.probe {
            Some(probe) => probe(step).await,
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_async, reason = "in tests something happens here")]
    async fn after(&self, _step: Step) -> Result<(), Error> {
        Ok(())
    }
}

/// Runs what takes time, or waits for the disk, where it may.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Io { what: what.into(), source: std::io::Error::other(error) }),
    }
}
