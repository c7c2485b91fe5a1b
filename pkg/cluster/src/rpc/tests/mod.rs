//! What is asked of a log is the same near and far.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use futures_util::StreamExt as _;
use std::sync::Arc;
use tailwater_logql::LogQuery;
use tailwater_logql::metric::{Column, Place, SampleQuery, Steps, leaves};
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Category, LabelPair, LabelSet, Labels, LogId, TenantId, Timestamp};
use tailwater_wire::host::{CopiedRecord, CopyBegin, Copying, ForwardedPush, Host, PushAnswer};
use tailwater_wire::node::*;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::*;

mod calls;
mod codec;
mod copies;
mod follows;
mod sim;

pub(super) const LOG: LogId = LogId::from_u128(7);

pub(super) fn query(text: &str) -> Arc<LogQuery> {
    Arc::new(LogQuery::parse(text).unwrap())
}

pub(super) fn sample_query(text: &str) -> Arc<SampleQuery> {
    let Ok(tailwater_logql::ast::Expr::Metric(expr)) = tailwater_logql::parse(text) else { panic!("{text}") };
    let leaf = &leaves(&expr)[0];
    Arc::new(SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap())
}

pub(super) fn tenant() -> TenantId {
    TenantId::parse("one").unwrap()
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::keeping_empty(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
}

pub(super) fn set(pairs: &[(&str, &str)]) -> LabelSet {
    let pair = |(n, v): &(&str, &str)| LabelPair { name: (*n).into(), value: (*v).into(), category: Category::Parsed };
    LabelSet::from_pairs(pairs.iter().map(pair).collect())
}

/// A batch of these lines, each of its own label set.
pub(super) fn batch(through: u64, texts: &[&str]) -> MatchedBatch {
    let mut lines = Vec::new();
    let mut text = String::new();
    for (one, index) in texts.iter().zip(0..) {
        lines.push(MatchedLine {
            timestamp: Timestamp(1_700_000_000_000_000_000 + i64::from(index)),
            accepted_at: Timestamp(1_700_000_000_000_000_100),
            seq: through,
            index,
            offset: text.len() as u32,
            len: one.len() as u32,
            labels: set(&[("app", "x"), ("k", "")]),
            stream_hash: 42,
        });
        text.push_str(one);
    }
    MatchedBatch { through, watermark: Timestamp(9), text: text.into(), lines }
}

/// Says that something was dropped.
pub(super) struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A node that answers what the tests know.
pub(super) struct TestNode {
    pub(super) events: broadcast::Sender<FollowEvent>,
    /// Calls and follows that have begun, and those that were dropped.
    pub(super) begun: Arc<AtomicUsize>,
    pub(super) dropped: Arc<AtomicUsize>,
    /// Whether selects never end.
    pub(super) hangs: AtomicBool,
}

impl TestNode {
    fn new() -> Arc<Self> {
        let events = broadcast::channel(1024).0;
        let (begun, dropped, hangs) = (Arc::default(), Arc::default(), AtomicBool::default());
        Arc::new(Self { events, begun, dropped, hangs })
    }
}

fn ready<T: Send + 'static>(value: T) -> Answer<T> {
    Box::pin(async move { Ok(value) })
}

fn warned<T>(value: T) -> Partial<T> {
    Partial { value, warnings: vec!["a block is damaged".into()] }
}

impl Node for TestNode {
    fn log_id(&self) -> LogId {
        LOG
    }

