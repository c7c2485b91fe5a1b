//! Entries at hand: those of one accepted push, or of one page of a block. What a search looks at.
//!
//! Invariants: entries never change; the runs cover them in order and without holes; names and values of structured metadata are
//! valid UTF-8, names are canonical and values are not empty; lines are bytes as sent. Every entry has a place in an arrival log: its
//! batch's sequence number and its index in the batch, and the time when it was accepted.

use std::sync::Arc;

use smallvec::SmallVec;
use tailwater_model::Timestamp;
use tailwater_wire::push::{EntrySpan, PairSpan, Push};

use crate::Stream;

/// Metadata of an entry, most entries' worth of it without an allocation.
pub type Pairs<'a> = SmallVec<[(&'a str, &'a str); 8]>;

/// Entries with all that is needed to search them.
#[derive(Debug)]
pub struct Entries {
    /// The earliest timestamp.
    pub min: i64,
    /// The latest timestamp.
    pub max: i64,
    /// Consecutive entries of one stream each.
    pub runs: Box<[Run]>,
    places: Places,
    /// Body, entries and metadata; its `streams` are empty, the runs have taken their place.
    push: Push,
}

/// Consecutive entries of one stream.
#[derive(Debug)]
pub struct Run {
    /// Whose they are.
    pub stream: Arc<Stream>,
    /// Its first entry, counted over all runs.
    pub first: u32,
    /// How many.
    pub len: u32,
    /// The earliest timestamp.
    pub min: i64,
    /// The latest timestamp.
    pub max: i64,
    /// Bytes of its lines.
    pub bytes: u64,
}

/// Where an entry stands in its arrival log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its batch; 0 if it is in an earlier log: before everything.
    pub seq: u64,
    /// When the batch was accepted. Never decreases with the batches of a log, so that the order is theirs, also where `seq` is 0.
    pub accepted_at: Timestamp,
    /// Its index in the batch.
    pub index: u32,
}

impl Place {
    /// Whether so many entries later in a stretch of consecutive places is this one.
    fn leads_to(self, entries: u32, place: Self) -> bool {
        (self.seq, self.accepted_at, self.index.checked_add(entries))
            == (place.seq, place.accepted_at, Some(place.index))
    }
}

/// The places of all entries.
#[derive(Debug)]
enum Places {
    /// One batch, in order.
    Batch(Place),
    /// Stretches of entries, each of consecutive indexes of one batch: the first entry of the stretch, and its place. Sorted; the first
    /// begins at 0.
    Stretches(Box<[(u32, Place)]>),
}

impl Entries {
    /// The entries of a batch, which is given its place later. `push.entries` are those of the runs, in order; there is at least one.
    #[must_use]
    pub fn of_batch(runs: Vec<Run>, push: Push) -> Self {
        Self::new(runs, push, Places::Batch(Place { seq: 0, index: 0, accepted_at: Timestamp::MIN }))
    }

    /// The entries of a page. `stretches`: the number of the entry with which each begins, and its place; sorted, the first at 0.
    #[must_use]
    pub fn of_page(run: Run, push: Push, stretches: Vec<(u32, Place)>) -> Self {
        Self::new(vec![run], push, Places::Stretches(stretches.into_boxed_slice()))
    }

    fn new(runs: Vec<Run>, mut push: Push, places: Places) -> Self {
        push.streams = Vec::new();
        push.entries.shrink_to_fit();
        push.metadata.shrink_to_fit();
        Self {
            min: runs.iter().map(|r| r.min).min().unwrap_or(i64::MAX),
            max: runs.iter().map(|r| r.max).max().unwrap_or(i64::MIN),
            runs: runs.into_boxed_slice(),
            places,
            push,
        }
    }

    /// Gives the batch its place.
    pub fn set_place(&mut self, seq: u64, accepted_at: Timestamp) {
        self.places = Places::Batch(Place { seq, index: 0, accepted_at });
    }

    /// The place of an entry, by its number over all runs.
    #[must_use]
    pub fn place(&self, number: u32) -> Place {
        match &self.places {
            Places::Batch(place) => Place { index: number, ..*place },
            Places::Stretches(stretches) => {
                let after = stretches.partition_point(|(first, _)| *first <= number);
                let stretch = after.checked_sub(1).and_then(|i| stretches.get(i));
                let nowhere = (number, Place { seq: 0, index: 0, accepted_at: Timestamp::MIN });
                let (first, place) = *stretch.unwrap_or(&nowhere);
                Place { index: place.index.saturating_add(number - first), ..place }
            }
        }
    }

    /// As entries of an earlier log: their places are before everything, in the same order.
    #[must_use]
    pub fn of_earlier_log(mut self) -> Self {
        if let Places::Stretches(stretches) = &mut self.places {
            stretches.iter_mut().for_each(|(_, place)| place.seq = 0);
        }
        self
    }

