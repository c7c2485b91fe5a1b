//! What queries over 1.7 million lines (310 MB) in memory take, ingester and querier together, without HTTP: `cargo bench -p
//! tailwater-server`. The lines are those of `tailwater bench`.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use tailwater_ingester::{Config, Ingester};
use tailwater_logql::ast::Expr;
use tailwater_logql::metric::Steps;
use tailwater_logql::parse;
use tailwater_model::{Limits, SystemClock, TenantId, TenantLimits, Timestamp};
use tailwater_querier::{LogsRequest, MetricRequest, Querier};
use tailwater_wire::node::{Direction, Node};
use tailwater_wire::push::{EntrySpan, Push, StreamSpan};
use tokio::runtime::Runtime;

const LINES: usize = 1_700_000;
const STREAMS: usize = 100;
const LINES_PER_PUSH: usize = 1_000;
const LINE_BYTES: usize = 180;
/// Time that the lines span.
const SPAN: Duration = Duration::from_secs(600);
const TAIL: &str = "level=info caller=handler.go:217 method=GET path=/api/v1/orders status=200 duration=12.7ms \
                    user=u48151623 msg=request_completed region=eu-west-1 ";

fn main() {
    LazyLock::force(&BENCH);
    divan::main();
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

struct Bench {
    runtime: Runtime,
    querier: Arc<Querier>,
    tenant: TenantId,
    end: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let limits = Limits {
            ingestion_rate_mb: 1e9,
            ingestion_burst_size_mb: 1e9,
            per_stream_rate_limit: 1 << 50,
            per_stream_rate_limit_burst: 1 << 50,
            ..Limits::default()
        };
        let limits: Arc<dyn TenantLimits> = Arc::new(Arc::new(limits));
        let clock = Arc::new(SystemClock);
        let config = Config { log_memory_bytes: 2 << 30, ..Config::default() };
        let runtime = Runtime::new().expect("a runtime");
        let ingester = Ingester::new(config, Arc::clone(&limits), Arc::clone(&clock) as _);
        let tenant = TenantId::parse("bench").expect("a tenant id");
        let end = Timestamp::now();
        let begin = end.saturating_sub(SPAN).nanos();
        let every = i64::try_from(SPAN.as_nanos()).unwrap_or(i64::MAX) / LINES as i64;
        for first in (0..LINES).step_by(LINES_PER_PUSH) {
            let push = push(first, |number| begin + number as i64 * every);
            let receipt = ingester.push(&tenant, push, None);
            runtime.block_on(receipt).expect("accepted");
        }
        let node: Arc<dyn Node> = ingester;
        let querier = Querier::new(
            tailwater_querier::Config::default(),
            tailwater_querier::Fixed::new(vec![node]),
            limits,
            clock,
        );
        Self { runtime, querier, tenant, end }
    }

    fn run(&self, query: &str) -> usize {
        let start = self.end.saturating_sub(SPAN);
        let tenants = self.tenant.clone().into();
        match parse(query).expect("a query") {
            Expr::Log(expr) => {
                let (limit, direction, interval) = (100, Direction::Backward, Duration::ZERO);
                let request = LogsRequest { tenants, expr, start, end: self.end, limit, direction, interval };
                self.runtime.block_on(self.querier.select_logs(request)).expect("an answer").lines.len()
            }
            Expr::Metric(expr) => {
                let steps = Steps::range(start, self.end, 15_000_000_000);
                let request = MetricRequest { tenants, expr, steps, max_series: 500 };
                self.runtime.block_on(self.querier.evaluate(&request)).expect("an answer").nodes as usize
            }
        }
    }
}

/// The lines from `first` on, spread over all streams, as the decoder hands them over.
fn push(first: usize, time: impl Fn(usize) -> i64) -> Push {
    let (mut push, mut body) = (Push::default(), Vec::with_capacity(LINES_PER_PUSH * (LINE_BYTES + 32)));
    let mut add = |text: &str| {
        let offset = body.len() as u32;
        body.extend_from_slice(text.as_bytes());
        // What a protobuf body has between texts.
        body.extend_from_slice(&[0x12, 0xb4, 0x01, 0x0a, 0x0c, 0x08]);
        (offset, text.len() as u32)
    };
    for stream in 0..STREAMS {
        let labels = format!(r#"{{app="tailwater-bench", bench="0123abcd", stream="{stream:05}"}}"#);
        let (labels_offset, labels_len) = add(&labels);
        let entries_start = push.entries.len() as u32;
        for number in (first + stream..first + LINES_PER_PUSH).step_by(STREAMS) {
            let timestamp = time(number);
            let mut line = format!("tw:0123abcd:{stream:05}:{:010}:{timestamp:019} ", number / STREAMS);
            line.extend(TAIL.chars().cycle().take(LINE_BYTES - line.len()));
            let (line_offset, line_len) = add(&line);
            push.entries.push(EntrySpan { timestamp, line_offset, line_len, metadata_start: 0, metadata_len: 0 });
        }
        let entries_len = push.entries.len() as u32 - entries_start;
        push.streams.push(StreamSpan { labels_offset, labels_len, entries_start, entries_len });
    }
    push.body = body.into();
    push
}

/// Queries by what they show.
const QUERIES: [(&str, &str); 9] = [
    ("absent literal", r#"{bench=~".+"} |= "nosuchneedle""#),
    ("absent regex", r#"{bench=~".+"} |~ "status=4[0-9]+ dur""#),
    ("regex, limit 100", r#"{bench=~".+"} |~ "status=2[0-9]+ dur""#),
    ("sum(count_over_time)", r#"sum(count_over_time({bench=~".+"}[1m]))"#),
    ("sum(rate(|=))", r#"sum(rate({bench=~".+"} |= "status=200" [1m]))"#),
    ("sum by (detected_level)", r#"sum by (detected_level) (count_over_time({bench=~".+"}[1m]))"#),
    ("sum by (level) (logfmt)", r#"sum by (level) (count_over_time({bench=~".+"} | logfmt [1m]))"#),
    (
        "quantile by (status) (logfmt, unwrap)",
        r#"quantile_over_time(0.99, {bench=~".+"} | logfmt | unwrap duration(duration) [1m]) by (status)"#,
    ),
    (
        "avg by (status) (logfmt, unwrap)",
        r#"avg_over_time({bench=~".+"} | logfmt | unwrap duration(duration) [1m]) by (status)"#,
    ),
];

#[divan::bench(args = QUERIES.map(|(name, _)| name), sample_count = 20)]
fn query(bencher: Bencher<'_, '_>, name: &str) {
    let (_, query) = QUERIES.iter().find(|(n, _)| *n == name).expect("one of them");
    bencher.counter(ItemsCount::new(LINES)).bench_local(|| BENCH.run(query));
}
