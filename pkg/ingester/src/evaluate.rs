//! A query run over the log by one reader.
//!
//! Invariants:
//! * A [`Reader`] looks at every batch of its tenant after its position exactly once, in log order, or answers a gap.
//! * It never waits for the disk: where the log goes on there it says so, and takes in what somebody has read for it.
//! * What it yields always ends at the end of a batch. A step is bounded work; a batch may take several.
//! * An idle reader owns no buffers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_model::Timestamp;
use tailwater_store::scan::Evaluator;
use tailwater_wire::node::{Gap, MatchedBatch, MatchedLine};

use crate::batch::Batch;
use crate::log::{Account, ArrivalLog, Fetched};

/// Bytes looked at in one step, roughly 0.1 to 1 ms of work. (Small in tests, so that a batch takes several.)
const STEP_BYTES: usize = if cfg!(test) { 1 << 10 } else { 128 << 10 };

/// What looking at a line costs beyond its bytes.
const LINE_COST: usize = 64;

/// What passing over a batch costs.
const BATCH_COST: usize = 256;

/// Text after which a follower's lines are handed over even if more are at hand.
pub(crate) const FLUSH_BYTES: usize = 64 << 10;

/// Lines after which a follower's lines are handed over even if more are at hand.
const FLUSH_LINES: usize = 1000;

/// Most text that the lines of one batch may grow to in a pipeline. A batch beyond that is answered as a gap.
const MAX_MATCHED_BYTES: usize = 1 << 30;

/// See the module's words.
pub(crate) struct Reader {
    log: Arc<ArrivalLog>,
    account: Arc<Account>,
    evaluator: Evaluator,
    /// Everything up to here has been looked at.
    at: Place,
    /// Everything that was found up to here has been handed over.
    settled: Place,
    /// Fetched, not looked at; no others lie between them and `fetched`.
    queue: VecDeque<Arc<Batch>>,
    fetched: u64,
    work: Option<Work>,
    text: Vec<u8>,
    lines: Vec<MatchedLine>,
}

/// A place in the log and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its last batch.
    pub(crate) position: u64,
    /// The tenant's lines up to there, if known.
    pub(crate) seen: Option<u64>,
    /// Nothing after it was accepted before this.
    pub(crate) watermark: Timestamp,
}

/// A batch being looked at.
struct Work {
    batch: Arc<Batch>,
    run: usize,
    entry: usize,
    /// What was there before the batch: lines and bytes of text.
    before: (usize, usize),
}

/// What a step has brought.
pub(crate) enum Step {
    /// Lines, whole batches.
    Lines(MatchedBatch),
    /// Lines that are gone.
    Gap(Gap),
    /// Nothing to hand over; what comes next is on disk. [`Reader::next_on_disk`] says what is to be read for [`Reader::take_in`].
    OnDisk,
    /// Nothing to hand over yet, and more to look at.
    Busy,
    /// Nothing to hand over, and nothing more up to where it was asked to look.
    Done,
}

/// What a batch's turn has brought.
enum Turn {
    Whole,
    Part,
    TooLarge,
}

impl Place {
    /// A place of which nothing else is known.
    pub(crate) fn after(position: u64) -> Self {
        Self { position, seen: None, watermark: Timestamp::MIN }
    }
}

