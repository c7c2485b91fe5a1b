//! Tails over logs that come, go and cannot be reached for a while.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use tailwater_model::{LogId, Timestamp};
use tailwater_wire::node::{Blocks, Node};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::session_tests::{SECOND, drain, everything, lines_of, numbers, request};
use crate::testing::{Changing, TestClock, TestNode};
use crate::{Config, EndReason, Error, Nodes, OnSlow, Querier, Session, SessionEvent, TailRequest};

struct World {
    querier: Arc<Querier>,
    listed: Arc<Changing>,
    nodes: Vec<Arc<TestNode>>,
    clock: Arc<TestClock>,
}

fn querier(nodes: Arc<dyn Nodes>, config: Config, clock: &Arc<TestClock>) -> Arc<Querier> {
    let limits = Arc::new(Arc::new(tailwater_model::Limits::default()));
    Querier::new(config, nodes, limits, Arc::clone(clock) as Arc<_>)
}

/// Three nodes of which the first `listed` are in the list.
fn world(listed: usize, config: Config) -> World {
    let nodes: Vec<_> = (1..=3).map(TestNode::new).collect();
    let clock = Arc::new(TestClock::default());
    *clock.0.lock() = 1000 * SECOND;
    let listed = Changing::new(&nodes.iter().take(listed).collect::<Vec<_>>());
    World { querier: querier(Arc::clone(&listed) as Arc<_>, config, &clock), listed, nodes, clock }
}

impl World {
    fn push(&self, node: usize, line: &str) {
        let now = {
            let mut clock = self.clock.0.lock();
            *clock += 1;
            *clock
        };
        self.nodes[node].push(now, &[(now, line)]);
    }

    async fn tail(&self) -> Session {
        self.querier.tail(TailRequest { notices: true, ..request(Duration::ZERO) }).await.unwrap()
    }

