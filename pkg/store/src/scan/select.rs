//! The newest or oldest lines of a time range.
//!
//! Invariants:
//! * The answer is that of a plain look at every line: sort by timestamp in the direction, then by ascending stream hash, then by
//!   place in the log in the direction; entries equal in stream, timestamp, line and metadata count once, at their first place; then take
//!   `limit`.
//! * Units are looked at in the order of their best timestamp. Once `limit` lines are known, the worst of them is a bound: units, runs
//!   and entries beyond it are passed over. Workers share the bound.
//! * Memory: at most about twice `limit` lines per worker, plus as many as share one timestamp with the worst, up to [`MAX_TIES`].

use std::cmp::Ordering as Order;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use tailwater_model::{LabelSet, Labels, Timestamp};
use tailwater_wire::node::{Direction, MatchedLine, NodeError, Scanned, SelectRequest, Selected};
use tailwater_wire::push::EntrySpan;

use super::pieces::{Look, Pieces, Plan};
use super::queue::Order as PieceOrder;
use super::trouble::Troubles;
use super::wanted::Lines;
use super::{Cancel, Evaluator, Source, Totals, Unit, workers};
use crate::entries::{Entries, Place, Run};

/// Lines beyond the limit that are kept because they tie with the worst: an earlier equal entry may still turn up and take their place.
const MAX_TIES: usize = 10_000;

/// Lines a worker may gather beyond twice the limit before it sorts. (Few in tests.)
const SLACK: usize = if cfg!(test) { 2 } else { 256 };

/// Lines between looks at the cancel.
const LINES_PER_LOOK: u32 = 4096;

/// A line counts for one more of them for each of these bytes.
const BYTES_OF_A_LINE: u32 = 64;

/// A matching line, not yet certain to be answered.
struct Candidate {
    timestamp: i64,
    stream_hash: u64,
    labels_of_stream: Labels,
    place: Place,
    /// Names line and metadata as sent.
    content: u128,
    line: Box<[u8]>,
    labels: LabelSet,
}

/// What the workers share.
struct Search<'a> {
    request: &'a SelectRequest,
    seed: u64,
    pieces: Pieces,
    /// Lines worse than this timestamp cannot be answered.
    bound: AtomicI64,
    scanned: Totals,
}

/// See [`tailwater_wire::node::Node::select`].
///
/// # Errors
/// [`NodeError::Unavailable`] if something cannot be reached.
pub fn select(source: &dyn Source, request: &SelectRequest, seed: u64, cancel: &Cancel) -> Result<Selected, NodeError> {
    let (start, end) = (request.start.nanos(), request.end.nanos());
    if request.limit == 0 || start >= end {
        return Ok(Selected::default());
    }
    let times = (start, end - 1);
    let deletions = source.deletions()?;
    let units = source.collect((0, request.as_of), times)?;
    let lines: u64 = units.iter().map(Unit::lines).sum();
    let plan = Plan {
        order: match request.direction {
            Direction::Forward => PieceOrder::Oldest,
            Direction::Backward => PieceOrder::Newest,
        },
        wanted: Arc::new(Lines { query: Arc::clone(&request.query), times }),
        deletions,
        detect_level: request.detect_level,
        troubles: Troubles::new(source.log()),
    };
    let search = Search {
        request,
        seed,
        pieces: Pieces::new(units, plan, cancel),
        bound: AtomicI64::new(match request.direction {
            Direction::Forward => i64::MAX,
            Direction::Backward => i64::MIN,
        }),
        scanned: Totals::default(),
    };
    let found = workers(lines, || search.work());
    search.answer(found.into_iter().flatten().collect())
}

