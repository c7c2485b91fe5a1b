//! What a line costs between the decoder and the log, and on the way out again. `cargo bench -p tailwater-ingester`; the
//! items/s of a line are its inverse.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use futures_util::{FutureExt as _, StreamExt as _};
use tailwater_ingester::{Accepted, Config, Ingester, SyncPolicy, WalConfig};
use tailwater_logql::LogQuery;
use tailwater_logql::ast::{LineFilter, LineOp, LineOperand, LogExpr, MatchOp, Matcher, Stage};
use tailwater_model::{Limits, SystemClock, TenantId, TenantLimits, Timestamp};
use tailwater_wire::node::{Direction, Follow, FollowRequest, Node as _, Part, SelectRequest};
use tailwater_wire::push::{EntrySpan, PairSpan, Push, StreamSpan, extract, pack};

const LINES: usize = 1000;
const STREAMS: usize = 100;
const LINE_BYTES: usize = 180;

fn main() {
    divan::main();
}

/// A push as the decoder makes it: its own body, spans into it.
fn push(now: i64, metadata: bool) -> Push {
    let (mut push, mut body) = (Push::default(), Vec::new());
    let mut add = |text: &[u8]| {
        let offset = body.len() as u32;
        body.extend_from_slice(text);
        (offset, text.len() as u32)
    };
    for stream in 0..STREAMS {
        let labels = format!(r#"{{app="app-{}", namespace="shop", pod="pod-{stream}"}}"#, stream % 10);
        let (labels_offset, labels_len) = add(labels.as_bytes());
        let entries_start = push.entries.len() as u32;
        for i in 0..LINES / STREAMS {
            let mut line = format!("ts={now} level=info msg=\"request served\" n={i} ");
            line.extend(std::iter::repeat_n('x', LINE_BYTES - line.len()));
            let (line_offset, line_len) = add(line.as_bytes());
            let metadata_start = push.metadata.len() as u32;
            if metadata {
                let ((name_offset, name_len), (value_offset, value_len)) = (add(b"trace_id"), add(b"0123456789abcdef"));
                push.metadata.push(PairSpan { name_offset, name_len, value_offset, value_len });
            }
            let metadata_len = u32::from(metadata);
            let timestamp = now + i as i64;
            push.entries.push(EntrySpan { timestamp, line_offset, line_len, metadata_start, metadata_len });
        }
        push.streams.push(StreamSpan {
            labels_offset,
            labels_len,
            entries_start,
            entries_len: (LINES / STREAMS) as u32,
        });
    }
    push.body = body.into();
    push
}

/// The same, as it is decoded from a body.
fn decoded(now: i64) -> Push {
    let push = push(now, false);
    extract(&push, push.streams.iter().map(|stream| (push.labels(stream), push.entries(stream)))).expect("a push")
}

fn limits() -> Arc<dyn TenantLimits> {
    Arc::new(Arc::new(Limits {
        ingestion_rate_mb: 1e9,
        ingestion_burst_size_mb: 1e9,
        per_stream_rate_limit: 1 << 50,
        per_stream_rate_limit_burst: 1 << 50,
        ..Limits::default()
    }))
}

fn ingester() -> Arc<Ingester> {
    Ingester::new(Config { log_memory_bytes: 64 << 20, ..Config::default() }, limits(), Arc::new(SystemClock))
}

/// An ingester with a write-ahead log in a folder, and everything in it taken back.
fn durable(dir: &Path, log_memory_bytes: usize) -> Arc<Ingester> {
    let wal = WalConfig {
        dir: dir.to_owned(),
        sync: SyncPolicy::Interval(Duration::from_millis(100)),
        segment_bytes: 64 << 20,
        keep_bytes: 0,
        max_bytes: 0,
    };
    let config = Config { log_memory_bytes, wal: Some(wal), ..Config::default() };
    let ingester = Ingester::open(config, limits(), Arc::new(SystemClock)).expect("a write-ahead log");
    ingester.recover().expect("a write-ahead log that can be read");
    ingester
}

/// Pushes whose fate is known at once.
fn accept(ingester: &Ingester, tenant: &TenantId, push: Push, packed: Option<&[u8]>) -> Accepted {
    ingester.push(tenant, push, packed).now_or_never().expect("nothing is waited for").expect("accepted")
}

fn tenant() -> TenantId {
    TenantId::parse("bench").expect("a tenant id")
}

fn query(app: &str, contains: Option<&str>) -> Arc<LogQuery> {
    let selector = vec![Matcher { name: "app".into(), op: MatchOp::Re, value: app.into() }];
    let filter =
        |text: &str| Stage::Line(LineFilter { op: LineOp::Contains, operands: vec![LineOperand::Text(text.into())] });
    let stages = contains.map(filter).into_iter().collect();
    Arc::new(LogQuery::compile(&LogExpr { selector, stages }).expect("a query"))
}

fn follow(ingester: &Ingester, query: &Arc<LogQuery>) -> Follow {
    let query = Arc::clone(query);
    ingester.follow(FollowRequest { tenant: tenant(), query, detect_level: false, after: u64::MAX })
}

/// Validation, streams and append, from a decoded push; freeing what is trimmed included.
#[divan::bench(args = [false, true])]
fn push_1000_lines(bencher: Bencher<'_, '_>, metadata: bool) {
    let (ingester, tenant) = (ingester(), tenant());
    bencher
        .counter(ItemsCount::new(LINES))
        .with_inputs(|| push(Timestamp::now().nanos(), metadata))
        .bench_local_values(|push| accept(&ingester, &tenant, push, None));
}

/// The same with a write-ahead log that is synced every 100 ms; `packed`: the body is kept as it came.
#[divan::bench(args = [true, false])]
fn push_1000_lines_durably(bencher: Bencher<'_, '_>, packed: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    let (ingester, tenant) = (durable(dir.path(), 64 << 20), tenant());
    bencher
        .counter(ItemsCount::new(LINES))
        .with_inputs(|| {
            let push = decoded(Timestamp::now().nanos());
            let body = pack(&push).expect("a push");
            (push, packed.then_some(body))
        })
        .bench_local_values(|(push, body)| accept(&ingester, &tenant, push, body.as_deref()));
}

/// From a write-ahead log to an ingester that is ready: 1000 pushes of 1000 lines of 180 bytes.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn recover_180_mb(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().expect("a folder");
    let tenant = tenant();
    let ingester = durable(dir.path(), 64 << 20);
    for i in 0..1000 {
        let push = decoded(Timestamp::now().nanos() + i);
        let body = pack(&push).expect("a push");
        accept(&ingester, &tenant, push, Some(&body));
    }
    ingester.end().expect("a disk");
    drop(ingester);
    bencher.counter(BytesCount::new(1000 * LINES * LINE_BYTES)).bench_local(|| durable(dir.path(), 64 << 20));
}

