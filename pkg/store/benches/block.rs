//! Blocks, in bytes of lines per second: making one of service logs, decoding its pages, asking its grams and its index.

use std::sync::Arc;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use tailwater_logql::ast::{MatchOp, Matcher};
use tailwater_logql::matchers::Matchers;
use tailwater_model::{Labels, LogId, Timestamp};
use tailwater_store::block::{
    Entry, Footer, Index, Located, Options, Probe, Writer, decode_columns, decode_grams, decode_page,
};
use tailwater_store::entries::Place;

const STREAMS: u64 = 20;
const LINES: u64 = 6_000;

fn labels(i: u64) -> Labels {
    let pairs = [("app", format!("app-{}", i % 10)), ("env", "prod".into()), ("pod", format!("app-{i:06}"))];
    Labels::from_pairs(pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
}

/// Spreads numbers.
fn mix(i: u64) -> u64 {
    let i = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (i ^ (i >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

fn line(i: u64) -> String {
    let level = ["debug", "info", "info", "warn", "error"][mix(i) as usize % 5];
    format!(
        "level={level} method=GET path=/api/v1/orders/{} status={} duration={}.{}ms user=u{} trace_id={:016x} msg=\"request completed\"",
        mix(i + 1) % 5000,
        200 + mix(i + 2) % 5,
        mix(i + 3) % 900,
        mix(i + 4) % 10,
        mix(i + 5) % 100_000,
        mix(i + 6)
    )
}

fn lines() -> Vec<String> {
    (0..STREAMS * LINES).map(line).collect()
}

fn build(lines: &[String], streams: u64, metadata: bool, options: Options) -> (Vec<Bytes>, u64) {
    let mut writer = Writer::new(options);
    let (log, each) = (LogId::from_u128(1), lines.len() as u64 / streams);
    let values: Vec<_> = (0..100).map(|i| format!("value-{i}")).collect();
    for stream in 0..streams {
        writer.stream(&labels(stream), log);
        for (i, line) in lines.iter().skip((stream * each) as usize).take(each as usize).enumerate() {
            let i = i as u64;
            let place =
                Place { seq: i / 10, index: (i % 10) as u32, accepted_at: Timestamp((i / 10 * 20_000_000) as i64) };
            let timestamp = (1_790_000_000_000 + i as i64 * 2) * 1_000_000;
            let pairs =
                [("tenant", values[(stream % 100) as usize].as_str()), ("region", values[i as usize % 5].as_str())];
            let metadata = if metadata { pairs.as_slice() } else { &[] };
            writer.entry(&Entry { timestamp, line: line.as_bytes(), metadata, place });
        }
    }
    let built = writer.finish().expect("it fits");
    (built.parts, built.summary.raw_bytes)
}

fn opened(parts: &[Bytes]) -> (Bytes, Footer) {
    let block = Bytes::from(parts.concat());
    match Footer::locate(&block, block.len() as u64) {
        Ok(Located::Footer(footer)) => (block, *footer),
        other => panic!("{other:?}"),
    }
}

#[divan::bench(args = ["plain", "metadata", "full text"])]
fn making(bencher: Bencher<'_, '_>, kind: &str) {
    let lines = lines();
    let bytes: usize = lines.iter().map(String::len).sum();
    let options = Options { full_text: kind == "full text", ..Options::default() };
    let metadata = kind == "metadata";
    bencher.counter(BytesCount::new(bytes)).bench_local(|| build(black_box(&lines), STREAMS, metadata, options));
}

#[divan::bench(args = ["plain", "metadata"])]
fn decoding_pages(bencher: Bencher<'_, '_>, kind: &str) {
    let (parts, raw) = build(&lines(), STREAMS, kind == "metadata", Options::default());
    let (block, footer) = opened(&parts);
    bencher.counter(BytesCount::new(raw)).bench_local(|| {
        for page in &footer.pages {
            let bytes = &block[page.offset as usize..][..page.len as usize];
            let stream = Arc::clone(&footer.streams[page.stream as usize].stream);
            black_box(decode_page(bytes, page, stream).expect("it is right"));
        }
    });
}

#[divan::bench]
fn decoding_columns(bencher: Bencher<'_, '_>) {
    let (parts, raw) = build(&lines(), STREAMS, false, Options::default());
    let (block, footer) = opened(&parts);
    bencher.counter(BytesCount::new(raw)).bench_local(|| {
        for page in &footer.pages {
            let bytes = &block[page.offset as usize..][..page.columns_len as usize];
            black_box(decode_columns(bytes, page).expect("it is right"));
        }
    });
}

#[divan::bench(args = ["3ms user", "trace_id=0123456789abcdef", "request completed"])]
fn probing_grams(bencher: Bencher<'_, '_>, needle: &str) {
    let (parts, _) = build(&lines(), STREAMS, false, Options::default());
    let (block, footer) = opened(&parts);
    let range = footer.grams();
    let grams =
        decode_grams(&block.slice(range.start as usize..range.end as usize), &footer.pages).expect("they are right");
    bencher.counter(ItemsCount::new(grams.len())).bench_local(|| {
        let probe = Probe::new(black_box(needle.as_bytes()));
        grams.iter().flatten().filter(|g| g.pass(&probe)).count()
    });
}

#[divan::bench(args = [100, 1000, 10_000])]
fn reading_a_footer(bencher: Bencher<'_, '_>, streams: u64) {
    let (parts, _) = build(&lines(), streams, true, Options::default());
    let block = parts.concat();
    bencher.bench_local(|| Footer::locate(black_box(&block), block.len() as u64));
}

fn equal(value: &str) -> Matchers {
    let matcher = Matcher { name: "pod".into(), op: MatchOp::Eq, value: value.into() };
    Matchers::new(&[matcher]).expect("it is valid")
}

#[divan::bench(args = [100, 1000, 10_000])]
fn selecting_by_labels(bencher: Bencher<'_, '_>, streams: u64) {
    let (parts, _) = build(&lines(), streams, true, Options::default());
    let (_, footer) = opened(&parts);
    let matchers = equal("app-000042");
    bencher.bench_local(|| black_box(footer.select(&matchers)).len());
}

fn section<'a>(block: &'a Bytes, footer: &Footer) -> &'a [u8] {
    &block[footer.index.range.start as usize..footer.index.range.end as usize]
}

#[divan::bench(args = [100, 1000, 10_000])]
fn opening_the_index(bencher: Bencher<'_, '_>, streams: u64) {
    let (parts, _) = build(&lines(), streams, true, Options::default());
    let (block, footer) = opened(&parts);
    bencher.bench_local(|| Index::open(black_box(section(&block, &footer)), &footer));
}

#[divan::bench(args = [100, 1000, 10_000])]
fn selecting_by_the_index(bencher: Bencher<'_, '_>, streams: u64) {
    let (parts, _) = build(&lines(), streams, true, Options::default());
    let (block, footer) = opened(&parts);
    let index = Index::open(section(&block, &footer), &footer).expect("it is right");
    let matchers = equal("app-000042");
    bencher.bench_local(|| index.select(&footer, &matchers).map(|s| s.len()));
}

#[divan::bench]
fn pages_by_metadata(bencher: Bencher<'_, '_>) {
    let (parts, _) = build(&lines(), 1000, true, Options::default());
    let (block, footer) = opened(&parts);
    let index = Index::open(section(&block, &footer), &footer).expect("it is right");
    bencher.bench_local(|| index.pages_with(&footer, &[("tenant", "value-7"), ("region", "value-1")]));
}
