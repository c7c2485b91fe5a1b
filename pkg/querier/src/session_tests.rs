//! Feeds and sessions against [`crate::testing::TestNode`]: what a client sees is checked line by line.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tailwater_logql::LogQuery;
use tailwater_logql::ast::{LogExpr, MatchOp, Matcher};
use tailwater_model::{Limits, TenantIds, TenantLimits, Timestamp};
use tailwater_wire::frame::TailEncoding;
use tailwater_wire::node::{Direction, Node};

use crate::testing::{TENANT, TestClock, TestNode};
use crate::{Config, EndReason, Error, LogsRequest, OnSlow, Querier, Session, SessionEvent, TailRequest};

pub(crate) const SECOND: i64 = 1_000_000_000;

pub(crate) struct World {
    pub(crate) querier: Arc<Querier>,
    pub(crate) nodes: Vec<Arc<TestNode>>,
    pub(crate) clock: Arc<TestClock>,
}

fn world(nodes: u128, config: Config) -> World {
    let limits = Arc::new(Limits { max_concurrent_tail_requests: 3, ..Limits::default() });
    world_with(nodes, config, Arc::new(limits))
}

pub(crate) fn world_with(nodes: u128, config: Config, limits: Arc<dyn TenantLimits>) -> World {
    let nodes: Vec<Arc<TestNode>> = (1..=nodes).map(TestNode::new).collect();
    let clock = Arc::new(TestClock::default());
    *clock.0.lock() = 1000 * SECOND;
    let dynamic: Vec<Arc<dyn Node>> = nodes.iter().map(|n| Arc::clone(n) as Arc<dyn Node>).collect();
    let querier = Querier::new(config, crate::Fixed::new(dynamic), limits, Arc::clone(&clock) as Arc<_>);
    World { querier, nodes, clock }
}

/// `{a=~".+"}`
pub(crate) fn everything() -> LogExpr {
    let any = Matcher { name: "a".to_owned(), op: MatchOp::Re, value: ".+".into() };
    LogExpr { selector: vec![any], stages: Vec::new() }
}

pub(crate) fn request(delay: Duration) -> TailRequest {
    TailRequest {
        tenants: TenantIds::parse(TENANT).unwrap(),
        expr: everything(),
        query: Arc::new(LogQuery::compile(&everything()).unwrap()),
        limit: 100,
        start: Timestamp(0),
        delay_for: delay,
        encoding: TailEncoding::V1 { categorize: false, flags: Vec::new() },
        on_slow: OnSlow::Wait,
        resume: crate::Resume::No,
        notices: false,
    }
}

/// Lines of a frame, and how many it says were dropped.
pub(crate) fn lines_of(frame: &[u8]) -> (Vec<String>, u64) {
    let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
    let streams = frame["streams"].as_array().unwrap();
    let values = streams.iter().flat_map(|s| s["values"].as_array().unwrap());
    let lines = values.map(|v| v[1].as_str().unwrap().to_owned()).collect();
    let told = frame["dropped_entries"].as_array().map_or(0, |d| {
        d.iter().map(|e| e["labels"]["dropped_lines"].as_str().map_or(1, |n| n.parse::<u64>().unwrap())).sum()
    });
    (lines, told)
}

/// Everything that comes until nothing comes for a while.
pub(crate) async fn drain(session: &mut Session) -> (Vec<String>, u64) {
    let (mut all, mut told, before) = (Vec::new(), 0, session.ledger().delivered);
    while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(5), session.next()).await {
        let (lines, dropped) = lines_of(&frame);
        all.extend(lines);
        told += dropped;
        let ledger = session.ledger();
        assert_eq!(ledger.matched, ledger.delivered + ledger.dropped, "{ledger:?}");
    }
    let ledger = session.ledger();
    assert_eq!(ledger.delivered - before, all.len() as u64);
    (all, told)
}

pub(crate) fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|i| format!("line {i}")).collect()
}

fn push(w: &World, range: std::ops::Range<i64>) {
    for i in range {
        let now = 1000 * SECOND + i;
        *w.clock.0.lock() = now;
        w.nodes[0].push(now, &[(now, &format!("line {i}"))]);
    }
}

