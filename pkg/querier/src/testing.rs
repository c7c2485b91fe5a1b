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
    Node, NodeError, Part, Partial, PatternsRequest, ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest,
    Selected, SeriesRequest, StateRequest, Stats, StreamVolume, VolumeRequest,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::logs::by_time_and_stream;

/// A clock that tests set.
#[derive(Debug, Default)]
pub(crate) struct TestClock(pub(crate) Mutex<i64>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(*self.0.lock())
    }
}

/// Logs that tests list and leave out.
pub(crate) struct Changing(pub(crate) watch::Sender<Arc<[Arc<dyn Node>]>>);

impl Changing {
    pub(crate) fn new(nodes: &[&Arc<TestNode>]) -> Arc<Self> {
        let listed = Arc::new(Self(watch::Sender::new(Arc::new([]))));
        listed.list(nodes);
        listed
    }

    pub(crate) fn list(&self, nodes: &[&Arc<TestNode>]) {
        self.0.send_replace(nodes.iter().map(|node| Arc::clone(node) as Arc<dyn Node>).collect());
    }
}

impl crate::Nodes for Changing {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.0.subscribe()
    }
}

type Line = (Timestamp, Timestamp, Bytes);

/// The tenant of tests that have one.
pub(crate) const TENANT: &str = "t";

