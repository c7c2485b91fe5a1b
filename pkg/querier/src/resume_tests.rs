//! Tails that are cut at some frame and go on with its token, here or on another querier: together they are what the unbroken one is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Clock, Labels, Limits, LogId, TenantIds, Timestamp};
use tailwater_wire::node::{
    Answer, Blocks, Follow, FollowRequest, LabelsRequest, LogState, MatchedBatch, Node, NodeError, Partial,
    PatternsRequest, ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest,
    StateRequest, Stats, StreamVolume, VolumeRequest,
};
use tokio::sync::watch;

use crate::session_tests::{SECOND, lines_of, request};
use crate::testing::{TestClock, TestNode};
use crate::{Config, Error, Nodes, Querier, Resume, Session, SessionEvent, TailRequest};

/// A node that can be away, and knows where its log was.
struct Door {
    node: Arc<TestNode>,
    clock: Arc<TestClock>,
    away: AtomicBool,
    /// When each batch was accepted.
    accepted: parking_lot::Mutex<Vec<i64>>,
}

impl Door {
    fn checked<T: Send + 'static>(&self, answer: Answer<T>) -> Answer<T> {
        if self.away.load(Ordering::Relaxed) {
            let error = NodeError::Unavailable { log: self.node.log_id(), reason: "away".to_owned() };
            return Box::pin(std::future::ready(Err(error)));
        }
        answer
    }
}

impl Node for Door {
    fn log_id(&self) -> LogId {
        self.node.log_id()
    }

    fn state(&self, request: StateRequest) -> Answer<LogState> {
        let since = request.age.map_or(i64::MAX, |age| self.clock.now().saturating_sub(age).nanos());
        let before = self.accepted.lock().iter().filter(|at| **at <= since).count() as u64;
        let asked = self.node.state(request);
        self.checked(Box::pin(async move { Ok(LogState { before, ..asked.await? }) }))
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        self.node.follow(request)
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        let head = self.node.state(StateRequest::default());
        let node = Arc::clone(&self.node);
        self.checked(Box::pin(async move {
            // Whoever asks for more than there is gets what there is.
            let through = request.through.min(head.await?.head);
            if request.after >= through {
                let batch =
                    MatchedBatch { through, watermark: Timestamp(0), text: bytes::Bytes::new(), lines: Vec::new() };
                return Ok(ReadChunk { through: request.after, gap: None, batch });
            }
            node.read(ReadRequest { through, ..request }).await
        }))
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        self.checked(self.node.select(request))
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        self.node.samples(request)
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        self.node.labels(request)
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        self.node.series(request)
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        self.node.stats(request)
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        self.node.volume(request)
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        self.node.patterns(request)
    }
}

/// What has been pushed to some nodes, whatever became of them.
#[derive(Clone)]
struct Archive(Vec<Arc<Door>>);

impl Blocks for Archive {
    fn up_to(&self, _: Arc<[(LogId, u64)]>, own: LogId, _: std::time::Instant) -> Arc<dyn Node> {
        Arc::clone(self.0.iter().find(|node| node.log_id() == own).expect("a log of this test")) as Arc<dyn Node>
    }
}

/// Nodes in some order, and blocks if there are any.
struct Listed {
    nodes: watch::Sender<Arc<[Arc<dyn Node>]>>,
    blocks: Option<Archive>,
}

impl Nodes for Listed {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.nodes.subscribe()
    }

    fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        self.blocks.clone().map(|blocks| Arc::new(blocks) as Arc<dyn Blocks>)
    }
}

impl Listed {
    fn list(&self, w: &World, order: &[usize]) {
        self.nodes.send_replace(order.iter().map(|at| Arc::clone(&w.doors[*at]) as Arc<dyn Node>).collect());
    }
}

struct World {
    clock: Arc<TestClock>,
    doors: Vec<Arc<Door>>,
    /// With all that was pushed, if nodes forget.
    archive: Archive,
    ring: usize,
}

impl World {
    fn new(nodes: u128, ring: usize) -> Self {
        let clock = Arc::new(TestClock::default());
        *clock.0.lock() = 1000 * SECOND;
        let door = |id| Door {
            node: TestNode::new(id),
            clock: Arc::clone(&clock),
            away: AtomicBool::new(false),
            accepted: parking_lot::Mutex::default(),
        };
        let doors = || (1..=nodes).map(|id| Arc::new(door(id))).collect();
        Self { doors: doors(), archive: Archive(doors()), clock: Arc::clone(&clock), ring }
    }