impl Search<'_> {
    fn work(&self) -> Vec<Candidate> {
        let mut evaluator = Evaluator::new(Arc::clone(&self.request.query), self.request.detect_level);
        let mut found = Vec::new();
        let mut looks = 0;
        self.pieces.work(&|best| self.is_beyond(best), &mut |look| {
            if let Look::Entries(entries) = look {
                self.look(entries, &mut evaluator, &mut found, &mut looks);
            }
            ControlFlow::Continue(())
        });
        found
    }

    fn look(&self, batch: &Entries, evaluator: &mut Evaluator, found: &mut Vec<Candidate>, looks: &mut u32) {
        let (start, end) = (self.request.start.nanos(), self.request.end.nanos());
        let last = end.saturating_sub(1);
        let backward = self.request.direction == Direction::Backward;
        let may_match = evaluator.may_match(batch);
        let mut scanned = Scanned::default();
        for run in batch.runs.iter().filter(|run| run.overlaps(start, last)) {
            let best = match self.request.direction {
                Direction::Forward => run.min,
                Direction::Backward => run.max,
            };
            if self.is_beyond(best) || !evaluator.selects(run) {
                continue;
            }
            if !may_match {
                let (lines, bytes) = batch.size_within(run, start, last);
                scanned.lines += lines;
                scanned.bytes += bytes;
                continue;
            }
            let entries = batch.entries(run);
            for number in 0..entries.len() {
                // Mostly they lie in the order of time: so the best come first.
                let i = if backward { entries.len() - 1 - number } else { number };
                let entry = &entries[i];
                if !(start..end).contains(&entry.timestamp) || self.is_beyond(entry.timestamp) {
                    continue;
                }
                scanned.lines += 1;
                scanned.bytes += u64::from(entry.line_len);
                // Long lines take longer.
                *looks += 1 + entry.line_len / BYTES_OF_A_LINE;
                if *looks >= LINES_PER_LOOK {
                    *looks = 0;
                    if self.pieces.ends() {
                        return;
                    }
                }
                if let Some(hit) = evaluator.run(&run.stream.labels, batch, entry) {
                    scanned.matched += 1;
                    let (line, labels) = (hit.line.into(), hit.labels);
                    found.push(self.candidate(batch, run, i, entry, line, labels));
                    self.prune_sometimes(found);
                }
            }
        }
        self.scanned.add(scanned);
    }

    fn candidate(
        &self,
        batch: &Entries,
        run: &Run,
        i: usize,
        entry: &EntrySpan,
        line: Box<[u8]>,
        labels: LabelSet,
    ) -> Candidate {
        let place = batch.place(run.first + u32::try_from(i).unwrap_or(u32::MAX));
        Candidate {
            timestamp: entry.timestamp,
            stream_hash: run.stream.hash,
            labels_of_stream: run.stream.labels.clone(),
            place,
            content: batch.content_key(entry, self.seed),
            line,
            labels,
        }
    }

    fn is_beyond(&self, timestamp: i64) -> bool {
        let bound = self.bound.load(Ordering::Relaxed);
        match self.request.direction {
            Direction::Forward => timestamp > bound,
            Direction::Backward => timestamp < bound,
        }
    }

    fn prune_sometimes(&self, found: &mut Vec<Candidate>) {
        let limit = self.request.limit;
        if found.len() < limit.saturating_mul(2).saturating_add(SLACK) {
            return;
        }
        self.sort(found);
        let worst = found.get(limit - 1).map(|c| (c.timestamp, c.stream_hash));
        let Some(worst) = worst else { return };
        let ties = found[limit..].iter().take(MAX_TIES).take_while(|c| (c.timestamp, c.stream_hash) == worst).count();
        found.truncate(limit + ties);
        match self.request.direction {
            Direction::Forward => self.bound.fetch_min(worst.0, Ordering::Relaxed),
            Direction::Backward => self.bound.fetch_max(worst.0, Ordering::Relaxed),
        };
    }

    /// The answer's order, equal entries once.
    fn sort(&self, found: &mut Vec<Candidate>) {
        // First by place within a stream and instant, so that of equal entries the first is met first.
        found.sort_unstable_by(|a, b| self.by_time(a, b).then_with(|| a.place.cmp(&b.place)));
        let mut known = HashSet::new();
        let mut of: Option<(i64, Labels)> = None;
        found.retain(|c| {
            if of.as_ref().is_none_or(|(timestamp, labels)| *timestamp != c.timestamp || *labels != c.labels_of_stream)
            {
                of = Some((c.timestamp, c.labels_of_stream.clone()));
                known.clear();
            }
            known.insert(c.content)
        });
        if self.request.direction == Direction::Backward {
            found.sort_unstable_by(|a, b| self.by_time(a, b).then_with(|| b.place.cmp(&a.place)));
        }
    }

    fn by_time(&self, a: &Candidate, b: &Candidate) -> Order {
        let time = match self.request.direction {
            Direction::Forward => a.timestamp.cmp(&b.timestamp),
            Direction::Backward => b.timestamp.cmp(&a.timestamp),
        };
        time.then_with(|| a.stream_hash.cmp(&b.stream_hash)).then_with(|| a.labels_of_stream.cmp(&b.labels_of_stream))
    }

    fn answer(self, mut found: Vec<Candidate>) -> Result<Selected, NodeError> {
        self.sort(&mut found);
        found.truncate(self.request.limit);
        let mut text = Vec::with_capacity(found.iter().map(|c| c.line.len()).sum());
        found.iter().for_each(|c| text.extend_from_slice(&c.line));
        let text = Bytes::from(text);
        let mut begin = 0;
        let lines = found.into_iter().map(|c| {
            let line = text.slice(begin..begin + c.line.len());
            begin += c.line.len();
            let matched = MatchedLine {
                timestamp: Timestamp(c.timestamp),
                accepted_at: c.place.accepted_at,
                seq: c.place.seq,
                index: c.place.index,
                offset: 0,
                len: u32::try_from(line.len()).unwrap_or(u32::MAX),
                labels: c.labels,
                stream_hash: c.stream_hash,
            };
            (matched, line)
        });
        let (mut scanned, warnings) = self.pieces.finish()?;
        scanned += self.scanned.sum();
        Ok(Selected { lines: lines.collect(), warnings, scanned })
    }
}
