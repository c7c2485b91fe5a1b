//! The matching lines of a stretch of a log, in its order, out of blocks.
//!
//! Blocks lie in the order of streams and time, so every page that holds batches of the stretch is looked at, and of what matches only the
//! beginning is kept.
//!
//! Invariants:
//! * The answer ends with the batch with which the matched text reaches the bytes asked for, or the lines [`lines_max`], or with the stretch:
//!   it depends on what is in blocks alone, not on which blocks that is.
//! * Memory: about twice the bytes asked for, one batch, and what [`Pieces`] has under way.
//! * What cannot be read ends it with an error: a hole would be taken for lines that do not match.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tailwater_model::{LogId, Timestamp};
use tailwater_wire::node::{MatchedBatch, MatchedLine, NodeError, ReadChunk, ReadRequest};

use super::pieces::{Look, Pieces, Plan};
use super::queue::Order;
use super::trouble::Troubles;
use super::wanted::Lines;
use super::{Cancel, Evaluator, Unit};
use crate::deletes::Deletion;
use crate::entries::{Entries, Run};

/// Most text of an answer, however much was asked for.
const MAX_CHUNK_BYTES: usize = 64 << 20;

/// Most lines of an answer, unless its bytes are many.
const MIN_LINES_MAX: usize = 1000;

/// Bytes of an answer for which it may have a line more.
const BYTES_OF_A_LINE: usize = 64;

/// Beyond twice what is asked for, so much is gathered before it is cut. (Little in tests.)
const SLACK_BYTES: usize = if cfg!(test) { 16 } else { 256 << 10 };

/// Makes of a block a unit that holds the batches after the first position and up to the second.
pub(crate) type UnitOf<'a> = Box<dyn Fn((u64, u64)) -> Unit + 'a>;

/// What is read.
pub(crate) struct Stretch<'a> {
    pub(crate) log: LogId,
    /// After this batch,
    pub(crate) after: u64,
    /// and up to this one.
    pub(crate) through: u64,
    /// The blocks that may hold some of it, each with the first batch of the log in it; in the order of these.
    pub(crate) blocks: Vec<(u64, UnitOf<'a>)>,
    pub(crate) deletions: Arc<[Deletion]>,
}

/// What was found so far.
struct Found {
    lines: Vec<(MatchedLine, Box<[u8]>)>,
    bytes: usize,
    bytes_max: usize,
    lines_max: usize,
    /// Nothing after this is of interest any more.
    through: u64,
}

/// Most lines of an answer of so many bytes.
fn lines_max(bytes: usize) -> usize {
    MIN_LINES_MAX.max(bytes / BYTES_OF_A_LINE)
}

/// See the module's words. Blocks.
///
/// # Errors
/// [`NodeError::Unavailable`] if something cannot be reached or is damaged.
pub(crate) fn read(stretch: Stretch<'_>, request: &ReadRequest, cancel: &Cancel) -> Result<ReadChunk, NodeError> {
    let Stretch { log, after, through, blocks, deletions } = stretch;
    let bytes_max = request.max_bytes.clamp(1, MAX_CHUNK_BYTES);
    let mut found = Found { lines: Vec::new(), bytes: 0, bytes_max, lines_max: lines_max(bytes_max), through };
    let mut evaluator = Evaluator::new(Arc::clone(&request.query), request.detect_level);
    for (first, unit) in blocks {
        if first > found.through || cancel.is_set() {
            break;
        }
        let plan = Plan {
            order: Order::Any,
            wanted: Arc::new(Lines { query: Arc::clone(&request.query), times: (i64::MIN, i64::MAX) }),
            deletions: Arc::clone(&deletions),
            detect_level: request.detect_level,
            troubles: Troubles::new(log),
        };
        let pieces = Pieces::new([unit((after, found.through))], plan, cancel);
        pieces.work(&|_| false, &mut |look| {
            if let Look::Entries(entries) = look {
                found.look(entries, &mut evaluator);
            }
            ControlFlow::Continue(())
        });
        let (_, warnings) = pieces.finish()?;
        if let Some(reason) = warnings.into_iter().next() {
            return Err(NodeError::Unavailable { log, reason });
        }
    }
    Ok(found.answer())
}

impl Found {
    fn look(&mut self, entries: &Entries, evaluator: &mut Evaluator) {
        if !evaluator.may_match(entries) {
            return;
        }
        for run in &entries.runs {
            if evaluator.selects(run) {
                self.look_at(entries, run, evaluator);
            }
        }
    }

    fn look_at(&mut self, entries: &Entries, run: &Run, evaluator: &mut Evaluator) {
        for (entry, number) in entries.entries(run).iter().zip(run.first..) {
            let place = entries.place(number);
            if place.seq > self.through {
                continue;
            }
            let Some(hit) = evaluator.run(&run.stream.labels, entries, entry) else { continue };
            self.bytes += hit.line.len();
            let matched = MatchedLine {
                timestamp: Timestamp(entry.timestamp),
                accepted_at: place.accepted_at,
                seq: place.seq,
                index: place.index,
                offset: 0,
                len: u32::try_from(hit.line.len()).unwrap_or(u32::MAX),
                labels: hit.labels,
                stream_hash: run.stream.hash,
            };
            self.lines.push((matched, hit.line.into()));
            let much = self.bytes > self.bytes_max.saturating_mul(2).saturating_add(SLACK_BYTES);
            if much || self.lines.len() > self.lines_max.saturating_mul(2) {
                self.cut();
            }
        }
    }

    /// Sorts, and forgets what comes after the batch with which there is enough.
    fn cut(&mut self) {
        self.lines.sort_unstable_by_key(|(line, _)| (line.seq, line.index));
        let (mut bytes, mut kept) = (0, 0);
        for (line, text) in &self.lines {
            if line.seq > self.through {
                break;
            }
            bytes += text.len();
            kept += 1;
            if bytes >= self.bytes_max || kept >= self.lines_max {
                self.through = line.seq;
            }
        }
        self.lines.truncate(kept);
        self.bytes = bytes;
    }

    fn answer(mut self) -> ReadChunk {
        self.cut();
        let mut text = BytesMut::with_capacity(self.bytes);
        let lines = self.lines.into_iter().map(|(line, of_line)| {
            let offset = u32::try_from(text.len()).unwrap_or(u32::MAX);
            text.extend_from_slice(&of_line);
            MatchedLine { offset, ..line }
        });
        let lines: Vec<_> = lines.collect();
        let watermark = lines.last().map_or(Timestamp::MIN, |line| line.accepted_at);
        let through = self.through;
        let text: Bytes = text.freeze();
        ReadChunk { through, gap: None, batch: MatchedBatch { through, watermark, text, lines } }
    }
}
