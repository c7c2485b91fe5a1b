//! The whole live path in one process, without sockets: pushes into the ingester, tails out of the querier, in real time and in
//! parallel. The checker knows nothing of either: it compares what was pushed with what came.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails the test")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tailwater_ingester::{Config as IngesterConfig, Ingester};
use tailwater_logql::LogQuery;
use tailwater_model::{Limits, SystemClock, TenantId, TenantIds, TenantLimits, Timestamp};
use tailwater_querier::{Config, OnSlow, Querier, Session, SessionEvent, TailRequest};
use tailwater_wire::compress::Caps;
use tailwater_wire::frame::{TailEncoding, decode_tail};
use tailwater_wire::node::Node;
use tailwater_wire::push::{Kind, Outgoing, encode, read};

const STREAMS: usize = 5;
const PUSHES: u64 = 400;

/// The pushers' tenants.
const TENANTS: [&str; 4] = ["one", "one", "two", "three"];

/// Whose lines the readers want.
const NAMED: [&str; 3] = ["one", "one|two", "one|three|two"];

/// Pusher `p` writes to all streams; a line is "stream pusher number".
async fn pusher(ingester: Arc<Ingester>, p: usize) {
    let tenant = TenantId::parse(TENANTS[p]).unwrap();
    let mut number = 0;
    for round in 0..PUSHES {
        let mut streams = Vec::new();
        for s in 0..STREAMS {
            let lines: Vec<String> = (0..=(round % 7)).map(|i| format!("{s} {p} {}", number + i)).collect();
            streams.push((format!("{{app=\"live\", stream=\"{s}-{p}\"}}"), lines));
        }
        number += round % 7 + 1;
        let body = encode(streams.iter().map(|(labels, lines)| (labels.as_str(), entries(lines)))).unwrap();
        let push = read(Kind::V1, Some("application/x-protobuf"), None, &body, &Caps::default()).unwrap();
        ingester.push(&tenant, push, Some(&body)).await.unwrap();
        if round % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

fn entries(lines: &[String]) -> impl Iterator<Item = Outgoing<'_>> {
    lines.iter().map(|line| Outgoing { timestamp: Timestamp::now(), line: line.as_bytes(), metadata: &[] })
}

/// Per pusher, lines of one stream.
fn lines_per_stream() -> u64 {
    (0..PUSHES).map(|round| round % 7 + 1).sum()
}

/// Reads until nothing comes for a second after the pushers are done; checks while it reads.
async fn reader(mut session: Session, named: TenantIds, done: Arc<AtomicBool>, pause: Duration) {
    let mut seen: HashMap<(String, String), Vec<u64>> = HashMap::new();
    loop {
        let event = tokio::time::timeout(Duration::from_millis(1500), session.next()).await;
        let frame = match event {
            Ok(SessionEvent::Frame(frame)) => frame,
            Ok(SessionEvent::End(reason)) => panic!("ended: {reason:?}"),
            Err(_) if done.load(Ordering::Relaxed) => break,
            Err(_) => continue,
        };
        let frame = decode_tail(&frame).unwrap();
        assert!(frame.dropped.is_empty(), "{:?}", frame.dropped);
        for stream in frame.streams {
            let tenant = stream.labels.get("__tenant_id__").map(ToOwned::to_owned);
            for entry in stream.entries {
                let mut parts = entry.line.split(' ').map(str::to_owned);
                let key = (parts.next().unwrap(), parts.next().unwrap());
                let owner = TENANTS[key.1.parse::<usize>().unwrap()];
                assert_eq!(tenant.as_deref(), named.single().is_err().then_some(owner), "{key:?}");
                seen.entry(key).or_default().push(parts.next().unwrap().parse().unwrap());
            }
        }
        tokio::time::sleep(pause).await;
    }
    let owned = |tenant: &&str| named.as_slice().iter().any(|named| named.as_str() == *tenant);
    let pushers = TENANTS.iter().filter(|tenant| owned(tenant)).count();
    assert_eq!(seen.len(), STREAMS * pushers);
    for (key, numbers) in seen {
        assert!(numbers.iter().copied().eq(0..lines_per_stream()), "{key:?}: {} lines, pause {pause:?}", numbers.len());
    }
    let ledger = session.ledger();
    assert_eq!(ledger.matched, lines_per_stream() * (STREAMS * pushers) as u64);
    assert_eq!((ledger.delivered, ledger.dropped, ledger.trimmed), (ledger.matched, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_tail_gets_every_line_once_and_in_order() {
    let limits: Arc<dyn TenantLimits> = Arc::new(Arc::new(Limits {
        ingestion_rate_mb: 1000.0,
        ingestion_burst_size_mb: 1000.0,
        per_stream_rate_limit: 1 << 40,
        per_stream_rate_limit_burst: 1 << 40,
        max_concurrent_tail_requests: 0,
        ..Limits::default()
    }));
    let ingester = Ingester::new(IngesterConfig::default(), Arc::clone(&limits), Arc::new(SystemClock));
    let nodes: Vec<Arc<dyn Node>> = vec![Arc::clone(&ingester) as Arc<dyn Node>];
    // A ring so small that slow readers fall off all the time.
    let config = Config { feed_ring_bytes: 64 << 10, ..Config::default() };
    let querier = Querier::new(config, tailwater_querier::Fixed::new(nodes), limits, Arc::new(SystemClock));

    let done = Arc::new(AtomicBool::new(false));
    let pushers: Vec<_> = (0..TENANTS.len()).map(|p| tokio::spawn(pusher(Arc::clone(&ingester), p))).collect();
    let mut readers = Vec::new();
    for n in 0..12u64 {
        let query = [r#"{app="live"}"#, r#"{app="live"} |= " ""#][n as usize % 2];
        let expr = tailwater_logql::parse_log(query).unwrap();
        let tenants = TenantIds::parse(NAMED[n as usize / 2 % 3]).unwrap();
        let request = TailRequest {
            tenants: tenants.clone(),
            query: Arc::new(LogQuery::compile(&expr).unwrap()),
            expr,
            limit: 1_000_000,
            start: Timestamp(Timestamp::now().nanos() - 3_600_000_000_000),
            delay_for: Duration::from_secs(u64::from(n % 4 == 3)),
            encoding: TailEncoding::V1 { categorize: n % 3 == 0, flags: Vec::new() },
            on_slow: OnSlow::Wait,
            resume: tailwater_querier::Resume::No,
            notices: false,
        };
        let session = querier.tail(request).await.unwrap();
        // Some read at once, some are slow, some do not read at all for a while.
        let pause = Duration::from_micros([0, 0, 3000, 8000][n as usize / 3]);
        readers.push(tokio::spawn(reader(session, tenants, Arc::clone(&done), pause)));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    for pusher in pushers {
        pusher.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(querier.tails().is_empty());
}
