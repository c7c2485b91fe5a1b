//! A node for tests of metric tails: every line is looked at, nothing is clever; and a clock that goes with the test's runtime.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use futures_util::stream;
use parking_lot::Mutex;
use tailwater_logql::ast::{Expr, MetricExpr};
use tailwater_logql::metric::{Column, Place};
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Clock, Labels, LogId, TenantId, Timestamp};
use tailwater_wire::node::{
    Answer, Blocks, Follow, FollowRequest, Gap, LabelsRequest, Late, LogState, Node, NodeError, Part, Partial,
    PatternsRequest, ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest,
    StateRequest, Stats, StreamVolume, VolumeRequest,
};
use tokio::time::Instant;

/// A multiple of every step that tests use. [`RuntimeClock`] begins a millisecond later.
pub(super) const BEGIN: i64 = 1_800_000_000_000_000_000;

/// A clock that stands still when the runtime's does.
#[derive(Debug)]
pub(super) struct RuntimeClock(Instant);

impl RuntimeClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGIN + 1_000_000).saturating_add(self.0.elapsed())
    }
}

pub(super) fn metric(text: &str) -> MetricExpr {
    let Ok(Expr::Metric(expr)) = tailwater_logql::syntax::parse(text) else { panic!("{text}") };
    expr
}

/// A line, whose it is, and of which stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) tenant: &'static str,
    pub(super) stream: u64,
    pub(super) timestamp: i64,
    pub(super) text: String,
}

/// See the module.
pub(super) struct SampleNode {
    id: LogId,
    clock: Arc<dyn Clock>,
    /// When each batch was accepted, and its lines.
    batches: Mutex<Vec<(i64, Vec<Line>)>>,
    trimmed: Mutex<u64>,
    /// Up to where it says that its log is in blocks.
    pub(super) in_blocks: AtomicU64,
    /// If it stands for blocks: what other logs have in them.
    of_others: Vec<Line>,
    /// Answers do not come.
    pub(super) stuck: Arc<AtomicBool>,
    /// Nor those of blocks.
    pub(super) stuck_blocks: Arc<AtomicBool>,
    /// How far the clock is behind, in nanoseconds.
    pub(super) behind: AtomicI64,
    /// Samples that were given out, late ones not counted.
    pub(super) given: Mutex<u64>,
}

impl SampleNode {
    pub(super) fn new(id: u128, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            id: LogId::from_u128(id),
            clock,
            batches: Mutex::default(),
            trimmed: Mutex::default(),
            in_blocks: AtomicU64::new(0),
            of_others: Vec::new(),
            stuck: Arc::default(),
            stuck_blocks: Arc::default(),
            behind: AtomicI64::new(0),
            given: Mutex::default(),
        })
    }

    pub(super) fn push(&self, lines: Vec<Line>) {
        self.batches.lock().push((self.clock.now().nanos(), lines));
    }

    /// Forgets all batches there are.
    pub(super) fn trim(&self) {
        *self.trimmed.lock() = self.batches.lock().len() as u64;
    }

    /// All lines ever, in order, and when each was accepted.
    pub(super) fn lines(&self) -> Vec<(i64, Line)> {
        let batches = self.batches.lock();
        batches.iter().flat_map(|(at, lines)| lines.iter().map(|line| (*at, line.clone()))).collect()
    }

    /// A node with the batches that were accepted before a time.
    pub(super) fn as_before(&self, time: i64) -> Arc<Self> {
        let node = Self::new(self.id.as_u128(), Arc::clone(&self.clock));
        *node.batches.lock() = self.batches.lock().iter().filter(|(at, _)| *at < time).cloned().collect();
        node
    }

    fn sampled(&self, request: &SamplesRequest) -> Sampled {
        let batches = self.batches.lock();
        let trimmed = *self.trimmed.lock();
        let through = request.as_of.min(batches.len() as u64);
        let mut runner = request.query.runner(request.detect_level);
        let (mut columns, mut late, mut given) = (HashMap::<Labels, Column>::new(), Late::default(), 0);
        let (mut met, mut lost) = (HashSet::new(), 0);
        let others: &[Line] = if request.part == Part::Whole && request.after == 0 { &self.of_others } else { &[] };
        let begin = if let Part::Log { after } = request.part { after } else { 0 };
        let own = (1..=through).zip(batches.iter().map(|(_, lines)| &lines[..])).filter(|(seq, _)| *seq > begin);
        for (seq, lines) in std::iter::once((0, others)).chain(own) {
            let lines = lines.iter().filter(|line| line.tenant == request.tenant.as_str());
            if seq > 0 && seq <= trimmed {
                lost += if seq > request.after { lines.count() as u64 } else { 0 };
                continue;
            }
            for (index, line) in (0..).zip(lines) {
                let is_new = met.insert(line.clone());
                let stream = Labels::from_pairs(vec![("s".into(), format!("{}", line.stream).into())]);
                let pane = request.grid.pane(line.timestamp);
                let Some(pane) = pane.filter(|_| is_new && (seq == 0 || seq > request.after)) else { continue };
                if !request.query.matchers().matches(&stream) {
                    continue;
                }
                runner.enter(&stream);
                let Some((number, value)) = runner.run(Timestamp(line.timestamp), line.text.as_bytes(), &[]) else {
                    continue;
                };
                if request.settled.is_some_and(|settled| line.timestamp <= settled.nanos()) {
                    late += Late { lines: 1, oldest: Timestamp(line.timestamp) };
                }
                if line.timestamp < request.from.nanos() {
                    continue;
                }
                given += 1;
                let place = Place { timestamp: line.timestamp, stream_hash: line.stream, seq, index };
                let labels = runner.labels(number).unwrap().clone();
                let column = columns.entry(labels).or_insert_with(|| request.query.column());
                column.add(pane.number, value, place, &mut usize::MAX.clone()).unwrap();
            }
        }
        *self.given.lock() += given;
        let gap = Gap { after: request.after, through: trimmed, lines: lost };
        Sampled {
            series: columns.into_iter().collect(),
            through,
            watermark: Timestamp(self.clock.now().nanos() - self.behind.load(Ordering::Relaxed)),
            gap: (request.settled.is_some() && lost > 0).then_some(gap),
            late,
            ..Sampled::default()
        }
    }
}

