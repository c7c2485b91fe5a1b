//! The write-ahead log: what was accepted, on disk, in the order in which it was accepted, until it is in blocks.
//!
//! # On disk
//!
//! A folder:
//!
//! ```text
//! wal/
//!   lock                        held while a process has the log open
//!   meta                        text: log id, boot id of the machine, clean or not, next number; checksum
//!   00000000000000000001.wal    a segment; the name is the number of its first record
//!   00000000000000004711.wal
//!   *.tmp                       left by an attempt that was interrupted; deleted when the log is opened
//!   *.bad                       segments of another log and the like, set aside, never read
//! ```
//!
//! A segment (all numbers are little-endian, all checksums CRC-32C):
//!
//! ```text
//! ┌ header, 64 bytes ──────────────────────────────────────────────────────────────────────────────────────────────┐
//! │ 0 magic "TAILWAL\n" │ 8 version u16 = 1 │ 10 why u8 │ 11 0… │ 16 log id u128 │ 32 first u64 │ 40 from u64 │ 48 0… │ 60 crc u32 │
//! ├ record ────────────────────────────────────────────────────────────────────────────────────────────────────────┤
//! │ 0 magic c5 54 57 d2 │ 4 head crc u32 │ 8 payload bytes u32 │ 12 payload crc u32 │ 16 seq u64 │ 24 meta bytes u16 │ 26 kind u8 = 1 │ 27 0 │
//! │ 28 meta: tenant (varint length, text) · accepted_at zz · tenant_lines · min − accepted_at zz · max − min · lines │
//! │    payload                                                                                                       │
//! ├ record … ──────────────────────────────────────────────────────────────────────────────────────────────────────┤
//! ```
//!
//! Numbers in `meta` are varints (LEB128), `zz` after zigzag, differences wrap; what may follow them is ignored. `head crc` covers byte 8
//! up to the payload; it does not begin at 0 but at the checksum of the log id's 16 bytes, so that records of other logs, or of a log that
//! somebody shipped as lines, are none here. The header has a checksum of its own, so a reader that does not want a record's payload need
//! not read it, and of a record whose payload is corrupt it is still known whose it was and how many lines are lost.
//!
//! Numbers grow by one from record to record. Where they do not, the segment's header says so: the numbers from `from` up to `first` were
//! skipped, because of a crash (`why` 1) or because they could not be synced and their senders were told so (2), or, in a copy of a log,
//! because what the original has there is in blocks (0). Otherwise `from` = `first` and `why` = 0. A segment's records end before the next segment's `from`; what lies behind is void.
//!
//! # Protocol
//!
//! *Append* ([`Wal::append`]): one `writev` at the end of the newest segment. When it has returned, the bytes are the kernel's and survive
//! the process. If it fails, the file is cut back to the end of the last good record; until that succeeds nothing more is appended. A
//! record that does not fit into the segment begins a new one.
//!
//! *Sync* ([`Wal::sync_up_to`], and every [`SyncPolicy::Interval`]): `fdatasync` of the segments that have anything to sync, oldest first,
//! then of the folder if a segment is new. One round at a time; it serves all who had appended before it began. **After an `fdatasync`
//! that failed the kernel may take the lost pages for clean, and the next one succeeds without them.** So its success is never believed:
//!
//! * With [`SyncPolicy::Always`] nobody was told that the records are accepted. All that was not synced is void: a new segment, synced, says
//!   that the numbers are skipped, the old one is cut, the waiters get an error. The numbers are not used again.
//! * Otherwise, and if they were found when the log was opened, the records are accepted and were seen. They are copied, while they can
//!   still be read, into a new segment which is synced and takes their place by `rename`. As long as that fails it is tried again with
//!   each round. A process that dies before it succeeds takes the knowledge with it: the next one believes its own `fdatasync`.
//!
//! *Open* ([`Wal::open`]): take the lock, read `meta`, walk all segments (headers of records only; payloads too in the newest), and find
//! the next number:
//!
//! 1. Behind the last valid record of the newest segment lies a beginning of a record: the process was killed in an append that nobody was
//!    told of. It is cut off.
//! 2. Something else lies there: it is cut off too, but it may have been a record that somebody has seen, so numbers are skipped.
//! 3. The log was not closed and the machine was started anew since (or it cannot be known): records that readers have seen may be lost
//!    with their numbers, so numbers are skipped.
//! 4. Otherwise the next number follows the last one.
//!
//! To skip is to make a segment whose `first` is [`SKIP`] further, synced before `meta` is written with the new boot id: positions are
//! never used for something else, whenever the crash comes.
//!
//! *Corrupt* is what is not the end of the newest segment: the walk goes on at the next valid record with a greater number. The numbers in
//! between are [`Missing`], told once by an error in the log, counted, and told to each reader that passes.
//!
//! *Trim* ([`Wal::trim`]): delete segments from the oldest on, each of whose records is in blocks, but keep the newest `keep_bytes` for
//! readers that are late, unless the disk is full. The newest segment stays always: it knows the next number.
//!
//! *Copy* ([`Wal::open_copy`]): a log whose numbers another one gives out. It begins after any number, and 2. and 3. above do not hold for it:
//! the next number follows the last record that is there.
//!
//! *Retire* ([`Wal::begin`]): a log of which others have copies need not go on in cases 2. and 3. It is left as it is and moved as a whole; what it
//! still has is a copy then.
//!
//! The log does not know what a payload is.

