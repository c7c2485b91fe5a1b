//! Some blocks of a day are replaced by what a rewrite makes of them.

use std::sync::Arc;

use tailwater_model::TenantId;

use super::Keeper;
use super::input::Input;
use super::rewrite::{Dropped, Filter, Rewrite, RewriteOptions};
use crate::block::Built;
use crate::catalog::{BlockMeta, Change, Committed, Day};
use crate::{Error, Kind};

impl Keeper {
    /// Replaces blocks. `only_if_dropped`: not if nothing would be left out. Answers what was left out; nothing if nothing was changed:
    /// since somebody else was first, or a block cannot be read.
    ///
    /// # Errors
    /// The storage cannot be reached.
    pub(super) async fn replace(
        &self,
        tenant: &TenantId,
        day: Day,
        blocks: &[Arc<BlockMeta>],
        filter: Filter,
        only_if_dropped: bool,
    ) -> Result<Option<Dropped>, Error> {
        let mut inputs = Vec::with_capacity(blocks.len());
        for block in blocks {
            match self.open(tenant, block).await? {
                Some(input) => inputs.push(input),
                None => return Ok(None),
            }
        }
        let options = RewriteOptions { block: self.settings.block, block_bytes: self.settings.block_bytes };
        let rewrite = Rewrite::new(inputs, filter, options, Arc::clone(&self.stop));
        let mut written = Vec::new();
        let dropped = match self.write(tenant, day, blocks, rewrite, only_if_dropped, &mut written).await {
            Ok(dropped) => dropped,
            Err(error) => {
                self.withdraw(tenant, day, &written).await;
                return Err(error);
            }
        };
        let Some(dropped) = dropped else {
            self.withdraw(tenant, day, &written).await;
            return Ok(None);
        };
        if only_if_dropped && dropped.lines == 0 {
            self.withdraw(tenant, day, &written).await;
            return Ok(Some(dropped));
        }
        let remove = blocks.iter().map(|block| block.id).collect();
        let removed_at = self.clock.now().nanos();
        let change = Change { add: written, remove, removed_at, ..Change::default() };
        // After an error nobody knows whether it was made: the objects stay, for this or as orphans.
        match self.catalog.commit(tenant, day, &change).await? {
            Committed::Done => {
                self.metrics.written_blocks.inc_by(change.add.len() as u64);
                Ok(Some(dropped))
            }
            Committed::Gone(_) | Committed::Stale(_) => {
                self.withdraw(tenant, day, &change.add).await;
                Ok(None)
            }
        }
    }

    /// Opens a block; nothing if it cannot be read.
    ///
    /// # Errors
    /// The storage cannot be reached.
    pub(super) async fn open(&self, tenant: &TenantId, block: &BlockMeta) -> Result<Option<Input>, Error> {
        match Input::open(self.catalog.objects(), &block.path(tenant)).await {
            Ok(input) => Ok(Some(input)),
            Err(error) if is_damage(&error) => {
                self.damaged(tenant, block, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes and uploads what a rewrite makes, unless nothing is left out and that is what it is about.
    async fn write(
        &self,
        tenant: &TenantId,
        day: Day,
        blocks: &[Arc<BlockMeta>],
        mut rewrite: Rewrite,
        only_if_dropped: bool,
        written: &mut Vec<BlockMeta>,
    ) -> Result<Option<Dropped>, Error> {
        let level = blocks.iter().map(|block| block.level).max().unwrap_or(0);
        let level = if blocks.len() > 1 { level.saturating_add(1) } else { level };
        // One block is held back until it is known whether there is a reason to upload any.
        let mut held: Option<Built> = None;
        loop {
            let built;
            let work = move || {
                let built = rewrite.next_block();
                (rewrite, built)
            };
            let ended = tokio::task::spawn_blocking(work).await;
            let failed = |error| Error::Io { what: "rewriting blocks".into(), source: std::io::Error::other(error) };
            (rewrite, built) = ended.map_err(failed)?;
            let next = match built {
                Ok(next) => next,
                Err(error) if is_damage(&error) => {
                    let Some(block) = rewrite.unreadable().and_then(|number| blocks.get(number)) else {
                        return Err(error);
                    };
                    self.damaged(tenant, block, &error);
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let is_last = next.is_none();
            if is_last && only_if_dropped && written.is_empty() && rewrite.dropped().lines == 0 {
                return Ok(Some(rewrite.dropped()));
            }
            if let Some(Built { parts, summary }) = std::mem::replace(&mut held, next) {
                let block = BlockMeta::new(day, &summary, level, self.clock.now());
                self.catalog.objects().put(&block.path(tenant), parts).await?;
                written.push(block);
            }
            if is_last {
                return Ok(Some(rewrite.dropped()));
            }
        }
    }

    /// Deletes objects of blocks that were not added, but none that the manifest lists or has listed: an attempt whose answer was lost may
    /// have added them.
    async fn withdraw(&self, tenant: &TenantId, day: Day, blocks: &[BlockMeta]) {
        if blocks.is_empty() {
            return;
        }
        let manifest = match self.catalog.manifest_now(tenant, day).await {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::debug!(%tenant, %day, %error, "blocks that are not needed will be deleted as orphans");
                return;
            }
        };
        for block in blocks.iter().filter(|block| !manifest.knows(block.id)) {
            let path = block.path(tenant);
            if let Err(error) = self.catalog.objects().delete(&path).await {
                tracing::warn!(path, %error, "a block that is not needed could not be deleted; it will be as an orphan");
            }
        }
    }
}

/// Whether it is the block's fault and will not pass.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::NotFound)
}
