//! Two ingesters with write-ahead logs and pagers over one storage, housekeeping, and a querier that reads blocks itself: whatever is cut,
//! merged, trimmed and deleted between and during queries, every line is answered once.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tailwater_ingester::{Config as IngesterConfig, Ingester, PagerConfig, SyncPolicy, WalConfig};
use tailwater_logql::ast::Expr;
use tailwater_logql::metric::{Evaluated, Steps};
use tailwater_model::{Clock, Limits, TenantId, TenantIds, TenantLimits, Timestamp};
use tailwater_querier::{Config, LogsRequest, MetaRequest, MetricRequest, Nodes, Querier};
use tailwater_store::catalog::{Catalog, Refresh};
use tailwater_store::deletes::{Deletes, NewRequest};
use tailwater_store::history::History;
use tailwater_store::housekeeping::{Housekeeping, Settings};
use tailwater_store::objects::Objects;
use tailwater_wire::compress::Caps;
use tailwater_wire::node::{Blocks, Direction, Node};
use tailwater_wire::push::{Kind, Outgoing, encode, read};
use tokio::runtime::Handle;
use tokio::sync::watch;

const DAY: i64 = 86_400_000_000_000;

/// Two hours after midnight, so that some lines are of the day before.
const NOW: i64 = 20_000 * DAY + DAY / 12;

#[derive(Debug)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// The logs and the blocks that a querier sees.
struct Cluster {
    nodes: watch::Sender<Arc<[Arc<dyn Node>]>>,
    blocks: Arc<History>,
}

impl Nodes for Cluster {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.nodes.subscribe()
    }

    fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        Some(Arc::clone(&self.blocks) as Arc<dyn Blocks>)
    }
}

struct World {
    clock: Arc<TestClock>,
    ingesters: Vec<Arc<Ingester>>,
    querier: Arc<Querier>,
    housekeeping: Housekeeping,
    deletes: Arc<Deletes>,
    _dirs: Vec<tempfile::TempDir>,
}

fn tenant() -> TenantId {
    TenantId::parse("t").unwrap()
}

fn world() -> World {
    let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
    let limits: Arc<dyn TenantLimits> = Arc::new(Arc::new(Limits {
        ingestion_rate_mb: 1e9,
        ingestion_burst_size_mb: 1e9,
        per_stream_rate_limit: 1 << 50,
        per_stream_rate_limit_burst: 1 << 50,
        reject_old_samples: false,
        out_of_order_window: Duration::from_secs(1 << 40),
        ..Limits::default()
    }));
    let of_clock = || Arc::<TestClock>::clone(&clock) as Arc<dyn Clock>;
    let objects = Objects::open("memory:", &tailwater_store::objects::Options::default()).unwrap();
    // What is known of the catalog is old enough only where a boundary says so.
    let shared = || Arc::new(Catalog::new(objects.clone(), Refresh::Shared { max_age: Duration::from_secs(3600) }));
    let deletes = || Arc::new(Deletes::new(objects.clone(), of_clock(), Duration::ZERO));
    let history = || History::new(shared(), Some(deletes()), 1 << 20, Handle::current());
    let (mut ingesters, mut dirs) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let wal = WalConfig {
            dir: dir.path().to_owned(),
            sync: SyncPolicy::Os,
            segment_bytes: 2 << 10,
            keep_bytes: 0,
            max_bytes: 0,
        };
        // So little memory that lines leave it, and so little of the log is kept that they leave that, too.
        let config = IngesterConfig { log_memory_bytes: 8 << 10, wal: Some(wal), ..IngesterConfig::default() };
        let ingester = Ingester::open(config, Arc::clone(&limits), of_clock()).unwrap();
        ingester.recover().unwrap();
        ingester.attach(history());
        ingester.start_pager(shared(), PagerConfig { target_block_bytes: 1 << 40, ..PagerConfig::default() });
        ingesters.push(ingester);
        dirs.push(dir);
    }
    let nodes: Vec<_> = ingesters.iter().map(|ingester| Arc::clone(ingester) as Arc<dyn Node>).collect();
    let cluster = Cluster { nodes: watch::Sender::new(nodes.into()), blocks: Arc::new(history()) };
    let of_logs = ingesters.clone();
    let settled = Arc::new(move || of_logs.iter().map(|of| of.in_blocks_until()).min().unwrap_or(Timestamp::MIN));
    let settings = Settings { block_bytes: 1 << 20, retention: true, ..Settings::default() };
    let housekeeping = Housekeeping::new(shared(), deletes(), Arc::clone(&limits), settled, settings, of_clock());
    let querier = Querier::new(Config::default(), Arc::new(cluster), limits, of_clock());
    World { clock: Arc::clone(&clock), ingesters, querier, housekeeping, deletes: deletes(), _dirs: dirs }
}