mod copy;
mod cursor;
mod disk;
mod format;
mod log;
mod meta;
mod metrics;
mod open;
mod read;
mod retire;
mod segment;
mod sync;
#[cfg(test)]
mod tests;
mod trim;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tailwater_model::{LogId, TenantId, Timestamp};

pub use copy::Origin;
pub use disk::{Disk, DiskFile, Guard, LocalDisk};
pub use format::MAX_PAYLOAD;
pub use log::Wal;
pub use metrics::Metrics;
pub use read::Read;
pub use retire::{Begun, Doubtful};
pub use segment::Segment;

/// Numbers skipped after a crash that may have taken records with it. More than can be accepted between two syncs.
pub const SKIP: u64 = 1 << 20;

/// What a log is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder, made if it is not there.
    pub dir: PathBuf,
    /// When what is written is made to survive a loss of power.
    pub sync: SyncPolicy,
    /// Size of a segment, in bytes, about: a record larger than that has a segment of its own.
    pub segment_bytes: u64,
    /// The newest bytes that are kept for readers although they are in blocks.
    pub keep_bytes: u64,
    /// Bound on the bytes of all segments; 0: until the disk is full.
    pub max_bytes: u64,
}

/// When records are made to survive a loss of power. They survive the death of the process always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// When the operating system likes.
    Os,
    /// Every so often. A loss of power takes the records of the last interval.
    Interval(Duration),
    /// Before [`Wal::sync_up_to`] returns.
    Always,
}

/// A record to append.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its number: that of the record before plus one.
    pub seq: u64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// Lines of the tenant up to and including this record.
    pub tenant_lines: u64,
    /// The earliest timestamp of its lines, in nanoseconds.
    pub min: i64,
    /// The latest.
    pub max: i64,
    /// Its lines.
    pub lines: u32,
}

/// A record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Whose it is.
    pub tenant: TenantId,
    /// Lines of the tenant up to and including this record.
    pub tenant_lines: u64,
    /// The earliest timestamp of its lines, in nanoseconds.
    pub min: i64,
    /// The latest.
    pub max: i64,
    /// Its lines.
    pub lines: u32,
    /// What was appended.
    pub payload: Bytes,
}

/// Numbers that have no record, or none that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first of them.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// What became of them.
    pub why: Why,
}

/// Why numbers have no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The segments were deleted: what was in them is in blocks.
    Trimmed,
    /// Power was lost, or the end of the log could not be read. Some of the numbers may have been given out, and lines be lost; most have
    /// not.
    Crash,
    /// The records could not be synced. Their senders were told, and no reader has seen them: nothing is lost.
    Failed,
    /// The bytes are not what was written. The records are lost.
    Corrupt,
}

impl Why {
    /// As in a segment's header; 0 also says that nothing is skipped.
    const fn code(self) -> u8 {
        match self {
            Self::Trimmed => 0,
            Self::Crash => 1,
            Self::Failed => 2,
            Self::Corrupt => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Trimmed),
            1 => Some(Self::Crash),
            2 => Some(Self::Failed),
            3 => Some(Self::Corrupt),
            _ => None,
        }
    }
}

/// What a walk through the log comes upon. Together they cover every number, each once and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(Stored),
    /// Numbers without one.
    Missing(Missing),
}

/// How far a walk through the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes walked through.
    pub done: u64,
    /// Bytes there are to walk through.
    pub total: u64,
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub wal: Wal,
    /// Its id.
    pub log: LogId,
    /// The number that the next record must have.
    pub next: u64,
    /// What was found on disk.
    pub found: Found,
}

/// What was found when a log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the log had been closed in good order, or did not exist.
    pub clean: bool,
    /// Segments that are part of the log.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes cut off the end of the newest segment.
    pub cut_bytes: u64,
    /// Segments with a corrupt header or a corrupt stretch, or set aside.
    pub corrupt_segments: u64,
    /// Sequence numbers in corrupt stretches.
    pub lost_records: u64,
    /// Sequence numbers skipped, because somebody may have seen them.
    pub skipped: u64,
}
