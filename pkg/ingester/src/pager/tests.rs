//! Cuts that fail anywhere and are repeated: every line is found exactly once.

mod copies;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tailwater_model::{Clock, Limits, LogId, TenantId, Timestamp};
use tailwater_store::Error;
use tailwater_store::block::{Footer, Located, Options, decode_page};
use tailwater_store::catalog::{Catalog, Refresh};
use tailwater_store::objects::Objects;
use tailwater_wire::push::{self, Outgoing};

use super::cut::{Cutter, Probe, Step};
use super::{Pager, PagerConfig, PagerMetrics};
use crate::{Config, Ingester, SyncPolicy, WalConfig};

const DAY: i64 = 86_400_000_000_000;

/// Where the tests' clock stands at first: noon.
const NOW: i64 = 20_000 * DAY + DAY / 2;

#[derive(Debug)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// A line as it was pushed and as it is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    tenant: String,
    stream: String,
    timestamp: i64,
    text: String,
    metadata: Vec<(String, String)>,
}

/// A line to push: stream, timestamp, text, structured metadata.
type Pushed<'a> = (&'a str, i64, &'a str, &'a [(&'a str, &'a str)]);

/// A process, and what outlives it.
struct Bench {
    dir: tempfile::TempDir,
    objects: Objects,
    clock: Arc<TestClock>,
    ingester: Arc<Ingester>,
    catalog: Arc<Catalog>,
    pushed: Vec<Line>,
}

fn open(dir: &std::path::Path, clock: &Arc<TestClock>) -> Arc<Ingester> {
    let limits = Limits {
        ingestion_rate_mb: 1e9,
        ingestion_burst_size_mb: 1e9,
        per_stream_rate_limit: 1 << 50,
        per_stream_rate_limit_burst: 1 << 50,
        max_global_streams_per_user: 0,
        reject_old_samples: false,
        out_of_order_window: Duration::from_secs(1 << 40),
        creation_grace_period: Duration::from_secs(1 << 40),
        discover_service_name: Vec::new(),
        ..Limits::default()
    };
    let wal =
        WalConfig { dir: dir.to_owned(), sync: SyncPolicy::Os, segment_bytes: 2 << 10, keep_bytes: 0, max_bytes: 0 };
    // So little memory that most lines are read from disk again.
    let config = Config { log_memory_bytes: 8 << 10, wal: Some(wal), ..Config::default() };
    let ingester = Ingester::open(config, Arc::new(Arc::new(limits)), Arc::<TestClock>::clone(clock)).unwrap();
    ingester.recover().unwrap();
    ingester
}

