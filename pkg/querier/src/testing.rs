//! A node for tests: a plain vector of batches behind the same contract as a real ingester, and nothing clever.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use parking_lot::Mutex;
use tailwater_logql::LogQuery;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Clock, LabelSet, Labels, LogId, TenantId, Timestamp};
use tailwater_wire::node::{
    Answer, Direction, Follow, FollowEvent, FollowRequest, Gap, LabelsRequest, LogState, MatchedBatch, MatchedLine,
    Node, Partial, PatternsRequest, ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected,
    SeriesRequest, StateRequest, Stats, StreamVolume, VolumeRequest,
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

/// The tenant of tests that have one.
pub(crate) const TENANT: &str = "t";

#[derive(Default)]
struct Log {
    /// Each with its tenant.
    batches: Vec<(TenantId, Vec<Line>)>,
    trimmed: usize,
    /// Tenants whose follows yield nothing for now.
    held: HashSet<TenantId>,
}

/// See the module.
pub(crate) struct TestNode {
    id: LogId,
    log: Arc<Mutex<Log>>,
    appended: watch::Sender<bool>,
    /// Of every line, whoever owns it.
    labels: LabelSet,
    stream: Labels,
    /// What its answers lack.
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl TestNode {
    pub(crate) fn new(id: u128) -> Arc<Self> {
        let stream = Labels::from_pairs(vec![("a".into(), format!("n{id}").into())]);
        let (id, labels) = (LogId::from_u128(id), LabelSet::from(&stream));
        Arc::new(Self {
            id,
            log: Arc::default(),
            appended: watch::channel(false).0,
            labels,
            stream,
            warnings: Mutex::default(),
        })
    }

    /// Appends a batch of (timestamp, line) of [`TENANT`], accepted at `now`.
    pub(crate) fn push(&self, now: i64, lines: &[(i64, &str)]) {
        self.push_as(TENANT, now, lines);
    }

    /// Appends a batch of a tenant.
    pub(crate) fn push_as(&self, tenant: &str, now: i64, lines: &[(i64, &str)]) {
        let tenant = TenantId::parse(tenant).unwrap();
        let lines =
            lines.iter().map(|(ts, text)| (Timestamp(*ts), Timestamp(now), Bytes::copy_from_slice(text.as_bytes())));
        self.log.lock().batches.push((tenant, lines.collect()));
        self.appended.send_replace(false);
    }

    /// Forgets all batches up to this one.
    pub(crate) fn trim(&self, through: u64) {
        self.log.lock().trimmed = through as usize;
    }

    /// Whose lines a request gets: nobody's if its selector does not match.
    fn asked(&self, tenant: &TenantId, query: &LogQuery) -> Option<TenantId> {
        query.matchers().matches(&self.stream).then(|| tenant.clone())
    }

    /// Has the follows of a tenant wait, or go on.
    pub(crate) fn hold(&self, tenant: &TenantId, hold: bool) {
        let mut log = self.log.lock();
        if hold {
            log.held.insert(tenant.clone());
        } else {
            log.held.remove(tenant);
        }
        drop(log);
        self.appended.send_replace(false);
    }

    fn partial<T>(&self, value: T) -> Partial<T> {
        Partial { value, warnings: self.warnings.lock().clone() }
    }

    /// Ends all follows.
    pub(crate) fn close(&self) {
        self.appended.send_replace(true);
    }
}

/// A tenant's lines after `after` up to `through` as one, and the gap before them.
fn matched(
    log: &Log,
    labels: &LabelSet,
    tenant: Option<&TenantId>,
    after: u64,
    through: u64,
) -> (Option<Gap>, MatchedBatch) {
    let first = after.max(log.trimmed as u64);
    let lost =
        log.batches.get(after as usize..first as usize).unwrap_or(&[]).iter().filter(|(of, _)| Some(of) == tenant);
    let gap = (first > after).then(|| Gap { after, through: first, lines: lost.map(|(_, b)| b.len() as u64).sum() });
    let (mut text, mut lines) = (BytesMut::new(), Vec::new());
    let mut watermark = Timestamp(0);
    for seq in first..through {
        let (of, batch) = &log.batches[seq as usize];
        watermark = batch.last().map_or(watermark, |(_, accepted_at, _)| *accepted_at);
        for (index, (timestamp, accepted_at, line)) in batch.iter().enumerate().filter(|_| Some(of) == tenant) {
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
    (gap, MatchedBatch { through: through.max(first), watermark, text: text.freeze(), lines })
}

fn ready<T: Send + 'static>(answer: T) -> Answer<T> {
    Box::pin(std::future::ready(Ok(answer)))
}

impl Node for TestNode {
    fn log_id(&self) -> LogId {
        self.id
    }

    fn state(&self, _: StateRequest) -> Answer<LogState> {
        let head = self.log.lock().batches.len() as u64;
        ready(LogState { head, before: head, in_blocks: 0, watermark: Timestamp::MAX })
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        let (asked, tenant) = (self.asked(&request.tenant, &request.query), request.tenant);
        let (log, labels) = (Arc::clone(&self.log), self.labels.clone());
        let next = move |after| {
            let log = log.lock();
            let head = if log.held.contains(&tenant) { after } else { log.batches.len() as u64 };
            matched(&log, &labels, asked.as_ref(), after, head)
        };
        let state = (request.after, self.appended.subscribe(), next);
        Box::pin(stream::unfold(state, |(after, mut appended, next)| async move {
            loop {
                let (gap, batch) = next(after);
                if let Some(gap) = gap {
                    return Some((FollowEvent::Gap(gap), (gap.through, appended, next)));
                }
                if batch.through > after {
                    let through = batch.through;
                    let event = if batch.lines.is_empty() {
                        FollowEvent::Idle { through, watermark: Timestamp(0) }
                    } else {
                        FollowEvent::Lines(Arc::new(batch))
                    };
                    return Some((event, (through, appended, next)));
                }
                if *appended.borrow_and_update() || appended.changed().await.is_err() {
                    return None;
                }
            }
        }))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        let (asked, log) = (self.asked(&request.tenant, &request.query), self.log.lock());
        // One batch at a time: more chunks, more seams to get wrong.
        let first = request.after.max(log.trimmed as u64);
        let (gap, batch) = matched(&log, &self.labels, asked.as_ref(), request.after, (first + 1).min(request.through));
        ready(ReadChunk { through: batch.through.min(request.through), gap, batch })
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        let (asked, log) = (self.asked(&request.tenant, &request.query), self.log.lock());
        let through = request.as_of.min(log.batches.len() as u64);
        let (_, batch) = matched(&log, &self.labels, asked.as_ref(), 0, through);
        let within = |l: &&MatchedLine| l.timestamp >= request.start && l.timestamp < request.end;
        let mut lines: Vec<_> = batch.lines.iter().filter(within).map(|l| (l.clone(), batch.line(l))).collect();
        lines.sort_by(|(a, _), (b, _)| answer_order(a, b, request.direction));
        lines.truncate(request.limit);
        debug_assert!(request.direction == Direction::Forward || lines.is_sorted_by_key(|(l, _)| -l.timestamp.nanos()));
        ready(Selected { lines, warnings: self.warnings.lock().clone(), ..Selected::default() })
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        let through = request.as_of.min(self.log.lock().batches.len() as u64);
        ready(Sampled { through, warnings: self.warnings.lock().clone(), ..Sampled::default() })
    }

    fn labels(&self, _: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        ready(self.partial(vec!["a".to_owned()]))
    }

    fn series(&self, _: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        ready(self.partial(Vec::new()))
    }

    fn stats(&self, _: SeriesRequest) -> Answer<Partial<Stats>> {
        ready(self.partial(Stats { streams: 1, chunks: 2, bytes: 3, entries: 4 }))
    }

    fn volume(&self, _: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        ready(self.partial(Vec::new()))
    }

    fn patterns(&self, _: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        ready(self.partial(Vec::new()))
    }
}