#[derive(Default)]
struct Log {
    /// Each with its tenant.
    batches: Vec<(TenantId, Vec<Line>)>,
    /// When each was appended.
    appended: Vec<Instant>,
    /// Why nothing can be had for now: questions have no answer, follows say that they wait.
    away: Option<Arc<str>>,
    trimmed: usize,
    /// If it stands for blocks: so many batches are of its own log, the others of other logs.
    own: Option<usize>,
    /// Tenants whose follows yield nothing for now.
    held: HashSet<TenantId>,
    /// What needs its blocks cannot be had.
    without_blocks: bool,
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
    /// Up to where it says that its log is in blocks.
    pub(crate) in_blocks: Mutex<u64>,
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
            in_blocks: Mutex::default(),
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
        let mut log = self.log.lock();
        log.batches.push((tenant, lines.collect()));
        log.appended.push(Instant::now());
        drop(log);
        self.appended.send_replace(false);
    }

    /// Forgets all batches up to this one.
    pub(crate) fn trim(&self, through: u64) {
        self.log.lock().trimmed = through as usize;
    }

    /// What is in blocks of these logs, each up to a batch, as the log `own` sees it.
    pub(crate) fn as_blocks(own: LogId, mut nodes: Vec<(Arc<Self>, u64)>) -> Arc<Self> {
        nodes.sort_by_key(|(node, _)| node.id != own);
        let blocks = Self::new(own.as_u128());
        {
            let mut log = blocks.log.lock();
            for (node, up_to) in nodes {
                log.batches.extend(node.log.lock().batches.iter().take(up_to as usize).cloned());
                if node.id == own {
                    log.own = Some(log.batches.len());
                }
            }
        }
        blocks
    }

    /// Has nothing to be had, or has it back.
    pub(crate) fn away(&self, reason: Option<&str>) {
        self.log.lock().away = reason.map(Arc::from);
        self.appended.send_modify(|_| {});
    }

    /// Has blocks that cannot be read, or can again.
    pub(crate) fn without_blocks(&self, without: bool) {
        self.log.lock().without_blocks = without;
    }

    /// The answer, if there is one to be had when it is asked for.
    fn answer<T: Send + 'static>(&self, answer: impl FnOnce() -> T) -> Answer<T> {
        match self.log.lock().away.clone() {
            None => {}
            // Some do not answer, some say at once that they cannot.
            Some(reason) if &*reason == "silent" => return Box::pin(std::future::pending()),
            Some(reason) => {
                let error = NodeError::Unavailable { log: self.id, reason: reason.to_string() };
                return Box::pin(std::future::ready(Err(error)));
            }
        }
        ready(answer())
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
                seq: if log.own.is_some_and(|own| seq as usize >= own) { 0 } else { seq + 1 },
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

    fn state(&self, request: StateRequest) -> Answer<LogState> {
        self.answer(|| {
            let log = self.log.lock();
            let older = |at: &&Instant| request.age.is_none_or(|age| at.elapsed() > age);
            let (head, before) = (log.batches.len() as u64, log.appended.iter().filter(older).count() as u64);
            LogState { head, whole: head, before, in_blocks: *self.in_blocks.lock(), watermark: Timestamp::MAX }
        })
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        let (asked, tenant) = (self.asked(&request.tenant, &request.query), request.tenant);
        let (log, labels) = (Arc::clone(&self.log), self.labels.clone());
        let next = move |after| {
            let log = log.lock();
            if let Some(reason) = &log.away {
                return Err(Arc::clone(reason));
            }
            let head = if log.held.contains(&tenant) { after } else { log.batches.len() as u64 };
            Ok(matched(&log, &labels, asked.as_ref(), after, head))
        };
        let state = (request.after, false, self.appended.subscribe(), next);
        Box::pin(stream::unfold(state, |(after, is_away, mut appended, next)| async move {
            loop {
                // What comes later is looked at again.
                let closed = *appended.borrow_and_update();
                let (gap, batch) = match next(after) {
                    Ok(found) => found,
                    Err(reason) if !is_away => {
                        return Some((FollowEvent::Away { reason }, (after, true, appended, next)));
                    }
                    Err(_) if closed || appended.changed().await.is_err() => return None,
                    Err(_) => continue,
                };
                if let Some(gap) = gap {
                    return Some((FollowEvent::Gap(gap), (gap.through, false, appended, next)));
                }
                if is_away && batch.through <= after {
                    let idle = FollowEvent::Idle { through: after, watermark: Timestamp(0) };
                    return Some((idle, (after, false, appended, next)));
                }
                if batch.through > after {
                    let through = batch.through;
                    let event = if batch.lines.is_empty() {
                        FollowEvent::Idle { through, watermark: Timestamp(0) }
                    } else {
                        FollowEvent::Lines(Arc::new(batch))
                    };
                    return Some((event, (through, false, appended, next)));
                }
                if closed || appended.changed().await.is_err() {
                    return None;
                }
            }
        }))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        let answer = || self.read_now(&request);
        self.answer(answer)
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        if let Part::Log { after } = request.part
            && after < self.log.lock().trimmed as u64
        {
            let through = self.log.lock().trimmed as u64;
            return Box::pin(std::future::ready(Err(NodeError::Trimmed { log: self.id, through })));
        }
        if request.part == Part::Whole && self.log.lock().without_blocks {
            let error = NodeError::Unavailable { log: self.id, reason: "no store".to_owned() };
            return Box::pin(std::future::ready(Err(error)));
        }
        self.answer(|| self.select_now(&request))
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

impl TestNode {
    fn read_now(&self, request: &ReadRequest) -> ReadChunk {
        let (asked, log) = (self.asked(&request.tenant, &request.query), self.log.lock());
        // One batch at a time: more chunks, more seams to get wrong.
        let first = request.after.max(log.trimmed as u64);
        let (gap, batch) = matched(&log, &self.labels, asked.as_ref(), request.after, (first + 1).min(request.through));
        ReadChunk { through: batch.through.min(request.through), gap, batch }
    }

    fn select_now(&self, request: &SelectRequest) -> Selected {
        let (asked, log) = (self.asked(&request.tenant, &request.query), self.log.lock());
        let after = if let Part::Log { after } = request.part { after } else { 0 };
        let through = request.as_of.min(log.batches.len() as u64);
        let (_, batch) = matched(&log, &self.labels, asked.as_ref(), after, through.max(after));
        let within = |l: &&MatchedLine| l.timestamp >= request.start && l.timestamp < request.end;
        let mut lines: Vec<_> = batch.lines.iter().filter(within).map(|l| (l.clone(), batch.line(l))).collect();
        lines.sort_by(|(a, _), (b, _)| answer_order(a, b, request.direction));
        lines.truncate(request.limit);
        debug_assert!(request.direction == Direction::Forward || lines.is_sorted_by_key(|(l, _)| -l.timestamp.nanos()));
        Selected { lines, warnings: self.warnings.lock().clone(), ..Selected::default() }
    }
}

/// The order of lines of one log in answers.
fn answer_order(a: &MatchedLine, b: &MatchedLine, direction: Direction) -> std::cmp::Ordering {
    let place = |line: &MatchedLine| (line.seq, line.index);
    by_time_and_stream(a, b, direction).then_with(|| match direction {
        Direction::Forward => place(a).cmp(&place(b)),
        Direction::Backward => place(b).cmp(&place(a)),
    })
}