fn catalog(objects: &Objects) -> Arc<Catalog> {
    Arc::new(Catalog::new(objects.clone(), Refresh::Exclusive))
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open("memory:", &tailwater_store::objects::Options::default()).unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
        let ingester = open(dir.path(), &clock);
        let catalog = catalog(&objects);
        Self { dir, objects, clock, ingester, catalog, pushed: Vec::new() }
    }

    /// The process ends just here, and another one begins.
    fn crash(mut self) -> Self {
        let dir = self.dir.path().to_owned();
        // Out of the way, so that the log can be opened again.
        let other = Ingester::new(
            Config::default(),
            Arc::new(Arc::new(Limits::default())),
            Arc::<TestClock>::clone(&self.clock),
        );
        drop(std::mem::replace(&mut self.ingester, other));
        self.ingester = open(&dir, &self.clock);
        self.catalog = catalog(&self.objects);
        self
    }

    /// One push of lines of some streams.
    async fn push(&mut self, tenant: &str, lines: &[Pushed<'_>]) {
        let mut streams: BTreeMap<&str, Vec<Outgoing<'_>>> = BTreeMap::new();
        for (app, at, text, metadata) in lines {
            let entry = Outgoing { timestamp: Timestamp(*at), line: text.as_bytes(), metadata };
            streams.entry(app).or_default().push(entry);
            self.pushed.push(Line {
                tenant: tenant.into(),
                stream: format!(r#"{{app="{app}"}}"#),
                timestamp: *at,
                text: (*text).into(),
                metadata: metadata.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            });
        }
        let texts: Vec<_> = streams.keys().map(|app| format!(r#"{{app="{app}"}}"#)).collect();
        let body = push::encode(texts.iter().map(String::as_str).zip(streams.into_values())).unwrap();
        let caps = tailwater_wire::compress::Caps::default();
        let decoded = push::decode(tailwater_wire::compress::snappy(&body, &caps).unwrap()).unwrap();
        let tenant = TenantId::parse(tenant).unwrap();
        self.ingester.push(&tenant, decoded, Some(&body)).await.unwrap();
    }

    /// Pushes of several tenants over three days, out of order, with equal timestamps and structured metadata.
    async fn push_much(&mut self) {
        for round in 0..12_i64 {
            for tenant in ["a", "b"] {
                let text = |n: i64| format!("{tenant} {round} {n} {}", "x".repeat(usize::try_from(n * 40).unwrap()));
                let (one, two, three) = (text(1), text(2), text(3));
                let at = NOW - (round * 7 % 5) * DAY / 2;
                let id = round.to_string();
                let metadata = [("trace", id.as_str())];
                self.push(
                    tenant,
                    &[("one", at, &one, &[]), ("one", at - DAY, &two, &metadata), ("two", NOW, &three, &[])],
                )
                .await;
            }
        }
    }

    fn cutter(&self, probe: Option<Probe>) -> Cutter {
        let mut cutter = Cutter::new(
            Arc::clone(&self.ingester.log),
            Arc::<TestClock>::clone(&self.clock),
            Arc::clone(&self.catalog),
            Options { page_bytes: 256, ..Options::default() },
            PagerMetrics::new(),
            Arc::new(AtomicBool::new(false)),
        );
        cutter.probe = probe;
        cutter
    }

    /// Cuts of at most so many bytes until everything is in blocks.
    async fn cut_all(&self, cutter: &Cutter, max_bytes: u64) -> Result<(), Error> {
        let head = self.ingester.log.head();
        while self.ingester.log.covered() < head {
            let before = self.ingester.log.covered();
            let done = cutter.cut(head, max_bytes).await?;
            assert_eq!(self.ingester.log.covered(), done.through);
            assert!(done.through > before);
        }
        Ok(())
    }

    /// The lines of blocks with their places, as far as `want` says so.
    async fn in_blocks(&self, want: impl Fn(LogId, u64) -> bool) -> Vec<Line> {
        let catalog = catalog(&self.objects);
        let mut lines = Vec::new();
        for tenant in catalog.tenants().await.unwrap() {
            for block in catalog.blocks(&tenant, i64::MIN, i64::MAX).await.unwrap().blocks {
                let (object, _) = self.objects.get(&block.path(&tenant)).await.unwrap().unwrap();
                let Located::Footer(footer) = Footer::locate(&object, object.len() as u64).unwrap() else {
                    panic!("not all of it")
                };
                for info in &footer.pages {
                    let of = &footer.streams[info.stream as usize].stream;
                    let range =
                        usize::try_from(info.range().start).unwrap()..usize::try_from(info.range().end).unwrap();
                    let entries = decode_page(&object[range], info, Arc::clone(of)).unwrap();
                    for (number, span) in (0..).zip(entries.entries(&entries.runs[0])) {
                        let place = entries.place(number);
                        assert!(block.day.range().contains(&span.timestamp));
                        assert_eq!(place.accepted_at.nanos(), NOW);
                        if want(footer.logs[usize::from(info.log)].log, place.seq) {
                            lines.push(line(&tenant, of, &entries, span));
                        }
                    }
                }
            }
        }
        lines
    }

    /// What a reader sees: blocks up to what is covered, and the log after it.
    async fn seen(&self) -> Vec<Line> {
        let (own, covered) = (self.ingester.log.id(), self.ingester.log.covered());
        let mut lines = self.in_blocks(|log, seq| log != own || seq <= covered).await;
        let (batches, _) = self.ingester.log.stretch(covered, u64::MAX, u64::MAX).unwrap();
        for batch in batches {
            for run in &batch.runs {
                lines.extend(batch.entries(run).iter().map(|e| line(&batch.account.tenant, &run.stream, &batch, e)));
            }
        }
        lines.sort();
        lines
    }

    fn expected(&self) -> Vec<Line> {
        let mut lines = self.pushed.clone();
        lines.sort();
        lines
    }

    /// Objects of blocks, and blocks that are listed.
    async fn blocks(&self) -> (usize, usize) {
        use futures_util::StreamExt;
        let paths: Vec<_> = self.objects.list("").map(|listed| listed.unwrap().path).collect().await;
        let catalog = catalog(&self.objects);
        let mut listed = 0;
        for tenant in catalog.tenants().await.unwrap() {
            listed += catalog.blocks(&tenant, i64::MIN, i64::MAX).await.unwrap().blocks.len();
        }
        (paths.iter().filter(|path| path.ends_with(".blk")).count(), listed)
    }
}

fn line(
    tenant: &TenantId,
    stream: &tailwater_store::Stream,
    entries: &tailwater_store::entries::Entries,
    span: &push::EntrySpan,
) -> Line {
    Line {
        tenant: tenant.to_string(),
        stream: stream.labels.to_string(),
        timestamp: span.timestamp,
        text: String::from_utf8_lossy(entries.line(span)).into_owned(),
        metadata: entries.metadata(span).iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
    }
}

/// Fails at a step, counted over all; tells how many there were.
fn failing_at(step: usize) -> (Probe, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let probe: Probe = Arc::new(move |_| {
        let failed = counted.fetch_add(1, Ordering::Relaxed) == step;
        Box::pin(async move {
            let reason = || Error::Unavailable { what: "the test".into(), reason: "ends it here".into() };
            if failed { Err(reason()) } else { Ok(()) }
        })
    });
    (probe, count)
}

#[tokio::test]
async fn a_cut_sorts_lines_by_tenant_day_and_stream() {
    let mut bench = Bench::new();
    bench.push_much().await;
    bench.cut_all(&bench.cutter(None), u64::MAX).await.unwrap();
    assert_eq!(bench.seen().await, bench.expected());
    let all = bench.in_blocks(|_, _| true).await;
    assert_eq!(all.len(), bench.pushed.len());
    // Within a block: by stream, then by time. The blocks of a day are one after the other here.
    let days = [NOW - 3 * DAY, NOW - 2 * DAY, NOW - DAY, NOW].map(|at| at.div_euclid(DAY));
    let (objects, listed) = bench.blocks().await;
    assert_eq!((objects, listed), (2 * days.len(), 2 * days.len()));
    let log = bench.ingester.log.uncovered();
    assert!(log.first > log.last);
}

#[tokio::test]
async fn entries_of_equal_time_stay_in_the_order_of_the_log() {
    let mut bench = Bench::new();
    for text in ["c", "a", "b"] {
        bench.push("t", &[("x", NOW, text, &[]), ("x", NOW - 1, text, &[])]).await;
    }
    bench.cut_all(&bench.cutter(None), u64::MAX).await.unwrap();
    let found: Vec<_> = bench.in_blocks(|_, _| true).await.into_iter().map(|l| (l.timestamp - NOW, l.text)).collect();
    let line = |at, text: &str| (at, text.to_owned());
    assert_eq!(found, [line(-1, "c"), line(-1, "a"), line(-1, "b"), line(0, "c"), line(0, "a"), line(0, "b")]);
}

#[tokio::test]
async fn whatever_step_is_the_last_a_repetition_makes_it_whole() {
    for step in 0.. {
        let mut bench = Bench::new();
        bench.push_much().await;
        let (probe, _) = failing_at(step);
        let ended = bench.cut_all(&bench.cutter(Some(probe)), 2000).await;
        assert_eq!(bench.seen().await, bench.expected(), "before the crash after step {step}");
        let mut bench = bench.crash();
        assert_eq!(bench.seen().await, bench.expected(), "after the crash after step {step}");
        bench.push("a", &[("later", NOW, "later", &[])]).await;
        bench.cut_all(&bench.cutter(None), 3000).await.unwrap();
        assert_eq!(bench.seen().await, bench.expected(), "after step {step} was made up for");
        let mut all = bench.in_blocks(|_, _| true).await;
        all.sort();
        assert_eq!(all, bench.expected(), "and every line is in one block");
        if ended.is_ok() {
            assert!(step > 20);
            return;
        }
    }
}

#[tokio::test]
async fn of_two_cuts_at_a_time_one_gives_way() {
    let mut bench = Bench::new();
    bench.push_much().await;
    // While the first has uploaded a block, another one makes the whole cut.
    let other = Arc::new(bench.cutter(None));
    let head = bench.ingester.log.head();
    let once = Arc::new(AtomicBool::new(false));
    let probe: Probe = Arc::new(move |step| {
        let (other, first) = (Arc::clone(&other), step == Step::Uploaded && !once.swap(true, Ordering::Relaxed));
        Box::pin(async move {
            if first {
                other.cut(head, u64::MAX).await?;
            }
            Ok(())
        })
    });
    bench.cut_all(&bench.cutter(Some(probe)), u64::MAX).await.unwrap();
    assert_eq!(bench.seen().await, bench.expected());
    let (objects, listed) = bench.blocks().await;
    assert_eq!(objects, listed, "what was uploaded in vain is deleted again");
}

#[tokio::test]
async fn when_another_was_ahead_in_part_only_the_rest_is_added() {
    let mut bench = Bench::new();
    bench.push_much().await;
    let other = Arc::new(bench.cutter(None));
    let head = bench.ingester.log.head();
    let once = Arc::new(AtomicBool::new(false));
    let probe: Probe = Arc::new(move |step| {
        let (other, first) = (Arc::clone(&other), step == Step::Uploaded && !once.swap(true, Ordering::Relaxed));
        Box::pin(async move {
            if first {
                other.cut(head / 2, u64::MAX).await?;
            }
            Ok(())
        })
    });
    bench.cut_all(&bench.cutter(Some(probe)), u64::MAX).await.unwrap();
    assert_eq!(bench.seen().await, bench.expected());
    let mut all = bench.in_blocks(|_, _| true).await;
    all.sort();
    assert_eq!(all, bench.expected());
}

#[tokio::test]
async fn many_streams_and_many_bytes_make_several_blocks() {
    let mut bench = Bench::new();
    let apps: Vec<_> = (0..150).map(|n| format!("app{n:03}")).collect();
    let long = "y".repeat(1000);
    for app in &apps {
        bench.push("t", &[(app, NOW, "short", &[])]).await;
    }
    for n in 0..40 {
        bench.push("t", &[("app000", NOW - n, &long, &[])]).await;
    }
    bench.cut_all(&bench.cutter(None), u64::MAX).await.unwrap();
    assert_eq!(bench.seen().await, bench.expected());
    let (objects, listed) = bench.blocks().await;
    assert_eq!(objects, listed);
    assert!(listed >= 4, "{listed}");
}

fn pager(bench: &Bench, config: PagerConfig) -> Pager {
    let (log, clock) = (Arc::clone(&bench.ingester.log), Arc::<TestClock>::clone(&bench.clock));
    Pager::start(log, Arc::clone(&bench.catalog), config, clock, PagerMetrics::new())
}

/// Waits, in the test's time, until something is so.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never came");
}

#[tokio::test(start_paused = true)]
async fn age_and_size_make_a_cut_due() {
    let mut bench = Bench::new();
    let pager = pager(&bench, PagerConfig { target_block_bytes: 500, ..PagerConfig::default() });
    bench.push("t", &[("x", NOW, "a", &[])]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.ingester.log.covered(), 0);
    bench.clock.0.fetch_add(31 * 60 * 1_000_000_000, Ordering::Relaxed);
    until(|| bench.ingester.log.covered() == 1).await;
    let long = "z".repeat(300);
    bench.push("t", &[("x", NOW, &long, &[])]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.ingester.log.covered(), 1);
    let longer = "z".repeat(301);
    bench.push("t", &[("x", NOW, &longer, &[])]).await;
    until(|| bench.ingester.log.covered() == 3).await;
    pager.stop().await;
    assert!(pager.flush().await.is_err(), "it is stopped");
}

#[tokio::test]
async fn a_flush_returns_when_the_catalog_has_everything() {
    let mut bench = Bench::new();
    bench.push_much().await;
    bench
        .ingester
        .start_pager(Arc::clone(&bench.catalog), PagerConfig { target_block_bytes: 1000, ..PagerConfig::default() });
    bench.ingester.flush().await.unwrap();
    assert_eq!(bench.ingester.log.covered(), bench.ingester.log.head());
    assert!(bench.ingester.pager_failure().is_none());
    assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
    bench.ingester.flush().await.unwrap();
    bench.ingester.stop_pager().await;
}

#[tokio::test]
async fn while_the_store_is_gone_nothing_is_lost_and_a_flush_says_why() {
    let mut bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let (there, away) = (folder.path().join("store"), folder.path().join("away"));
    let options = tailwater_store::objects::Options::default();
    bench.objects = Objects::open(there.to_str().unwrap(), &options).unwrap();
    bench.catalog = catalog(&bench.objects);
    bench.push_much().await;
    std::fs::rename(&there, &away).unwrap();
    bench.ingester.start_pager(Arc::clone(&bench.catalog), PagerConfig::default());
    let error = bench.ingester.flush().await.unwrap_err();
    assert!(error.to_string().contains("is its disk mounted?"), "{error}");
    let failure = bench.ingester.pager_failure().unwrap();
    assert!(failure.attempts >= 1);
    bench.push("a", &[("x", NOW, "pushes go on", &[])]).await;
    std::fs::rename(&away, &there).unwrap();
    bench.ingester.flush().await.unwrap();
    assert!(bench.ingester.pager_failure().is_none());
    assert_eq!(bench.seen().await, bench.expected());
    assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
    bench.ingester.stop_pager().await;
}

#[tokio::test]
async fn what_is_in_blocks_is_told_by_time() {
    let mut bench = Bench::new();
    assert_eq!(bench.ingester.in_blocks_until(), Timestamp(NOW));
    bench.push("t", &[("x", NOW, "a", &[])]).await;
    bench.clock.0.fetch_add(5, Ordering::Relaxed);
    assert!(bench.ingester.in_blocks_until() <= Timestamp(NOW));
    bench.cut_all(&bench.cutter(None), u64::MAX).await.unwrap();
    assert_eq!(bench.ingester.in_blocks_until(), Timestamp(NOW + 5));
}