#[tokio::test(start_paused = true)]
async fn history_comes_first_oldest_to_newest_and_then_live() {
    let w = world(1, Config::default());
    push(&w, 0..150);
    let mut session = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    push(&w, 150..160);
    assert_eq!(drain(&mut session).await.0, numbers(50..160));
    push(&w, 160..170);
    assert_eq!(drain(&mut session).await.0.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_slow_session_is_late_and_loses_nothing() {
    let w = world(1, Config { feed_ring_bytes: 2000, ..Config::default() });
    let mut slow = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    let mut quick = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    let mut seen = Vec::new();
    for part in 0..20 {
        push(&w, part * 100..(part + 1) * 100);
        seen.extend(drain(&mut quick).await.0);
    }
    assert_eq!(seen, numbers(0..2000));
    let (lines, told) = drain(&mut slow).await;
    assert_eq!(lines, numbers(0..2000));
    assert_eq!(told, 0);
    push(&w, 2000..2010);
    assert_eq!(drain(&mut slow).await.0, numbers(2000..2010), "and it is live again");
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_is_told_exactly() {
    let w = world(1, Config { feed_ring_bytes: 2000, ..Config::default() });
    let mut slow = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    let mut quick = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    for part in 0..10 {
        push(&w, part * 100..(part + 1) * 100);
        drain(&mut quick).await;
    }
    w.nodes[0].trim(300);
    let (lines, told) = drain(&mut slow).await;
    assert_eq!((lines, told), (numbers(300..1000), 300));
    assert_eq!(slow.ledger().dropped, 300);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asked_for_it_loses_the_oldest_and_is_told() {
    let w = world(1, Config { feed_ring_bytes: 8000, ..Config::default() });
    let mut slow = w.querier.tail(TailRequest { on_slow: OnSlow::Drop, ..request(Duration::ZERO) }).await.unwrap();
    drain(&mut slow).await;
    for i in 0..200 {
        push(&w, i..i + 1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (lines, told) = drain(&mut slow).await;
    assert!(!lines.is_empty() && lines.len() < 200, "{}", lines.len());
    assert_eq!(lines, numbers(200 - lines.len() as i64..200));
    assert_eq!(told, 200 - lines.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn two_sources_are_put_in_order_within_the_delay() {
    let w = world(2, Config::default());
    let mut session = w.querier.tail(request(Duration::from_secs(2))).await.unwrap();
    let now = 1000 * SECOND;
    w.nodes[0].push(now, &[(now - 10, "b"), (now - 5, "d")]);
    w.nodes[1].push(now, &[(now - 20, "a"), (now - 7, "c")]);
    assert!(tokio::time::timeout(Duration::from_secs(1), session.next()).await.is_err(), "held back");
    *w.clock.0.lock() = now + 2 * SECOND;
    assert_eq!(drain(&mut session).await.0, ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_joins_a_delayed_feed_gets_each_line_once() {
    let w = world(1, Config::default());
    let mut first = w.querier.tail(request(Duration::from_secs(2))).await.unwrap();
    push(&w, 0..10);
    assert!(tokio::time::timeout(Duration::from_millis(100), first.next()).await.is_err());
    // Held back for the first; a second one with room for fewer historic lines than are held.
    let mut second = w.querier.tail(TailRequest { limit: 5, ..request(Duration::from_secs(2)) }).await.unwrap();
    *w.clock.0.lock() = 1003 * SECOND;
    assert_eq!(drain(&mut first).await.0, numbers(0..10));
    assert_eq!(drain(&mut second).await.0, numbers(0..10));
}

#[tokio::test(start_paused = true)]
async fn equal_tails_share_one_encoding() {
    let w = world(1, Config::default());
    let mut a = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    let mut b = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    push(&w, 0..10);
    assert_eq!(drain(&mut a).await.0, drain(&mut b).await.0);
    let mut registry = prometheus_client::registry::Registry::default();
    w.querier.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("tailwater_querier_feed_active 1\n"), "{text}");
    assert!(text.contains("tailwater_querier_tail_lines_encoded_total 10\n"), "{text}");
    assert!(text.contains("tailwater_querier_tail_lines_delivered_total 20\n"), "{text}");
    drop((a, b));
    tokio::task::yield_now().await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("tailwater_querier_feed_active 0\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_tail_ends_with_a_reason() {
    let w = world(1, Config { tail_max_duration: Duration::from_secs(10), ..Config::default() });
    let mut session = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    let SessionEvent::End(reason) = session.next().await else { panic!("a frame out of nothing") };
    assert_eq!(reason, EndReason::MaxDuration);
    let mut session = w.querier.tail(request(Duration::ZERO)).await.unwrap();
    push(&w, 0..3);
    w.nodes[0].close();
    let SessionEvent::Frame(_) = session.next().await else { panic!("what was accepted is delivered first") };
    let SessionEvent::End(reason) = session.next().await else { panic!("no end") };
    assert_eq!(reason, EndReason::IngestersGone);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_has_so_many_tails_and_gets_them_back() {
    let w = world(1, Config::default());
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(w.querier.tail(request(Duration::ZERO)).await.unwrap());
    }
    let refused = w.querier.tail(request(Duration::ZERO)).await.err().expect("a fourth");
    assert_eq!(refused.to_string(), "max concurrent tail requests limit exceeded, count > limit (4 > 3)");
    assert_eq!(w.querier.tails().len(), 3);
    open.pop();
    assert!(w.querier.tail(request(Duration::ZERO)).await.is_ok());
    let future = TailRequest { start: Timestamp(2000 * SECOND), ..request(Duration::ZERO) };
    assert!(matches!(w.querier.tail(future).await, Err(Error::PastLookback { .. })));
}

#[tokio::test]
async fn an_interval_thins_out_what_the_limit_leaves() {
    let w = world(2, Config::default());
    for i in 0..3000i64 {
        w.nodes[(i % 2) as usize].push(0, &[(i, &i.to_string())]);
    }
    let request = |direction, interval, limit| LogsRequest {
        tenants: TenantIds::parse("t").unwrap(),
        expr: everything(),
        start: Timestamp(0),
        end: Timestamp(3000),
        limit,
        direction,
        interval: Duration::from_nanos(interval),
    };
    let texts = |answer: crate::LogsAnswer| -> Vec<String> {
        answer.lines.iter().map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect()
    };
    let every = w.querier.select_logs(request(Direction::Forward, 0, 4)).await.unwrap();
    assert_eq!(texts(every), ["0", "1", "2", "3"]);
    let thin = w.querier.select_logs(request(Direction::Forward, 700, 3000)).await.unwrap();
    assert_eq!(texts(thin), ["0", "700", "1400", "2100", "2800"]);
    let back = w.querier.select_logs(request(Direction::Backward, 700, 1500)).await.unwrap();
    assert_eq!(texts(back), ["2999", "2299", "1599"]);
    let few = w.querier.select_logs(request(Direction::Forward, 700, 5)).await.unwrap();
    assert_eq!(texts(few), ["0"]);
}

#[tokio::test]
async fn what_nodes_could_not_look_at_is_told_once() {
    let w = world(2, Config::default());
    *w.nodes[0].warnings.lock() = vec!["one".into(), "two".into()];
    *w.nodes[1].warnings.lock() = vec!["two".into(), "three".into()];
    let want = ["one", "two", "three"];
    let tenants = TenantIds::parse("t").unwrap();
    let (start, end) = (Timestamp(0), Timestamp(10));
    let logs = LogsRequest {
        tenants: tenants.clone(),
        expr: everything(),
        start,
        end,
        limit: 1,
        direction: Direction::Forward,
        interval: Duration::ZERO,
    };
    assert_eq!(w.querier.select_logs(logs).await.unwrap().warnings, want);
    let Ok(tailwater_logql::ast::Expr::Metric(expr)) = tailwater_logql::parse(r#"rate({a="b"}[1m])"#) else { panic!() };
    let steps = tailwater_logql::metric::Steps::instant(end);
    let metric = crate::MetricRequest { tenants: tenants.clone(), expr, steps, max_series: 0 };
    assert_eq!(w.querier.evaluate(&metric).await.unwrap().warnings, want);
    let meta = crate::MetaRequest { tenants, selectors: vec![], start, end };
    assert_eq!(w.querier.labels(&meta, None).await.unwrap().warnings, want);
    assert_eq!(w.querier.series(&meta).await.unwrap().warnings, want);
    assert_eq!(w.querier.stats(&meta).await.unwrap().warnings, want);
    assert_eq!(w.querier.patterns(&meta, 1).await.unwrap().warnings, want);
    let volume = crate::VolumeRequest {
        meta,
        step: None,
        by: crate::VolumeBy::Series,
        target_labels: vec![],
        limit: 1,
        max_series: 1,
    };
    assert_eq!(w.querier.volume(&volume).await.unwrap().warnings, want);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Pushes, reads, joins and pauses in any order, any delay, a ring so small that everybody falls off it: each session gets each
    /// line once, from its start on.
    #[test]
    fn each_line_comes_once_whatever_happens(
        delay in prop_oneof![Just(0u64), Just(2)],
        ring in prop_oneof![Just(600usize), Just(20_000)],
        steps in prop::collection::vec((0u8..6, 1i64..40, -3i64..3), 5..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let w = world(2, Config { feed_ring_bytes: ring, ..Config::default() });
            let mut sessions: Vec<(Session, Vec<String>)> = Vec::new();
            let mut pushed = Vec::new();
            for (what, n, skew) in steps {
                match what {
                    0..=2 => {
                        for _ in 0..n {
                            let now = { let mut c = w.clock.0.lock(); *c += SECOND / 50; *c };
                            let text = format!("line {}", pushed.len());
                            w.nodes[usize::from(what) % 2].push(now, &[(now + skew * SECOND, &text)]);
                            pushed.push(text);
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    3 if sessions.len() < 3 => {
                        let r = TailRequest { limit: 100_000, ..request(Duration::from_secs(delay)) };
                        sessions.push((w.querier.tail(r).await.unwrap(), Vec::new()));
                    }
                    _ => {
                        let at = n as usize % sessions.len().max(1);
                        if let Some((session, seen)) = sessions.get_mut(at) {
                            for _ in 0..n {
                                let next = tokio::time::timeout(Duration::from_millis(1), session.next()).await;
                                let Ok(SessionEvent::Frame(frame)) = next else { break };
                                seen.extend(lines_of(&frame).0);
                            }
                        }
                    }
                }
            }
            *w.clock.0.lock() += 100 * SECOND;
            pushed.sort();
            for (session, seen) in &mut sessions {
                while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(30), session.next()).await {
                    let (lines, told) = lines_of(&frame);
                    assert_eq!(told, 0);
                    seen.extend(lines);
                }
                seen.sort();
                assert_eq!(&*seen, &pushed);
                let ledger = session.ledger();
                assert_eq!((ledger.matched, ledger.dropped), (pushed.len() as u64, 0));
            }
        });
    }
}
