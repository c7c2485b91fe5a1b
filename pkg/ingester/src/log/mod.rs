//! The arrival log: accepted batches in the order in which they were accepted, the newest of them in memory, all that is not yet in blocks
//! in the write-ahead log if there is one.
//!
//! Invariants:
//! * Sequence numbers start at 1 and grow from batch to batch, by one unless the write-ahead log had to skip some. [`ArrivalLog::append`] is
//!   the only place that gives them out; what makes a batch durable comes before readers see it.
//! * `accepted_at` never decreases with the sequence, and no batch is accepted before a watermark that was given out earlier; across
//!   restarts, only if the machine's clock does not go back.
//! * Readers hold no lock while they read; they fetch a few batches at a time and can never hold up the writer for longer than that.
//! * A reader that is behind memory goes on from the write-ahead log ([`Fetched::OnDisk`]), on a thread that may block. Only what that has
//!   let go of, too, is a gap. Readers see it: each batch knows how many lines its tenant had until then, so the size of a gap between any
//!   two positions is known, or the least that is certain.
//! * What is `covered` is in blocks; the write-ahead log lets go of nothing else.
//! * A log may be a copy of another one: then its records come with their numbers and instants ([`ArrivalLog::take_record`]), and nothing else
//!   is appended.

mod append;
mod copied;
mod covered;
mod disk;
mod losses;
mod memory;
mod payload;
mod records;
mod recover;
mod ring;
mod stamps;
mod stretch;
mod texts;
mod tide;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tailwater_model::{Clock, LogId, TenantId, Timestamp};
use tailwater_wire::node::{Gap, LogState};

use self::disk::Disk;
use self::losses::Losses;
use self::memory::{FETCH_BATCHES, State};
use self::stamps::Stamps;
use crate::batch::Batch;

pub(crate) use self::append::{Appended, Maker, Settled};
pub(crate) use self::covered::remembered_in_blocks;
#[cfg(test)]
pub(crate) use self::payload::decode;
pub(crate) use self::payload::encode_head;
pub(crate) use self::stretch::Boundary;
pub(crate) use self::texts::Texts;

/// A tenant's account with the log.
#[derive(Debug)]
pub(crate) struct Account {
    /// Whose it is.
    pub(crate) tenant: TenantId,
    /// Lines ever written to the write-ahead log. Written under the lock of appending.
    written: AtomicU64,
    /// Lines that readers may ever have seen. Like all that follow, written only under the log's write lock.
    total: AtomicU64,
    /// Lines ever trimmed from memory.
    trimmed: AtomicU64,
    /// Lines up to the newest mark that was let go.
    unmarked: AtomicU64,
    /// Batches in memory.
    batches: AtomicU64,
    /// Its last batch.
    last: AtomicU64,
}

impl Account {
    /// The account of a tenant of which the log has nothing.
    pub(crate) fn new(tenant: TenantId) -> Self {
        let zero = AtomicU64::default;
        Self {
            tenant,
            written: zero(),
            total: zero(),
            trimmed: zero(),
            unmarked: zero(),
            batches: zero(),
            last: zero(),
        }
    }
}

/// What comes to a copy was accepted elsewhere, by another clock: watermarks of a copy are so much behind its own. What takes longer is late.
const COPY_LAG: Duration = Duration::from_secs(1);

/// See the module's words.
pub(crate) struct ArrivalLog {
    id: LogId,
    clock: Arc<dyn Clock>,
    /// The last batch that readers may see.
    head: AtomicU64,
    stamps: Mutex<Stamps>,
    state: RwLock<State>,
    /// What is durable.
    disk: Option<Disk>,
    /// Whether it is a copy of another node's log.
    is_copy: bool,
    /// What only this copy has lost.
    losses: Losses,
}

/// What was trimmed from memory so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trimmed {
    pub(crate) batches: u64,
    pub(crate) lines: u64,
}

/// What the log is like now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSize {
    pub(crate) head: u64,
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
    pub(crate) trimmed: Trimmed,
}

/// The log as seen at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// The last batch.
    pub(crate) seq: u64,
    /// Whatever is accepted later is accepted at or after this.
    pub(crate) watermark: Timestamp,
    /// Lines of the tenant up to there.
    pub(crate) tenant_lines: u64,
}

/// An answer to [`ArrivalLog::fetch`].
pub(crate) enum Fetched {
    /// The tenant's batches after the position, in order, possibly none.
    Batches {
        batches: SmallVec<[Arc<Batch>; FETCH_BATCHES]>,
        /// There are no others up to this one.
        through: u64,
    },
    /// The batch after the position was trimmed.
    Trimmed {
        gap: Gap,
        /// Lines of the tenant up to the end of the gap, as far as is known.
        tenant_lines: Option<u64>,
        /// Whether `gap.lines` is exact; otherwise it may be more.
        exact: bool,
    },
    /// What comes after the position has left memory: [`ArrivalLog::fetch_from_disk`] goes on.
    OnDisk,
}

impl ArrivalLog {
    /// A log that is in memory only, at most so many bytes.
    pub(crate) fn in_memory(memory: usize, clock: Arc<dyn Clock>) -> Self {
        Self::new(LogId::generate(), State::new(memory, 0), None, clock, false)
    }