fn ready<T: Send + 'static>(answer: T) -> Answer<T> {
    Box::pin(std::future::ready(Ok(answer)))
}

impl Node for SampleNode {
    fn log_id(&self) -> LogId {
        self.id
    }

    fn state(&self, request: StateRequest) -> Answer<LogState> {
        if self.stuck.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        let (batches, now) = (self.batches.lock(), self.clock.now());
        let time = request.age.map_or(i64::MAX, |age| now.saturating_sub(age).nanos());
        let before = batches.partition_point(|(at, _)| *at < time) as u64;
        let head = batches.len() as u64;
        let in_blocks = self.in_blocks.load(Ordering::Relaxed);
        ready(LogState { head, whole: head, before, in_blocks, watermark: Timestamp::MAX })
    }

    fn follow(&self, _: FollowRequest) -> Follow {
        Box::pin(stream::empty())
    }

    fn read(&self, _: ReadRequest) -> Answer<ReadChunk> {
        Box::pin(std::future::pending())
    }

    fn select(&self, _: SelectRequest) -> Answer<Selected> {
        ready(Selected::default())
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        let sampled = self.sampled(&request);
        let cost: usize = sampled.series.iter().map(|(_, column)| 300 + column.memory()).sum();
        let (limit, stuck) = (request.max_bytes, Arc::clone(&self.stuck));
        Box::pin(async move {
            while stuck.load(Ordering::Relaxed) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            if cost > limit { Err(NodeError::TooLarge { limit }) } else { Ok(sampled) }
        })
    }

    fn labels(&self, _: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        ready(Partial::default())
    }

    fn series(&self, _: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        ready(Partial::default())
    }

    fn volume(&self, _: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        ready(Partial::default())
    }

    fn patterns(&self, _: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        ready(Partial::default())
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        let inside = |line: &Line| request.start.nanos() <= line.timestamp && line.timestamp <= request.end.nanos();
        let bytes = self.lines().iter().filter(|(_, line)| inside(line)).map(|(_, line)| line.text.len() as u64).sum();
        ready(Partial::whole(Stats { bytes, ..Stats::default() }))
    }
}

/// Blocks that hold what nodes say is in them, and do not answer while the first of them is stuck.
pub(super) struct SampleBlocks(pub(super) Vec<Arc<SampleNode>>);

impl Blocks for SampleBlocks {
    fn up_to(&self, boundaries: Arc<[(LogId, u64)]>, own: LogId, _: std::time::Instant) -> Arc<dyn Node> {
        let (mut batches, mut of_others) = (Vec::new(), Vec::new());
        for node in &self.0 {
            let boundary = boundaries.iter().find(|(log, _)| *log == node.id).map_or(u64::MAX, |(_, upto)| *upto);
            let upto = boundary.min(node.in_blocks.load(Ordering::Relaxed)) as usize;
            let held = node.batches.lock()[..upto].to_vec();
            if node.id == own {
                batches = held;
            } else {
                of_others.extend(held.into_iter().flat_map(|(_, lines)| lines));
            }
        }
        let clock = Arc::clone(&self.0[0].clock);
        let blocks = Arc::into_inner(SampleNode::new(own.as_u128(), clock)).unwrap();
        let stuck = Arc::clone(&self.0[0].stuck_blocks);
        Arc::new(SampleNode { batches: Mutex::new(batches), of_others, stuck, ..blocks })
    }
}

pub(super) fn tenant() -> TenantId {
    TenantId::parse("t").unwrap()
}
