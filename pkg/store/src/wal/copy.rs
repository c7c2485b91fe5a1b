//! A log that is a copy of another one, record by record under the same numbers.
//!
//! Invariants: the original gives out the numbers. So a copy never skips any of its own accord: what it has lost it gets again. It begins
//! anywhere, and passes over numbers only where it is told that the original has nothing there, or that what is there is in blocks. A record
//! that could not be synced is none the less a record of the original: it is never void, whatever [`SyncPolicy`](super::SyncPolicy) says,
//! but copied into a new file until that succeeds.

use std::sync::Arc;

use tailwater_model::LogId;

use super::disk::Disk;
use super::format::SegmentHeader;
use super::segment::Segment;
use super::{Config, Metrics, Opened, Wal, Why};
use crate::Error;

/// What a copy is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The log.
    pub log: LogId,
    /// A copy that has nothing yet begins after this number: everything up to there is in blocks.
    pub after: u64,
}

impl Wal {
    /// Opens a copy of a log, or makes one. As [`Wal::open`], but [`Opened::next`] always follows the last record that is there.
    ///
    /// # Errors
    /// Those of [`Wal::open`]; [`Error::Config`] if the folder holds another log.
    pub fn open_copy(config: Config, disk: Arc<dyn Disk>, metrics: Metrics, origin: Origin) -> Result<Opened, Error> {
        Self::open_as(config, disk, metrics, Some(origin))
    }

    /// Passes over the numbers up to one, for the reason given: the next record gets the number after it. Numbers that were passed already
    /// stay as they are. As durable as a record that is appended.
    ///
    /// # Errors
    /// What the disk said; nothing was changed then.
    pub fn skip(&self, last: u64, why: Why) -> Result<(), Error> {
        let shared = &*self.shared;
        let mut writer = shared.writer.lock();
        shared.ready(&mut writer)?;
        if last < writer.next {
            return Ok(());
        }
        if last >= u64::MAX - 1 {
            return Err(Error::corrupt(shared.what(), "all sequence numbers are taken"));
        }
        // A segment without records stays in front of it: what it says of the numbers before may be of another kind.
        let header = SegmentHeader { log: shared.log, first: last + 1, from: writer.next, why };
        let made = Segment::create(&*shared.disk, &shared.config.dir, header, &shared.metrics);
        let segment = made.map_err(|error| Error::io("begin a segment of the write-ahead log", error))?;
        shared.change(|list| list.push(Arc::clone(&segment)));
        writer.active = segment;
        writer.roll = false;
        writer.next = last + 1;
        Ok(())
    }

    /// Deletes what is in blocks and was kept for readers that are late. Whether there was any.
    pub fn make_room(&self) -> bool {
        self.shared.make_room()
    }
}
