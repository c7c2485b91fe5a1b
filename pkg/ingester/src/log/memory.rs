//! The newest batches, in memory, and marks of those that left it.
//!
//! Invariants:
//! * Every batch that readers may see and whose number is [`State::first`] or greater is here, in order. Numbers may be missing between
//!   two batches only where the log never gave them to anything that a reader could see.
//! * Batches and marks together stay within the log's memory, but the newest batch always stays.
//! * Leaving is oldest first; each batch that leaves gives a mark of how many lines its tenant had until then. Marks are bounded too: for
//!   what lies before the oldest mark the number is the least that is certain.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tailwater_wire::node::Gap;

use super::{Account, Fetched, Trimmed};
use crate::batch::Batch;

/// Batches handed out at once.
pub(super) const FETCH_BATCHES: usize = 8;

/// Batches passed over under one lock.
pub(super) const SCAN_BATCHES: usize = 256;

/// Most marks of trimmed batches.
const MAX_MARKS: usize = 1 << 17;

/// Fewest marks, however small the log.
const MIN_MARKS: usize = 64;

/// At most this part of the log's memory is marks.
const MARKS_SHARE: usize = 64;

/// See the module's words.
#[derive(Debug)]
pub(super) struct State {
    /// Nothing before it is here.
    pub(super) first: u64,
    /// The last number that readers may have heard of.
    pub(super) head: u64,
    pub(super) batches: VecDeque<Arc<Batch>>,
    /// What the batches cost.
    bytes: usize,
    max_bytes: usize,
    /// The latest timestamp of all batches ever.
    reach: i64,
    /// Bytes of the lines of all batches since the log was opened.
    pub(super) line_bytes: u64,
    /// One per trimmed batch, oldest first.
    marks: VecDeque<Mark>,
    max_marks: usize,
    /// Gaps that begin before this batch may be larger than what is known of them.
    vague_before: u64,
    /// There were tenants of which not even the number of lines is known any more.
    is_forgetful: bool,
    pub(super) trimmed: Trimmed,
}

#[derive(Debug)]
struct Mark {
    seq: u64,
    account: Arc<Account>,
    /// [`Batch::tenant_lines`].
    lines: u64,
}

fn max_marks(max_bytes: usize) -> usize {
    (max_bytes / MARKS_SHARE / size_of::<Mark>()).clamp(MIN_MARKS, MAX_MARKS)
}

/// Batches that left. They are freed when nobody waits.
pub(super) type Leaving = SmallVec<[Arc<Batch>; 4]>;

impl State {
    /// Without batches; the first one comes after `head`.
    pub(super) fn new(max_bytes: usize, head: u64) -> Self {
        Self {
            first: head.saturating_add(1),
            head,
            batches: VecDeque::new(),
            bytes: 0,
            max_bytes,
            reach: i64::MIN,
            line_bytes: 0,
            marks: VecDeque::new(),
            max_marks: max_marks(max_bytes),
            vague_before: head,
            is_forgetful: head > 0,
            trimmed: Trimmed::default(),
        }
    }

    /// The bytes that it may take.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Changes what it may take.
    pub(super) fn set_max_bytes(&mut self, max_bytes: usize, leaving: &mut Leaving) {
        self.max_bytes = max_bytes;
        self.max_marks = max_marks(max_bytes);
        self.trim(leaving);
    }

    pub(super) fn cost(&self) -> usize {
        self.bytes + self.marks.len() * size_of::<Mark>()
    }

    /// Takes in a batch that has its place, after all others. What must leave for it leaves.
    pub(super) fn add(&mut self, mut batch: Batch, leaving: &mut Leaving) {
        let account = &batch.account;
        account.total.store(batch.tenant_lines, Ordering::Relaxed);
        account.batches.fetch_add(1, Ordering::Relaxed);
        account.last.store(batch.seq, Ordering::Relaxed);
        self.reach = self.reach.max(batch.max);
        batch.reach = self.reach;
        batch.bytes_before = self.line_bytes;
        self.line_bytes = self.line_bytes.saturating_add(batch.line_bytes);
        self.bytes += batch.memory();
        self.head = batch.seq;
        self.batches.push_back(Arc::new(batch));
        self.trim(leaving);
    }

    fn trim(&mut self, leaving: &mut Leaving) {
        while self.cost() > self.max_bytes && self.batches.len() > 1 {
            leaving.extend(self.trim_oldest());
        }
    }

    /// Everything up to `head` leaves; those numbers count as used.
    pub(super) fn skip_to(&mut self, head: u64, leaving: &mut Leaving) {
        while let Some(batch) = self.trim_oldest() {
            leaving.push(batch);
        }
        self.head = self.head.max(head);
        self.first = self.head.saturating_add(1);
    }

