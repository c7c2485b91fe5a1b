//! The arrival log: accepted batches in the order in which they were accepted, the newest of them in memory.
//!
//! Invariants:
//! * Sequence numbers start at 1 and grow by one per batch. [`ArrivalLog::append`] is the only writer and the only place that gives them
//!   out: what makes a batch durable belongs there, before readers see it.
//! * `accepted_at` never decreases with the sequence, and no batch is accepted before a watermark that was given out earlier.
//! * Readers hold no lock while they read; they fetch a few batches at a time and can never hold up the writer for longer than that.
//! * Memory: batches and the marks of trimmed ones together stay within `memory` bytes, but the newest batch always stays.
//! * Trimming is oldest first and readers see it: each batch knows how many lines its tenant had until then, and each trimmed batch leaves
//!   a mark of that number, so that the size of a gap between any two positions is known. Marks are bounded too: for a gap that begins
//!   before the oldest mark the number is the least that is certain.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;
use smallvec::SmallVec;
use tailwater_model::{Clock, LogId, Timestamp};
use tailwater_store::entries::Entries;
use tailwater_wire::node::Gap;

use crate::batch::Batch;

/// Batches handed out at once.
const FETCH_BATCHES: usize = 8;

/// Batches passed over under one lock.
const SCAN_BATCHES: usize = 256;

/// Most marks of trimmed batches.
const MAX_MARKS: usize = 1 << 17;

/// Fewest marks, however small the log.
const MIN_MARKS: usize = 64;

/// At most this part of the log's memory is marks.
const MARKS_SHARE: usize = 64;

/// A tenant's account with the log. Written only under the log's write lock.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Lines ever appended.
    total: AtomicU64,
    /// Lines ever trimmed.
    trimmed: AtomicU64,
    /// Lines up to the newest mark that was let go.
    unmarked: AtomicU64,
    /// Batches in the log.
    batches: AtomicU64,
}

impl Account {
    /// Batches in the log.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}

/// See the module's words.
pub(crate) struct ArrivalLog {
    id: LogId,
    memory: usize,
    max_marks: usize,
    clock: Arc<dyn Clock>,
    /// The last batch that readers may see.
    head: AtomicU64,
    /// The latest instant given out, to a batch or as a watermark.
    stamp: AtomicI64,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// The sequence number of the oldest batch in memory, or of the next one.
    first: u64,
    batches: VecDeque<Arc<Batch>>,
    /// What the batches cost.
    bytes: usize,
    /// The latest timestamp of all batches ever.
    reach: i64,
    /// One per trimmed batch, oldest first.
    marks: VecDeque<Mark>,
    /// Gaps that begin before this batch may be larger than what is known of them.
    vague_before: u64,
    trimmed: Trimmed,
}

#[derive(Debug)]
struct Mark {
    seq: u64,
    account: Arc<Account>,
    /// [`Batch::tenant_lines`].
    lines: u64,
}

/// What was trimmed so far.
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
        /// Lines of the tenant up to the end of the gap.
        tenant_lines: u64,
        /// Whether `gap.lines` is exact; otherwise it may be more.
        exact: bool,
    },
}

impl ArrivalLog {
    pub(crate) fn new(id: LogId, memory: usize, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            first: 1,
            batches: VecDeque::new(),
            bytes: 0,
            reach: i64::MIN,
            marks: VecDeque::new(),
            vague_before: 0,
            trimmed: Trimmed::default(),
        };
        Self {
            id,
            memory,
            max_marks: (memory / MARKS_SHARE / size_of::<Mark>()).clamp(MIN_MARKS, MAX_MARKS),
            clock,
            head: AtomicU64::new(0),
            stamp: AtomicI64::new(i64::MIN),
            state: RwLock::new(state),
        }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// The bound on memory, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// The last batch.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Gives the batch its place and makes it readable. `sequenced` learns the place just before any reader can see it.
    pub(crate) fn append(&self, mut batch: Batch, sequenced: impl FnOnce(u64)) -> u64 {
        let cost = batch.memory();
        let lines = batch.lines();
        let now = self.clock.now();
        let mut trimmed: SmallVec<[Arc<Batch>; 4]> = SmallVec::new();
        let mut state = self.state.write();
        let seq = state.first + state.batches.len() as u64;
        let total = batch.account.total.load(Ordering::Relaxed) + lines;
        batch.account.total.store(total, Ordering::Relaxed);
        batch.account.batches.fetch_add(1, Ordering::Relaxed);
        batch.set_place(seq, self.stamp(now));
        batch.tenant_lines = total;
        state.reach = state.reach.max(batch.max);
        batch.reach = state.reach;
        sequenced(seq);
        state.batches.push_back(Arc::new(batch));
        state.bytes += cost;
        self.head.store(seq, Ordering::Release);
        while state.cost() > self.memory && state.batches.len() > 1 {
            trimmed.extend(state.trim_oldest(self.max_marks));
        }
        drop(state);
        // Freed only now, while nobody waits.
        drop(trimmed);
        seq
    }

    /// An instant that is not before any given out earlier.
    fn stamp(&self, now: Timestamp) -> Timestamp {
        Timestamp(self.stamp.fetch_max(now.nanos(), Ordering::Relaxed).max(now.nanos()))
    }