    /// Those that are to be kept, by their number; missing ones are not. None: nothing is left. The lines stay shared.
    #[must_use]
    pub fn keep(&self, keep: &[bool]) -> Option<Self> {
        let kept = |number: usize| keep.get(number).is_some_and(|keep| *keep);
        let mut entries = Vec::with_capacity(keep.iter().filter(|keep| **keep).count());
        let mut runs = Vec::new();
        let mut stretches: Vec<(u32, Place)> = Vec::new();
        for run in &self.runs {
            let first = entries.len() as u32;
            let (mut min, mut max, mut bytes) = (i64::MAX, i64::MIN, 0);
            for (entry, number) in self.entries(run).iter().zip(run.first..).filter(|(_, n)| kept(*n as usize)) {
                let place = self.place(number);
                let next = entries.len() as u32;
                if !stretches.last().is_some_and(|(first, begun)| begun.leads_to(next - first, place)) {
                    stretches.push((next, place));
                }
                (min, max) = (min.min(entry.timestamp), max.max(entry.timestamp));
                bytes += u64::from(entry.line_len);
                entries.push(*entry);
            }
            let len = entries.len() as u32 - first;
            if len > 0 {
                runs.push(Run { stream: Arc::clone(&run.stream), first, len, min, max, bytes });
            }
        }
        let (body, metadata) = (self.push.body.clone(), self.push.metadata.clone());
        let push = Push { body, streams: Vec::new(), entries, metadata };
        (!runs.is_empty()).then(|| Self::new(runs, push, Places::Stretches(stretches.into_boxed_slice())))
    }

    /// Bytes that they take in memory, without what allocations cost.
    #[must_use]
    pub fn memory(&self) -> usize {
        let places = match &self.places {
            Places::Batch(_) => 0,
            Places::Stretches(stretches) => size_of_val::<[_]>(stretches),
        };
        size_of::<Self>()
            + self.push.body.len()
            + self.runs.len() * size_of::<Run>()
            + self.push.entries.capacity() * size_of::<EntrySpan>()
            + self.push.metadata.capacity() * size_of::<PairSpan>()
            + places
    }

    /// How many.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.push.entries.len() as u64
    }

    /// The bytes that hold all lines, and other things between them.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.push.body
    }

    /// The entries of a run.
    #[must_use]
    pub fn entries(&self, run: &Run) -> &[EntrySpan] {
        let first = run.first as usize;
        self.push.entries.get(first..first + run.len as usize).unwrap_or_default()
    }

    /// How many entries of a run lie in `[start, end]`, and the bytes of their lines.
    #[must_use]
    pub fn size_within(&self, run: &Run, start: i64, end: i64) -> (u64, u64) {
        if run.within(start, end) {
            return (u64::from(run.len), run.bytes);
        }
        let inside = self.entries(run).iter().filter(|e| (start..=end).contains(&e.timestamp));
        inside.fold((0, 0), |(lines, bytes), e| (lines + 1, bytes + u64::from(e.line_len)))
    }

    /// The line of an entry.
    #[must_use]
    pub fn line(&self, entry: &EntrySpan) -> &[u8] {
        self.push.line(entry)
    }

    /// The structured metadata of an entry.
    #[must_use]
    pub fn metadata(&self, entry: &EntrySpan) -> Pairs<'_> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        self.push.metadata(entry).map(|(name, value)| (text(name), text(value))).collect()
    }

    /// Bytes of the line and the metadata of an entry.
    #[must_use]
    pub fn bytes(&self, entry: &EntrySpan) -> u64 {
        let metadata = self.push.metadata(entry).map(|(name, value)| name.len() + value.len());
        u64::from(entry.line_len) + metadata.sum::<usize>() as u64
    }

    /// A push with some of the entries: streams of (label text, entries).
    ///
    /// # Errors
    /// There is too much of it for a push.
    pub fn extract<'a>(
        &self,
        streams: impl IntoIterator<Item = (&'a [u8], &'a [EntrySpan])>,
    ) -> Result<Push, tailwater_wire::Error> {
        tailwater_wire::push::extract(&self.push, streams)
    }

    /// Names the content of an entry for comparison with others: its line and its metadata.
    #[must_use]
    pub fn content_key(&self, entry: &EntrySpan, seed: u64) -> u128 {
        content_key(&self.push, entry, seed)
    }
}

/// 128 bits that name the line and the metadata of an entry.
#[must_use]
pub fn content_key(push: &Push, entry: &EntrySpan, seed: u64) -> u128 {
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
    #[must_use]
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min <= end && self.max >= start
    }

    /// Whether every entry lies in `[start, end]`.
    #[must_use]
    pub fn within(&self, start: i64, end: i64) -> bool {
        start <= self.min && self.max <= end
    }
}
