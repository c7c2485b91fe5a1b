//! Changes of a day's blocks: what they need to find, and what they leave. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use tailwater_model::LogId;
use ulid::Ulid;

use super::{BlockMeta, Manifest, Removed};

/// A change of the blocks of a tenant's day.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// New blocks, whose objects are written already.
    pub add: Vec<BlockMeta>,
    /// Blocks that are to be listed no more. All of them must be listed.
    pub remove: Vec<Ulid>,
    /// When, in nanoseconds. They stay in [`Manifest::removed`] with it, until their objects are deleted.
    pub removed_at: i64,
    /// Removed blocks whose objects are deleted, and that need not be remembered any more.
    pub purge: Vec<Ulid>,
    /// What the new blocks cover.
    pub covered: Option<Advance>,
}

/// Moves `covered` of an arrival log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The log.
    pub log: LogId,
    /// What it must be; 0: nothing is covered.
    pub expected: u64,
    /// What it will be. It never goes back.
    pub to: u64,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    /// It was made.
    Done,
    /// Nothing was changed: `covered` is not what was expected, but this.
    Stale(u64),
    /// Nothing was changed: this block, which was to be removed, is not listed.
    Gone(Ulid),
}

impl Change {
    /// Whether it has been made. `tried`: an attempt of this very change may have succeeded, and others may have changed more since.
    pub(super) fn is_in(&self, manifest: &Manifest, tried: bool) -> bool {
        let listed: HashSet<_> = manifest.blocks.iter().map(|block| block.id).collect();
        let added = self.add.iter().all(|block| listed.contains(&block.id));
        let removed = !self.remove.iter().any(|id| listed.contains(id));
        match self.covered {
            Some(advance) => {
                let is_there = manifest.covered.get(&advance.log) == Some(&advance.to) && advance.to > advance.expected;
                removed && is_there && (added || tried)
            }
            None => !self.add.is_empty() && added && removed,
        }
    }

    /// The manifest after the change, or why there is none.
    pub(super) fn apply(&self, manifest: &Manifest) -> Result<Manifest, Committed> {
        let mut next = manifest.clone();
        if let Some(Advance { log, expected, to }) = self.covered {
            let actual = manifest.covered.get(&log).copied().unwrap_or(0);
            if actual != expected {
                return Err(Committed::Stale(actual));
            }
            next.covered.insert(log, actual.max(to));
        }
        let remove: HashSet<_> = self.remove.iter().copied().collect();
        next.removed.retain(|block| !self.purge.contains(&block.id));
        let removed = next.blocks.iter().filter(|block| remove.contains(&block.id));
        let removed = removed.map(|b| Removed { id: b.id, min: b.min, max: b.max, at: self.removed_at });
        next.removed.extend(removed);
        next.blocks.retain(|block| !remove.contains(&block.id));
        if manifest.blocks.len() - next.blocks.len() != remove.len() {
            let listed: HashSet<_> = manifest.blocks.iter().map(|block| block.id).collect();
            let gone = self.remove.iter().find(|id| !listed.contains(id));
            return Err(Committed::Gone(gone.copied().unwrap_or_default()));
        }
        let mut listed: HashSet<_> = next.blocks.iter().map(|block| block.id).collect();
        let new = self.add.iter().filter(|block| listed.insert(block.id));
        next.blocks.extend(new.cloned().map(Arc::new));
        Ok(next)
    }
}
