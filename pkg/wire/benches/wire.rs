//! Time per line of what every line goes through: a push being decoded, a frame being encoded.
//!
//! `cargo bench -p tailwater-wire`; divan's `item` is a line.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run may panic")]

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use prost::Message as _;
use tailwater_model::{Category, LabelPair, LabelSet, Timestamp};
use tailwater_wire::compress::{self, Caps};
use tailwater_wire::frame::{Extras, FrameEncoder, TailEncoding};
use tailwater_wire::push::{self, Kind, Outgoing};

#[path = "../fuzz/oracle.rs"]
mod oracle;

fn main() {
    divan::main();
}

const STREAMS: usize = 100;
const LINES: usize = 100;

/// About 180 bytes, as an access log has them.
fn line(i: usize) -> String {
    format!(
        "level=info ts=2026-11-01T12:00:00.{:09}Z caller=handler.go:{} method=GET path=/api/v1/items/{i} status=200 \
         duration={}ms bytes={} trace_id={:032x}",
        i * 7919 % 1_000_000_000,
        i % 500,
        i % 97,
        i * 31,
        i as u128 * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834
    )
}

fn compressed() -> Vec<u8> {
    let lines: Vec<_> = (0..STREAMS * LINES).map(line).collect();
    let labels: Vec<_> = (0..STREAMS).map(|i| format!("{{app=\"shop\", pod=\"shop-{i}\"}}")).collect();
    let outgoing = |(i, text): (usize, &'static str)| Outgoing {
        timestamp: Timestamp(1_793_534_400_000_000_000 + i as i64),
        line: text.as_bytes(),
        metadata: &[],
    };
    let lines: Vec<&'static str> = lines.into_iter().map(|l| &*l.leak()).collect();
    let streams = labels.iter().zip(lines.chunks(LINES));
    push::encode(streams.map(|(l, lines)| (&**l, lines.iter().copied().enumerate().map(outgoing)))).unwrap()
}

fn body() -> Vec<u8> {
    compress::snappy(&compressed(), &Caps::default()).unwrap()
}

fn lines() -> ItemsCount {
    ItemsCount::new(STREAMS * LINES)
}

#[divan::bench]
fn decode_by_hand(bencher: Bencher<'_, '_>) {
    let body = bytes::Bytes::from(body());
    bencher.counter(lines()).counter(BytesCount::new(body.len())).bench(|| push::decode(body.clone()).unwrap());
}

#[divan::bench]
fn decode_by_prost(bencher: Bencher<'_, '_>) {
    let body = bytes::Bytes::from(body());
    let decode = || oracle::PushRequest::decode(body.clone()).unwrap();
    bencher.counter(lines()).counter(BytesCount::new(body.len())).bench(decode);
}

#[divan::bench]
fn read_protobuf(bencher: Bencher<'_, '_>) {
    let body = compressed();
    let kind = Some("application/x-protobuf");
    bencher.counter(lines()).bench(|| push::read(Kind::V1, kind, None, &body, &Caps::default()).unwrap());
}

#[divan::bench]
fn read_json(bencher: Bencher<'_, '_>) {
    let push = push::decode(body()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let streams = push.streams().iter().map(|s| {
        let values = push.entries(s).iter().map(|e| (e.timestamp.to_string(), text(push.line(e))));
        serde_json::json!({"stream": {"app": "shop", "pod": text(push.labels(s))}, "values": values.collect::<Vec<_>>()})
    });
    let body = serde_json::json!({"streams": streams.collect::<Vec<_>>()}).to_string();
    let read = || push::read(Kind::V1, Some("application/json"), None, body.as_bytes(), &Caps::default()).unwrap();
    bencher.counter(lines()).counter(BytesCount::new(body.len())).bench(read);
}

#[divan::bench]
fn snappy(bencher: Bencher<'_, '_>) {
    let body = compressed();
    bencher.counter(lines()).bench(|| compress::snappy(&body, &Caps::default()).unwrap());
}

const FRAME_LINES: usize = 100;

fn frames(bencher: Bencher<'_, '_>, flags: &str, text: impl Fn(usize) -> String) {
    let pair = |name: &str, value: &str, category| LabelPair { name: name.into(), value: value.into(), category };
    let sets: Vec<_> = (0..10)
        .map(|i| {
            LabelSet::from_pairs(vec![
                pair("app", "shop", Category::Stream),
                pair("pod", &format!("shop-{i}"), Category::Stream),
                pair("detected_level", "info", Category::Metadata),
            ])
        })
        .collect();
    let lines: Vec<_> = (0..FRAME_LINES).map(text).collect();
    let size: usize = lines.iter().map(String::len).sum();
    let mut frames = FrameEncoder::new(TailEncoding::v1([flags]));
    bencher.counter(ItemsCount::new(FRAME_LINES)).counter(BytesCount::new(size)).bench_local(|| {
        for (i, line) in lines.iter().enumerate() {
            let timestamp = Timestamp(1_793_534_400_000_000_000 + i as i64);
            frames.push(timestamp, line.as_bytes(), &sets[i % sets.len()]);
        }
        frames.finish(&[], &Extras::default())
    });
}

#[divan::bench]
fn frame(bencher: Bencher<'_, '_>) {
    frames(bencher, "", line);
}

#[divan::bench]
fn frame_categorized(bencher: Bencher<'_, '_>) {
    frames(bencher, "categorize-labels", line);
}

#[divan::bench]
fn frame_of_json_lines(bencher: Bencher<'_, '_>) {
    frames(bencher, "", |i| {
        serde_json::json!({"level": "info", "path": format!("/api/{i}"), "line": line(i)}).to_string()
    });
}
