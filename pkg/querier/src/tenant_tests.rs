//! Tails of several tenants against [`crate::testing::TestNode`], where all tenants share one label set and one log per node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tailwater_logql::LogQuery;
use tailwater_logql::ast::{LogExpr, MatchOp, Matcher};
use tailwater_model::{Limits, TenantId, TenantIds, TenantLimits};

use crate::session_tests::{SECOND, World, drain, everything, lines_of, numbers, request, world_with};
use crate::{Config, EndReason, Error, OnSlow, Session, SessionEvent, TENANT_LABEL, TailRequest};

/// Limits by tenant; whoever has none has the defaults.
struct PerTenant(Vec<(TenantId, Arc<Limits>)>);

impl TenantLimits for PerTenant {
    fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self.0.iter().find(|(id, _)| id == tenant).map(|(_, limits)| Arc::clone(limits)).unwrap_or_default()
    }
}

fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

fn world(nodes: u128, config: Config) -> World {
    world_with(nodes, config, Arc::new(PerTenant(Vec::new())))
}

fn tail_of(tenants: &str, delay: Duration) -> TailRequest {
    TailRequest { tenants: TenantIds::parse(tenants).unwrap(), ..request(delay) }
}

/// A tail whose selector has a matcher on the tenant, too.
fn tail_where(tenants: &str, op: MatchOp, value: &str) -> TailRequest {
    let mut expr: LogExpr = everything();
    expr.selector.push(Matcher { name: TENANT_LABEL.to_owned(), op, value: value.into() });
    let query = Arc::new(LogQuery::compile(&expr).unwrap());
    TailRequest { expr, query, ..tail_of(tenants, Duration::ZERO) }
}

/// Pushes lines of these tenants in turn, named by number and tenant.
fn push(w: &World, tenants: &[&str], range: std::ops::Range<i64>) {
    for i in range {
        let now = 1000 * SECOND + i;
        *w.clock.0.lock() = now;
        let tenant = tenants[i as usize % tenants.len()];
        w.nodes[0].push_as(tenant, now, &[(now, &format!("line {i}"))]);
    }
}

/// Tenants and lines of a frame.
fn named_lines_of(frame: &[u8]) -> Vec<(String, String)> {
    let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
    let of_stream = |stream: &serde_json::Value| -> Vec<(String, String)> {
        let tenant = stream["stream"][TENANT_LABEL].as_str().unwrap();
        let values = stream["values"].as_array().unwrap().iter();
        values.map(|v| (tenant.to_owned(), v[1].as_str().unwrap().to_owned())).collect()
    };
    frame["streams"].as_array().unwrap().iter().flat_map(of_stream).collect()
}

