//! Retention of a day.
//!
//! A block of which nothing is kept is removed as it is. A block that also holds streams that are kept is rewritten without the others if
//! these have [`PAYS_PERCENT`] of its bytes or more; if they have less, their lines stay until the rest has expired too, or until more of
//! it has, and searches still answer them.

use std::time::Duration;

use tailwater_model::{TenantId, Timestamp};

use super::metrics::Reason;
use super::retention::{Left, Retention};
use super::rewrite::Filter;
use super::{Keeper, Question, Work};
use crate::Error;
use crate::catalog::Day;

/// What must have expired of a block to make it worth being rewritten, in percent of the bytes of its lines.
const PAYS_PERCENT: u64 = 10;

/// How long after a day's end it is forgotten, once it is empty. The manifest knows which lines were brought in already, which matters only
/// as long as they may be in a write-ahead log.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(14 * 24 * 3600);

impl Keeper {
    pub(super) async fn retain(
        &self,
        tenant: &TenantId,
        day: Day,
        retention: &Retention,
        work: &mut Work,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let passed = match retention.left_of(day, now) {
            Left::Everything => return Ok(()),
            Left::SomeStreams(passed) => passed as u64,
            Left::Nothing => return self.expire(tenant, day, now).await,
        };
        let manifest = self.catalog.manifest(tenant, day).await?;
        for block in &manifest.blocks {
            if work.is_done() {
                return Ok(());
            }
            // Periods can be changed while nothing is restarted, so their number alone would not do.
            let answer = retention.fingerprint() ^ passed;
            if self.has_looked(block, Question::Retention, answer) {
                continue;
            }
            let Some(input) = self.open(tenant, block).await? else {
                self.looked(block, Question::Retention, answer);
                continue;
            };
            work.opened = work.opened.saturating_sub(1);
            let (mut kept, mut expired) = (0_u64, 0_u64);
            for stream in &input.footer.streams {
                let pages = input.footer.pages.get(stream.pages.start as usize..stream.pages.end as usize);
                let bytes: u64 = pages.unwrap_or_default().iter().map(|page| page.raw_len()).sum();
                if retention.keeps(&stream.stream.labels, day, now) {
                    kept += bytes;
                } else {
                    expired += bytes;
                }
            }
            drop(input);
            let all = kept.saturating_add(expired);
            if kept == 0 && expired > 0 {
                self.remove(tenant, day, std::slice::from_ref(block), Reason::Retention).await?;
                continue;
            }
            if expired == 0 || expired.saturating_mul(100) < all.saturating_mul(PAYS_PERCENT) {
                self.looked(block, Question::Retention, answer);
                continue;
            }
            work.take(block);
            let rules = retention.clone();
            let filter = Filter { keeps: Box::new(move |labels| rules.keeps(labels, day, now)), eraser: None };
            let done = self.replace(tenant, day, std::slice::from_ref(block), filter, true).await?;
            if let Some(dropped) = done {
                self.metrics.dropped(Reason::Retention, dropped.lines, dropped.bytes);
            }
        }
        Ok(())
    }

    /// Nothing of the day is kept.
    async fn expire(&self, tenant: &TenantId, day: Day, now: Timestamp) -> Result<(), Error> {
        let manifest = self.catalog.manifest(tenant, day).await?;
        if !manifest.blocks.is_empty() {
            self.remove(tenant, day, &manifest.blocks, Reason::Retention).await?;
            return Ok(());
        }
        let long_past = now > Timestamp(*day.range().end()).saturating_add(FORGOTTEN_AFTER);
        if manifest.removed.is_empty() && long_past {
            self.catalog.drop_day(tenant, day).await?;
        }
        Ok(())
    }
}
