//! Tails of metric queries over a real ingester, in real time and in parallel: every frame is compared with the query asked later.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails the test")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tailwater_ingester::{Config as IngesterConfig, Ingester};
use tailwater_logql::ast::{Expr, MetricExpr};
use tailwater_logql::metric::{Evaluated, Steps};
use tailwater_model::{Limits, SystemClock, TenantId, TenantLimits, Timestamp};
use tailwater_querier::{Config, MetricRequest, MetricSession, MetricTailRequest, Querier, SessionEvent};
use tailwater_wire::compress::Caps;
use tailwater_wire::node::Node;
use tailwater_wire::push::{Kind, Outgoing, encode, read};

const QUERIES: [&str; 4] = [
    r#"sum by (level) (count_over_time({app="live"} | logfmt [3s]))"#,
    r#"sum by (stream) (rate({app="live"}[2500ms]))"#,
    r#"quantile_over_time(0.9, {app="live"} | logfmt | unwrap n [2s]) by (level)"#,
    r#"sum(count_over_time({app="live"} |= "error" [4s])) / sum(count_over_time({app="live"}[4s]))"#,
];

fn tenant() -> TenantId {
    TenantId::parse("t").unwrap()
}

fn limits() -> Limits {
    Limits {
        ingestion_rate_mb: 1000.0,
        ingestion_burst_size_mb: 1000.0,
        per_stream_rate_limit: 1 << 40,
        per_stream_rate_limit_burst: 1 << 40,
        max_concurrent_tail_requests: 0,
        ..Limits::default()
    }
}

fn metric(text: &str) -> MetricExpr {
    let Ok(Expr::Metric(expr)) = tailwater_logql::syntax::parse(text) else { panic!("{text}") };
    expr
}

/// Pushes for so many seconds; lines are up to half a second old when they come.
async fn pusher(ingester: Arc<Ingester>, stream: usize, seconds: u64) {
    let labels = format!("{{app=\"live\", stream=\"{stream}\"}}");
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut number = stream as u64;
    while tokio::time::Instant::now() < until {
        let lines: Vec<(Timestamp, String)> = (0..20)
            .map(|i| {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let old = Duration::from_millis((number >> 33) % 500);
                let level = ["info", "error"][(number >> 40) as usize % 2];
                (Timestamp::now().saturating_sub(old), format!("level={level} n={}{i}", (number >> 50) % 100))
            })
            .collect();
        let entries = lines.iter().map(|(at, line)| Outgoing { timestamp: *at, line: line.as_bytes(), metadata: &[] });
        let body = encode([(labels.as_str(), entries)]).unwrap();
        let push = read(Kind::V1, Some("application/x-protobuf"), None, &body, &Caps::default()).unwrap();
        ingester.push(&tenant(), push, Some(&body)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
}

/// The time of a frame in seconds, and its samples.
fn samples(frame: &[u8]) -> (i64, BTreeMap<String, String>) {
    let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
    assert!(frame.get("warnings").is_none(), "{frame}");
    let result = frame["data"]["result"].as_array().unwrap_or_else(|| panic!("{frame}"));
    let sample = |s: &serde_json::Value| (s["metric"].to_string(), s["value"][1].as_str().unwrap().to_owned());
    (frame["time"].as_i64().unwrap(), result.iter().map(sample).collect())
}

async fn asked(querier: &Querier, query: &str, time: i64) -> BTreeMap<String, String> {
    let steps = Steps::instant(Timestamp(time * 1_000_000_000));
    let request = MetricRequest { tenants: tenant().into(), expr: metric(query), steps, max_series: 0 };
    let Evaluated::Series(series) = querier.evaluate(&request).await.unwrap().value else { panic!("a number") };
    let labels = |s: &tailwater_logql::metric::Series| {
        serde_json::to_string(&s.labels.iter().collect::<BTreeMap<_, _>>()).unwrap()
    };
    let value = |s: &tailwater_logql::metric::Series| tailwater_logql::go::number::format_f(s.get(0).unwrap());
    series.iter().map(|s| (labels(s), value(s))).collect()
}

/// Reads so many frames, each `pause` after the one before it.
async fn reader(mut session: MetricSession, frames: usize, pause: Duration) -> Vec<(i64, BTreeMap<String, String>)> {
    let mut all = Vec::new();
    while all.len() < frames {
        match tokio::time::timeout(Duration::from_secs(20), session.next()).await.unwrap() {
            SessionEvent::Frame(frame) => all.push(samples(&frame)),
            SessionEvent::End(reason) => panic!("ended: {reason:?}"),
        }
        tokio::time::sleep(pause).await;
    }
    let ledger = session.ledger();
    assert_eq!((ledger.matched, ledger.delivered, ledger.trimmed), (frames as u64, frames as u64, 0));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn frames_are_what_the_query_answers_later() {
    let limits_of: Arc<dyn TenantLimits> = Arc::new(Arc::new(limits()));
    let ingester = Ingester::new(IngesterConfig::default(), Arc::clone(&limits_of), Arc::new(SystemClock));
    let nodes: Vec<Arc<dyn Node>> = vec![Arc::clone(&ingester) as Arc<dyn Node>];
    // A ring so small that who is slow has the steps evaluated again.
    let config = Config { feed_ring_bytes: 1000, ..Config::default() };
    let querier = Querier::new(config, tailwater_querier::Fixed::new(nodes), limits_of, Arc::new(SystemClock));
    let pushers: Vec<_> = (0..3).map(|stream| tokio::spawn(pusher(Arc::clone(&ingester), stream, 9))).collect();
    tokio::time::sleep(Duration::from_millis(2300)).await;
    let mut readers = Vec::new();
    for query in QUERIES {
        for (history, pause) in [(0, 0), (0, 0), (3, 0), (0, 1300)] {
            let request = MetricTailRequest {
                tenants: tenant().into(),
                expr: metric(query),
                step: Duration::from_secs(1),
                start: Timestamp::now().saturating_sub(Duration::from_secs(history)),
                // Lines are late by half a second at most, and by what a busy machine adds.
                delay_for: Duration::from_secs(2),
            };
            let session = querier.tail_metric(request).await.unwrap();
            readers.push((query, tokio::spawn(reader(session, 6, Duration::from_millis(pause)))));
        }
    }
    assert_eq!(querier.tails().len(), readers.len());
    for pusher in pushers {
        pusher.await.unwrap();
    }
    let (mut seen, mut answers) = (0, BTreeMap::new());
    for (query, reader) in readers {
        let frames = reader.await.unwrap();
        assert!(frames.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "every step, in order");
        for (time, samples) in frames {
            let wanted = match answers.entry((query, time)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(asked(&querier, query, time).await),
            };
            let near = |a: &str, b: &str| {
                let (a, b): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
                (a - b).abs() <= 1e-9 * a.abs()
            };
            let equal =
                wanted.len() == samples.len() && wanted.iter().zip(&samples).all(|(a, b)| a.0 == b.0 && near(a.1, b.1));
            assert!(equal, "{query} at {time}: {samples:?}, later {wanted:?}");
            seen += samples.len();
        }
    }
    assert!(seen > 100, "too little to prove anything: {seen}");
    assert!(querier.tails().is_empty());
}