    fn state(&self, request: StateRequest) -> Answer<LogState> {
        let before = request.age.map_or(9, |age| age.as_millis() as u64);
        ready(LogState { head: 9, whole: 9, before, in_blocks: 4, watermark: Timestamp(-3) })
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        self.begun.fetch_add(1, Relaxed);
        let guard = Dropped(Arc::clone(&self.dropped));
        let first = FollowEvent::Idle { through: request.after, watermark: Timestamp(1) };
        let events = futures_util::stream::unfold((self.events.subscribe(), guard), |(mut events, guard)| async move {
            events.recv().await.ok().map(|event| (event, (events, guard)))
        });
        Box::pin(futures_util::stream::iter([first]).chain(events))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        if request.after == 1 {
            return Box::pin(async { Err(NodeError::Trimmed { log: LOG, through: 5 }) });
        }
        let gap = Some(Gap { after: request.after, through: 3, lines: 2 });
        let mut batch = batch(request.through, &["a", "", "ccc"]);
        if request.max_bytes == 0 {
            batch.lines.clear();
        }
        ready(ReadChunk { through: request.through, gap, batch })
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        if self.hangs.load(Relaxed) {
            self.begun.fetch_add(1, Relaxed);
            let guard = Dropped(Arc::clone(&self.dropped));
            return Box::pin(async move {
                let _guard = guard;
                std::future::pending().await
            });
        }
        let shared = set(&[("part", &format!("{:?}", request.part))]);
        let line = |n: usize| {
            let text =
                if n.is_multiple_of(2) { vec![b'x'; 2000] } else { request.query.canonical().as_bytes().to_vec() };
            let line = MatchedLine {
                timestamp: Timestamp(request.start.0 + n as i64),
                accepted_at: request.end,
                seq: request.as_of,
                index: n as u32,
                offset: 0,
                len: text.len() as u32,
                labels: if n.is_multiple_of(3) { set(&[("n", &n.to_string())]) } else { shared.clone() },
                stream_hash: u64::from(request.detect_level),
            };
            (line, text.into())
        };
        let scanned =
            Scanned { lines: 5, blocks: BlocksScanned { pages: 3, ..Default::default() }, ..Default::default() };
        ready(Selected { lines: (0..request.limit).map(line).collect(), warnings: vec!["one".into()], scanned })
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        let max_bytes = request.max_bytes;
        if max_bytes == 1 {
            return Box::pin(async move { Err(NodeError::TooLarge { limit: max_bytes }) });
        }
        let column = |n: i64| {
            let mut column = request.query.column();
            for i in 0..i64::from(request.grid.steps().count) {
                let place = Place { timestamp: i, ..Place::default() };
                column.add(i as u64, (n * i) as f64, place, &mut { usize::MAX }).unwrap();
            }
            (labels(&[("n", &n.to_string()), ("empty", "")]), column)
        };
        let series: Vec<(Labels, Column)> = (0..300).map(column).collect();
        let late = Late { lines: 3, oldest: request.settled.unwrap_or(Timestamp::MAX) };
        let gap = Some(Gap { after: request.after, through: 2, lines: 1 });
        let (through, watermark) = (request.as_of, request.from);
        ready(Sampled { series, through, watermark, gap, late, warnings: vec![], scanned: Scanned::default() })
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        let mut names: Vec<_> = (0..3000).map(|n| n.to_string()).collect();
        names.extend(request.name);
        names.extend(request.matchers.iter().flat_map(|matchers| matchers.iter().map(ToString::to_string)));
        ready(warned(names))
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        let text = |matchers: &tailwater_logql::matchers::Matchers| matchers.iter().map(ToString::to_string).collect();
        let all: Vec<String> = request.matchers.iter().map(|matchers| text(matchers)).collect();
        ready(warned(all.iter().map(|one| labels(&[("m", one), ("t", request.tenant.as_str())])).collect()))
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        let bytes = (request.end.0 - request.start.0) as u64;
        ready(warned(Stats { streams: 1, chunks: 2, bytes, entries: 3 }))
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        let bytes = vec![(Timestamp(request.step.unwrap_or(-1)), 5), (Timestamp(8), u64::MAX)];
        ready(warned(vec![StreamVolume { labels: labels(&[("a", "b")]), bytes }]))
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        let samples = vec![(request.step, request.limit as u64), (-1, u64::from(request.detect_level))];
        ready(warned(vec![Pattern { text: "<_> x".into(), level: "warn".into(), samples }]))
    }
}

