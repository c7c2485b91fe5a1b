//! Objects that no manifest lists: a process ended between an upload and the change of the manifest.
//!
//! A block that somebody has uploaded and is about to list looks the same. What tells them apart is their age: by the clock of the storage,
//! where others write to it, whose clocks may differ from this one.
//!
//! Invariants: a folder is listed before its manifest is read, so what was added meanwhile is found in the manifest. Only objects whose
//! names are those of blocks, that are older than [`Settings::orphan_grace`], and that are neither listed nor waiting to be deleted are
//! deleted. A manifest that cannot be read, or that is missing although there are blocks, is a reason to delete nothing: somebody may want
//! to mend it.
//!
//! [`Settings::orphan_grace`]: super::Settings::orphan_grace

use futures_util::StreamExt;
use tailwater_model::{TenantId, Timestamp};

use super::Keeper;
use crate::catalog::Day;
use crate::catalog::names::{self, BlockName};
use crate::{Error, Kind};

impl Keeper {
    /// Looks for orphans, if it is time.
    pub(super) async fn orphans(&self, tenants: &[TenantId]) -> Result<(), Error> {
        let now = self.clock.now();
        let last = self.memory.lock().orphans;
        if last.is_some_and(|last| now.since(last) < self.settings.orphan_interval) {
            return Ok(());
        }
        let of_store = if self.catalog.is_shared() { self.catalog.objects().now().await? } else { now };
        for tenant in tenants {
            for folder in self.catalog.objects().list_folders(&names::tenant_folder(tenant)).await? {
                let Ok(day) = folder.parse() else { continue };
                match self.orphans_of(tenant, day, of_store).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                    Err(error) => self.complain(tenant, &error),
                }
                if self.is_over() {
                    return Ok(());
                }
            }
        }
        self.memory.lock().orphans = Some(now);
        Ok(())
    }

    async fn orphans_of(&self, tenant: &TenantId, day: Day, now: Timestamp) -> Result<(), Error> {
        let objects = self.catalog.objects();
        let mut old = Vec::new();
        let mut listing = objects.list(&names::day_folder(tenant, day));
        while let Some(listed) = listing.next().await {
            let listed = listed?;
            let name = BlockName::parse(&listed.path).filter(|name| name.tenant == *tenant && name.day == day);
            if let Some(name) = name
                && now.since(listed.modified) >= self.settings.orphan_grace
            {
                old.push((name.id, listed));
            }
        }
        drop(listing);
        if old.is_empty() {
            return Ok(());
        }
        let manifest = self.catalog.manifest_now(tenant, day).await?;
        if manifest.covered.is_empty() {
            let blocks = old.len();
            tracing::error!(%tenant, %day, blocks, "there are blocks, but no manifest that lists any; they are left alone");
            return Ok(());
        }
        old.retain(|(id, _)| !manifest.knows(*id));
        for (_, listed) in old {
            objects.delete(&listed.path).await?;
            self.metrics.orphans.inc();
            tracing::info!(path = listed.path, bytes = listed.size, "deleted a block that was never listed");
        }
        Ok(())
    }
}