    fn metric(&self, name: &str) -> i64 {
        let mut registry = prometheus_client::registry::Registry::default();
        self.querier.register_metrics(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("tailwater_querier_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

/// Lines and notices in order, until nothing comes for a while.
async fn told(session: &mut Session) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(5), session.next()).await {
        all.extend(told_by(&frame));
    }
    all
}

/// What one frame says.
fn told_by(frame: &[u8]) -> Vec<String> {
    let (lines, dropped) = lines_of(frame);
    assert_eq!(dropped, 0);
    let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
    let notices = frame["notices"].as_array().into_iter().flatten().map(|notice| {
        let what = notice["what"].as_str().unwrap().trim_start_matches('0');
        format!("{} {what}", notice["type"].as_str().unwrap())
    });
    notices.chain(lines).collect()
}

/// What the first frame says, and how long it took to come.
async fn first_told(session: &mut Session) -> (Vec<String>, Duration) {
    let began = Instant::now();
    let SessionEvent::Frame(frame) = session.next().await else { panic!("it has ended") };
    (told_by(&frame), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_delays_nothing_and_comes_later() {
    for reason in ["silent", "gone"] {
        let w = world(2, Config::default());
        w.push(1, "before");
        sleep(Duration::from_secs(10)).await;
        w.nodes[1].away(Some(reason));
        let began = Instant::now();
        let mut session = w.tail().await;
        assert!(began.elapsed() <= Duration::from_millis(300));
        w.push(0, "a");
        w.push(1, "b");
        assert_eq!(told(&mut session).await, ["away 2", "a"]);
        assert_eq!((w.metric("feed_sources"), w.metric("feed_logs_away")), (1, 1));
        // One that comes now is told as well.
        let mut second = w.tail().await;
        assert_eq!(told(&mut second).await, ["away 2", "a"]);
        let mut silent = w.querier.tail(request(Duration::ZERO)).await.unwrap();
        w.nodes[1].away(None);
        w.push(1, "c");
        for session in [&mut session, &mut second] {
            assert_eq!(told(session).await, ["back 2", "b", "c"], "from where it was when the feed was opened");
        }
        assert_eq!(told(&mut silent).await, ["a", "c"], "its feed was opened later");
        assert_eq!((w.metric("feed_sources"), w.metric("feed_logs_away")), (4, 0));
        let mut third = w.tail().await;
        assert_eq!(told(&mut third).await, ["before", "a", "b", "c"]);
        drop((session, second, silent, third));
        tokio::task::yield_now().await;
        assert_eq!(w.metric("feed_sources"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follow_that_breaks_is_told_at_once_and_goes_on_where_it_was() {
    let w = world(2, Config::default());
    let mut session = w.tail().await;
    w.push(0, "a");
    w.push(1, "b");
    assert_eq!(told(&mut session).await, ["a", "b"]);
    w.nodes[0].away(Some("cut"));
    let frame = tokio::time::timeout(Duration::from_millis(10), session.next()).await;
    let Ok(SessionEvent::Frame(frame)) = frame else { panic!("{frame:?}") };
    assert!(String::from_utf8_lossy(&frame).contains(r#""type":"away""#));
    w.push(0, "c");
    w.push(1, "d");
    assert_eq!(told(&mut session).await, ["d"]);
    w.nodes[0].away(None);
    assert_eq!(told(&mut session).await, ["back 1", "c"]);
    assert_eq!(w.metric("tail_lines_late_total"), 1);
    // Also if it is the only one, and nothing has come meanwhile.
    w.nodes[1].away(Some("cut"));
    w.nodes[1].away(None);
    w.nodes[0].away(Some("cut"));
    assert_eq!(told(&mut session).await.last().unwrap(), "away 1");
    w.nodes[0].away(None);
    assert_eq!(told(&mut session).await, ["back 1"]);
}

#[tokio::test(start_paused = true)]
async fn logs_appear_leave_and_return() {
    let w = world(0, Config::default());
    assert!(matches!(w.querier.tail(request(Duration::ZERO)).await, Err(Error::NoIngester)));
    let opening = tokio::spawn({
        let querier = Arc::clone(&w.querier);
        async move { querier.tail(TailRequest { notices: true, ..request(Duration::ZERO) }).await }
    });
    sleep(Duration::from_millis(500)).await;
    w.listed.list(&[&w.nodes[0]]);
    let mut session = opening.await.unwrap().unwrap();
    sleep(Duration::from_secs(5)).await;
    w.push(0, "a");
    w.push(1, "new");
    w.listed.list(&[&w.nodes[0], &w.nodes[1]]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(told(&mut session).await, ["a", "new"]);
    // It leaves: what it still says comes, and the tail goes on without it.
    w.listed.list(&[&w.nodes[1]]);
    w.push(0, "last");
    assert_eq!(told(&mut session).await, ["last"]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(w.metric("feed_sources"), 1);
    w.push(0, "unseen");
    w.push(1, "b");
    assert_eq!(told(&mut session).await, ["b"]);
    // It comes back and goes on where it was.
    w.listed.list(&[&w.nodes[1], &w.nodes[0]]);
    assert_eq!(told(&mut session).await, ["unseen"]);
    // Without any log the tail waits.
    w.listed.list(&[]);
    w.nodes.iter().for_each(|node| node.close());
    assert_eq!(told(&mut session).await, [""; 0]);
    w.querier.close();
    let end = session.next().await;
    assert!(matches!(end, SessionEvent::End(EndReason::IngestersGone)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn closing_ends_tails_of_logs_that_do_not_end() {
    let w = world(2, Config::default());
    let mut session = w.tail().await;
    w.nodes[1].close();
    assert_eq!(told(&mut session).await, ["away 2"], "it is followed again and again");
    w.push(0, "a");
    w.querier.close();
    assert_eq!(told(&mut session).await, ["a"]);
    assert!(matches!(session.next().await, SessionEvent::End(EndReason::IngestersGone)));
}

#[tokio::test(start_paused = true)]
async fn a_catch_up_waits_for_a_log_and_then_gives_it_up() {
    for back in [true, false] {
        let w = world(2, Config { feed_ring_bytes: 2000, ..Config::default() });
        let (mut slow, mut quick) = (w.tail().await, w.tail().await);
        let mut pushed = Vec::new();
        for i in 0..200 {
            w.push(i % 2, &format!("line {i}"));
            pushed.extend(told_soon(&mut quick).await);
        }
        assert_eq!(pushed, numbers(0..200));
        w.nodes[1].away(Some("cut"));
        let cut = Instant::now();
        if back {
            let node = Arc::clone(&w.nodes[1]);
            tokio::spawn(async move {
                sleep(Duration::from_secs(20)).await;
                node.away(None);
            });
        }
        let (mut lines, mut dropped) = (Vec::new(), 0);
        while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(90), slow.next()).await {
            let (more, told) = lines_of(&frame);
            lines.extend(more);
            dropped += told;
            if lines.len() as u64 + dropped == 200 {
                break;
            }
        }
        lines.sort_by_key(|line| line[5..].parse::<u64>().unwrap());
        if back {
            assert_eq!((lines, dropped), (numbers(0..200), 0));
        } else {
            assert_eq!((lines.len(), dropped), (100, 100));
            assert!(cut.elapsed() >= Duration::from_secs(60) && cut.elapsed() < Duration::from_secs(80));
        }
        assert_eq!(w.metric("tail_invariant_violations_total"), 0);
        let ledger = slow.ledger();
        assert_eq!(ledger.matched, ledger.delivered + ledger.dropped);
        let before = w.nodes[1].state(Default::default()).await.is_ok();
        w.nodes[1].away(None);
        w.push(1, "later");
        let after = told(&mut slow).await;
        assert_eq!(after.last().unwrap(), "later", "{after:?} {before}");
        assert_eq!(after.contains(&"away 2".to_owned()), after.contains(&"back 2".to_owned()), "{after:?}");
    }
}

async fn told_soon(session: &mut Session) -> Vec<String> {
    match tokio::time::timeout(Duration::from_millis(100), session.next()).await {
        Ok(SessionEvent::Frame(frame)) => lines_of(&frame).0,
        _ => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn history_lacks_what_cannot_be_read_and_says_so() {
    let w = world(2, Config::default());
    w.push(0, "a");
    w.push(1, "b");
    let mut first = w.tail().await;
    assert_eq!(told(&mut first).await, ["a", "b"]);
    w.nodes[1].away(Some("cut"));
    assert_eq!(told(&mut first).await, ["away 2"]);
    let mut second = w.tail().await;
    assert_eq!(told(&mut second).await, ["away 2", "a"]);
    assert_eq!(w.metric("tail_histories_incomplete_total"), 1);
    w.nodes[1].away(None);
    assert_eq!(told(&mut second).await, ["back 2"]);
    // What a log could not look at is missing, too; the log itself is there.
    w.nodes[0].warnings.lock().push("a block is damaged".to_owned());
    let mut third = w.tail().await;
    assert_eq!(told(&mut third).await, ["away 1", "back 1", "a", "b"]);
}

/// Blocks that hold what logs say is in them.
struct TestBlocks {
    nodes: Vec<Arc<TestNode>>,
    /// The store says nothing since then.
    silent: Mutex<Option<Instant>>,
}

impl Blocks for TestBlocks {
    fn up_to(&self, boundaries: Arc<[(LogId, u64)]>, own: LogId, _: std::time::Instant) -> Arc<dyn Node> {
        let up_to = |node: &Arc<TestNode>| {
            let boundary = boundaries.iter().find(|(log, _)| *log == node.log_id());
            let in_blocks = *node.in_blocks.lock();
            (Arc::clone(node), boundary.map_or(in_blocks, |(_, boundary)| in_blocks.min(*boundary)))
        };
        let blocks = TestNode::as_blocks(own, self.nodes.iter().map(up_to).collect());
        blocks.away(self.silent.lock().map(|_| "silent"));
        blocks
    }
}

struct WithBlocks {
    listed: Arc<Changing>,
    blocks: Arc<TestBlocks>,
}

impl Nodes for WithBlocks {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.listed.nodes()
    }

    fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        Some(Arc::clone(&self.blocks) as Arc<_>)
    }

    fn unanswered(&self) -> Duration {
        self.blocks.silent.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }
}

fn with_blocks(w: &World) -> (Arc<Querier>, Arc<TestBlocks>) {
    let blocks = Arc::new(TestBlocks { nodes: w.nodes.clone(), silent: Mutex::default() });
    let nodes = WithBlocks { listed: Arc::clone(&w.listed), blocks: Arc::clone(&blocks) };
    (querier(Arc::new(nodes), Config::default(), &w.clock), blocks)
}

#[tokio::test(start_paused = true)]
async fn history_goes_on_without_a_store_that_says_nothing() {
    let w = world(2, Config::default());
    let (querier, blocks) = with_blocks(&w);
    for i in 0..6 {
        w.push(i % 2, &format!("line {i}"));
    }
    // The first two of each log are in blocks.
    w.nodes.iter().for_each(|node| *node.in_blocks.lock() = 2);
    *blocks.silent.lock() = Some(Instant::now());
    let w = World { querier, ..w };
    let mut session = w.tail().await;
    let (said, after) = first_told(&mut session).await;
    assert_eq!(said, ["away blocks", "back blocks", "line 4", "line 5"]);
    assert!((Duration::from_secs(2)..Duration::from_secs(3)).contains(&after), "{after:?}");
    w.push(0, "line 6");
    assert_eq!(told(&mut session).await, ["line 6"]);
    assert_eq!(w.metric("tail_histories_incomplete_total"), 1);
    // It has been silent for long: nobody waits as long again.
    let (said, after) = first_told(&mut w.tail().await).await;
    assert_eq!(said, ["away blocks", "back blocks", "line 4", "line 5", "line 6"]);
    assert!(after < Duration::from_secs(2), "{after:?}");
    *blocks.silent.lock() = None;
    assert_eq!(drain(&mut w.tail().await).await, (numbers(0..7), 0));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_add_its_blocks_gives_what_it_has_itself() {
    let w = world(1, Config::default());
    for i in 0..4 {
        w.push(0, &format!("line {i}"));
    }
    *w.nodes[0].in_blocks.lock() = 3;
    w.nodes[0].without_blocks(true);
    let mut session = w.tail().await;
    assert_eq!(told(&mut session).await, ["away blocks", "back blocks", "line 3"]);
    assert_eq!(w.metric("tail_histories_incomplete_total"), 1);
}

#[tokio::test(start_paused = true)]
async fn history_from_blocks_and_logs_has_each_line_once() {
    for delay in [0, 2] {
        let w = world(2, Config::default());
        let (querier, _) = with_blocks(&w);
        let tail = async || querier.tail(request(Duration::from_secs(delay))).await.unwrap();
        // The third node is not listed: its lines are in blocks alone.
        (0..10).for_each(|i| w.push(2, &format!("line {i}")));
        *w.nodes[2].in_blocks.lock() = 10;
        (10..20).for_each(|i| w.push(i % 2, &format!("line {i}")));
        *w.nodes[0].in_blocks.lock() = 3;
        w.nodes[0].trim(2);
        let mut first = tail().await;
        (20..40).for_each(|i| w.push(i % 2, &format!("line {i}")));
        sleep(Duration::from_millis(100)).await;
        // In blocks already, and with a delay not given out yet.
        *w.nodes[1].in_blocks.lock() = 12;
        let mut second = tail().await;
        *w.clock.0.lock() += 10 * SECOND;
        for session in [&mut first, &mut second] {
            let (mut lines, dropped) = drain(session).await;
            lines.sort_by_key(|line| line[5..].parse::<u64>().unwrap());
            assert_eq!((lines, dropped), (numbers(0..40), 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Logs break, return, appear, leave and are listed again in any order, sessions join, read and fall behind: everybody who joined before
    /// a line was pushed gets it once, and what was pushed earlier at most once.
    #[test]
    fn each_line_comes_once_whatever_happens_to_the_logs(
        delay in prop_oneof![Just(0u64), Just(2)],
        ring in prop_oneof![Just(600usize), Just(20_000)],
        steps in prop::collection::vec((0u8..8, 0usize..3, 1u64..20), 5..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let w = world(2, Config { feed_ring_bytes: ring, ..Config::default() });
            let mut listed = [true, true, false];
            let (mut sessions, mut pushed): (Vec<(Session, usize, Vec<String>)>, usize) = (Vec::new(), 0);
            let list = |listed: [bool; 3]| {
                let nodes: Vec<_> = w.nodes.iter().zip(listed).filter(|(_, listed)| *listed).map(|(n, _)| n).collect();
                w.listed.list(&nodes);
            };
            for (what, which, n) in steps {
                match what {
                    0..=2 => {
                        for _ in 0..n {
                            *w.clock.0.lock() += SECOND / 50;
                            w.push(which, &format!("{pushed}"));
                            pushed += 1;
                        }
                        sleep(Duration::from_millis(20 * n)).await;
                    }
                    3 => w.nodes[which].away(Some(["cut", "silent"][n as usize % 2])),
                    4 => w.nodes[which].away(None),
                    5 => {
                        listed[which] = !listed[which];
                        if listed.contains(&true) {
                            list(listed);
                        } else {
                            listed[which] = true;
                        }
                    }
                    6 if sessions.len() < 3 => {
                        let tail = TailRequest { limit: 100_000, ..request(Duration::from_secs(delay)) };
                        sessions.push((w.querier.tail(tail).await.unwrap(), pushed, Vec::new()));
                    }
                    _ => {
                        let at = which % sessions.len().max(1);
                        if let Some((session, _, seen)) = sessions.get_mut(at) {
                            for _ in 0..n {
                                let next = tokio::time::timeout(Duration::from_millis(1), session.next()).await;
                                let Ok(SessionEvent::Frame(frame)) = next else { break };
                                seen.extend(lines_of(&frame).0);
                            }
                        }
                    }
                }
            }
            w.nodes.iter().for_each(|node| node.away(None));
            list([true; 3]);
            sleep(Duration::from_secs(3)).await;
            *w.clock.0.lock() += 100 * SECOND;
            for (session, from, mut seen) in sessions {
                let mut session = session;
                while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(100), session.next()).await {
                    let (lines, told) = lines_of(&frame);
                    assert_eq!(told, 0);
                    seen.extend(lines);
                }
                let mut numbers: Vec<usize> = seen.iter().map(|line| line.parse().unwrap()).collect();
                numbers.sort();
                assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "twice: {numbers:?}");
                let live: Vec<_> = numbers.into_iter().filter(|n| *n >= from).collect();
                assert_eq!(live, (from..pushed).collect::<Vec<_>>(), "from {from}");
            }
            assert_eq!(w.metric("tail_invariant_violations_total"), 0);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn who_drops_rather_than_waits_knows_what_is_away() {
    let w = world(2, Config { feed_ring_bytes: 2000, ..Config::default() });
    let tail = TailRequest { notices: true, on_slow: OnSlow::Drop, start: Timestamp(0), ..request(Duration::ZERO) };
    let mut slow = w.querier.tail(TailRequest { expr: everything(), ..tail }).await.unwrap();
    assert_eq!(told(&mut slow).await, [""; 0]);
    w.nodes[1].away(Some("cut"));
    for i in 0..50 {
        w.push(0, &format!("line {i}"));
        sleep(Duration::from_millis(1)).await;
    }
    let mut text = String::new();
    while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(1), slow.next()).await {
        text.push_str(&String::from_utf8_lossy(&frame));
    }
    assert_eq!(text.matches(r#""type":"away""#).count(), 1, "{text}");
}