    /// The end of the log, and what `look` sees while no batch can be added.
    pub(crate) fn with_head<T>(&self, account: &Account, look: impl FnOnce() -> T) -> (Head, T) {
        let now = self.clock.now();
        let state = self.state.read();
        let seq = state.first + state.batches.len() as u64 - 1;
        let tenant_lines = account.total.load(Ordering::Relaxed);
        // Batches are stamped under the write lock, so every later one is stamped after this.
        let head = Head { seq, watermark: self.stamp(now), tenant_lines };
        let seen = look();
        drop(state);
        (head, seen)
    }

    /// Some of the tenant's batches after `after` and up to `upto`. `seen`, if known: the tenant's lines up to `after`.
    pub(crate) fn fetch(&self, account: &Arc<Account>, after: u64, upto: u64, seen: Option<u64>) -> Fetched {
        if after >= upto {
            return Fetched::Batches { batches: SmallVec::new(), through: after };
        }
        let state = self.state.read();
        if after + 1 < state.first {
            return state.gap(account, after, upto.min(state.first - 1), seen);
        }
        let mut batches = SmallVec::new();
        let mut through = after;
        let begin = usize::try_from(after + 1 - state.first).unwrap_or(usize::MAX).min(state.batches.len());
        for batch in state.batches.range(begin..).take(SCAN_BATCHES) {
            if batch.seq > upto || batches.len() == FETCH_BATCHES {
                break;
            }
            through = batch.seq;
            if Arc::ptr_eq(&batch.account, account) {
                batches.push(Arc::clone(batch));
            }
        }
        Fetched::Batches { batches, through }
    }

    /// What was trimmed of the stretch after `after` and up to `upto`.
    pub(crate) fn gap_after(&self, account: &Arc<Account>, after: u64, upto: u64) -> Option<Gap> {
        let state = self.state.read();
        if after + 1 >= state.first || after >= upto {
            return None;
        }
        match state.gap(account, after, upto.min(state.first - 1), None) {
            Fetched::Trimmed { gap, exact, .. } if gap.lines > 0 || !exact => Some(gap),
            _ => None,
        }
    }

    /// All batches of the tenant after `after` and up to `upto` that may hold a timestamp in `[first, last]`, oldest first. Batches trimmed
    /// meanwhile are left out.
    pub(crate) fn collect(
        &self,
        account: &Arc<Account>,
        (after, upto): (u64, u64),
        (first, last): (i64, i64),
    ) -> Vec<Arc<Entries>> {
        let mut found = Vec::new();
        let mut next = after.saturating_add(1);
        let mut skipped = false;
        loop {
            let state = self.state.read();
            if !skipped {
                // Nothing before it reaches so far.
                next = next.max(state.first + state.batches.partition_point(|batch| batch.reach < first) as u64);
                skipped = true;
            }
            next = next.max(state.first);
            let begin = usize::try_from(next - state.first).unwrap_or(usize::MAX).min(state.batches.len());
            let mut looked = 0;
            for batch in state.batches.range(begin..).take(SCAN_BATCHES).take_while(|b| b.seq <= upto) {
                looked += 1;
                if Arc::ptr_eq(&batch.account, account) && batch.max >= first && batch.min <= last {
                    found.push(Arc::clone(&batch.entries));
                }
            }
            if looked == 0 {
                return found;
            }
            next += looked;
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

    /// A tenant without batches is forgotten: of gaps before this moment nothing certain will be known any more.
    pub(crate) fn forget(&self, account: &Account) {
        if account.total.load(Ordering::Relaxed) > 0 {
            let mut state = self.state.write();
            state.vague_before = state.vague_before.max(state.first);
        }
    }
}

impl State {
    fn cost(&self) -> usize {
        self.bytes + self.marks.len() * size_of::<Mark>()
    }

    fn trim_oldest(&mut self, max_marks: usize) -> Option<Arc<Batch>> {
        let batch = self.batches.pop_front()?;
        self.first = batch.seq + 1;
        self.bytes -= batch.memory();
        self.trimmed.batches += 1;
        self.trimmed.lines += batch.lines();
        batch.account.batches.fetch_sub(1, Ordering::Relaxed);
        batch.account.trimmed.store(batch.tenant_lines, Ordering::Relaxed);
        while self.marks.len() >= max_marks {
            if let Some(mark) = self.marks.pop_front() {
                mark.account.unmarked.store(mark.lines, Ordering::Relaxed);
                self.vague_before = self.vague_before.max(mark.seq);
            }
        }
        self.marks.push_back(Mark { seq: batch.seq, account: Arc::clone(&batch.account), lines: batch.tenant_lines });
        Some(batch)
    }

    fn gap(&self, account: &Arc<Account>, after: u64, through: u64, seen: Option<u64>) -> Fetched {
        let end = if through + 1 == self.first {
            account.trimmed.load(Ordering::Relaxed)
        } else {
            self.lines_until(account, through)
        };
        let begin = seen.unwrap_or_else(|| self.lines_until(account, after));
        Fetched::Trimmed {
            gap: Gap { after, through, lines: end.saturating_sub(begin) },
            tenant_lines: end,
            exact: seen.is_some() || after >= self.vague_before,
        }
    }

    /// Lines of the tenant up to a trimmed batch, as far as marks remember.
    fn lines_until(&self, account: &Arc<Account>, seq: u64) -> u64 {
        let upto = self.marks.partition_point(|m| m.seq <= seq);
        let of_tenant = self.marks.range(..upto).rev().find(|m| Arc::ptr_eq(&m.account, account));
        of_tenant.map_or_else(|| account.unmarked.load(Ordering::Relaxed), |m| m.lines)
    }
}

impl fmt::Debug for ArrivalLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrivalLog").field("id", &self.id).field("size", &self.size()).finish_non_exhaustive()
    }
}
