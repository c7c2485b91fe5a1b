//! Tails of metric queries against [`super::testing::SampleNode`]: each frame is compared with a query at its time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tailwater_logql::metric::{Evaluated, Steps};
use tailwater_model::{Clock, Limits, TenantIds, TenantLimits, Timestamp};
use tailwater_wire::node::{Blocks, Node};
use tokio::sync::watch;

use super::testing::{BEGIN, Line, RuntimeClock, SampleBlocks, SampleNode, metric, tenant};
use crate::{Config, EndReason, Error, MetricRequest, MetricSession, MetricTailRequest, Querier, SessionEvent};

const SECOND: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;
const COUNT: &str = r#"sum by (level) (count_over_time({s=~".+"} | logfmt [3s]))"#;

struct World {
    querier: Arc<Querier>,
    nodes: Vec<Arc<SampleNode>>,
    clock: Arc<RuntimeClock>,
}

fn limits() -> Limits {
    Limits { max_concurrent_tail_requests: 3, discover_log_levels: false, ..Limits::default() }
}

fn querier(nodes: &[Arc<SampleNode>], clock: &Arc<RuntimeClock>, config: Config, limits: Limits) -> Arc<Querier> {
    let nodes: Vec<Arc<dyn Node>> = nodes.iter().map(|n| Arc::clone(n) as Arc<dyn Node>).collect();
    let limits: Arc<dyn TenantLimits> = Arc::new(Arc::new(limits));
    Querier::new(config, crate::Fixed::new(nodes), limits, Arc::clone(clock) as Arc<_>)
}

fn world(nodes: u128, config: Config) -> World {
    let clock = RuntimeClock::new();
    let nodes: Vec<_> = (1..=nodes).map(|id| SampleNode::new(id, Arc::clone(&clock) as Arc<_>)).collect();
    World { querier: querier(&nodes, &clock, config, limits()), nodes, clock }
}

impl World {
    fn request(&self, query: &str) -> MetricTailRequest {
        MetricTailRequest {
            tenants: tenant().into(),
            expr: metric(query),
            step: Duration::from_secs(1),
            start: self.clock.now(),
            delay_for: Duration::ZERO,
        }
    }

    async fn tail(&self, query: &str) -> MetricSession {
        self.querier.tail_metric(self.request(query)).await.unwrap()
    }

    /// Pushes a line of the time that it is.
    fn push(&self, text: &str) {
        self.push_at(self.clock.now().nanos(), text);
    }

    fn push_at(&self, timestamp: i64, text: &str) {
        self.nodes[0].push(vec![Line { tenant: "t", stream: 0, timestamp, text: text.to_owned() }]);
    }
}

async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn frame(session: &mut MetricSession) -> Value {
    match tokio::time::timeout(Duration::from_secs(100), session.next()).await {
        Ok(SessionEvent::Frame(frame)) => serde_json::from_slice(&frame).unwrap(),
        other => panic!("no frame: {other:?}"),
    }
}

/// The step of a frame, in nanoseconds since [`BEGIN`].
fn time(frame: &Value) -> i64 {
    (frame["time"].as_f64().unwrap() * 1000.0).round() as i64 * MS - BEGIN
}

/// Labels and value of each series of a frame, sorted.
fn samples(frame: &Value) -> Vec<(String, String)> {
    let result = frame["data"]["result"].as_array().unwrap_or_else(|| panic!("{frame}"));
    let sample = |s: &Value| (s["metric"].to_string(), s["value"][1].as_str().unwrap().to_owned());
    let mut all: Vec<_> = result.iter().map(sample).collect();
    all.sort();
    all
}

fn warnings(frame: &Value) -> Vec<&str> {
    frame["warnings"].as_array().map(|all| all.iter().map(|w| w.as_str().unwrap()).collect()).unwrap_or_default()
}

/// What a query answers at a time, in the same form.
async fn asked(querier: &Querier, tenants: &TenantIds, query: &str, time: i64) -> Vec<(String, String)> {
    let steps = Steps::instant(Timestamp(BEGIN + time));
    let request = MetricRequest { tenants: tenants.clone(), expr: metric(query), steps, max_series: 0 };
    let Evaluated::Series(series) = querier.evaluate(&request).await.unwrap().value else { panic!("a number") };
    let text = |value: f64| tailwater_logql::go::number::format_f(value);
    let labels = |s: &tailwater_logql::metric::Series| {
        serde_json::to_string(&s.labels.iter().collect::<std::collections::BTreeMap<_, _>>()).unwrap()
    };
    let mut all: Vec<_> = series.iter().filter_map(|s| Some((labels(s), text(s.get(0)?)))).collect();
    all.sort();
    all
}

