//! How long searches over blocks in a folder take: `cargo run --release -p tailwater-store --example search -- FOLDER [MIB]`.
//!
//! Fills the folder with that many MiB of generated lines in blocks of 128 MiB (2048 if not told; what is there already stays), then asks
//! each question several times: with nothing cached in this process, and again with all that the first time left in the cache.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_logql::LogQuery;
use tailwater_logql::ast::Expr;
use tailwater_logql::metric::{SampleQuery, Steps, leaves};
use tailwater_model::{Labels, LogId, TenantId, Timestamp};
use tailwater_store::Error;
use tailwater_store::block::{Entry, Options, Writer};
use tailwater_store::catalog::{BlockMeta, Catalog, Change, Committed, Covered, Day, Refresh};
use tailwater_store::entries::Place;
use tailwater_store::history::History;
use tailwater_store::objects::{self, Objects};
use tailwater_store::scan::{self, Cancel, Source, Unit};
use tailwater_wire::node::{
    Direction, NodeError, Part, Sampled, SamplesRequest, Scanned, SelectRequest, SeriesRequest,
};
use ulid::Ulid;

/// When the first line was written.
const START: i64 = 1_790_000_000_000_000_000;

/// Raw bytes of a block.
const BLOCK_BYTES: usize = 128 << 20;

/// Time between the lines of a stream, in nanoseconds.
const PAUSE: i64 = 130_000_000;

const APPS: [&str; 8] = ["api", "auth", "cart", "db", "edge", "mail", "search", "web"];

const PODS: usize = 20;

const LEVELS: [&str; 8] = ["info", "info", "info", "debug", "info", "info", "warn", "error"];

