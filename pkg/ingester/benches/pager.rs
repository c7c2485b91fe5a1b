//! What it costs to put a line into a block: sorting, copying, grams, compression, the index, and an upload into memory or a folder.
//! `cargo bench -p tailwater-ingester --bench pager`; the items/s of a line are its inverse.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use tailwater_ingester::{Config, Ingester, PagerConfig, SyncPolicy, WalConfig};
use tailwater_model::{Limits, SystemClock, TenantId, Timestamp};
use tailwater_store::catalog::{Catalog, Refresh};
use tailwater_store::objects::Objects;
use tailwater_wire::push::{self, Outgoing};

const PUSHES: usize = 200;
const LINES: usize = 1000;
const STREAMS: usize = 100;
const LINE_BYTES: usize = 180;

fn main() {
    divan::main();
}

/// A log full of lines that look like those of a web service, and the folder that it is in.
fn full(runtime: &tokio::runtime::Runtime) -> (Arc<Ingester>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let limits = Limits {
        ingestion_rate_mb: 1e9,
        ingestion_burst_size_mb: 1e9,
        per_stream_rate_limit: 1 << 50,
        per_stream_rate_limit_burst: 1 << 50,
        ..Limits::default()
    };
    let wal = WalConfig {
        dir: dir.path().to_owned(),
        sync: SyncPolicy::Os,
        segment_bytes: 64 << 20,
        keep_bytes: 0,
        max_bytes: 0,
    };
    let config = Config { log_memory_bytes: 512 << 20, wal: Some(wal), ..Config::default() };
    let ingester = Ingester::open(config, Arc::new(Arc::new(limits)), Arc::new(SystemClock)).expect("a new log");
    ingester.recover().expect("an empty log");
    let tenant = TenantId::parse("bench").expect("a tenant id");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..PUSHES {
        let now = Timestamp::now();
        let texts: Vec<_> =
            (0..STREAMS).map(|n| format!(r#"{{app="app-{}", namespace="shop", pod="pod-{n}"}}"#, n % 10)).collect();
        let lines: Vec<String> = (0..LINES).map(|n| line(now, n, &mut random)).collect();
        let entry = |line: &String| (now, line.clone());
        let entries: Vec<Vec<_>> = lines.chunks(LINES / STREAMS).map(|of| of.iter().map(entry).collect()).collect();
        let streams = texts.iter().zip(&entries).map(|(text, of)| {
            let outgoing = of.iter().map(|(timestamp, line)| Outgoing {
                timestamp: *timestamp,
                line: line.as_bytes(),
                metadata: &[],
            });
            (text.as_str(), outgoing)
        });
        let body = push::encode(streams).expect("a push of this size");
        let caps = tailwater_wire::compress::Caps::default();
        let plain = tailwater_wire::compress::snappy(&body, &caps).expect("just compressed");
        let decoded = push::decode(plain).expect("just encoded");
        runtime.block_on(ingester.push(&tenant, decoded, Some(&body))).expect("within all limits");
    }
    (ingester, dir)
}

fn line(now: Timestamp, n: usize, random: &mut fastrand::Rng) -> String {
    let (at, id, took) = (now.nanos(), random.u64(..), random.u32(1..2000));
    let (path, user) = (random.u32(..300), random.u32(..5000));
    let mut line = format!(
        "ts={at} level=info msg=\"request served\" method=GET path=/api/items/{path} status=200 took={took}ms \
         user=u{user} trace={id:016x} n={n} "
    );
    line.extend(std::iter::repeat_n('x', LINE_BYTES.saturating_sub(line.len())));
    line
}

fn flush(bencher: Bencher<'_, '_>, url: impl Fn() -> String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    bencher
        .counter(ItemsCount::new(PUSHES * LINES))
        .counter(BytesCount::new(PUSHES * LINES * LINE_BYTES))
        .with_inputs(|| {
            let objects = Objects::open(&url(), &tailwater_store::objects::Options::default()).expect("a new storage");
            let (ingester, dir) = full(&runtime);
            (ingester, Arc::new(Catalog::new(objects, Refresh::Exclusive)), dir)
        })
        .bench_local_values(|(ingester, catalog, dir)| {
            runtime.block_on(async {
                ingester.start_pager(catalog, PagerConfig::default());
                ingester.flush().await.expect("a storage that works");
                ingester.stop_pager().await;
            });
            (ingester, dir)
        });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn into_memory(bencher: Bencher<'_, '_>) {
    flush(bencher, || "memory:".to_owned());
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn into_a_folder(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    flush(bencher, || dir.path().join(fastrand::u64(..).to_string()).display().to_string());
}
