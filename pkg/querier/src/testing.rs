//! A node for tests: a plain vector of batches behind the same contract as a real ingester, and nothing clever.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use parking_lot::Mutex;
use tailwater_model::{Clock, LabelSet, Labels, LogId, Timestamp};
use tailwater_wire::node::{
    Answer, Direction, Follow, FollowEvent, FollowRequest, Gap, LabelsRequest, MatchedBatch, MatchedLine, Node,
    ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest, Stats,
};
use tokio::sync::watch;

use crate::logs::answer_order;

/// A clock that tests set.
#[derive(Debug, Default)]
pub(crate) struct TestClock(pub(crate) Mutex<i64>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(*self.0.lock())
    }
}

type Line = (Timestamp, Timestamp, Bytes);

#[derive(Default)]
struct Log {
    batches: Vec<Vec<Line>>,
    trimmed: usize,
}

/// See the module.
pub(crate) struct TestNode {
    id: LogId,
    log: Arc<Mutex<Log>>,
    appended: watch::Sender<bool>,
    labels: LabelSet,
}

impl TestNode {
    pub(crate) fn new(id: u128) -> Arc<Self> {
        let labels = LabelSet::from(&Labels::from_pairs(vec![("a".into(), format!("n{id}").into())]));
        Arc::new(Self { id: LogId::from_u128(id), log: Arc::default(), appended: watch::channel(false).0, labels })
    }

    /// Appends a batch of (timestamp, line), accepted at `now`.
    pub(crate) fn push(&self, now: i64, lines: &[(i64, &str)]) {
        let lines =
            lines.iter().map(|(ts, text)| (Timestamp(*ts), Timestamp(now), Bytes::copy_from_slice(text.as_bytes())));
        self.log.lock().batches.push(lines.collect());
        self.appended.send_replace(false);
    }

    /// Forgets all batches up to this one.
    pub(crate) fn trim(&self, through: u64) {
        self.log.lock().trimmed = through as usize;
    }

    /// Ends all follows.
    pub(crate) fn close(&self) {
        self.appended.send_replace(true);
    }
}

/// Batches after `after` up to `through` as one, and the gap before them.
fn matched(log: &Log, labels: &LabelSet, after: u64, through: u64) -> (Option<Gap>, MatchedBatch) {
    let first = after.max(log.trimmed as u64);
    let lost = log.batches.get(after as usize..first as usize).unwrap_or(&[]);
    let gap = (first > after).then(|| Gap { after, through: first, lines: lost.iter().map(|b| b.len() as u64).sum() });
    let (mut text, mut lines) = (BytesMut::new(), Vec::new());
    for seq in first..through {
        for (index, (timestamp, accepted_at, line)) in log.batches[seq as usize].iter().enumerate() {
            lines.push(MatchedLine {
                timestamp: *timestamp,
                accepted_at: *accepted_at,
                seq: seq + 1,
                index: index as u32,
                offset: text.len() as u32,
                len: line.len() as u32,
                labels: labels.clone(),
                stream_hash: 7,
            });
            text.extend_from_slice(line);
        }
    }
    (gap, MatchedBatch { through: through.max(first), watermark: Timestamp(0), text: text.freeze(), lines })
}

fn ready<T: Send + 'static>(answer: T) -> Answer<T> {
    Box::pin(std::future::ready(Ok(answer)))
}

impl Node for TestNode {
    fn log_id(&self) -> LogId {
        self.id
    }

    fn head(&self) -> Answer<u64> {
        ready(self.log.lock().batches.len() as u64)
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        let state = (request.after, self.appended.subscribe(), Arc::clone(&self.log), self.labels.clone());
        Box::pin(stream::unfold(state, |(after, mut appended, log, labels)| async move {
            loop {
                let (gap, batch) = {
                    let log = log.lock();
                    matched(&log, &labels, after, log.batches.len() as u64)
                };
                if let Some(gap) = gap {
                    return Some((FollowEvent::Gap(gap), (gap.through, appended, log, labels)));
                }
                if batch.through > after {
                    let through = batch.through;
                    let event = if batch.lines.is_empty() {
                        FollowEvent::Idle { through, watermark: Timestamp(0) }
                    } else {
                        FollowEvent::Lines(Arc::new(batch))
                    };
                    return Some((event, (through, appended, log, labels)));
                }
                if *appended.borrow_and_update() || appended.changed().await.is_err() {
                    return None;
                }
            }
        }))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        let log = self.log.lock();
        // One batch at a time: more chunks, more seams to get wrong.
        let first = request.after.max(log.trimmed as u64);
        let (gap, batch) = matched(&log, &self.labels, request.after, (first + 1).min(request.through));
        ready(ReadChunk { through: batch.through.min(request.through), gap, batch })
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        let log = self.log.lock();
        let through = request.as_of.min(log.batches.len() as u64);
        let (_, batch) = matched(&log, &self.labels, 0, through);
        let within = |l: &&MatchedLine| l.timestamp >= request.start && l.timestamp < request.end;
        let mut lines: Vec<_> = batch.lines.iter().filter(within).map(|l| (l.clone(), batch.line(l))).collect();
        lines.sort_by(|(a, _), (b, _)| answer_order(a, b, request.direction));
        lines.truncate(request.limit);
        debug_assert!(request.direction == Direction::Forward || lines.is_sorted_by_key(|(l, _)| -l.timestamp.nanos()));
        ready(Selected { lines, ..Selected::default() })
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        ready(Sampled { through: request.as_of.min(self.log.lock().batches.len() as u64), ..Sampled::default() })
    }

    fn labels(&self, _: LabelsRequest) -> Answer<Vec<String>> {
        ready(vec!["a".to_owned()])
    }

    fn series(&self, _: SeriesRequest) -> Answer<Vec<Labels>> {
        ready(Vec::new())
    }

    fn stats(&self, _: SeriesRequest) -> Answer<Stats> {
        ready(Stats { streams: 1, chunks: 2, bytes: 3, entries: 4 })
    }
}
