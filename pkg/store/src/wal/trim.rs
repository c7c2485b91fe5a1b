//! Deleting segments whose records are all in blocks.
//!
//! Invariants: oldest first, so what remains is always an end of the log; never the newest; never one with a record that is not covered.
//! Appends go on meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Wal;
use super::log::Shared;

impl Wal {
    /// Says that everything up to a number is in blocks. Deletes segments that hold nothing else, but keeps the newest `keep_bytes` of the
    /// log. A segment that cannot be deleted is kept until the next time.
    pub fn trim(&self, covered: u64) {
        self.shared.covered.fetch_max(covered, Ordering::AcqRel);
        self.shared.trim(self.shared.config.keep_bytes);
    }
}

impl Shared {
    /// Deletes what is covered and was kept only for readers that are late. Whether there was any.
    pub(super) fn make_room(&self) -> bool {
        self.trim(0)
    }

    fn trim(&self, keep: u64) -> bool {
        let _alone = self.trimming.lock();
        let covered = self.covered.load(Ordering::Acquire);
        let mut any = false;
        loop {
            let segments = self.segments();
            let [oldest, _, ..] = segments.as_slice() else { return any };
            if oldest.last() > covered || self.bytes().saturating_sub(oldest.bytes()) < keep {
                return any;
            }
            // Durably one after the other: a loss of power must not bring an older one back without a younger one.
            let removed = match self.disk.remove(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ if self.syncs_names() => self.disk.sync_dir(&self.config.dir),
                _ => Ok(()),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, segment = oldest.name(), "cannot delete a segment of the write-ahead log");
                return any;
            }
            self.change(|list| list.retain(|segment| !Arc::ptr_eq(segment, oldest)));
            self.metrics.trimmed_segments.inc();
            any = true;
        }
    }
}