pub(super) struct TestHost {
    pub(super) node: Arc<TestNode>,
    pub(super) copied: Arc<TestCopy>,
}

#[derive(Default)]
pub(super) struct TestCopy {
    pub(super) records: parking_lot::Mutex<Vec<CopiedRecord>>,
    pub(super) in_blocks: AtomicUsize,
}

impl Copying for TestCopy {
    fn head(&self) -> u64 {
        self.records.lock().last().map_or(3, CopiedRecord::last)
    }

    fn append(&self, records: Vec<CopiedRecord>) -> Answer<u64> {
        let mut all = self.records.lock();
        if records.first().is_some_and(|first| first.last() == 666) {
            return Box::pin(async { Err(NodeError::Unavailable { log: LOG, reason: "the disk is full".into() }) });
        }
        all.extend(records);
        let last = all.last().map_or(0, CopiedRecord::last);
        ready(last)
    }

    fn in_blocks(&self, through: u64) {
        self.in_blocks.store(through as usize, Relaxed);
    }
}

impl Host for TestHost {
    fn log(&self, log: LogId) -> Option<Arc<dyn Node>> {
        (log == LOG).then(|| Arc::clone(&self.node) as Arc<dyn Node>)
    }

    fn name(&self) -> String {
        "a".into()
    }

    fn logs(&self) -> Vec<LogId> {
        vec![LOG, LogId::from_u128(8)]
    }

    fn push(&self, push: ForwardedPush) -> Answer<PushAnswer> {
        ready(PushAnswer { status: 429, message: format!("{} {}", push.tenant, push.body.len()) })
    }

    fn copy(&self, begin: CopyBegin) -> Answer<Arc<dyn Copying>> {
        if begin.owner == "nobody" {
            let reason = "it keeps no copies".into();
            return Box::pin(async { Err(NodeError::Unavailable { log: LOG, reason }) });
        }
        ready(Arc::clone(&self.copied) as Arc<dyn Copying>)
    }
}

/// Connects to whoever takes the other end.
struct Wire(mpsc::Sender<io::Result<Io>>);

impl Connect for Wire {
    fn connect(&self, _: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        let to = self.0.clone();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(1 << 20);
            to.send(Ok(Box::new(far))).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near) as Io)
        })
    }
}

/// A node that is served, and a peer that reaches it.
pub(super) struct World {
    pub(super) node: Arc<TestNode>,
    pub(super) copied: Arc<TestCopy>,
    pub(super) peer: Arc<Peer>,
    pub(super) metrics: RpcMetrics,
    pub(super) answered: ServeMetrics,
    pub(super) served: tokio::task::JoinHandle<()>,
    pub(super) stop: Option<tokio::sync::oneshot::Sender<()>>,
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

pub(super) fn host() -> Arc<TestHost> {
    Arc::new(TestHost { node: TestNode::new(), copied: Arc::default() })
}

pub(super) fn world_of(theirs: &str, ours: &str) -> World {
    let host = host();
    let (to, incoming) = mpsc::channel(4);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let answered = ServeMetrics::default();
    let served =
        serve(ReceiverStream::new(incoming), Arc::clone(&host) as _, theirs.into(), answered.clone(), async move {
            let _ = stopped.await;
        });
    let metrics = RpcMetrics::default();
    let peers = Peers::new(Arc::new(Wire(to)), ours.into(), metrics.clone());
    let peer = peers.peer(address());
    let (node, copied) = (Arc::clone(&host.node), Arc::clone(&host.copied));
    World { node, copied, peer, metrics, answered, served: tokio::spawn(served), stop: Some(stop) }
}

pub(super) fn world() -> World {
    world_of("c", "c")
}

impl World {
    pub(super) fn far(&self) -> Arc<dyn Node> {
        self.peer.node(LOG, "a")
    }
}

/// Waits for something that comes soon, unless it is broken.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(super) fn steps(count: u32) -> Steps {
    Steps { start: Timestamp(100), step: 10, count }
}