const MESSAGES: [&str; 6] = [
    "request completed",
    "connection established to upstream",
    "cache lookup finished",
    "scheduled job started by timer",
    "retrying after a transient failure",
    "user session refreshed",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn line(out: &mut String, random: &mut Random, number: u64) {
    out.clear();
    let (level, message) = (LEVELS[random.below(8)], MESSAGES[random.below(6)]);
    let (user, took, status) =
        (random.below(100_000), random.below(3000), [200, 200, 200, 204, 404, 500][random.below(6)]);
    let id = random.next();
    let _ = write!(
        out,
        r#"level={level} msg="{message}" user=u{user} status={status} took={took}ms path=/api/v1/items/{} trace={id:016x} n={number}"#,
        random.below(5000),
    );
    if number.is_multiple_of(1_000_003) {
        out.push_str(" xyzzy-needle");
    }
}

struct Folder {
    history: History,
    tenant: TenantId,
    own: LogId,
}

impl Source for Folder {
    fn log(&self) -> LogId {
        self.own
    }

    fn collect(&self, positions: (u64, u64), times: (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        self.history.units(&self.tenant, times, (self.own, u64::MAX), positions)
    }
}

async fn fill(objects: &Objects, tenant: &TenantId, own: LogId, mib: usize) -> Result<i64, Error> {
    let catalog = Catalog::new(objects.clone(), Refresh::Exclusive);
    let mut number = 0;
    let mut time = START;
    let (mut lines, mut text) = (0_u64, String::new());
    for block in 0..(mib << 20).div_ceil(BLOCK_BYTES) {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (block as u64 + 1));
        let streams = APPS.len() * PODS;
        let mut writer = Writer::new(Options::default());
        let (mut raw, mut last) = (0, time);
        for stream in 0..streams {
            let (app, pod) = (APPS[stream / PODS], format!("{}-{:02}", APPS[stream / PODS], stream % PODS));
            let pairs = [("app", app), ("namespace", "shop"), ("pod", &pod)];
            let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
            writer.stream(&labels, own);
            let mut at = time + stream as i64 * 777_777;
            let end = raw + BLOCK_BYTES / streams;
            while raw < end {
                number += 1;
                line(&mut text, &mut random, number);
                let place = Place { seq: block as u64 + 1, accepted_at: Timestamp(at), index: number as u32 };
                writer.entry(&Entry { timestamp: at, line: text.as_bytes(), metadata: &[], place });
                (raw, lines, last) = (raw + text.len(), lines + 1, last.max(at));
                at += PAUSE + random.below(2_000_000) as i64;
            }
        }
        let built = writer.finish()?;
        let summary = &built.summary;
        let meta = BlockMeta {
            id: Ulid::generate(),
            day: Day::of(summary.min),
            min: summary.min,
            max: summary.max,
            lines: summary.lines,
            raw_bytes: summary.raw_bytes,
            bytes: summary.bytes,
            streams: summary.streams.into(),
            level: 0,
            created: 0,
            logs: vec![Covered { log: own, first: block as u64 + 1, last: block as u64 + 1 }],
        };
        let (path, day) = (meta.path(tenant), meta.day);
        objects.put(&path, built.parts).await?;
        let change = Change { add: vec![meta], ..Change::default() };
        assert!(matches!(catalog.commit(tenant, day, &change).await?, Committed::Done));
        time = last + 1;
    }
    println!("{lines} lines");
    Ok(time)
}

/// Asks with nothing cached and with what that left, each several times; prints the medians and what was looked at.
fn ask(what: &str, make: &dyn Fn() -> Folder, question: &dyn Fn(&Folder) -> (usize, Scanned)) {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    let mut told = String::new();
    for _ in 0..9 {
        let folder = make();
        for times in [&mut cold, &mut warm] {
            let began = Instant::now();
            let (found, scanned) = question(&folder);
            times.push(began.elapsed());
            if times.len() == 1 {
                let b = scanned.blocks;
                let _ = write!(
                    told,
                    "\n    {found} found; {} lines; {} blocks, {} pages, pruned {}/{}/{}, fetched {} KiB, {} hits",
                    scanned.lines,
                    b.blocks,
                    b.pages,
                    b.pruned_by_streams,
                    b.pruned_by_fields,
                    b.pruned_by_grams,
                    b.fetched_bytes >> 10,
                    b.cache_hits,
                );
            }
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    println!("{what}: {:.1} ms uncached, {:.1} ms again{told}", median(&mut cold), median(&mut warm));
}

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().expect("the folder is the first argument");
    let mib = args.next().map_or(2048, |text| text.parse().expect("the second argument is a number of MiB"));
    let cache = args.next().map_or(256, |text| text.parse().expect("the third argument is a number of MiB"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let objects = Objects::open(&folder, &objects::Options::default()).expect("the folder can be used");
    let (tenant, own) = (TenantId::parse("shop").expect("a name"), LogId::from_u128(7));
    let catalog = || Arc::new(Catalog::new(objects.clone(), Refresh::Exclusive));
    let known = runtime.block_on(catalog().blocks(&tenant, i64::MIN, i64::MAX)).expect("a catalog").blocks;
    let end = match known.iter().map(|block| block.max).max() {
        Some(max) => max,
        None => runtime.block_on(fill(&objects, &tenant, own, mib)).expect("the folder can be filled"),
    };
    let make = || {
        let history = History::new(catalog(), None, cache << 20, runtime.handle().clone());
        Folder { history, tenant: tenant.clone(), own }
    };
    for (text, limit) in [
        (r#"{app="api"}"#, 100),
        (r#"{namespace="shop"}"#, 100),
        (r#"{pod="mail-07"}"#, 1000),
        (r#"{namespace="shop"} |= "xyzzy-needle""#, 100),
        (r#"{namespace="shop"} |~ "(?i)XYZZY.needle""#, 100),
        (r#"{app="api"} |= "xyzzy-needle""#, 100),
        (r#"{app="api"} |= "u4711 status=500""#, 100),
        (r#"{app="api"} |= "level=error" | logfmt | took > 2990ms"#, 100_000),
        (r#"{namespace="shop"} |= "no such text anywhere""#, 100),
    ] {
        let request = SelectRequest {
            tenant: tenant.clone(),
            part: Part::Whole,
            query: Arc::new(LogQuery::parse(text).expect("a query")),
            detect_level: true,
            as_of: u64::MAX,
            start: Timestamp(START),
            end: Timestamp(end + 1),
            direction: Direction::Backward,
            limit,
        };
        ask(text, &make, &|folder| {
            let found = scan::select(folder, &request, 1, &Cancel::default()).expect("an answer");
            assert!(found.warnings.is_empty(), "{:?}", found.warnings);
            (found.lines.len(), found.scanned)
        });
    }
    for text in [
        r#"sum by (app) (count_over_time({namespace="shop"}[1m]))"#,
        r#"sum by (app) (bytes_over_time({app="api"}[1m]))"#,
        r#"sum by (app) (count_over_time({namespace="shop"} |= "level=error" [1m]))"#,
        r#"sum by (status) (count_over_time({app="api"} | logfmt [1m]))"#,
    ] {
        let Ok(Expr::Metric(expr)) = tailwater_logql::parse(text) else { panic!("{text}") };
        let leaf = &leaves(&expr)[0];
        let query = Arc::new(SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).expect("a query"));
        let minute = 60_000_000_000;
        let steps = Steps { start: Timestamp(START + minute), step: minute, count: ((end - START) / minute) as u32 };
        let request = SamplesRequest {
            tenant: tenant.clone(),
            part: Part::Whole,
            grid: query.grid(steps),
            query,
            detect_level: true,
            after: 0,
            as_of: u64::MAX,
            from: Timestamp::MIN,
            settled: None,
            max_bytes: 1 << 30,
        };
        ask(text, &make, &|folder| {
            let known = Sampled { through: u64::MAX, ..Sampled::default() };
            let found = scan::samples(folder, &request, known, 1, &Cancel::default()).expect("an answer");
            (found.series.len(), found.scanned)
        });
    }
    let all = SeriesRequest {
        tenant: tenant.clone(),
        part: Part::Whole,
        matchers: vec![],
        start: Timestamp(START),
        end: Timestamp(end),
    };
    ask("stats", &make, &|folder| {
        let stats = scan::stats(folder, &all, &Cancel::default()).expect("an answer").value;
        (stats.streams as usize, Scanned { lines: stats.entries, ..Scanned::default() })
    });
}