impl Reader {
    pub(crate) fn new(log: Arc<ArrivalLog>, account: Arc<Account>, evaluator: Evaluator, at: Place) -> Self {
        Self {
            log,
            account,
            evaluator,
            at,
            settled: at,
            queue: VecDeque::new(),
            fetched: at.position,
            work: None,
            text: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Everything that was found up to here has been handed over.
    pub(crate) fn settled(&self) -> Place {
        self.settled
    }

    /// Whether it is between batches and holds nothing back.
    pub(crate) fn is_idle(&self) -> bool {
        self.work.is_none() && self.queue.is_empty() && self.lines.is_empty()
    }

    /// Goes on elsewhere and forgets what it was at.
    pub(crate) fn move_to(&mut self, place: Place) {
        self.at = place;
        self.settled = place;
        self.fetched = place.position;
        self.queue.clear();
        self.work = None;
        self.text = Vec::new();
        self.lines = Vec::new();
    }

    /// Looks at more of the log, at most up to `upto`. Hands lines over when there are `flush` bytes of them, or there is nothing more
    /// up to there, or, if `eager`, at the end of the step.
    pub(crate) fn step(&mut self, upto: u64, flush: usize, eager: bool) -> Step {
        let mut budget = STEP_BYTES;
        loop {
            if self.work.is_none() && self.queue.is_empty() && self.fetched >= upto {
                return self.flush().map_or(Step::Done, Step::Lines);
            }
            if self.work.is_none() && self.queue.is_empty() {
                match self.log.fetch(&self.account, self.at.position, upto, self.at.seen) {
                    Fetched::Trimmed { .. } | Fetched::OnDisk if !self.lines.is_empty() => {
                        return self.flush().map_or(Step::Busy, Step::Lines);
                    }
                    Fetched::OnDisk => return Step::OnDisk,
                    fetched => {
                        if let Some(gap) = self.take_in(fetched) {
                            return Step::Gap(gap);
                        }
                        if self.queue.is_empty() {
                            budget = budget.saturating_sub(BATCH_COST);
                        }
                    }
                }
            }
            if self.work.is_none()
                && let Some(batch) = self.queue.pop_front()
            {
                if eager && !self.lines.is_empty() && batch.body().len() > STEP_BYTES {
                    // What is found need not wait for a batch that takes several steps.
                    self.queue.push_front(batch);
                    return self.flush().map_or(Step::Busy, Step::Lines);
                }
                self.work = Some(Work { batch, run: 0, entry: 0, before: (self.lines.len(), self.text.len()) });
            }
            if let Some(mut work) = self.work.take() {
                match self.look(&mut work, &mut budget) {
                    Turn::Part => {
                        self.work = Some(work);
                        return Step::Busy;
                    }
                    Turn::Whole => self.passed(&work.batch),
                    Turn::TooLarge => return self.too_large(work),
                }
                if self.text.len() >= flush || self.lines.len() >= FLUSH_LINES.max(flush / LINE_COST) {
                    return self.flush().map_or(Step::Busy, Step::Lines);
                }
            }
            if budget == 0 {
                return if eager { self.flush().map_or(Step::Busy, Step::Lines) } else { Step::Busy };
            }
        }
    }

    /// After [`Step::OnDisk`]: what is to be read, and where.
    pub(crate) fn next_on_disk(&self) -> (Arc<ArrivalLog>, Arc<Account>, Place) {
        (Arc::clone(&self.log), Arc::clone(&self.account), self.at)
    }

    /// Goes on with what was fetched from where it stands. Answers lines that are gone. Only if nothing was fetched before that has not
    /// been looked at.
    pub(crate) fn take_in(&mut self, fetched: Fetched) -> Option<Gap> {
        match fetched {
            Fetched::Batches { batches, through } => {
                self.queue.extend(batches);
                self.fetched = through;
                if self.queue.is_empty() {
                    self.at.position = through;
                    self.settle();
                }
                None
            }
            Fetched::Trimmed { gap, tenant_lines, exact } => {
                self.move_to(Place { position: gap.through, seen: tenant_lines, ..self.at });
                (gap.lines > 0 || !exact).then_some(gap)
            }
            Fetched::OnDisk => None,
        }
    }

    fn passed(&mut self, batch: &Batch) {
        self.at = Place {
            position: if self.queue.is_empty() { self.fetched } else { batch.seq },
            seen: Some(batch.tenant_lines),
            watermark: batch.accepted_at,
        };
        self.settle();
    }

    fn settle(&mut self) {
        if self.lines.is_empty() {
            self.settled = self.at;
        }
    }

    /// A batch whose lines grow beyond all bounds is told as a gap, after what came before it.
    fn too_large(&mut self, work: Work) -> Step {
        let Work { batch, before: (lines, text), .. } = work;
        self.lines.truncate(lines);
        self.text.truncate(text);
        if let Some(lines) = self.flush() {
            self.work = Some(Work { batch, run: 0, entry: 0, before: (0, 0) });
            return Step::Lines(lines);
        }
        let after = batch.seq - 1;
        self.passed(&batch);
        Step::Gap(Gap { after, through: batch.seq, lines: batch.lines() })
    }

    fn look(&mut self, work: &mut Work, budget: &mut usize) -> Turn {
        let batch = Arc::clone(&work.batch);
        if work.run == 0 && work.entry == 0 {
            *budget = budget.saturating_sub(BATCH_COST);
            if !self.evaluator.may_match(&batch) {
                *budget = budget.saturating_sub(batch.body().len() / 16);
                return Turn::Whole;
            }
        }
        while let Some(run) = batch.runs.get(work.run) {
            if work.entry == 0 && !self.evaluator.selects(run) {
                work.run += 1;
                continue;
            }
            for (i, entry) in batch.entries(run).iter().enumerate().skip(work.entry) {
                if *budget == 0 {
                    work.entry = i;
                    return Turn::Part;
                }
                *budget = budget.saturating_sub(entry.line_len as usize + LINE_COST);
                let Some(hit) = self.evaluator.run(&run.stream.labels, &batch, entry) else { continue };
                let offset = self.text.len();
                if offset - work.before.1 + hit.line.len() > MAX_MATCHED_BYTES {
                    return Turn::TooLarge;
                }
                self.text.extend_from_slice(hit.line);
                self.lines.push(MatchedLine {
                    timestamp: Timestamp(entry.timestamp),
                    accepted_at: batch.accepted_at,
                    seq: batch.seq,
                    index: run.first + u32::try_from(i).unwrap_or(u32::MAX),
                    offset: u32::try_from(offset).unwrap_or(u32::MAX),
                    len: u32::try_from(hit.line.len()).unwrap_or(u32::MAX),
                    labels: hit.labels,
                    stream_hash: run.stream.hash,
                });
            }
            work.run += 1;
            work.entry = 0;
        }
        Turn::Whole
    }

    /// What has matched so far. Only between batches.
    pub(crate) fn flush(&mut self) -> Option<MatchedBatch> {
        if self.lines.is_empty() {
            return None;
        }
        let mut text = std::mem::take(&mut self.text);
        let mut lines = std::mem::take(&mut self.lines);
        text.shrink_to_fit();
        lines.shrink_to_fit();
        self.settled = self.at;
        Some(MatchedBatch { through: self.at.position, watermark: self.at.watermark, text: Bytes::from(text), lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_reader_is_small() {
        assert!(size_of::<Reader>() <= 1024, "{}", size_of::<Reader>());
    }
}
