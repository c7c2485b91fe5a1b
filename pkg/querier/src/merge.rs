//! Many sources in, one order out. Sans I/O: events and the time go in, rounds of lines come out.
//!
//! Invariants:
//! * Every line that goes in comes out exactly once, in some round; also if it goes in twice, from a follow that began anew.
//! * Without delay a line comes out in the round after it went in, "as they come". With a delay it comes out once
//!   `min(timestamp, accepted) + delay ≤ now`; a line that is older than what has come out already comes out at once and counts as
//!   late. A silent source therefore never stalls the others.
//! * What is held is bounded in bytes. When the bound is passed the oldest lines leave early and count as `forced`.
//! * Sources may begin at any time. What a source that was silent brings late is late like any other line.
//! * A round is sorted by [`Key`]; [`Merger::mark`] says what has come out, see [`crate::mark`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use tailwater_model::Timestamp;
use tailwater_wire::node::{MatchedBatch, MatchedLine};

use crate::mark::{Extent, Key, Mark};
use crate::source::{Positions, SourceId};

/// A line on its way from its batch to a frame.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) key: Key,
    batch: Arc<MatchedBatch>,
    at: u32,
}

impl Held {
    pub(crate) fn line(&self) -> &MatchedLine {
        &self.batch.lines[self.at as usize]
    }

    pub(crate) fn text(&self) -> &[u8] {
        let line = self.line();
        &self.batch.text[line.offset as usize..][..line.len as usize]
    }

    fn bytes(&self) -> usize {
        self.line().len as usize + HELD_OVERHEAD
    }
}

/// What a held line costs beside its text.
const HELD_OVERHEAD: usize = 160;

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// See the module.
pub(crate) struct Merger {
    delay: Duration,
    max_bytes: usize,
    floor: Arc<Positions>,
    consumed: Positions,
    until: Key,
    /// Lines that leave with the next round.
    due: Vec<Held>,
    /// Lines that wait for their time.
    waiting: BinaryHeap<Reverse<Held>>,
    /// Bytes of the lines in `waiting`.
    waiting_bytes: usize,
    /// Lines in `waiting` per batch, to know where re-reading must begin.
    waiting_batches: BTreeMap<(SourceId, u64), u32>,
    counts: MergeCounts,
    /// What had been given out after the last round.
    mark: Mark,
}

/// What the merger had to do out of order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MergeCounts {
    /// Lines older than one already given out.
    pub(crate) late: u64,
    /// Lines given out before their time because the buffer was full.
    pub(crate) forced: u64,
}

/// Lines to give out, and the marks around them.
pub(crate) struct Round {
    /// Sorted by key.
    pub(crate) lines: Vec<Held>,
    /// What had been given out before this round.
    pub(crate) before: Mark,
    /// What will have been given out when all of it is.
    pub(crate) after: Mark,
}

impl Round {
    /// The mark when the lines up to and including `key` have been given out.
    pub(crate) fn mark_at(&self, key: Key) -> Mark {
        Mark {
            floor: Arc::clone(&self.after.floor),
            base: self.before.round.clone(),
            round: Extent { consumed: Arc::clone(&self.after.round.consumed), until: key },
            complete: Arc::clone(&self.before.complete),
        }
    }
}

impl Merger {
    /// A merger of what follows `heads`.
    pub(crate) fn new(heads: Positions, delay: Duration, max_bytes: usize) -> Self {
        let mark = Mark::beginning(heads.clone());
        Self {
            delay,
            max_bytes,
            consumed: heads,
            floor: Arc::clone(&mark.floor),
            until: Key::end_of(Timestamp::MIN),
            due: Vec::new(),
            waiting: BinaryHeap::new(),
            waiting_bytes: 0,
            waiting_batches: BTreeMap::new(),
            counts: MergeCounts::default(),
            mark,
        }
    }