    fn new(id: LogId, state: State, disk: Option<Disk>, clock: Arc<dyn Clock>, is_copy: bool) -> Self {
        let head = AtomicU64::new(state.head);
        let losses = Losses::default();
        Self { id, clock, head, stamps: Mutex::default(), state: RwLock::new(state), disk, is_copy, losses }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// Bytes of the write-ahead log.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.wal.bytes())
    }

    /// Whether somebody is appending to the write-ahead log just now.
    pub(crate) fn is_busy(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.appender.is_locked())
    }

    /// Whether there is a write-ahead log.
    pub(crate) fn is_durable(&self) -> bool {
        self.disk.is_some()
    }

    /// Whether it is a copy of another node's log.
    pub(crate) fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// The latest instant that may be told as a watermark.
    fn latest_watermark(&self) -> Timestamp {
        let now = self.clock.now();
        if self.is_copy { now.saturating_sub(COPY_LAG) } else { now }
    }

    /// The bound on memory, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.state.read().max_bytes()
    }

    /// The last batch.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The last number before those that are in memory.
    pub(crate) fn before_memory(&self) -> u64 {
        self.state.read().first - 1
    }

    /// The last number before those that are on disk.
    #[cfg(test)]
    pub(crate) fn before_disk(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.first() - 1)
    }

    /// The end of the log, and what `look` sees while no batch can be added.
    pub(crate) fn with_head<T>(&self, account: &Account, look: impl FnOnce() -> T) -> (Head, T) {
        let now = self.latest_watermark();
        let state = self.state.read();
        let tenant_lines = account.total.load(Ordering::Relaxed);
        // A batch is stamped before it is added; until then the watermark waits for it.
        let head = Head { seq: state.head, watermark: self.stamps.lock().watermark(now), tenant_lines };
        let seen = look();
        drop(state);
        (head, seen)
    }

    /// Where the log is, and where it was so long ago.
    pub(crate) fn state_of(&self, age: Option<Duration>) -> LogState {
        let now = self.clock.now();
        let in_blocks = self.disk.as_ref().map_or(0, |disk| disk.covered.get());
        let state = self.state.read();
        let watermark = self.stamps.lock().watermark(self.latest_watermark());
        let before = age.map_or(state.head, |age| {
            let time = now.saturating_sub(age);
            let later = state.batches.partition_point(|batch| batch.accepted_at < time);
            match later.checked_sub(1).and_then(|last| state.batches.get(last)) {
                Some(last) => last.seq,
                // What is not in memory any more is known by marks, which are some way apart.
                None => self.disk.as_ref().map_or(0, |disk| disk.tide.lock().before(time)),
            }
        });
        let whole = self.losses.whole(in_blocks, state.head);
        LogState { head: state.head, whole, before, in_blocks, watermark }
    }

    /// Some of the tenant's batches after `after` and up to `upto`, which is not beyond the head. `seen`, if known: the tenant's lines up
    /// to `after`.
    pub(crate) fn fetch(&self, account: &Arc<Account>, after: u64, upto: u64, seen: Option<u64>) -> Fetched {
        if after >= upto {
            return Fetched::Batches { batches: SmallVec::new(), through: after };
        }
        let state = self.state.read();
        if after + 1 >= state.first {
            return state.fetch(account, after, upto);
        }
        if self.disk.as_ref().is_some_and(|disk| disk.holds_before(state.first)) {
            return Fetched::OnDisk;
        }
        state.gap(account, after, upto.min(state.first - 1), seen)
    }

    /// The part of `(after, upto]` that was let go of, if the tenant had lines there, or may have had.
    pub(crate) fn gap_after(&self, account: &Arc<Account>, after: u64, upto: u64) -> Option<Gap> {
        let gap = {
            let state = self.state.read();
            if after + 1 >= state.first || after >= upto {
                return None;
            }
            match &self.disk {
                Some(disk) if disk.holds_before(state.first) => None,
                _ => Some(state.gap(account, after, upto.min(state.first - 1), None)),
            }
        };
        match gap.unwrap_or_else(|| self.gap_on_disk(account, after, upto)) {
            Fetched::Trimmed { gap, exact, .. } if gap.lines > 0 || !exact => Some(gap),
            _ => None,
        }
    }

    /// What the log is like now.
    pub(crate) fn size(&self) -> LogSize {
        let state = self.state.read();
        LogSize {
            head: self.head(),
            batches: state.batches.len() as u64,
            bytes: state.cost() as u64,
            trimmed: state.trimmed,
        }
    }

    /// Whether nothing of the tenant is left, neither in memory nor on disk.
    pub(crate) fn is_rid_of(&self, account: &Account) -> bool {
        let last = account.last.load(Ordering::Relaxed);
        account.batches.load(Ordering::Relaxed) == 0
            && account.written.load(Ordering::Relaxed) <= account.total.load(Ordering::Relaxed)
            && self.disk.as_ref().is_none_or(|disk| last < disk.first())
    }

    /// A tenant without batches is forgotten: of gaps before this moment nothing certain will be known any more.
    pub(crate) fn forget(&self, account: &Account) {
        if account.total.load(Ordering::Relaxed) > 0 {
            self.state.write().forget_gaps();
        }
    }
}

impl Drop for ArrivalLog {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            disk.bell.ring();
        }
    }
}

impl fmt::Debug for ArrivalLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrivalLog").field("id", &self.id).field("size", &self.size()).finish_non_exhaustive()
    }
}