/// The same with tails that concern some or all of the push, none of which is read.
#[divan::bench(args = [1, 10, 100])]
fn push_1000_lines_with_groups(bencher: Bencher<'_, '_>, groups: usize) {
    let (ingester, tenant) = (ingester(), tenant());
    let _follows: Vec<_> =
        (0..groups).map(|i| follow(&ingester, &query("app-[0-4]", Some(&format!("needle {i}"))))).collect();
    bencher
        .counter(ItemsCount::new(LINES))
        .with_inputs(|| push(Timestamp::now().nanos(), false))
        .bench_local_values(|push| accept(&ingester, &tenant, push, None));
}

/// One line per push.
#[divan::bench]
fn push_1_line(bencher: Bencher<'_, '_>) {
    let (ingester, tenant) = (ingester(), tenant());
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(|| {
            let mut push = push(Timestamp::now().nanos(), false);
            push.body = push.body.slice(..400);
            push.streams.truncate(1);
            push.streams[0].entries_len = 1;
            push.entries.truncate(1);
            push
        })
        .bench_local_values(|push| accept(&ingester, &tenant, push, None));
}

/// A pushed batch evaluated for one follow: every line matches, or none does.
#[divan::bench(args = [true, false])]
fn follow_1000_lines(bencher: Bencher<'_, '_>, matching: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let (ingester, tenant) = (ingester(), tenant());
    let follow = RefCell::new(follow(&ingester, &query(".+", Some(if matching { "served" } else { "needle" }))));
    let ready = || follow.borrow_mut().next().now_or_never().flatten();
    bencher
        .counter(ItemsCount::new(LINES))
        .with_inputs(|| {
            while ready().is_some() {}
            accept(&ingester, &tenant, push(Timestamp::now().nanos(), false), None)
        })
        .bench_local_values(|_| black_box(ready()));
}

/// The newest hundred lines of a log of 200,000, and a needle that is not there.
#[divan::bench(args = [true, false])]
fn select_from_200_batches(bencher: Bencher<'_, '_>, matching: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let (ingester, tenant) = (ingester(), tenant());
    for _ in 0..200 {
        accept(&ingester, &tenant, push(Timestamp::now().nanos(), false), None);
    }
    let query = query(".+", Some(if matching { "served" } else { "needle" }));
    let request = SelectRequest {
        tenant,
        part: Part::Whole,
        query,
        detect_level: false,
        as_of: u64::MAX,
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        direction: Direction::Backward,
        limit: 100,
    };
    bencher
        .counter(ItemsCount::new(200 * LINES))
        .bench_local(|| runtime.block_on(ingester.select(request.clone())).expect("an answer"));
}