/// The lines that a frame says came too late.
fn late(frame: &Value) -> u64 {
    let told = warnings(frame).into_iter().find(|w| w.contains("too late"));
    told.map_or(0, |w| w.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn each_step_is_sent_when_it_is_due_also_an_empty_one() {
    let w = world(1, Config::default());
    let mut session = w.tail(COUNT).await;
    wait(250).await;
    w.push("level=error");
    let mut seen = Vec::new();
    for step in 1..=5 {
        let frame = frame(&mut session).await;
        assert_eq!(w.clock.now(), Timestamp(BEGIN + step * SECOND));
        assert_eq!((time(&frame), &frame["status"]), (step * SECOND, &Value::from("success")));
        seen.push(samples(&frame).len());
    }
    assert_eq!(seen, [1, 1, 1, 0, 0], "a line counts in three windows");
    assert_eq!(*w.nodes[0].given.lock(), 1, "and is looked at once");
    let ledger = session.ledger();
    assert_eq!((ledger.matched, ledger.delivered, ledger.dropped, ledger.trimmed), (5, 5, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_delay_waits_for_late_lines_and_what_is_later_is_told() {
    let w = world(1, Config::default());
    let mut request = w.request(COUNT);
    request.delay_for = Duration::from_secs(2);
    let mut session = w.querier.tail_metric(request).await.unwrap();
    wait(2900).await;
    w.push_at(BEGIN + 500 * MS, "level=a");
    let first = frame(&mut session).await;
    assert_eq!((time(&first), samples(&first).len(), late(&first)), (SECOND, 1, 0));
    assert_eq!(w.clock.now(), Timestamp(BEGIN + 3 * SECOND));
    wait(100).await;
    w.push_at(BEGIN + 700 * MS, "level=a");
    w.push_at(BEGIN + 700 * MS, "level=a");
    w.push_at(BEGIN + 600 * MS, "other");
    let second = frame(&mut session).await;
    let text = "2 lines came too late for steps that had been answered, the oldest of 1800000000.6";
    assert_eq!(warnings(&second), [text]);
    assert_eq!(samples(&second), asked(&w.querier, &tenant().into(), COUNT, 2 * SECOND).await);
    assert_eq!(warnings(&frame(&mut session).await), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn history_and_live_are_one_row_of_steps() {
    let w = world(1, Config::default());
    for i in 0..40 {
        wait(250).await;
        w.push(&format!("level=l{}", i % 3));
    }
    let mut request = w.request(COUNT);
    request.start = Timestamp(BEGIN + 2 * SECOND + 1);
    let mut session = w.querier.tail_metric(request).await.unwrap();
    for step in 3..15 {
        let frame = frame(&mut session).await;
        assert_eq!(time(&frame), step * SECOND);
        assert_eq!(samples(&frame), asked(&w.querier, &tenant().into(), COUNT, step * SECOND).await, "step {step}");
    }
    assert_eq!(w.clock.now(), Timestamp(BEGIN + 14 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn equal_tails_share_a_feed_and_a_slow_one_misses_no_step() {
    // Room for about three frames.
    let w = world(1, Config { feed_ring_bytes: 1000, ..Config::default() });
    let mut quick = w.tail(COUNT).await;
    let mut slow = w.tail(COUNT).await;
    assert_eq!(w.querier.metric_tails().feeds.lock().len(), 1);
    let mut wanted = Vec::new();
    for step in 1..=600 {
        wait(500).await;
        w.push(&format!("level=l{}", step % 3));
        if step == 20 {
            w.push_at(BEGIN + 5 * SECOND, "level=late");
        }
        wanted.push(frame(&mut quick).await);
    }
    let given = *w.nodes[0].given.lock();
    assert_eq!(given, 600, "the second tail cost nothing, and the late line is in no window any more");
    let mut told = 0;
    for (step, wanted) in (1..=600).zip(&wanted) {
        let frame = frame(&mut slow).await;
        assert_eq!(time(&frame), step * SECOND);
        told += late(&frame);
        if !(5..8).contains(&step) {
            assert_eq!(samples(&frame), samples(wanted));
        }
    }
    assert_eq!((told, wanted.iter().map(late).sum::<u64>()), (1, 1));
    assert_eq!(w.clock.now(), Timestamp(BEGIN + 600 * SECOND), "late, not waiting");
    drop((quick, slow));
    assert!(w.querier.metric_tails().feeds.lock().is_empty());
    assert!(w.querier.tails().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_says_so_and_the_next_is_tried() {
    let w = world(1, Config::default());
    let query = r#"sum_over_time({s=~".+"} | logfmt | unwrap n [1s])"#;
    let mut session = w.tail(query).await;
    wait(500).await;
    w.push("n=x");
    let failed = frame(&mut session).await;
    assert_eq!((&failed["status"], &failed["errorType"]), (&Value::from("error"), &Value::from("execution")));
    assert!(failed["error"].as_str().unwrap().starts_with("pipeline error: 'SampleExtractionErr'"), "{failed}");
    assert_eq!(time(&failed), SECOND);
    wait(500).await;
    w.push("n=3");
    assert_eq!(samples(&frame(&mut session).await)[0].1, "3");
}

#[tokio::test(start_paused = true)]
async fn without_room_a_step_fails_until_the_window_has_moved_on() {
    let w = world(1, Config { query_memory_bytes: 2000, ..Config::default() });
    let mut session = w.tail(COUNT).await;
    wait(300).await;
    (0..20).for_each(|i| w.push(&format!("level=l{i}")));
    let mut outcomes = Vec::new();
    for step in 1..=6 {
        let frame = frame(&mut session).await;
        outcomes.push(frame["status"].as_str().unwrap().to_owned());
        if step > 3 {
            assert_eq!(samples(&frame), asked(&w.querier, &tenant().into(), COUNT, step * SECOND).await);
        }
        wait(300).await;
        w.push("level=few");
    }
    assert_eq!(outcomes, ["error", "error", "error", "success", "success", "success"]);
    // The same for a session that evaluates them by itself.
    let mut request = w.request(COUNT);
    request.start = Timestamp(BEGIN);
    let mut session = w.querier.tail_metric(request).await.unwrap();
    let mut again = Vec::new();
    for _ in 0..=6 {
        again.push(frame(&mut session).await["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(again, ["success", "error", "error", "error", "success", "success", "success"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_named_and_read_later() {
    let w = world(2, Config::default());
    let mut session = w.tail(COUNT).await;
    wait(500).await;
    w.nodes[1].stuck.store(true, Ordering::Relaxed);
    w.push("level=a");
    let first = frame(&mut session).await;
    assert_eq!((time(&first), samples(&first).len()), (SECOND, 1));
    let text = "ingester 00000000000000000000000002 is unavailable: it did not answer in time";
    assert_eq!(warnings(&first), [text]);
    assert_eq!(w.clock.now(), Timestamp(BEGIN + 2 * SECOND), "it waited for a step");
    w.nodes[1].push(vec![Line { tenant: "t", stream: 1, timestamp: BEGIN + 1900 * MS, text: "level=b".to_owned() }]);
    w.nodes[1].stuck.store(false, Ordering::Relaxed);
    let second = frame(&mut session).await;
    assert_eq!((samples(&second).len(), warnings(&second)), (2, vec![]));
    // Clocks differ a little: the step waits until that of the node says so, too.
    w.nodes[1].behind.store(300 * MS, Ordering::Relaxed);
    let third = frame(&mut session).await;
    assert_eq!(warnings(&third), [""; 0]);
    assert_eq!(w.clock.now(), Timestamp(BEGIN + 3300 * MS));
    w.nodes.iter().for_each(|node| node.stuck.store(true, Ordering::Relaxed));
    let failed = frame(&mut session).await;
    assert_eq!(failed["error"], "no active ingester found");
    assert_eq!(warnings(&failed).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_delays_no_opening_and_is_read_from_there() {
    let w = world(2, Config::default());
    let push = |text: &str| {
        let (timestamp, text) = (w.clock.now().nanos(), text.to_owned());
        w.nodes[1].push(vec![Line { tenant: "t", stream: 1, timestamp, text }]);
    };
    wait(1999).await;
    push("level=before");
    wait(500).await;
    w.nodes[1].stuck.store(true, Ordering::Relaxed);
    let mut session = w.tail(COUNT).await;
    assert!(w.clock.now() <= Timestamp(BEGIN + 2800 * MS));
    push("level=b");
    w.push("level=a");
    let first = frame(&mut session).await;
    assert_eq!((time(&first), samples(&first).len(), warnings(&first).len()), (3 * SECOND, 1, 1));
    w.nodes[1].stuck.store(false, Ordering::Relaxed);
    // It may have been asked before.
    assert_eq!(time(&frame(&mut session).await), 4 * SECOND);
    for step in 5..9 {
        let frame = frame(&mut session).await;
        let wanted = asked(&w.querier, &tenant().into(), COUNT, step * SECOND).await;
        assert_eq!((time(&frame), samples(&frame), warnings(&frame).len()), (step * SECOND, wanted, 0));
    }
    // A session that begins earlier than its feed is told what it lacks, and ends no more than others.
    w.nodes[1].stuck.store(true, Ordering::Relaxed);
    let mut request = w.request(COUNT);
    request.start = Timestamp(BEGIN + 2 * SECOND);
    let mut early = w.querier.tail_metric(request).await.unwrap();
    let first = frame(&mut early).await;
    assert_eq!((time(&first), samples(&first).len()), (2 * SECOND, 0));
    assert_eq!(warnings(&first).len(), 1, "{first}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_listed_later_have_a_part_from_the_next_step_on() {
    let w = world(2, Config::default());
    let list = |nodes: &[Arc<SampleNode>]| -> Arc<[Arc<dyn Node>]> {
        nodes.iter().map(|node| Arc::clone(node) as Arc<dyn Node>).collect()
    };
    let listed = Arc::new(Listed(watch::Sender::new(list(&w.nodes[..1]))));
    let limits: Arc<dyn TenantLimits> = Arc::new(Arc::new(limits()));
    let querier =
        Querier::new(Config::default(), Arc::clone(&listed) as Arc<_>, limits, Arc::clone(&w.clock) as Arc<_>);
    let mut session = querier.tail_metric(w.request(COUNT)).await.unwrap();
    wait(300).await;
    w.push("level=a");
    w.nodes[1].push(vec![Line { tenant: "t", stream: 1, timestamp: BEGIN + 300 * MS, text: "level=b".to_owned() }]);
    let first = frame(&mut session).await;
    assert_eq!((samples(&first).len(), warnings(&first)), (1, vec![]));
    listed.0.send_replace(list(&w.nodes));
    let second = frame(&mut session).await;
    assert_eq!((samples(&second).len(), late(&second)), (2, 1), "it was late for the first");
    listed.0.send_replace(list(&w.nodes[1..]));
    wait(300).await;
    w.push("level=c");
    w.nodes[0].stuck.store(true, Ordering::Relaxed);
    let third = frame(&mut session).await;
    assert_eq!(warnings(&third).len(), 1, "it is asked once more");
    let fourth = frame(&mut session).await;
    assert_eq!((time(&fourth), warnings(&fourth).len()), (4 * SECOND, 0));
    w.nodes[0].stuck.store(false, Ordering::Relaxed);
    listed.0.send_replace(list(&w.nodes));
    let fifth = frame(&mut session).await;
    assert_eq!(samples(&fifth), asked(&w.querier, &tenant().into(), COUNT, 5 * SECOND).await);
    listed.0.send_replace(list(&[]));
    frame(&mut session).await;
    let none = frame(&mut session).await;
    assert_eq!(none["error"], "no active ingester found");
}

struct Listed(watch::Sender<Arc<[Arc<dyn Node>]>>);

impl crate::Nodes for Listed {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.0.subscribe()
    }
}

/// Logs that are listed and left out, and blocks of all of them.
struct WithBlocks(Listed, Vec<Arc<SampleNode>>);

impl WithBlocks {
    fn list(&self, nodes: &[usize]) {
        self.0.0.send_replace(nodes.iter().map(|at| Arc::clone(&self.1[*at]) as Arc<dyn Node>).collect());
    }
}

impl crate::Nodes for WithBlocks {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.0.nodes()
    }

    fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        Some(Arc::new(SampleBlocks(self.1.clone())))
    }
}

/// Three logs with two lines each, of which some is in blocks, and a querier that knows the first; the last is no more.
fn of_blocks() -> (World, Arc<WithBlocks>) {
    let w = world(3, Config::default());
    for (at, node) in w.nodes.iter().enumerate() {
        for i in 1..=2 {
            let line = Line { tenant: "t", stream: at as u64, timestamp: BEGIN, text: format!("level=l{at}{i}") };
            node.push(vec![line]);
        }
        node.in_blocks.store(if at == 2 { 2 } else { 1 }, Ordering::Relaxed);
    }
    let nodes = Arc::new(WithBlocks(Listed(watch::Sender::new(Arc::new([]))), w.nodes.clone()));
    nodes.list(&[0]);
    let limits: Arc<dyn TenantLimits> = Arc::new(Arc::new(limits()));
    let querier = Querier::new(Config::default(), Arc::clone(&nodes) as Arc<_>, limits, Arc::clone(&w.clock) as Arc<_>);
    (World { querier, ..w }, nodes)
}

/// The levels that a frame counts once each.
fn levels(frame: &Value) -> Vec<String> {
    let level = |(labels, value): (String, String)| {
        assert_eq!(value, "1", "{labels}");
        labels.split('"').nth(3).unwrap().to_owned()
    };
    samples(frame).into_iter().map(level).collect()
}

#[tokio::test(start_paused = true)]
async fn lines_of_logs_that_nobody_has_any_more_are_in_the_first_windows() {
    let (w, nodes) = of_blocks();
    wait(500).await;
    let mut session = w.tail(COUNT).await;
    let first = frame(&mut session).await;
    // Of the second log nothing is known but what is in blocks.
    assert_eq!(
        (levels(&first), warnings(&first)),
        (["l01", "l02", "l11", "l21", "l22"].map(String::from).into(), vec![])
    );
    assert_eq!(samples(&first), asked(&w.querier, &tenant().into(), COUNT, SECOND).await);
    // It is listed: what was read of it as of a log that nobody has is not counted again.
    nodes.list(&[0, 1]);
    let second = frame(&mut session).await;
    assert_eq!(warnings(&second).len(), 1, "{second}");
    assert_eq!(levels(&second), ["l01", "l02", "l11", "l21", "l22"]);
    wait(300).await;
    w.push("level=new");
    let third = frame(&mut session).await;
    assert_eq!(warnings(&third), [""; 0]);
    assert_eq!(levels(&third).iter().filter(|level| *level != "new").count(), 0, "the window has moved on");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_listed_later_is_counted_once() {
    const LONG: &str = r#"sum by (level) (count_over_time({s=~".+"} | logfmt [1m]))"#;
    let all = ["l01", "l02", "l11", "l12", "l21", "l22"];
    let (w, nodes) = of_blocks();
    wait(500).await;
    let mut session = w.tail(LONG).await;
    assert_eq!(levels(&frame(&mut session).await).len(), 5);
    nodes.list(&[0, 1]);
    assert_eq!(levels(&frame(&mut session).await).len(), 5);
    for _ in 0..2 {
        let frame = frame(&mut session).await;
        assert_eq!((levels(&frame), warnings(&frame)), (all.map(String::from).into(), vec![]));
    }
    // It leaves with all that it has in blocks, and a session begins that reads all steps again.
    w.nodes[1].in_blocks.store(2, Ordering::Relaxed);
    nodes.list(&[0]);
    frame(&mut session).await;
    assert_eq!(levels(&frame(&mut session).await), all);
    let request = MetricTailRequest { start: Timestamp(BEGIN + SECOND), ..w.request(LONG) };
    let mut early = w.querier.tail_metric(request).await.unwrap();
    let first = frame(&mut early).await;
    assert_eq!((time(&first), levels(&first), warnings(&first)), (SECOND, all.map(String::from).into(), vec![]));
    // One that has nothing in blocks has had nothing in them: nothing is read again.
    let given = *w.nodes[0].given.lock();
    let fresh = SampleNode::new(9, Arc::clone(&w.clock) as Arc<_>);
    let list: Vec<Arc<dyn Node>> = vec![Arc::clone(&w.nodes[0]) as Arc<dyn Node>, Arc::clone(&fresh) as Arc<dyn Node>];
    nodes.0.0.send_replace(list.into());
    wait(300).await;
    fresh.push(vec![Line { tenant: "t", stream: 9, timestamp: w.clock.now().nanos(), text: "level=l9".to_owned() }]);
    let last = frame(&mut session).await;
    assert_eq!((levels(&last).len(), warnings(&last).len()), (7, 0), "{last}");
    assert_eq!(*w.nodes[0].given.lock(), given);
}

#[tokio::test(start_paused = true)]
async fn blocks_that_cannot_be_read_yet_are_told_and_counted_later() {
    let (w, nodes) = of_blocks();
    wait(500).await;
    w.nodes[0].stuck_blocks.store(true, Ordering::Relaxed);
    w.nodes[0].in_blocks.store(0, Ordering::Relaxed);
    let mut session = w.tail(COUNT).await;
    wait(1000).await;
    // While the first step waits for blocks another log is listed: nothing has been read, and all is read without it.
    nodes.list(&[0, 1]);
    let first = frame(&mut session).await;
    assert_eq!(levels(&first), ["l01", "l02"]);
    let text = "lines in blocks of logs that no ingester has any more are missing: they were not read in time";
    assert_eq!(warnings(&first), [text]);
    w.nodes[0].stuck_blocks.store(false, Ordering::Relaxed);
    let second = frame(&mut session).await;
    assert_eq!((levels(&second).len(), warnings(&second)), (6, vec![]), "{second}");
}

#[tokio::test(start_paused = true)]
async fn trimmed_lines_are_told() {
    let w = world(1, Config::default());
    let mut session = w.tail(COUNT).await;
    wait(200).await;
    w.push("level=a");
    w.push("level=b");
    w.nodes[0].trim();
    w.push("level=c");
    let first = frame(&mut session).await;
    assert_eq!(warnings(&first), ["at least 2 lines were trimmed from the log before being read"]);
    assert_eq!((samples(&first).len(), session.ledger().trimmed), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn limits_are_those_of_queries_and_of_tails() {
    let w = world(1, Config { tail_max_duration: Duration::from_millis(2500), ..Config::default() });
    let mut session = w.tail(COUNT).await;
    let _others = (w.tail(COUNT).await, w.tail("vector(1)").await);
    assert_eq!(w.querier.tails().len(), 3);
    let error = w.querier.tail_metric(w.request(COUNT)).await.err().unwrap();
    assert!(matches!(error, Error::TooManyTails { count: 4, limit: 3 }), "{error}");
    frame(&mut session).await;
    frame(&mut session).await;
    let end = session.next().await;
    assert!(matches!(end, SessionEvent::End(EndReason::MaxDuration)), "{end:?}");
    drop(session);
    let mut request = w.request(COUNT);
    request.start = Timestamp(BEGIN + 100 * SECOND);
    assert!(matches!(w.querier.tail_metric(request).await, Err(Error::PastLookback { .. })));
    let mut queriers = Vec::new();
    let mut tail = async |limits: Limits| {
        queriers.push(querier(&w.nodes, &w.clock, Config::default(), limits));
        queriers.last().unwrap().tail_metric(w.request(COUNT)).await
    };
    let short = Limits { max_query_range: Duration::from_secs(1), ..limits() };
    assert!(matches!(tail(short).await, Err(Error::RangeTooLong { .. })));
    w.push("level=more than ten bytes");
    let little = Limits { max_query_bytes_read: 10, ..limits() };
    assert!(matches!(tail(little).await, Err(Error::TooManyBytes { .. })));
    let mut few = tail(Limits { max_query_series: 1, ..limits() }).await.unwrap();
    w.push("level=two");
    assert!(frame(&mut few).await["error"].as_str().unwrap().contains("maximum number of series"));
}

#[tokio::test(start_paused = true)]
async fn a_number_is_a_step_too_and_closing_ends_all() {
    let w = world(1, Config::default());
    w.nodes[0].stuck.store(true, Ordering::Relaxed);
    let mut session = w.tail("1 + 1").await;
    let first = frame(&mut session).await;
    assert_eq!(first["data"]["resultType"], "scalar");
    assert_eq!(first["data"]["result"][1], "2");
    wait(10).await;
    w.querier.close();
    let end = session.next().await;
    assert!(matches!(end, SessionEvent::End(EndReason::IngestersGone)), "{end:?}");
    let mut session = w.tail("1 + 1").await;
    assert!(matches!(session.next().await, SessionEvent::End(EndReason::IngestersGone)));
}

#[tokio::test(start_paused = true)]
async fn several_tenants_are_told_apart() {
    let w = world(1, Config::default());
    let query = r#"sum by (__tenant_id__) (count_over_time({s=~".+", __tenant_id__!="c"}[3s]))"#;
    let mut request = w.request(query);
    request.tenants = TenantIds::parse("a|b|c").unwrap();
    let mut session = w.querier.tail_metric(request).await.unwrap();
    assert_eq!(w.querier.tails()[0].tenants.to_string(), "a|b|c");
    wait(100).await;
    for (timestamp, tenant) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        w.nodes[0].push(vec![Line { tenant, stream: 0, timestamp: BEGIN + timestamp, text: "x".to_owned() }]);
    }
    let wanted = [
        (r#"{"__tenant_id__":"a"}"#.to_owned(), "2".to_owned()),
        (r#"{"__tenant_id__":"b"}"#.to_owned(), "1".to_owned()),
    ];
    assert_eq!(samples(&frame(&mut session).await), wanted);
}

const QUERIES: [(&str, i64, i64); 6] = [
    // The query, its range and its offset in nanoseconds.
    (COUNT, 3 * SECOND, 0),
    (r#"count_over_time({s="1"} |= "a" [2500ms])"#, 2500 * MS, 0),
    (r#"max_over_time({s=~".+"} | logfmt | unwrap n [2s])"#, 2 * SECOND, 0),
    (r#"rate_counter({s=~".+"} | logfmt | unwrap n [4s])"#, 4 * SECOND, 0),
    (r#"absent_over_time({s="0"}[400ms] offset 1s)"#, 400 * MS, SECOND),
    (r#"sum(count_over_time({s=~".+"}[2s])) / 2"#, 2 * SECOND, 0),
];

/// After how many milliseconds, on which node, in which stream, how far from now, and which line.
type Push = (i64, usize, u64, i64, usize);

fn pushes() -> impl Strategy<Value = Vec<Push>> {
    prop::collection::vec((0_i64..60, 0_usize..2, 0_u64..2, -50_i64..20, 0_usize..4), 0..60)
}

async fn lines_in_time_are_in_their_frames(which: usize, pushes: Vec<Push>, delay: u64) -> Result<(), TestCaseError> {
    let (query, range, offset) = QUERIES[which];
    let w = world(2, Config::default());
    let mut request = w.request(query);
    request.delay_for = Duration::from_secs(delay);
    let mut session = w.querier.tail_metric(request).await.unwrap();
    let mut clock = 0;
    // Never at the moment at which a step is answered.
    wait(5).await;
    for (pause, node, stream, ago, text) in pushes {
        wait(pause.unsigned_abs() * 10).await;
        clock += pause * 10;
        let text = ["level=a n=1", "level=b n=2", "level=a n=3", "n=5"][text].to_owned();
        let timestamp = BEGIN + (clock + ago * 100) * MS;
        w.nodes[node].push(vec![Line { tenant: "t", stream, timestamp, text }]);
    }
    // Everything that was pushed is in a frame, or late, or lies in the future.
    let steps = clock / 1000 + 5;
    let (mut told, mut seen) = (0, Vec::new());
    for step in 1..=steps {
        let frame = frame(&mut session).await;
        prop_assert_eq!(time(&frame), step * SECOND);
        told += late(&frame);
        seen.push(samples(&frame));
    }
    let answered_at = |step: i64| BEGIN + step * SECOND + delay as i64 * SECOND;
    for (step, seen) in (1..).zip(seen) {
        let nodes: Vec<_> = w.nodes.iter().map(|node| node.as_before(answered_at(step))).collect();
        let then = querier(&nodes, &w.clock, Config::default(), limits());
        prop_assert_eq!(seen, asked(&then, &tenant().into(), query, step * SECOND).await, "step {}", step);
    }
    let mut expected = 0;
    for node in &w.nodes {
        let mut met = std::collections::HashSet::new();
        for (accepted, line) in node.lines() {
            let matters = match which {
                1 => line.stream == 1 && line.text.contains('a'),
                4 => line.stream == 0,
                _ => true,
            };
            // Steps below zero are as good as answered before the tail began; what was late for step 1 and before was told with step 0.
            let late = accepted > answered_at(0)
                && (-10..=steps - 1).any(|step| {
                    let end = BEGIN + step * SECOND - offset;
                    answered_at(step) < accepted && end - range < line.timestamp && line.timestamp <= end
                });
            expected += u64::from(met.insert(line) && matters && late);
        }
    }
    prop_assert_eq!(told, expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A frame is what a query would have answered at that moment, and what came later is counted exactly.
    #[test]
    fn frames_are_what_queries_answer(which in 0..QUERIES.len(), pushes in pushes(), delay in 0_u64..3) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(lines_in_time_are_in_their_frames(which, pushes, delay))?;
    }
}