impl World {
    /// Lines of a stream; each is its number.
    async fn push(&self, ingester: usize, stream: u8, lines: &[(i64, u64)]) {
        let texts: Vec<_> = lines.iter().map(|(_, n)| format!("{n} {}", "x".repeat(*n as usize % 300))).collect();
        let entry = |((time, _), text): (&(i64, u64), &'_ String)| (Timestamp(*time), text.clone());
        let entries: Vec<_> = lines.iter().zip(&texts).map(entry).collect();
        let outgoing = entries.iter().map(|(timestamp, text)| Outgoing {
            timestamp: *timestamp,
            line: text.as_bytes(),
            metadata: &[],
        });
        let body = encode([(format!("{{app=\"a\", s=\"{stream}\"}}").as_str(), outgoing)]).unwrap();
        let push = read(Kind::V1, Some("application/x-protobuf"), None, &body, &Caps::default()).unwrap();
        self.ingesters[ingester].push(&tenant(), push, Some(&body)).await.unwrap();
    }

    /// The numbers of the lines of a query, in its order.
    async fn found(&self, query: &str, direction: Direction, limit: usize) -> Vec<u64> {
        let request = LogsRequest {
            tenants: TenantIds::from(tenant()),
            expr: tailwater_logql::parse_log(query).unwrap(),
            start: Timestamp(NOW - DAY),
            end: Timestamp(NOW + DAY),
            limit,
            direction,
            interval: Duration::ZERO,
        };
        let answer = self.querier.select_logs(request).await.unwrap();
        assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
        let number = |text: &[u8]| std::str::from_utf8(text).unwrap().split(' ').next().unwrap().parse().unwrap();
        answer.lines.iter().map(|(_, text)| number(text)).collect()
    }

    /// How many lines there are, by two ways of counting.
    async fn counted(&self) -> (u64, u64) {
        let text = r#"sum(count_over_time({app="a"}[2d]))"#;
        let Ok(Expr::Metric(expr)) = tailwater_logql::parse(text) else { panic!() };
        let tenants = TenantIds::from(tenant());
        let steps = Steps { start: Timestamp(NOW + DAY), step: 1, count: 1 };
        let request = MetricRequest { tenants: tenants.clone(), expr, steps, max_series: 0 };
        let Evaluated::Series(series) = self.querier.evaluate(&request).await.unwrap().value else { panic!() };
        let (start, end) = (Timestamp(NOW - DAY), Timestamp(NOW + DAY));
        let stats = self.querier.stats(&MetaRequest { tenants, selectors: Vec::new(), start, end }).await.unwrap();
        (series.first().and_then(|s| s.get(0)).unwrap_or(0.0) as u64, stats.value.entries)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { ingester: usize, stream: u8, lines: usize },
    Flush { ingester: usize },
    Housekeeping,
    Minutes(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..2_usize, 0..3_u8, 1..30_usize).prop_map(|(ingester, stream, lines)| Step::Push { ingester, stream, lines }),
        3 => (0..2_usize).prop_map(|ingester| Step::Flush { ingester }),
        1 => Just(Step::Housekeeping),
        1 => (1..30_u32).prop_map(Step::Minutes),
    ];
    prop::collection::vec(step, 1..24)
}

async fn run(steps: Vec<Step>) {
    let world = world();
    // By time; none has another's.
    let mut all: Vec<(i64, u64)> = Vec::new();
    for step in steps {
        match step {
            Step::Push { ingester, stream, lines } => {
                let first = all.len() as i64;
                // From now back to the day before, and forth.
                let time = |n: i64| NOW + n * 1_000_000 - (n % 7) * DAY / 24;
                let new: Vec<_> = (first..first + lines as i64).map(|n| (time(n), n as u64)).collect();
                world.push(ingester, stream, &new).await;
                all.extend(new);
            }
            Step::Flush { ingester } => {
                let (done, of) = (Arc::new(AtomicBool::new(false)), Arc::clone(&world.ingesters[ingester]));
                let end = Arc::clone(&done);
                let flush = tokio::spawn(async move {
                    of.flush().await.unwrap();
                    end.store(true, Ordering::Release);
                });
                // While it is under way, too.
                loop {
                    let over = done.load(Ordering::Acquire);
                    assert_eq!(world.found(r#"{app="a"}"#, Direction::Forward, 1000).await.len(), all.len());
                    assert_eq!(world.counted().await, (all.len() as u64, all.len() as u64));
                    if over {
                        break;
                    }
                }
                flush.await.unwrap();
            }
            Step::Housekeeping => {
                world.housekeeping.round().await.unwrap();
            }
            Step::Minutes(minutes) => {
                world.clock.0.fetch_add(i64::from(minutes) * 60_000_000_000, Ordering::Relaxed);
            }
        }
        let mut want = all.clone();
        want.sort_unstable();
        let mut want: Vec<u64> = want.into_iter().map(|(_, n)| n).collect();
        for limit in [1, 7, 1000] {
            let found = world.found(r#"{app="a"} |= "x" or " ""#, Direction::Forward, limit).await;
            assert_eq!(found, want[..limit.min(want.len())]);
        }
        want.reverse();
        assert_eq!(world.found(r#"{app=~"a|b"}"#, Direction::Backward, 5).await, want[..5.min(want.len())]);
        assert_eq!(world.counted().await, (want.len() as u64, want.len() as u64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_found_once_at_every_moment(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_stays_so_wherever_it_is() {
    let world = world();
    let all = r#"{app="a"}"#;
    for (round, ingester) in [(0_u64, 0), (1, 1), (2, 0), (3, 1)] {
        let lines: Vec<_> = (0..10).map(|n| (NOW + (round * 10 + n) as i64, round * 10 + n)).collect();
        world.push(ingester, 1, &lines).await;
        if round == 1 {
            world.ingesters[0].flush().await.unwrap();
        }
    }
    assert_eq!(world.found(all, Direction::Forward, 1000).await.len(), 40);
    // The last digit is 3: in blocks of one, in the logs of both.
    let query = r#"{app="a"} |~ "^[0-9]*3 ""#.to_owned();
    let (start, end) = (Timestamp(NOW), Timestamp(NOW + 1000));
    world.clock.0.fetch_add(1_000_000_000, Ordering::Relaxed);
    world.deletes.add(&tenant(), NewRequest { start, end, query }).await.unwrap();
    world.clock.0.fetch_add(11_000_000_000, Ordering::Relaxed);
    let left: Vec<u64> = (0..40).filter(|n| n % 10 != 3).collect();
    assert_eq!(world.found(all, Direction::Forward, 1000).await, left);
    world.housekeeping.round().await.unwrap();
    assert!(world.deletes.list(&tenant()).await.unwrap()[0].processed_at.is_none(), "not all of it is in blocks");
    assert_eq!(world.found(all, Direction::Forward, 1000).await, left);
    for ingester in &world.ingesters {
        ingester.flush().await.unwrap();
    }
    world.clock.0.fetch_add(11_000_000_000, Ordering::Relaxed);
    world.housekeeping.round().await.unwrap();
    assert!(world.deletes.list(&tenant()).await.unwrap()[0].processed_at.is_some());
    assert_eq!(world.found(all, Direction::Forward, 1000).await, left);
    // Later it is not asked any more whether a line is deleted: it is in blocks alone, and not there.
    world.clock.0.fetch_add(2 * 3_600_000_000_000, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.found(all, Direction::Forward, 1000).await, left);
}
