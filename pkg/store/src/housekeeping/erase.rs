//! Delete requests are carried out.
//!
//! A request is due when it can no longer be cancelled, and everything that was accepted until then is in blocks. Every block of its range
//! that may hold such a line is rewritten without it; a block that turns out to hold none stays as it is. The request is processed when all
//! blocks were seen that the manifests listed when they were read, which is after the log said that its lines are in blocks. Until then, and
//! for a while longer, searches leave the lines out.
//!
//! A block that cannot be read keeps the request from being processed: what can be read of the block may be answered.

use std::sync::Arc;

use tailwater_model::{TenantId, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use super::metrics::Reason;
use super::rewrite::Filter;
use super::{Keeper, Question, Work};
use crate::Error;
use crate::catalog::{BlockMeta, Day};
use crate::deletes::{Deleted, Deletion, Eraser, Request};

impl Keeper {
    /// Carries out what is due.
    pub(super) async fn erase(&self, tenant: &TenantId, settled: Timestamp, work: &mut Work) -> Result<(), Error> {
        let now = self.clock.now();
        let requests = self.deletes.list(tenant).await?;
        let is_due =
            |request: &&Request| self.deletes.is_due(request, now) && settled >= self.deletes.deadline(request);
        // What cannot be compiled was told when it was read.
        let due: Arc<[Deletion]> = requests.iter().filter(is_due).filter_map(|r| Deletion::new(r).ok()).collect();
        if due.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = due.iter().map(|deletion| deletion.id.clone()).collect();
        let answer = xxh3_64(ids.join(",").as_bytes());
        let detect_level = self.limits.limits(tenant).discover_log_levels;
        let mut complete = true;
        // Read now, as the manifests: others may have added a day meanwhile.
        for day in &self.catalog.days_now(tenant).await?.0 {
            let range = day.range();
            if !due.iter().any(|deletion| deletion.overlaps(*range.start(), *range.end())) {
                continue;
            }
            let manifest = self.catalog.manifest_now(tenant, *day).await?;
            for block in &manifest.blocks {
                if !due.iter().any(|deletion| deletion.overlaps(block.min, block.max))
                    || self.has_looked(block, Question::Deletes, answer)
                {
                    continue;
                }
                if work.is_done() || self.is_over() {
                    return Ok(());
                }
                let eraser = Eraser::new(Arc::clone(&due), detect_level);
                complete &= self.erase_in(tenant, *day, block, eraser, answer, work).await?;
            }
        }
        if complete {
            self.deletes.processed(tenant, &ids).await?;
            tracing::info!(%tenant, requests = ids.join(","), "delete requests are carried out");
        }
        Ok(())
    }

    /// Whether the block is known to hold no such line any more.
    async fn erase_in(
        &self,
        tenant: &TenantId,
        day: Day,
        block: &Arc<BlockMeta>,
        mut eraser: Eraser,
        answer: u64,
        work: &mut Work,
    ) -> Result<bool, Error> {
        let Some(input) = self.open(tenant, block).await? else { return Ok(false) };
        work.opened = work.opened.saturating_sub(1);
        let pages = u32::try_from(input.footer.pages.len()).unwrap_or(u32::MAX);
        let concerned = (0..pages).filter_map(|page| input.run(page)).any(|run| eraser.enter(&run) != Deleted::Nothing);
        drop(input);
        if !concerned {
            self.looked(block, Question::Deletes, answer);
            return Ok(true);
        }
        work.take(block);
        let filter = Filter { keeps: Box::new(|_| true), eraser: Some(eraser) };
        let Some(dropped) = self.replace(tenant, day, std::slice::from_ref(block), filter, true).await? else {
            return Ok(false);
        };
        if dropped.lines == 0 {
            self.looked(block, Question::Deletes, answer);
        }
        self.metrics.dropped(Reason::Deleted, dropped.lines, dropped.bytes);
        Ok(true)
    }
}
