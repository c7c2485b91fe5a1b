//! The ingester as a whole, through what it offers others.

mod copied;
mod copies;
mod durable;
mod faulty;
mod follows;
mod history;
mod model;
mod payloads;
mod retire;
mod rules;
mod samples;
mod stretches;
mod volumes;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::{FutureExt as _, StreamExt as _};
use tailwater_logql::LogQuery;
use tailwater_logql::ast::{LineFilter, LineOp, LineOperand, LogExpr, MatchOp, Matcher, Stage};
use tailwater_model::{Clock, Limits, TenantId, Timestamp};
use tailwater_wire::node::{Direction, Follow, FollowEvent, FollowRequest, Node as _, Part, SelectRequest};
use tailwater_wire::push::{EntrySpan, PairSpan, Push, StreamSpan, extract};

use self::faulty::Faulty;
use crate::{Accepted, Config, Ingester, PushError, WalConfig};

const SECOND: i64 = 1_000_000_000;

/// Where the tests' clock stands at first.
const NOW: i64 = 1_800_000_000 * SECOND;

#[derive(Debug)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

type TestEntry<'a> = (i64, &'a str, &'a [(&'a str, &'a str)]);

/// A push as a decoder would make it.
fn push_of(streams: &[(&str, &[TestEntry<'_>])]) -> Push {
    let (mut push, mut body) = (Push::default(), Vec::new());
    let mut add = |text: &str| {
        let offset = body.len() as u32;
        body.extend_from_slice(text.as_bytes());
        (offset, text.len() as u32)
    };
    for (labels, entries) in streams {
        let (labels_offset, labels_len) = add(labels);
        let entries_start = push.entries.len() as u32;
        for (timestamp, line, metadata) in *entries {
            let (line_offset, line_len) = add(line);
            let metadata_start = push.metadata.len() as u32;
            for (name, value) in *metadata {
                let ((name_offset, name_len), (value_offset, value_len)) = (add(name), add(value));
                push.metadata.push(PairSpan { name_offset, name_len, value_offset, value_len });
            }
            let metadata_len = metadata.len() as u32;
            push.entries.push(EntrySpan { timestamp: *timestamp, line_offset, line_len, metadata_start, metadata_len });
        }
        let entries_len = entries.len() as u32;
        push.streams.push(StreamSpan { labels_offset, labels_len, entries_start, entries_len });
    }
    push.body = body.into();
    extract(&push, push.streams.iter().map(|stream| (push.labels(stream), push.entries(stream)))).unwrap()
}

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher { name: name.into(), op, value: value.into() }
}

fn query_of(selector: Vec<Matcher>, contains: Option<&str>) -> Arc<LogQuery> {
    let filter =
        |text: &str| Stage::Line(LineFilter { op: LineOp::Contains, operands: vec![LineOperand::Text(text.into())] });
    Arc::new(LogQuery::compile(&LogExpr { selector, stages: contains.map(filter).into_iter().collect() }).unwrap())
}

/// `{app="…"}`
fn app(name: &str) -> Arc<LogQuery> {
    query_of(vec![matcher("app", MatchOp::Eq, name)], None)
}

/// `{service_name=~".+"}`
fn everything() -> Arc<LogQuery> {
    query_of(vec![matcher("service_name", MatchOp::Re, ".+")], None)
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

/// Limits that are never in the way.
fn no_limits() -> Limits {
    Limits {
        ingestion_rate_mb: 1e9,
        ingestion_burst_size_mb: 1e9,
        per_stream_rate_limit: 1 << 50,
        per_stream_rate_limit_burst: 1 << 50,
        max_global_streams_per_user: 0,
        max_line_size: 0,
        max_structured_metadata_size: 0,
        reject_old_samples: false,
        ..Limits::default()
    }
}

struct Bench {
    ingester: Arc<Ingester>,
    clock: Arc<TestClock>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self::with_memory(limits, 64 << 20)
    }

    fn with_memory(limits: Limits, log_memory_bytes: usize) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
        let limits = Arc::new(Arc::new(limits));
        let config = Config { log_memory_bytes, ..Config::default() };
        Self { ingester: Ingester::new(config, limits, Arc::<TestClock>::clone(&clock)), clock }
    }

    /// With a write-ahead log, on what a disk holds by now.
    async fn reopen(limits: Limits, log_memory_bytes: usize, wal: &WalConfig, disk: &Arc<Faulty>, now: i64) -> Self {
        let bench = Self::open(limits, log_memory_bytes, wal, disk, now);
        let ingester = Arc::clone(&bench.ingester);
        tokio::task::spawn_blocking(move || ingester.recover()).await.unwrap().unwrap();
        bench
    }

    /// The same, before it is recovered.
    fn open(limits: Limits, log_memory_bytes: usize, wal: &WalConfig, disk: &Arc<Faulty>, now: i64) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(now)));
        let config = Config { log_memory_bytes, wal: Some(wal.clone()), ..Config::default() };
        let (disk, limits) = (Arc::clone(disk) as _, Arc::new(Arc::new(limits)));
        let ingester = Ingester::open_on(disk, config, limits, Arc::<TestClock>::clone(&clock)).unwrap();
        Self { ingester, clock }
    }

    fn advance(&self, nanos: i64) {
        self.clock.0.fetch_add(nanos, Ordering::Relaxed);
    }

    fn push(&self, streams: &[(&str, &[TestEntry<'_>])]) -> Result<Accepted, PushError> {
        self.push_to(&tenant("t"), push_of(streams))
    }

    /// A push whose fate is known at once.
    fn push_to(&self, tenant: &TenantId, push: Push) -> Result<Accepted, PushError> {
        self.ingester.push(tenant, push, None).now_or_never().expect("nothing is waited for")
    }

    fn follow(&self, query: &Arc<LogQuery>, after: u64) -> Follow {
        let query = Arc::clone(query);
        self.ingester.follow(FollowRequest { tenant: tenant("t"), query, detect_level: false, after })
    }

    /// All lines of the tenant `t` in time order: timestamp, labels with metadata, line.
    async fn stored(&self) -> Vec<(i64, String, String)> {
        let request = SelectRequest {
            tenant: tenant("t"),
            part: Part::Whole,
            query: everything(),
            detect_level: false,
            as_of: u64::MAX,
            start: Timestamp::MIN,
            end: Timestamp::MAX,
            direction: Direction::Forward,
            limit: 1000,
        };
        let selected = self.ingester.select(request).await.unwrap();
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        selected.lines.iter().map(|(l, line)| (l.timestamp.nanos(), l.labels.to_string(), text(line))).collect()
    }
}

/// What a follow has at hand, `None` if it has to wait.
fn ready(follow: &mut Follow) -> Option<FollowEvent> {
    // A follow that has more to look at yields in between.
    (0..1000).find_map(|_| follow.next().now_or_never().flatten())
}

/// The next event that is no sign of life.
async fn next(follow: &mut Follow) -> Option<FollowEvent> {
    loop {
        match follow.next().await {
            Some(FollowEvent::Idle { .. }) => {}
            other => return other,
        }
    }
}

fn lines(event: &FollowEvent) -> Vec<String> {
    let FollowEvent::Lines(batch) = event else { panic!("no lines: {event:?}") };
    batch.lines.iter().map(|l| String::from_utf8_lossy(&batch.line(l)).into_owned()).collect()
}