/// As [`drain`], with the tenants.
async fn drain_named(session: &mut Session) -> Vec<(String, String)> {
    let mut all = Vec::new();
    while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(5), session.next()).await {
        all.extend(named_lines_of(&frame));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn lines_of_all_named_tenants_come_with_their_tenant() {
    let w = world(1, Config::default());
    push(&w, &["a", "b", "c"], 0..9);
    let mut both = w.querier.tail(tail_of("a|c", Duration::ZERO)).await.unwrap();
    let mut one = w.querier.tail(tail_of("a", Duration::ZERO)).await.unwrap();
    push(&w, &["a", "b", "c"], 9..18);
    let of = |tenants: &[&str]| -> Vec<(String, String)> {
        let all = (0..18).map(|i| (["a", "b", "c"][i % 3].to_owned(), format!("line {i}")));
        all.filter(|(tenant, _)| tenants.contains(&tenant.as_str())).collect()
    };
    assert_eq!(drain_named(&mut both).await, of(&["a", "c"]));
    let texts: Vec<String> = of(&["a"]).into_iter().map(|(_, line)| line).collect();
    let SessionEvent::Frame(frame) = one.next().await else { panic!() };
    assert!(!String::from_utf8_lossy(&frame).contains(TENANT_LABEL), "one tenant is not named");
    assert_eq!(lines_of(&frame).0, texts[..3]);
    assert_eq!(drain(&mut one).await.0, texts[3..]);
}

#[tokio::test(start_paused = true)]
async fn history_is_the_newest_of_all_tenants_together() {
    let w = world(2, Config::default());
    push(&w, &["a", "b"], 0..100);
    w.nodes[1].push_as("a", 1000 * SECOND, &[(1000 * SECOND + 98, "elsewhere")]);
    let mut tail = w.querier.tail(TailRequest { limit: 4, ..tail_of("a|b", Duration::ZERO) }).await.unwrap();
    let lines: Vec<_> = drain_named(&mut tail).await.into_iter().map(|(tenant, line)| tenant + " " + &line).collect();
    assert_eq!(lines[0], "b line 97");
    assert_eq!(lines[3], "b line 99");
    assert!(lines.contains(&"a line 98".to_owned()) && lines.contains(&"a elsewhere".to_owned()), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn matchers_on_the_tenant_choose_among_those_named() {
    let w = world(1, Config::default());
    push(&w, &["a", "b", "c"], 0..9);
    for (op, value, wanted) in [
        (MatchOp::Eq, "a", vec!["a"]),
        (MatchOp::Neq, "a", vec!["b"]),
        (MatchOp::Re, "a|c", vec!["a"]),
        (MatchOp::Re, ".*", vec!["a", "b"]),
    ] {
        let mut tail = w.querier.tail(tail_where("a|b", op, value)).await.unwrap();
        let mut tenants: Vec<_> = drain_named(&mut tail).await.into_iter().map(|(tenant, _)| tenant).collect();
        tenants.sort();
        tenants.dedup();
        assert_eq!(tenants, wanted, "{op:?} {value}");
        assert_eq!(w.querier.tails()[0].tenants.to_string(), "a|b");
    }
    let mut none = w.querier.tail(tail_where("a|b", MatchOp::Eq, "c")).await.unwrap();
    push(&w, &["a", "b", "c"], 9..18);
    assert_eq!(drain(&mut none).await.0, numbers(0..0), "nobody is left");
    w.nodes[0].close();
    let SessionEvent::End(reason) = none.next().await else { panic!("a frame of nobody") };
    assert_eq!(reason, EndReason::IngestersGone);
}

fn metric(w: &World, name: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::default();
    w.querier.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("tailwater_querier_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn equal_tails_of_equal_tenants_share_a_feed() {
    let w = world(1, Config::default());
    let mut tails = Vec::new();
    for tenants in ["a|b", "b|a|a", "a|b|c"] {
        tails.push(w.querier.tail(tail_of(tenants, Duration::ZERO)).await.unwrap());
    }
    tails.push(w.querier.tail(tail_where("a|b|c", MatchOp::Neq, "c")).await.unwrap());
    assert_eq!(metric(&w, "feed_active"), 2);
    push(&w, &["a", "b"], 0..10);
    for tail in &mut tails {
        assert_eq!(drain(tail).await.0, numbers(0..10));
    }
    assert_eq!(metric(&w, "tail_lines_encoded_total"), 20);
}

#[tokio::test(start_paused = true)]
async fn a_tail_counts_for_each_of_its_tenants() {
    let limits = |tails| Arc::new(Limits { max_concurrent_tail_requests: tails, ..Limits::default() });
    let limits = PerTenant(vec![(id("a"), limits(3)), (id("b"), limits(1)), (id("c"), limits(0))]);
    let w = world_with(1, Config::default(), Arc::new(limits));
    let both = w.querier.tail(tail_of("a|b|c", Duration::ZERO)).await.unwrap();
    for tenants in ["b", "b|c", "a|b"] {
        let refused = w.querier.tail(tail_of(tenants, Duration::ZERO)).await.err().expect("one too many");
        assert_eq!(refused.to_string(), "max concurrent tail requests limit exceeded, count > limit (2 > 1)");
    }
    let more = [
        w.querier.tail(tail_of("a|c", Duration::ZERO)).await.unwrap(),
        w.querier.tail(tail_of("a", Duration::ZERO)).await.unwrap(),
    ];
    let refused = w.querier.tail(tail_of("a", Duration::ZERO)).await.err().expect("one too many");
    assert!(matches!(refused, Error::TooManyTails { count: 4, limit: 3 }), "{refused}");
    let open: Vec<_> = w.querier.tails().into_iter().map(|tail| tail.tenants.to_string()).collect();
    assert_eq!(open, ["a|b|c", "a|c", "a"], "each is listed once, and what was refused is not");
    drop(both);
    assert!(w.querier.tail(tail_of("b", Duration::ZERO)).await.is_ok());
    drop(more);
    assert!(w.querier.tails().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_strictest_limits_hold() {
    let limits = |matchers, days: u64| {
        let lookback = Duration::from_secs(days * 86_400);
        let limits =
            Limits { max_streams_matchers_per_query: matchers, max_query_lookback: lookback, ..Limits::default() };
        Arc::new(limits)
    };
    let limits = PerTenant(vec![(id("a"), limits(1, 0)), (id("b"), limits(9, 1))]);
    let w = world_with(1, Config::default(), Arc::new(limits));
    let many = w.querier.tail(tail_where("a|b", MatchOp::Eq, "b")).await.err().expect("too many matchers");
    assert!(matches!(many, Error::TooManyMatchers { count: 2, limit: 1 }), "{many}");
    // What lies before the shorter lookback is not shown, of neither.
    *w.clock.0.lock() = 200_000 * SECOND;
    for tenant in ["a", "b"] {
        w.nodes[0].push_as(tenant, 0, &[(SECOND, "old"), (190_000 * SECOND, "new")]);
    }
    let from_start = |tenants| TailRequest { limit: 10, ..tail_of(tenants, Duration::ZERO) };
    let mut both = w.querier.tail(from_start("a|b")).await.unwrap();
    assert_eq!(drain(&mut both).await.0, ["new", "new"]);
    let mut one = w.querier.tail(from_start("a")).await.unwrap();
    assert_eq!(drain(&mut one).await.0, ["old", "new"]);
    let crowd: Vec<_> = (0..257).map(|i| format!("t{i}")).collect();
    let refused = w.querier.tail(tail_of(&crowd.join("|"), Duration::ZERO)).await.err().expect("a crowd");
    assert_eq!(refused.to_string(), "a tail is of at most 256 tenants, and this one names 257");
    let crowd = &crowd[1..].join("|");
    assert!(w.querier.tail(tail_of(crowd, Duration::ZERO)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_delay_puts_tenants_in_order() {
    let w = world(1, Config::default());
    let mut tail = w.querier.tail(tail_of("a|b", Duration::from_secs(2))).await.unwrap();
    let now = 1000 * SECOND;
    w.nodes[0].push_as("b", now, &[(now - 10, "second"), (now - 5, "fourth")]);
    w.nodes[0].push_as("a", now, &[(now - 20, "first"), (now - 7, "third")]);
    assert!(tokio::time::timeout(Duration::from_secs(1), tail.next()).await.is_err(), "held back");
    *w.clock.0.lock() = now + 2 * SECOND;
    assert_eq!(drain(&mut tail).await.0, ["first", "second", "third", "fourth"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_session_gets_its_tenants_side_by_side() {
    let w = world(1, Config { feed_ring_bytes: 2000, ..Config::default() });
    let mut slow = w.querier.tail(tail_of("a|b|c", Duration::ZERO)).await.unwrap();
    let mut quick = w.querier.tail(tail_of("a|b|c", Duration::ZERO)).await.unwrap();
    for part in 0..10 {
        push(&w, &["a", "b", "c", "d"], part * 100..(part + 1) * 100);
        drain(&mut quick).await;
    }
    let wanted: Vec<_> = (0..1000).filter(|i| i % 4 != 3).map(|i| format!("line {i}")).collect();
    assert_eq!(drain(&mut slow).await, (wanted, 0));
    push(&w, &["a", "b", "c", "d"], 1000..1004);
    assert_eq!(drain(&mut slow).await.0, numbers(1000..1003), "and it is live again");
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_of_any_tenant_is_told_exactly() {
    let w = world(1, Config { feed_ring_bytes: 2000, ..Config::default() });
    let mut slow = w.querier.tail(tail_of("a|b", Duration::ZERO)).await.unwrap();
    let mut quick = w.querier.tail(tail_of("a|b", Duration::ZERO)).await.unwrap();
    for part in 0..10 {
        push(&w, &["a", "b", "c"], part * 99..(part + 1) * 99);
        drain(&mut quick).await;
    }
    w.nodes[0].trim(300);
    let (lines, told) = drain(&mut slow).await;
    assert_eq!((lines.len(), told), (660 - 200, 200));
    assert_eq!(slow.ledger().dropped, 200);
    assert_eq!(metric(&w, "tail_invariant_violations_total"), 0);
    // The feed itself is behind for one tenant only.
    w.nodes[0].hold(&id("b"), true);
    push(&w, &["a", "b"], 1000..1010);
    assert_eq!(drain(&mut quick).await.0.len(), 5);
    w.nodes[0].trim(998);
    w.nodes[0].hold(&id("b"), false);
    let (lines, told) = drain(&mut quick).await;
    assert_eq!((lines.len(), told), (1, 4));
    assert_eq!(quick.ledger().trimmed, 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_told_with_its_tenant() {
    let w = world(1, Config { feed_ring_bytes: 8000, ..Config::default() });
    let slow = TailRequest { on_slow: OnSlow::Drop, ..tail_of("a|b", Duration::ZERO) };
    let mut slow = w.querier.tail(slow).await.unwrap();
    drain(&mut slow).await;
    for i in 0..200 {
        push(&w, &["a", "b"], i..i + 1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let SessionEvent::Frame(frame) = slow.next().await else { panic!() };
    let told: serde_json::Value = serde_json::from_slice(&frame).unwrap();
    let told = told["dropped_entries"].as_array().unwrap();
    assert!(told.len() > 1, "{told:?}");
    for (i, entry) in told.iter().enumerate() {
        assert_eq!(entry["labels"][TENANT_LABEL], ["a", "b"][i % 2]);
    }
    let (lines, _) = drain(&mut slow).await;
    assert_eq!(lines.len() + told.len(), 200);
}

/// What a session of the random test has got: for each tenant its lines.
type Seen = BTreeMap<String, Vec<String>>;

fn see(seen: &mut Seen, frame: &[u8]) {
    for (tenant, line) in named_lines_of(frame) {
        seen.entry(tenant).or_default().push(line);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push { node: usize, tenant: usize, lines: i64, skew: i64 },
    Open { tenants: usize },
    Read { session: usize, frames: usize },
    Hold { node: usize, tenant: usize, hold: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0usize..2, 0usize..4, 1i64..30, -3i64..3)
            .prop_map(|(node, tenant, lines, skew)| Op::Push { node, tenant, lines, skew }),
        1 => (0usize..3).prop_map(|tenants| Op::Open { tenants }),
        2 => (0usize..4, 1usize..30).prop_map(|(session, frames)| Op::Read { session, frames }),
        2 => (0usize..2, 0usize..4, any::<bool>()).prop_map(|(node, tenant, hold)| Op::Hold { node, tenant, hold }),
    ]
}

const TENANTS: [&str; 4] = ["a", "b", "c", "d"];
const NAMED: [&str; 3] = ["a|b", "a|b|c", "b|c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Pushes of four tenants, follows that stand still for some of them, joins and reads in any order, any delay, a ring so small
    /// that everybody falls off it: each session gets each line of its tenants once, under its tenant, and none of another's.
    #[test]
    fn each_line_of_each_tenant_comes_once_whatever_happens(
        delay in prop_oneof![Just(0u64), Just(2)],
        ring in prop_oneof![Just(600usize), Just(20_000)],
        ops in prop::collection::vec(op(), 5..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let w = world(2, Config { feed_ring_bytes: ring, ..Config::default() });
            let mut sessions: Vec<(Session, usize, Seen)> = Vec::new();
            let mut pushed = Seen::new();
            let mut number = 0;
            for op in ops {
                match op {
                    Op::Push { node, tenant, lines, skew } => {
                        for _ in 0..lines {
                            let now = { let mut c = w.clock.0.lock(); *c += SECOND / 50; *c };
                            let text = format!("line {number:05}");
                            number += 1;
                            w.nodes[node].push_as(TENANTS[tenant], now, &[(now + skew * SECOND, &text)]);
                            pushed.entry(TENANTS[tenant].to_owned()).or_default().push(text);
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Op::Open { tenants } if sessions.len() < 4 => {
                        let tail = tail_of(NAMED[tenants], Duration::from_secs(delay));
                        let session = w.querier.tail(TailRequest { limit: 100_000, ..tail }).await.unwrap();
                        sessions.push((session, tenants, Seen::new()));
                    }
                    Op::Open { .. } => {}
                    Op::Hold { node, tenant, hold } => w.nodes[node].hold(&id(TENANTS[tenant]), hold),
                    Op::Read { session, frames } => {
                        if let Some((session, _, seen)) = sessions.get_mut(session) {
                            for _ in 0..frames {
                                let next = tokio::time::timeout(Duration::from_millis(1), session.next()).await;
                                let Ok(SessionEvent::Frame(frame)) = next else { break };
                                see(seen, &frame);
                            }
                        }
                    }
                }
            }
            for tenant in TENANTS {
                w.nodes.iter().for_each(|node| node.hold(&id(tenant), false));
            }
            // What was held is taken in now; then all of it is due.
            tokio::time::sleep(Duration::from_secs(1)).await;
            *w.clock.0.lock() += 100 * SECOND;
            for (session, tenants, seen) in &mut sessions {
                while let Ok(SessionEvent::Frame(frame)) = tokio::time::timeout(Duration::from_secs(30), session.next()).await {
                    assert_eq!(lines_of(&frame).1, 0);
                    see(seen, &frame);
                }
                seen.values_mut().for_each(|lines| lines.sort());
                let theirs = |tenant: &str| NAMED[*tenants].split('|').any(|named| named == tenant);
                let wanted: Seen = pushed.clone().into_iter().filter(|(tenant, _)| theirs(tenant)).collect();
                assert_eq!(&*seen, &wanted);
                let (ledger, total) = (session.ledger(), wanted.values().map(|lines| lines.len() as u64).sum::<u64>());
                assert_eq!((ledger.matched, ledger.delivered, ledger.dropped), (total, total, 0));
            }
            assert_eq!(metric(&w, "tail_invariant_violations_total"), 0);
        });
    }
}