    /// A source begins after `floor`.
    pub(crate) fn begin(&mut self, source: SourceId, floor: u64) {
        Arc::make_mut(&mut self.floor).advance(source, floor);
        self.consumed.advance(source, floor);
    }

    /// The source has been looked at up to this position.
    pub(crate) fn advance(&mut self, source: SourceId, seq: u64) {
        self.consumed.advance(source, seq);
    }

    /// Takes the lines of a batch of `source`, apart from those that it has taken before.
    pub(crate) fn absorb(&mut self, source: SourceId, batch: &Arc<MatchedBatch>) {
        let consumed = self.consumed.seq(source);
        for (at, line) in (0u32..).zip(&batch.lines).filter(|(_, line)| line.seq > consumed) {
            let held = Held { key: Key::of(source, line), batch: Arc::clone(batch), at };
            if self.delay.is_zero() {
                self.due.push(held);
            } else {
                self.waiting_bytes += held.bytes();
                *self.waiting_batches.entry((source, line.seq)).or_default() += 1;
                self.waiting.push(Reverse(held));
            }
        }
        self.advance(source, batch.through);
    }

    /// When [`Merger::release`] will next have something to give out.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        if !self.due.is_empty() {
            return Some(Timestamp::MIN);
        }
        self.waiting.peek().map(|Reverse(held)| held.key.release().saturating_add(self.delay))
    }

    /// Everything that is due at `now`.
    pub(crate) fn release(&mut self, now: Timestamp) -> Round {
        let before = self.mark.clone();
        let mut lines = std::mem::take(&mut self.due);
        if self.delay.is_zero() {
            lines.sort_unstable();
            self.counts.late += lines.partition_point(|held| held.key <= self.until) as u64;
            if let Some(last) = lines.last() {
                self.until = self.until.max(last.key);
            }
        } else {
            self.counts.late += self.waiting_late();
            self.until = self.until.max(Key::end_of(now.saturating_sub(self.delay)));
            while self.waiting.peek().is_some_and(|Reverse(held)| held.key <= self.until) {
                self.pop_into(&mut lines);
            }
            while self.waiting_bytes > self.max_bytes {
                self.counts.forced += 1;
                self.pop_into(&mut lines);
            }
            if let Some(last) = lines.last() {
                self.until = self.until.max(last.key);
            }
        }
        self.mark = self.mark_now();
        Round { lines, before, after: self.mark.clone() }
    }

    /// What has been given out, after the last round.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    fn mark_now(&self) -> Mark {
        let until = if self.delay.is_zero() { Key::MAX } else { self.until };
        let extent = Extent { consumed: Arc::new(self.consumed.clone()), until };
        let complete = self.complete(&extent.consumed);
        Mark { floor: Arc::clone(&self.floor), base: extent.clone(), round: extent, complete }
    }

    /// How many lines wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn counts(&self) -> MergeCounts {
        self.counts
    }

    fn pop_into(&mut self, lines: &mut Vec<Held>) {
        let Some(Reverse(held)) = self.waiting.pop() else { return };
        self.waiting_bytes -= held.bytes();
        let batch = (held.key.source(), held.line().seq);
        if let Some(left) = self.waiting_batches.get_mut(&batch) {
            *left -= 1;
            if *left == 0 {
                self.waiting_batches.remove(&batch);
            }
        }
        lines.push(held);
    }

    /// Lines that wait although something later has been given out already.
    fn waiting_late(&self) -> u64 {
        match self.waiting.peek() {
            Some(Reverse(first)) if first.key <= self.until => {
                self.waiting.iter().filter(|Reverse(held)| held.key <= self.until).count() as u64
            }
            _ => 0,
        }
    }

    fn complete(&self, consumed: &Arc<Positions>) -> Arc<Positions> {
        if self.waiting_batches.is_empty() {
            return Arc::clone(consumed);
        }
        let complete = consumed.iter().map(|(source, seq)| {
            let first = self.waiting_batches.range((source, 0)..=(source, u64::MAX)).next();
            first.map_or(seq, |((_, seq), _)| seq.saturating_sub(1))
        });
        Arc::new(complete.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;
    use proptest::prelude::*;
    use tailwater_model::{LabelSet, Labels};

    use super::*;

    const A: SourceId = SourceId::new(0);
    const B: SourceId = SourceId::new(1);

    fn batch(seq: u64, lines: &[(i64, i64)]) -> Arc<MatchedBatch> {
        let labels = LabelSet::from(&Labels::from_pairs(vec![("a".into(), "b".into())]));
        let lines = lines.iter().enumerate().map(|(i, (timestamp, accepted_at))| MatchedLine {
            timestamp: Timestamp(*timestamp),
            accepted_at: Timestamp(*accepted_at),
            seq,
            index: i as u32,
            offset: 0,
            len: 1,
            labels: labels.clone(),
            stream_hash: 0,
        });
        let lines = lines.collect();
        Arc::new(MatchedBatch { through: seq, watermark: Timestamp(0), text: Bytes::from_static(b"x"), lines })
    }

    fn times(round: &Round) -> Vec<i64> {
        round.lines.iter().map(|h| h.line().timestamp.nanos()).collect()
    }

    #[test]
    fn without_delay_lines_come_as_they_are_and_late_ones_are_counted() {
        let mut m = Merger::new(Positions::default(), Duration::ZERO, 1 << 20);
        m.absorb(A, &batch(1, &[(5, 9), (3, 9)]));
        assert_eq!(times(&m.release(Timestamp(10))), [3, 5]);
        m.absorb(B, &batch(1, &[(4, 9)]));
        assert_eq!(times(&m.release(Timestamp(10))), [4]);
        assert_eq!(m.counts(), MergeCounts { late: 1, forced: 0 });
        assert!(m.release(Timestamp(10)).lines.is_empty());
    }

    #[test]
    fn with_delay_sources_are_merged_and_a_fast_clock_delays_nothing() {
        let mut m = Merger::new(Positions::default(), Duration::from_nanos(10), 1 << 20);
        m.absorb(A, &batch(1, &[(100, 100), (1_000_000, 103)]));
        m.absorb(B, &batch(1, &[(99, 104)]));
        assert_eq!(m.next_due(), Some(Timestamp(109)));
        assert!(times(&m.release(Timestamp(108))).is_empty());
        assert_eq!(times(&m.release(Timestamp(110))), [99, 100]);
        assert_eq!(times(&m.release(Timestamp(113))), [1_000_000]);
        m.absorb(B, &batch(2, &[(50, 120)]));
        assert_eq!(times(&m.release(Timestamp(120))), [50]);
        assert_eq!(m.counts().late, 1);
    }

    #[test]
    fn a_full_buffer_forces_the_oldest_out() {
        let mut m = Merger::new(Positions::default(), Duration::from_secs(5), 2 * (HELD_OVERHEAD + 1));
        m.absorb(A, &batch(1, &[(4, 4), (2, 4), (3, 4)]));
        assert_eq!(times(&m.release(Timestamp(5))), [2]);
        assert_eq!(m.counts().forced, 1);
    }

    /// A line of the tests.
    type Id = (SourceId, u64, u32);

    /// A source that begins, or a batch of one, and how long nothing happens then.
    type Happening = (usize, u64, Vec<(i64, i64)>, i64);

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        let lines = prop::collection::vec((0i64..100, 0i64..100), 0..6);
        prop::collection::vec((0usize..6, 0u64..4, lines, 0i64..30), 1..50)
    }

    /// What a catch-up from a mark to a later one gives out, of all the lines there are.
    fn difference(all: &[(SourceId, Arc<MatchedBatch>)], from: &Mark, to: &Mark) -> Vec<Id> {
        let read = all.iter().flat_map(|(source, batch)| {
            let after = from.complete.seq(*source).max(to.floor.seq(*source));
            let through = to.consumed(*source);
            batch.lines.iter().filter(move |l| l.seq > after && l.seq <= through).map(|l| (*source, l))
        });
        let missing = read.filter(|(source, l)| !from.contains(*source, l) && to.contains(*source, l));
        missing.map(|(source, l)| (source, l.seq, l.index)).collect()
    }

    proptest! {
        /// Whatever comes in, in whatever order, with whatever delay and from sources that begin at any time: each line comes out once; the
        /// marks agree at every cut with what has come out; and what lies between any two of them is what came out between them.
        #[test]
        fn marks_say_exactly_what_came_out(
            delay in prop_oneof![Just(0u64), 1u64..50],
            max_bytes in prop_oneof![Just(1usize << 20), Just(3 * HELD_OVERHEAD)],
            steps in happenings(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut m = Merger::new(Positions::default(), Duration::from_nanos(delay), max_bytes);
            let (mut seqs, mut floors, mut now) = (Vec::<u64>::new(), Vec::<u64>::new(), 0);
            let mut all: Vec<(SourceId, Arc<MatchedBatch>)> = Vec::new();
            let mut out: HashSet<Id> = HashSet::new();
            let mut marks: Vec<(Mark, HashSet<Id>)> = vec![(m.mark().clone(), HashSet::new())];
            let mut expected = 0;
            for (which, before, lines, wait) in steps {
                now += wait;
                if which >= seqs.len() && seqs.len() < 4 {
                    // It was not empty: what lies before its floor never comes, and is in every mark that names it.
                    let source = SourceId::new(seqs.len());
                    for seq in 1..=before {
                        all.push((source, batch(seq, &lines)));
                    }
                    m.begin(source, before);
                    seqs.push(before);
                    floors.push(before);
                } else {
                    let source = SourceId::new(which % seqs.len());
                    let seq = &mut seqs[which % floors.len()];
                    *seq += 1;
                    let b = batch(*seq, &lines);
                    m.absorb(source, &b);
                    // A follow that begins anew may say it again.
                    m.absorb(source, &b);
                    expected += lines.len();
                    all.push((source, b));
                }
                let round = m.release(Timestamp(now));
                let check = |mark: &Mark, out: &HashSet<Id>| {
                    for (source, b) in all.iter().filter(|(source, _)| mark.floor.names(*source)) {
                        for line in &b.lines {
                            let old = line.seq <= floors[source.at()];
                            let given = old || out.contains(&(*source, line.seq, line.index));
                            prop_assert_eq!(mark.contains(*source, line), given);
                            prop_assert!(given || line.seq > mark.complete.seq(*source));
                        }
                    }
                    Ok(())
                };
                // A cut in the middle of the round, as at a frame's end.
                if !round.lines.is_empty() {
                    let at = cut.index(round.lines.len());
                    let mut half = out.clone();
                    half.extend(round.lines[..=at].iter().map(|h| (h.key.source(), h.line().seq, h.line().index)));
                    let mark = round.mark_at(round.lines[at].key);
                    check(&mark, &half)?;
                    marks.push((mark, half));
                }
                for held in &round.lines {
                    prop_assert!(out.insert((held.key.source(), held.line().seq, held.line().index)), "twice");
                }
                prop_assert!(round.lines.is_sorted());
                check(&round.after, &out)?;
                check(m.mark(), &out)?;
                marks.push((round.after.clone(), out.clone()));
            }
            for (at, (to, until)) in marks.iter().enumerate() {
                for (from, had) in &marks[..at] {
                    let found = difference(&all, from, to);
                    let wanted: HashSet<Id> = until.difference(had).copied().collect();
                    prop_assert_eq!(found.len(), wanted.len());
                    prop_assert_eq!(found.into_iter().collect::<HashSet<_>>(), wanted);
                }
            }
            let rest = m.release(Timestamp(1_000_000));
            prop_assert_eq!(out.len() + rest.lines.len(), expected);
            prop_assert_eq!(m.waiting(), 0);
        }
    }
}