    /// Numbers up to `head` count as used; no reader ever saw what they were given to.
    pub(super) fn pass(&mut self, head: u64) {
        if self.batches.is_empty() {
            self.first = self.first.max(head.saturating_add(1));
        }
        self.head = self.head.max(head);
    }

    fn trim_oldest(&mut self) -> Option<Arc<Batch>> {
        let batch = self.batches.pop_front()?;
        self.first = batch.seq + 1;
        self.bytes -= batch.memory();
        self.trimmed.batches += 1;
        self.trimmed.lines += batch.lines();
        batch.account.batches.fetch_sub(1, Ordering::Relaxed);
        batch.account.trimmed.store(batch.tenant_lines, Ordering::Relaxed);
        while self.marks.len() >= self.max_marks {
            if let Some(mark) = self.marks.pop_front() {
                mark.account.unmarked.store(mark.lines, Ordering::Relaxed);
                self.vague_before = self.vague_before.max(mark.seq);
            }
        }
        self.marks.push_back(Mark { seq: batch.seq, account: Arc::clone(&batch.account), lines: batch.tenant_lines });
        Some(batch)
    }

    /// The index of the first batch of this number or a greater one.
    pub(super) fn index_of(&self, seq: u64) -> usize {
        let (Some(first), Some(last)) = (self.batches.front(), self.batches.back()) else { return 0 };
        if last.seq - first.seq + 1 == self.batches.len() as u64 {
            let index = usize::try_from(seq.saturating_sub(first.seq)).unwrap_or(usize::MAX);
            return index.min(self.batches.len());
        }
        self.batches.partition_point(|batch| batch.seq < seq)
    }

    /// The number of the first batch that reaches a time; nothing before it does.
    pub(super) fn first_reaching(&self, time: i64) -> u64 {
        let index = self.batches.partition_point(|batch| batch.reach < time);
        self.batches.get(index).map_or(self.head.saturating_add(1), |batch| batch.seq)
    }

    /// Some of the tenant's batches after `after`, which is not before memory, and up to `upto`.
    pub(super) fn fetch(&self, account: &Arc<Account>, after: u64, upto: u64) -> Fetched {
        let upto = upto.min(self.head);
        let mut batches = SmallVec::new();
        let begin = self.index_of(after + 1);
        let mut through = after;
        for (passed, batch) in self.batches.range(begin..).enumerate() {
            if batch.seq > upto {
                break;
            }
            if passed == SCAN_BATCHES || batches.len() == FETCH_BATCHES {
                return Fetched::Batches { batches, through };
            }
            through = batch.seq;
            if Arc::ptr_eq(&batch.account, account) {
                batches.push(Arc::clone(batch));
            }
        }
        Fetched::Batches { batches, through: upto.max(after) }
    }

    /// What is known of the tenant's lines after `after` and up to `through`, all of which left memory.
    pub(super) fn gap(&self, account: &Arc<Account>, after: u64, through: u64, seen: Option<u64>) -> Fetched {
        let end = if through + 1 == self.first {
            account.trimmed.load(Ordering::Relaxed)
        } else {
            self.lines_until(account, through)
        };
        let begin = seen.unwrap_or_else(|| self.lines_until(account, after));
        Fetched::Trimmed {
            gap: Gap { after, through, lines: end.saturating_sub(begin) },
            tenant_lines: Some(end),
            exact: seen.is_some() || after >= self.vague_before,
        }
    }

    /// Lines of the tenant up to a number before memory, if that is known.
    pub(super) fn lines_at(&self, account: &Arc<Account>, seq: u64) -> Option<u64> {
        match seq {
            0 if !self.is_forgetful => Some(0),
            seq => (seq >= self.vague_before).then(|| self.lines_until(account, seq)),
        }
    }

    /// Lines of the tenant before those that are in memory, as its first batch there tells.
    pub(super) fn lines_before(&self, account: &Arc<Account>) -> u64 {
        let first = self.batches.iter().find(|batch| Arc::ptr_eq(&batch.account, account));
        first.map_or_else(|| account.total.load(Ordering::Relaxed), |b| b.tenant_lines.saturating_sub(b.lines()))
    }

    /// Lines of the tenant up to a trimmed batch, as far as marks remember.
    fn lines_until(&self, account: &Arc<Account>, seq: u64) -> u64 {
        let upto = self.marks.partition_point(|m| m.seq <= seq);
        let of_tenant = self.marks.range(..upto).rev().find(|m| Arc::ptr_eq(&m.account, account));
        of_tenant.map_or_else(|| account.unmarked.load(Ordering::Relaxed), |m| m.lines)
    }

    /// Of gaps before this moment nothing certain is known any more.
    pub(super) fn forget_gaps(&mut self) {
        self.vague_before = self.vague_before.max(self.first);
        self.is_forgetful = true;
    }
}