    fn push(&self, node: usize, tenant: &str, skew: i64, text: &str) {
        let now = {
            let mut c = self.clock.0.lock();
            *c += SECOND / 50;
            *c
        };
        for node in [&self.doors[node].node, &self.archive.0[node].node] {
            node.push_as(tenant, now, &[(now + skew * SECOND, text)]);
        }
        self.doors[node].accepted.lock().push(now);
    }

    /// A querier over these nodes.
    fn querier(&self, order: &[usize], blocks: bool) -> Arc<Querier> {
        self.growing(order, blocks).0
    }

    /// The same, and what it lists.
    fn growing(&self, order: &[usize], blocks: bool) -> (Arc<Querier>, Arc<Listed>) {
        let listed = Listed { nodes: watch::Sender::new(Arc::new([])), blocks: blocks.then(|| self.archive.clone()) };
        let listed = Arc::new(listed);
        listed.list(self, order);
        let config = Config { feed_ring_bytes: self.ring, resume_secret: Some(b"s".to_vec()), ..Config::default() };
        let limits = Arc::new(Arc::new(Limits { max_concurrent_tail_requests: 0, ..Limits::default() }));
        let nodes = Arc::clone(&listed) as Arc<dyn Nodes>;
        (Querier::new(config, nodes, limits, Arc::clone(&self.clock) as Arc<_>), listed)
    }
}

fn tail(tenants: &str, delay: u64) -> TailRequest {
    let tenants = TenantIds::parse(tenants).unwrap();
    TailRequest { tenants, limit: 100_000, resume: Resume::Give, ..request(Duration::from_secs(delay)) }
}

async fn resumed(querier: &Arc<Querier>, asked: &TailRequest, token: &str) -> Session {
    let from = querier.resumption(asked, token).unwrap();
    assert_eq!(from.delay_for(), asked.delay_for);
    querier.tail(TailRequest { resume: Resume::From(from), ..asked.clone() }).await.unwrap()
}

/// What a frame says.
#[derive(Debug)]
struct Said {
    lines: Vec<String>,
    told: u64,
    token: String,
    resumed: Option<bool>,
    lost: Vec<serde_json::Value>,
}

fn said(frame: &[u8]) -> Said {
    let (lines, told) = lines_of(frame);
    let json: serde_json::Value = serde_json::from_slice(frame).unwrap();
    let lost = json["dropped_entries"].as_array().cloned().unwrap_or_default();
    Said { lines, told, token: json["resume"].as_str().unwrap().to_owned(), resumed: json["resumed"].as_bool(), lost }
}

async fn next(session: &mut Session, patience: Duration) -> Option<Said> {
    match tokio::time::timeout(patience, session.next()).await {
        Ok(SessionEvent::Frame(frame)) => Some(said(&frame)),
        Ok(SessionEvent::End(reason)) => panic!("the tail ended: {reason:?}"),
        Err(_) => None,
    }
}

/// All lines that come until nothing comes for a while.
async fn rest(session: &mut Session) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(said) = next(session, Duration::from_secs(5)).await {
        assert_eq!(said.told, 0, "{said:?}");
        lines.extend(said.lines);
    }
    lines
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| format!("line {i:05}")).collect()
}

fn push(w: &World, node: usize, range: std::ops::Range<u32>) {
    numbers(range).iter().for_each(|text| w.push(node, "t", 0, text));
}

