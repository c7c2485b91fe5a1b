//! What one accepted push leaves in the log.
//!
//! Invariants: a batch never changes once it is in the log; its runs cover its entries in order and without holes; names and values of
//! structured metadata are valid UTF-8, names are canonical and values are not empty; lines are bytes as sent.

use std::sync::Arc;

use smallvec::SmallVec;
use tailwater_model::Timestamp;
use tailwater_wire::push::{EntrySpan, PairSpan, Push};

use crate::log::Account;
use crate::stream::Stream;

/// Metadata of an entry, most entries' worth of it without an allocation.
pub(crate) type Pairs<'a> = SmallVec<[(&'a str, &'a str); 8]>;

/// What an allocation costs beyond what was asked for, in bytes: bookkeeping and rounding of common allocators.
const ALLOCATION_OVERHEAD: usize = 16;

/// Allocations of a batch: itself, body and its counter, runs, entries, metadata.
const ALLOCATIONS: usize = 6;

/// The counters of an `Arc`, the shared header of a `Bytes`, the log's slot.
const HEADERS: usize = 16 + 32 + 8;

/// The accepted entries of one push.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Its place in the log; given by the log.
    pub(crate) seq: u64,
    /// When it was accepted; given by the log, never decreasing with `seq`.
    pub(crate) accepted_at: Timestamp,
    /// Lines of the tenant in the log's whole life up to and including this batch; given by the log.
    pub(crate) tenant_lines: u64,
    /// Whose it is.
    pub(crate) account: Arc<Account>,
    /// The earliest timestamp.
    pub(crate) min: i64,
    /// The latest timestamp.
    pub(crate) max: i64,
    pub(crate) runs: Box<[Run]>,
    /// Body, entries and metadata; its `streams` are empty, the runs have taken their place.
    push: Push,
}

/// Consecutive entries of one stream.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stream: Arc<Stream>,
    /// Its first entry in the batch.
    pub(crate) first: u32,
    pub(crate) len: u32,
    /// The earliest timestamp.
    pub(crate) min: i64,
    /// The latest timestamp.
    pub(crate) max: i64,
    /// Bytes of its lines.
    pub(crate) bytes: u64,
}

impl Batch {
    /// `push.entries` are those of the runs, in order; there is at least one.
    pub(crate) fn new(account: Arc<Account>, runs: Vec<Run>, mut push: Push) -> Self {
        push.streams = Vec::new();
        push.entries.shrink_to_fit();
        push.metadata.shrink_to_fit();
        Self {
            seq: 0,
            accepted_at: Timestamp::MIN,
            tenant_lines: 0,
            account,
            min: runs.iter().map(|r| r.min).min().unwrap_or(i64::MAX),
            max: runs.iter().map(|r| r.max).max().unwrap_or(i64::MIN),
            runs: runs.into_boxed_slice(),
            push,
        }
    }

    /// What it costs in memory, in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + HEADERS
            + ALLOCATIONS * ALLOCATION_OVERHEAD
            + self.push.body.len()
            + self.runs.len() * size_of::<Run>()
            + self.push.entries.capacity() * size_of::<EntrySpan>()
            + self.push.metadata.capacity() * size_of::<PairSpan>()
    }

    pub(crate) fn lines(&self) -> u64 {
        self.push.entries.len() as u64
    }

    /// The bytes that hold all lines, and other things between them.
    pub(crate) fn body(&self) -> &[u8] {
        &self.push.body
    }

    pub(crate) fn entries(&self, run: &Run) -> &[EntrySpan] {
        let first = run.first as usize;
        self.push.entries.get(first..first + run.len as usize).unwrap_or_default()
    }

    /// How many entries of a run lie in `[start, end]`, and the bytes of their lines.
    pub(crate) fn size_within(&self, run: &Run, start: i64, end: i64) -> (u64, u64) {
        if run.within(start, end) {
            return (u64::from(run.len), run.bytes);
        }
        let inside = self.entries(run).iter().filter(|e| (start..=end).contains(&e.timestamp));
        inside.fold((0, 0), |(lines, bytes), e| (lines + 1, bytes + u64::from(e.line_len)))
    }

    pub(crate) fn line(&self, entry: &EntrySpan) -> &[u8] {
        self.push.line(entry)
    }

    pub(crate) fn metadata(&self, entry: &EntrySpan) -> Pairs<'_> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        self.push.metadata(entry).map(|(name, value)| (text(name), text(value))).collect()
    }

    /// Bytes of the line and the metadata of an entry.
    pub(crate) fn bytes(&self, entry: &EntrySpan) -> u64 {
        let metadata = self.push.metadata(entry).map(|(name, value)| name.len() + value.len());
        u64::from(entry.line_len) + metadata.sum::<usize>() as u64
    }

    /// Names the content of an entry for comparison with others: its line and its metadata.
    pub(crate) fn content_key(&self, entry: &EntrySpan, seed: u64) -> u128 {
        content_key(&self.push, entry, seed)
    }
}

/// 128 bits that name the line and the metadata of an entry.
pub(crate) fn content_key(push: &Push, entry: &EntrySpan, seed: u64) -> u128 {
    let line = push.line(entry);
    if entry.metadata_len == 0 {
        return xxhash_rust::xxh3::xxh3_128_with_seed(line, seed);
    }
    let mut hash = xxhash_rust::xxh3::Xxh3::with_seed(seed);
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(line);
    for (name, value) in push.metadata(entry) {
        part(name);
        part(value);
    }
    hash.digest128()
}

impl Run {
    /// Whether an entry may lie in `[start, end]`.
    pub(crate) fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min <= end && self.max >= start
    }

    /// Whether every entry lies in `[start, end]`.
    pub(crate) fn within(&self, start: i64, end: i64) -> bool {
        start <= self.min && self.max <= end
    }
}
