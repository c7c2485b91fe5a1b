//! The bound on the bytes of all blocks.
//!
//! When there are more, the blocks whose newest line is oldest are removed, whoever's they are, until the rest fits. Their objects go after
//! the usual delay, so for that time there are more bytes than the bound says. What is lost is told in the log and counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_model::TenantId;

use super::Keeper;
use super::metrics::Reason;
use crate::catalog::{Day, Manifest};
use crate::{Error, Kind};

impl Keeper {
    pub(super) async fn cap(&self, tenants: &[TenantId]) -> Result<(), Error> {
        let mut days: BTreeMap<Day, Vec<&TenantId>> = BTreeMap::new();
        let mut bytes = 0_u64;
        for tenant in tenants {
            let listed = match self.catalog.days(tenant).await {
                Ok(listed) => listed,
                Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                // What cannot be read cannot be removed either; it was told already.
                Err(_) => continue,
            };
            for day in &listed.0 {
                let Some(manifest) = self.readable(tenant, *day).await? else { continue };
                let of_day: u64 = manifest.blocks.iter().map(|block| block.bytes).sum();
                if of_day > 0 {
                    bytes = bytes.saturating_add(of_day);
                    days.entry(*day).or_default().push(tenant);
                }
            }
        }
        self.metrics.stored_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let max = self.settings.max_bytes;
        if max == 0 {
            return Ok(());
        }
        let mut over = bytes.saturating_sub(max);
        for (day, tenants) in days {
            if over == 0 {
                break;
            }
            over = self.shrink(day, &tenants, over).await?;
        }
        Ok(())
    }

    /// Removes blocks of a day, oldest first, until `over` bytes are gone. Answers how many are left to remove.
    async fn shrink(&self, day: Day, tenants: &[&TenantId], mut over: u64) -> Result<u64, Error> {
        let mut blocks = Vec::new();
        for tenant in tenants {
            let Some(manifest) = self.readable(tenant, day).await? else { continue };
            blocks.extend(manifest.blocks.iter().map(|block| (*tenant, block.clone())));
        }
        blocks.sort_by_key(|(_, block)| (block.max, block.id));
        let mut chosen: BTreeMap<&TenantId, Vec<_>> = BTreeMap::new();
        for (tenant, block) in blocks {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(block.bytes);
            chosen.entry(tenant).or_default().push(block);
        }
        for (tenant, blocks) in chosen {
            if self.remove(tenant, day, &blocks, Reason::Cap).await? {
                let lines: u64 = blocks.iter().map(|block| block.lines).sum();
                let bytes: u64 = blocks.iter().map(|block| block.bytes).sum();
                tracing::warn!(%tenant, %day, lines, bytes, "the storage is full: the oldest lines were dropped");
            }
        }
        Ok(over)
    }

    /// The manifest of a day, unless it is damaged.
    async fn readable(&self, tenant: &TenantId, day: Day) -> Result<Option<Arc<Manifest>>, Error> {
        match self.catalog.manifest(tenant, day).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if error.kind() == Kind::Unavailable => Err(error),
            Err(_) => Ok(None),
        }
    }
}