#[tokio::test(start_paused = true)]
async fn a_tail_goes_on_at_every_frame_of_its_history_and_live() {
    let w = World::new(1, 1 << 20);
    push(&w, 0, 0..450);
    let asked = tail("t", 0);
    let mut whole = w.querier(&[0], false).tail(asked.clone()).await.unwrap();
    let mut frames = Vec::new();
    for i in 0..8 {
        if i > 4 {
            push(&w, 0, 450 + (i - 5) * 20..450 + (i - 4) * 20);
        }
        frames.push(next(&mut whole, Duration::from_secs(1)).await.unwrap());
    }
    push(&w, 0, 510..520);
    let mut had = Vec::new();
    for frame in &frames {
        assert_eq!(frame.resumed, None);
        had.extend(frame.lines.iter().cloned());
        let mut session = resumed(&w.querier(&[0], false), &asked, &frame.token).await;
        let first = next(&mut session, Duration::from_secs(1)).await.unwrap();
        assert_eq!(first.resumed, Some(true));
        let mut lines = had.clone();
        lines.extend(first.lines);
        lines.extend(rest(&mut session).await);
        assert_eq!(lines, numbers(0..520));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_comes_from_blocks_or_is_told_once() {
    let w = World::new(1, 1 << 20);
    let asked = tail("t", 0);
    let mut whole = w.querier(&[0], false).tail(asked.clone()).await.unwrap();
    push(&w, 0, 0..10);
    let token = next(&mut whole, Duration::from_secs(1)).await.unwrap().token;
    push(&w, 0, 10..100);
    w.doors[0].node.trim(50);
    let mut session = resumed(&w.querier(&[0], true), &asked, &token).await;
    assert_eq!(rest(&mut session).await, numbers(10..100));
    let mut session = resumed(&w.querier(&[0], false), &asked, &token).await;
    let first = next(&mut session, Duration::from_secs(1)).await.unwrap();
    assert_eq!((first.told, first.resumed), (40, Some(false)));
    let labels = &first.lost[0]["labels"];
    assert_eq!(
        (&labels["after"], &labels["through"], &labels["reason"]),
        (&"10".into(), &"50".into(), &"log_trimmed".into())
    );
    let mut lines = first.lines;
    let again = resumed(&w.querier(&[0], false), &asked, &first.token).await;
    lines.extend(rest(&mut session).await);
    assert_eq!(lines, numbers(50..100));
    let mut again = again;
    assert_eq!(rest(&mut again).await, numbers(50 + lines_in_first(&lines)..100), "and not told again");
    assert_eq!(session.ledger().trimmed, 40);
}

/// Test nodes read a batch at a time: the first frame has none or one line.
fn lines_in_first(lines: &[String]) -> u32 {
    u32::from(lines.len() == 50)
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_gone_is_read_from_blocks_or_told_and_one_that_is_away_is_owed() {
    let w = World::new(2, 1 << 20);
    let asked = tail("t", 0);
    let mut whole = w.querier(&[0, 1], false).tail(asked.clone()).await.unwrap();
    push(&w, 1, 0..10);
    let mut token = String::new();
    while let Some(said) = next(&mut whole, Duration::from_secs(1)).await {
        token = said.token;
    }
    push(&w, 1, 10..20);
    push(&w, 0, 20..30);
    // Its blocks are there: everything comes.
    let mut session = resumed(&w.querier(&[0], true), &asked, &token).await;
    let mut lines = rest(&mut session).await;
    lines.sort();
    assert_eq!(lines, numbers(10..30));
    // Nothing of it is there: the others come, their frames still know where it was, and in the end it is told, once.
    let mut session = resumed(&w.querier(&[0], false), &asked, &token).await;
    let mut owing = None;
    let mut lines = Vec::new();
    while let Some(said) = next(&mut session, Duration::from_secs(5)).await {
        lines.extend(said.lines);
        owing = Some(said.token);
    }
    assert_eq!(lines, numbers(20..30));
    let told = next(&mut session, Duration::from_secs(600)).await.unwrap();
    assert_eq!((told.lines.len(), told.resumed), (0, Some(false)));
    let labels = &told.lost[0]["labels"];
    assert_eq!((&labels["after"], &labels["reason"]), (&"10".into(), &"log_gone".into()));
    push(&w, 0, 30..31);
    assert_eq!(rest(&mut session).await, numbers(30..31));
    // It is back before that: what was missed comes.
    let mut session = resumed(&w.querier(&[0, 1], false), &asked, &owing.unwrap()).await;
    let mut lines = rest(&mut session).await;
    lines.sort();
    assert_eq!(lines, [numbers(10..20), numbers(30..31)].concat());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_began_later_is_read_from_where_it_was_when_the_tail_began() {
    let w = World::new(2, 1 << 20);
    let asked = tail("t", 0);
    push(&w, 1, 0..5);
    *w.clock.0.lock() += SECOND;
    let mut whole = w.querier(&[0], false).tail(asked.clone()).await.unwrap();
    push(&w, 0, 5..6);
    let token = next(&mut whole, Duration::from_secs(1)).await.unwrap().token;
    push(&w, 1, 6..12);
    let mut session = resumed(&w.querier(&[1, 0], false), &asked, &token).await;
    push(&w, 1, 12..15);
    assert_eq!(rest(&mut session).await, numbers(6..15));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_read_for_a_while_is_tried_again() {
    let w = World::new(2, 1 << 20);
    let asked = tail("t", 0);
    let mut whole = w.querier(&[0, 1], false).tail(asked.clone()).await.unwrap();
    push(&w, 0, 0..5);
    let token = next(&mut whole, Duration::from_secs(1)).await.unwrap().token;
    push(&w, 1, 5..10);
    let querier = w.querier(&[0, 1], false);
    // The feed has it; then it is away.
    let _keeps_the_feed = querier.tail(asked.clone()).await.unwrap();
    w.doors[1].away.store(true, Ordering::Relaxed);
    let mut session = resumed(&querier, &asked, &token).await;
    assert!(next(&mut session, Duration::from_secs(10)).await.is_none());
    w.doors[1].away.store(false, Ordering::Relaxed);
    assert_eq!(rest(&mut session).await, numbers(5..10));
    w.doors[1].away.store(true, Ordering::Relaxed);
    let mut session = resumed(&querier, &asked, &token).await;
    let told = next(&mut session, Duration::from_secs(100)).await.unwrap();
    assert_eq!((told.lost[0]["labels"]["reason"].as_str(), told.resumed), (Some("log_away"), Some(false)));
}

#[tokio::test]
async fn tokens_of_others_are_refused_and_nobody_else_gets_any() {
    let w = World::new(1, 1 << 20);
    let querier = w.querier(&[0], false);
    let asked = tail("t", 0);
    let mut session = querier.tail(asked.clone()).await.unwrap();
    let mut plain = querier.tail(TailRequest { resume: Resume::No, ..asked.clone() }).await.unwrap();
    push(&w, 0, 0..1);
    let token = next(&mut session, Duration::from_secs(5)).await.unwrap().token;
    let SessionEvent::Frame(frame) = plain.next().await else { panic!() };
    assert!(!String::from_utf8_lossy(&frame).contains("resume"));
    let of = |asked: &TailRequest, token: &str| querier.resumption(asked, token).err().map(|e: Error| e.to_string());
    assert_eq!(of(&asked, &token), None);
    assert_eq!(of(&tail("u", 0), &token).as_deref(), Some("the resume token is of another query"));
    assert_eq!(of(&asked, &token[1..]).as_deref(), Some("the resume token is not valid"));
}

/// Lines by tenant: the order among them may differ.
/// The frames that come until nothing comes for a while: lines, whether there is a token, and the types of notices.
async fn shown(session: &mut Session) -> Vec<(usize, bool, Vec<String>)> {
    let mut all = Vec::new();
    while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(5), session.next()).await {
        let json: serde_json::Value = serde_json::from_slice(&frame).unwrap();
        let told = json["notices"].as_array().cloned().unwrap_or_default();
        let told = told.iter().map(|notice| notice["type"].as_str().unwrap().to_owned()).collect();
        all.push((lines_of(&frame).0.len(), json["resume"].is_string(), told));
    }
    all
}

/// As [`rest`], whether there are tokens or not.
async fn all_lines(session: &mut Session) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(5), session.next()).await {
        lines.extend(lines_of(&frame).0);
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn who_asked_for_tokens_is_told_once_that_there_can_be_none() {
    let w = World::new(400, 1 << 20);
    let all: Vec<usize> = (0..400).collect();
    let querier = w.querier(&all, false);
    push(&w, 7, 0..3);
    let asked = tail("t", 0);
    let told = |lines| (lines, false, vec!["no_token".to_owned()]);
    let mut first = querier.tail(asked.clone()).await.unwrap();
    assert_eq!(shown(&mut first).await, [told(3)], "with the first frame");
    push(&w, 8, 3..4);
    assert_eq!(shown(&mut first).await, [(1, false, Vec::new())], "and not again");
    let mut second = querier.tail(TailRequest { limit: 0, ..asked.clone() }).await.unwrap();
    assert_eq!(shown(&mut second).await, []);
    push(&w, 9, 4..6);
    assert_eq!(shown(&mut second).await, [told(0), (2, false, Vec::new())], "before it");
    let mut other = querier.tail(TailRequest { resume: Resume::No, ..asked }).await.unwrap();
    assert_eq!(shown(&mut other).await, [(6, false, Vec::new())]);
    assert_eq!(querier.metrics().untokened.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_do_not_fit_in_a_catch_up_come_again_after_it() {
    let w = World::new(240, 1 << 20);
    let all: Vec<usize> = (0..240).collect();
    let asked = tail("t", 0);
    let mut whole = w.querier(&all, false).tail(asked.clone()).await.unwrap();
    push(&w, 0, 0..1);
    let token = next(&mut whole, Duration::from_secs(1)).await.unwrap().token;
    (1..100).for_each(|i| push(&w, i as usize, i..i + 1));
    let querier = w.querier(&all, false);
    let mut session = resumed(&querier, &asked, &token).await;
    let frames = shown(&mut session).await;
    assert_eq!(frames.iter().map(|(lines, ..)| lines).sum::<usize>(), 99);
    assert!(frames.iter().all(|(_, has_token, _)| !has_token), "{frames:?}");
    let told: Vec<_> = frames.iter().map(|(.., told)| told.len()).collect();
    assert_eq!((told[0], told.iter().sum::<usize>()), (1, 1), "{told:?}");
    push(&w, 5, 100..101);
    let later = next(&mut session, Duration::from_secs(1)).await.unwrap();
    assert_eq!(later.lines, numbers(100..101));
    push(&w, 6, 101..102);
    let mut again = resumed(&w.querier(&all, false), &asked, &later.token).await;
    assert_eq!(all_lines(&mut again).await, numbers(101..102));
    // Who has kept the older token gets what came since then once more.
    let mut older = resumed(&w.querier(&all, false), &asked, &token).await;
    assert_eq!(sorted(&all_lines(&mut older).await), numbers(1..102));
}

fn sorted(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Pushes, pauses and reads in any order; the tail is cut after any frame, and goes on on the same querier, on a fresh one, on one with
    /// other numbers and a feed that has been open for long or lags: every line comes once, and those of a stream in the order in which
    /// the unbroken tail has them.
    #[test]
    fn a_tail_that_is_cut_anywhere_is_the_unbroken_one(
        delay in prop_oneof![Just(0u64), Just(2)],
        ring in prop_oneof![Just(600usize), Just(1 << 20)],
        tenants in prop_oneof![Just("t"), Just("t|u")],
        blocks in any::<bool>(),
        ops in prop::collection::vec((0u8..12, 1u32..60, -3i64..3), 5..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let w = World::new(2, ring);
            let asked = tail(tenants, delay);
            let queriers = [w.querier(&[0, 1], false), w.querier(&[1, 0], blocks)];
            // A feed that is there all the time, and one that is not.
            let mut keeper = queriers[1].tail(asked.clone()).await.unwrap();
            let mut session = queriers[0].tail(asked.clone()).await.unwrap();
            let mut token: Option<String> = None;
            let (mut seen, mut pushed) = (Vec::new(), BTreeMap::new());
            for (what, n, skew) in ops {
                match what {
                    0..=4 => {
                        for _ in 0..n {
                            let tenant = if tenants == "t|u" && n.is_multiple_of(3) { "u" } else { "t" };
                            let text = format!("line {:05}", pushed.len());
                            w.push(usize::from(what % 2), tenant, skew, &text);
                            pushed.insert(text, tenant);
                        }
                        tokio::time::sleep(Duration::from_millis(3)).await;
                    }
                    5..=7 => {
                        for _ in 0..n / 6 {
                            let Some(said) = next(&mut session, Duration::from_millis(1)).await else { break };
                            assert_eq!((said.told, said.resumed), (0, said.resumed.filter(|whole| *whole)));
                            seen.extend(said.lines);
                            token = Some(said.token);
                        }
                    }
                    8 => w.doors[n as usize % 2].node.hold(&asked.tenants.as_slice()[0].clone(), skew > 0),
                    9 => {
                        let _late = tokio::time::timeout(Duration::from_millis(1), keeper.next()).await;
                    }
                    _ => if let Some(token) = &token {
                        let fresh = w.querier(&[1, 0], blocks);
                        let querier = [&queriers[0], &queriers[1], &fresh][n as usize % 3];
                        session = resumed(querier, &asked, token).await;
                    }
                }
            }
            for door in &w.doors {
                door.node.hold(&asked.tenants.as_slice()[0].clone(), false);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            *w.clock.0.lock() += 100 * SECOND;
            if seen.len().is_multiple_of(2) && let Some(token) = &token {
                session = resumed(&queriers[1], &asked, token).await;
            }
            seen.extend(rest(&mut session).await);
            assert_eq!(sorted(&seen), pushed.into_keys().collect::<Vec<_>>());
            let ledger = session.ledger();
            assert_eq!(ledger.matched, ledger.delivered + ledger.dropped);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Logs join while tails are open, here earlier and there later, in any order. Whatever frame a tail is cut at, it goes on anywhere
    /// (also where a log that it knows is not known yet) and every line comes once.
    #[test]
    fn a_tail_that_is_cut_anywhere_goes_on_while_logs_join(
        delay in prop_oneof![Just(0u64), Just(2)],
        ring in prop_oneof![Just(600usize), Just(1 << 20)],
        tenants in prop_oneof![Just("t"), Just("t|u")],
        before in 0u32..150,
        ops in prop::collection::vec((0u8..12, 1u32..40, -3i64..3), 5..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let w = World::new(3, ring);
            let asked = tail(tenants, delay);
            let mut pushed = BTreeMap::new();
            let mut push = async |node: usize, n: u32, skew: i64| {
                for _ in 0..n {
                    let tenant = if tenants == "t|u" && n.is_multiple_of(3) { "u" } else { "t" };
                    let text = format!("line {:05}", pushed.len());
                    w.push(node, tenant, skew, &text);
                    pushed.insert(text, tenant);
                    // The clocks go together.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            push(0, before, 0).await;
            let worlds = [w.growing(&[0], false), w.growing(&[0], false)];
            let mut orders = [vec![0], vec![0]];
            let mut keeper = worlds[1].0.tail(asked.clone()).await.unwrap();
            let mut whole = worlds[0].0.tail(asked.clone()).await.unwrap();
            let mut cut = worlds[0].0.tail(asked.clone()).await.unwrap();
            // What the unbroken tail had at each frame, and what the one had that is cut again and again.
            let (mut frames, mut had, mut seen) = (Vec::new(), Vec::new(), Vec::new());
            let mut token: Option<String> = None;
            for (what, n, skew) in ops {
                match what {
                    0..=4 => push(usize::from(what) % 3, n, skew).await,
                    5 | 6 => {
                        let (at, node) = (usize::from(what - 5), 1 + n as usize % 2);
                        if !orders[at].contains(&node) {
                            if skew < 0 { orders[at].push(node) } else { orders[at].insert(0, node) }
                            worlds[at].1.list(&w, &orders[at]);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                    7 | 8 => {
                        for _ in 0..n / 6 {
                            let Some(said) = next(&mut whole, Duration::from_millis(1)).await else { break };
                            had.extend(said.lines);
                            frames.push((said.token, had.len()));
                        }
                    }
                    9 => {
                        let _late = tokio::time::timeout(Duration::from_millis(1), keeper.next()).await;
                    }
                    _ => {
                        if let (Some(token), true) = (&token, skew < 1) {
                            cut = resumed(&worlds[n as usize % 2].0, &asked, token).await;
                        }
                        for _ in 0..n / 6 {
                            let Some(said) = next(&mut cut, Duration::from_millis(1)).await else { break };
                            assert_eq!((said.told, said.resumed), (0, said.resumed.filter(|whole| *whole)));
                            seen.extend(said.lines);
                            token = Some(said.token);
                        }
                    }
                }
            }
            worlds.iter().for_each(|(_, listed)| listed.list(&w, &[2, 0, 1]));
            tokio::time::sleep(Duration::from_secs(1)).await;
            *w.clock.0.lock() += 100 * SECOND;
            let all: Vec<String> = pushed.into_keys().collect();
            while let Some(said) = next(&mut whole, Duration::from_secs(5)).await {
                had.extend(said.lines);
                frames.push((said.token, had.len()));
            }
            assert_eq!(sorted(&had), all, "unbroken");
            seen.extend(rest(&mut cut).await);
            assert_eq!(sorted(&seen), all, "cut again and again");
            let fresh = w.querier(&[1, 2, 0], false);
            let _stays = fresh.tail(asked.clone()).await.unwrap();
            for (at, (token, count)) in frames.iter().enumerate() {
                let querier = [&worlds[1].0, &fresh, &worlds[0].0][at % 3];
                let mut lines = had[..*count].to_vec();
                lines.extend(rest(&mut resumed(querier, &asked, token).await).await);
                assert_eq!(sorted(&lines), all, "cut at frame {at} of {}", frames.len());
            }
        });
    }
}

/// The clock of the nodes is the querier's, in these tests.
#[test]
fn doors_know_where_they_were() {
    let w = World::new(1, 1 << 20);
    push(&w, 0, 0..10);
    let age = Duration::from_millis(50);
    let state =
        futures_util::FutureExt::now_or_never(w.doors[0].state(StateRequest { age: Some(age) })).unwrap().unwrap();
    assert_eq!((state.head, state.before), (10, 7));
    assert_eq!(w.clock.now(), Timestamp(1000 * SECOND + SECOND / 5));
}
