//! What a log that is a copy takes in, and what is known of copies of a log.
//!
//! Invariants: a record is written before readers see it, under the number that it came with; the caller sees to it that only one is taken
//! in at a time, in order. Numbers that the original has nothing for are passed over on disk first, so that a restart finds the same.

use std::sync::Arc;

use tailwater_store::wal::{Record, Stored, SyncPolicy, Why};
use tailwater_store::{Error, Stream};

use super::append::Maker;
use super::disk::batch_of;
use super::memory::Leaving;
use super::{Account, ArrivalLog};
use crate::batch::Batch;

impl ArrivalLog {
    /// Appends the next record of the original and makes it readable. `stream`: as in [`ArrivalLog::recover`]. `maker`: made once the record is
    /// written; [`Maker::published`] is left to the caller. A payload that cannot be read is kept all the same, and its lines are lost to
    /// readers. Blocks.
    ///
    /// # Errors
    /// It could not be written; it is not in the log.
    pub(crate) fn take_record<S, M: Maker>(
        &self,
        state: &mut S,
        stored: &Stored,
        account: &Arc<Account>,
        mut stream: impl FnMut(&mut S, &[u8], Option<&str>) -> Result<Arc<Stream>, tailwater_wire::Error>,
        maker: impl FnOnce(&mut S, Option<&Batch>) -> M,
    ) -> Result<M, Error> {
        let disk = self.disk.as_ref().ok_or_else(no_disk)?;
        account.go_on(stored);
        let batch = batch_of(stored, account, |text, service_name| stream(state, text, service_name));
        let Stored { seq, accepted_at, ref tenant, tenant_lines, min, max, lines, ref payload } = *stored;
        disk.wal.append(&Record { seq, accepted_at, tenant, tenant_lines, min, max, lines }, &[payload])?;
        let mut maker = maker(state, batch.as_ref().ok());
        self.take_back(stored, account, batch, &mut maker);
        Ok(maker)
    }

    /// Passes over numbers up to one. `tell` is called before readers can see that. Blocks.
    ///
    /// # Errors
    /// It could not be written; nothing has changed.
    pub(crate) fn take_missing(&self, last: u64, why: Why, tell: impl FnOnce()) -> Result<(), Error> {
        let disk = self.disk.as_ref().ok_or_else(no_disk)?;
        disk.wal.skip(last, why)?;
        self.pass(last, why, tell);
        Ok(())
    }

    /// The last batch that is as durable as is configured, with all before it.
    pub(crate) fn durable(&self) -> u64 {
        match &self.disk {
            Some(disk) if disk.sync == SyncPolicy::Always => disk.wal.synced().min(self.head()),
            _ => self.head(),
        }
    }

    /// Returns when everything up to a batch is as durable as is configured. Blocks.
    ///
    /// # Errors
    /// What the disk said; it is tried again with the next.
    pub(crate) fn make_durable(&self, seq: u64) -> Result<(), Error> {
        match &self.disk {
            Some(disk) if disk.sync == SyncPolicy::Always => disk.wal.sync_up_to(seq),
            _ => Ok(()),
        }
    }

    /// Whether batches are durable only once they are synced.
    pub(crate) fn is_synced(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.sync == SyncPolicy::Always)
    }

    /// Changes the bound on memory, in bytes.
    pub(crate) fn set_memory(&self, bytes: usize) {
        let mut leaving = Leaving::new();
        self.state.write().set_max_bytes(bytes, &mut leaving);
    }

    /// Deletes what is in blocks and was kept for late readers. Whether there was any. Blocks.
    pub(crate) fn make_room(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.wal.make_room())
    }

    /// Bytes of the lines after a batch, about.
    pub(crate) fn bytes_after(&self, seq: u64) -> u64 {
        let state = self.state.read();
        if seq >= state.head {
            return 0;
        }
        let first = seq + 1;
        let before = if first >= state.first {
            state.batches.get(state.index_of(first)).map(|batch| batch.bytes_before)
        } else {
            self.disk.as_ref().and_then(|disk| disk.tide.lock().at(first)).map(|mark| mark.before)
        };
        before.map_or(0, |before| state.line_bytes.saturating_sub(before))
    }
}

fn no_disk() -> Error {
    Error::Unavailable { what: "the write-ahead log".into(), reason: "there is none".into() }
}
