//! From a group of a plan to blocks.
//!
//! Invariants: memory beyond the batches is one stream's slots (16 bytes per entry) and the compressed output of one block, until it is taken. A block ends
//! when it holds [`BLOCK_BYTES`] of lines or [`BLOCK_STREAMS`] streams, if need be in the middle of a stream. Entries are written in the
//! order (labels, timestamp, seq, index). Entries up to `covered` are left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_model::LogId;
use tailwater_store::Error;
use tailwater_store::block::{Built, Entry, Options, Writer};
use tailwater_store::entries::Run;

use super::plan::{Group, Ref};
use crate::batch::Batch;

/// Bytes of lines after which a block ends. Most cuts are smaller; a single push may be larger.
const BLOCK_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 512 << 20 };

/// Streams after which a block ends: each of them takes a place in tables and in the index.
const BLOCK_STREAMS: usize = if cfg!(test) { 64 } else { 200_000 };

/// Entries between looks at the cancel; then pushes are let to the processor, too.
const ENTRIES_PER_LOOK: usize = 8192;

/// An entry of the stream being written.
#[derive(Clone, Copy)]
struct Slot {
    timestamp: i64,
    batch: u32,
    /// Over all runs of the batch.
    number: u32,
}

/// Builds the blocks of one group, one after the other.
pub(super) struct Builder {
    log: LogId,
    batches: Arc<[Arc<Batch>]>,
    group: Arc<Group>,
    options: Options,
    cancel: Arc<AtomicBool>,
    /// Batches up to this one are left out.
    covered: u64,
    /// The first reference of the next stream.
    next: usize,
    /// Of the stream being written.
    slots: Vec<Slot>,
    written: usize,
}

impl Builder {
    /// Setting `cancel` ends the work early, with an error.
    pub(super) fn new(
        log: LogId,
        batches: &Arc<[Arc<Batch>]>,
        group: &Arc<Group>,
        options: Options,
        covered: u64,
        cancel: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            log,
            batches: Arc::clone(batches),
            group: Arc::clone(group),
            options,
            cancel: Arc::clone(cancel),
            covered,
            next: 0,
            slots: Vec::new(),
            written: 0,
        }
    }

    /// The next block; nothing if all entries are in blocks. Takes about half a microsecond per line.
    ///
    /// # Errors
    /// Those of the writer; [`Error::Unavailable`] after a cancel.
    pub(super) fn next_block(&mut self) -> Result<Option<Built>, Error> {
        if !self.fill() {
            return Ok(None);
        }
        let mut writer = Writer::new(self.options);
        let (mut bytes, mut streams) = (0, 0);
        loop {
            bytes += self.write_stream(&mut writer, BLOCK_BYTES.saturating_sub(bytes))?;
            streams += 1;
            if bytes >= BLOCK_BYTES || streams >= BLOCK_STREAMS || !self.fill() {
                return writer.finish().map(Some);
            }
        }
    }

    /// Makes sure that there are slots to write: those that are left, or those of the next stream that has any. Whether there are.
    fn fill(&mut self) -> bool {
        while self.written >= self.slots.len() {
            self.slots.clear();
            self.written = 0;
            let refs = self.group.refs.get(self.next..).unwrap_or_default();
            let Some(first) = refs.first() else { return false };
            let count = refs.iter().take_while(|found| found.rank == first.rank).count();
            let mut sorted = true;
            for found in refs.iter().take(count) {
                sorted &= collect(&self.batches, found, self.covered, &self.group, &mut self.slots);
            }
            if !sorted {
                // Slots come in the order of (seq, index), which a stable sort keeps among equal times.
                self.slots.sort_by_key(|slot| slot.timestamp);
            }
            self.next += count;
        }
        true
    }

    /// Writes the slots of a stream, until about `room` bytes of lines are written. Answers how many were.
    fn write_stream(&mut self, writer: &mut Writer, room: u64) -> Result<u64, Error> {
        let mut bytes = 0;
        let mut begun = false;
        // Mostly the slot is of the same run as the last.
        let mut here: Option<(u32, &Run)> = None;
        while let Some(slot) = self.slots.get(self.written) {
            if begun && bytes >= room {
                break;
            }
            if self.written.is_multiple_of(ENTRIES_PER_LOOK) {
                self.look()?;
            }
            self.written += 1;
            let Some(batch) = self.batches.get(slot.batch as usize) else { continue };
            let same = here.filter(|(of, run)| *of == slot.batch && holds(run, slot.number));
            let Some((_, run)) = same.or_else(|| Some((slot.batch, run_of(batch, slot.number)?))) else { continue };
            here = Some((slot.batch, run));
            let Some(span) = batch.entries(run).get((slot.number - run.first) as usize) else { continue };
            if !begun {
                writer.stream(&run.stream.labels, self.log);
                begun = true;
            }
            let metadata = batch.metadata(span);
            let line = batch.line(span);
            let place = batch.place(slot.number);
            writer.entry(&Entry { timestamp: span.timestamp, line, metadata: &metadata, place });
            bytes += batch.bytes(span);
        }
        Ok(bytes)
    }

    fn look(&self) -> Result<(), Error> {
        std::thread::yield_now();
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::Unavailable { what: "the pager".into(), reason: "it is being stopped".into() });
        }
        Ok(())
    }
}

fn holds(run: &Run, number: u32) -> bool {
    number.checked_sub(run.first).is_some_and(|inside| inside < run.len)
}

fn run_of(batch: &Batch, number: u32) -> Option<&Run> {
    let after = batch.runs.partition_point(|run| run.first <= number);
    after.checked_sub(1).and_then(|at| batch.runs.get(at)).filter(|run| holds(run, number))
}

/// Appends the entries of a run that belong to the group and are not covered. Whether all slots are in order of time still.
fn collect(batches: &[Arc<Batch>], found: &Ref, covered: u64, group: &Group, slots: &mut Vec<Slot>) -> bool {
    let Some(batch) = batches.get(found.batch as usize).filter(|batch| batch.seq > covered) else { return true };
    let Some(run) = batch.runs.get(found.run as usize) else { return true };
    let day = group.day.range();
    let whole = run.within(*day.start(), *day.end());
    let mut last = slots.last().map_or(i64::MIN, |slot| slot.timestamp);
    let mut sorted = true;
    for (i, span) in batch.entries(run).iter().enumerate() {
        if whole || day.contains(&span.timestamp) {
            sorted &= span.timestamp >= last;
            last = span.timestamp;
            slots.push(Slot { timestamp: span.timestamp, batch: found.batch, number: run.first + i as u32 });
        }
    }
    sorted
}
