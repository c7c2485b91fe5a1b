//! Whole blocks: what is written is read, what is damaged is noticed, what is searched for is found.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tailwater_model::{Labels, LogId, Timestamp};

use super::*;
use crate::entries::{Entries, Place};
use crate::{Error, Kind};

/// An entry as the tests have it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    timestamp: i64,
    line: Vec<u8>,
    metadata: Vec<(String, String)>,
    place: Place,
}

impl Owned {
    fn key(&self) -> (i64, u64, u32) {
        (self.timestamp, self.place.seq, self.place.index)
    }
}

type Streams = Vec<(Labels, LogId, Vec<Owned>)>;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
}

fn place(seq: u64, index: u32) -> Place {
    Place { seq, index, accepted_at: Timestamp(seq as i64 * 1_000_003) }
}

fn entry(timestamp: i64, line: &str, seq: u64, index: u32) -> Owned {
    Owned { timestamp, line: line.into(), metadata: Vec::new(), place: place(seq, index) }
}

fn with(mut entry: Owned, pairs: &[(&str, &str)]) -> Owned {
    entry.metadata = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    entry
}

fn build(streams: &Streams, options: Options) -> (Bytes, Summary) {
    let mut writer = Writer::new(options);
    for (labels, log, entries) in streams {
        writer.stream(labels, *log);
        for e in entries {
            let metadata: Vec<_> = e.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            writer.entry(&Entry { timestamp: e.timestamp, line: &e.line, metadata: &metadata, place: e.place });
        }
    }
    let built = writer.finish().unwrap();
    (built.parts.concat().into(), built.summary)
}

fn footer(block: &[u8]) -> Result<Footer, Error> {
    let len = block.len() as u64;
    let mut from = len.saturating_sub(TAIL_GUESS);
    for _ in 0..3 {
        match Footer::locate(&block[from as usize..], len)? {
            Located::Footer(footer) => return Ok(*footer),
            Located::Need(range) => {
                assert!(range.start < from && range.end == len);
                from = range.start;
            }
        }
    }
    panic!("asked for more and more")
}

fn slice(block: &Bytes, range: std::ops::Range<u64>) -> Bytes {
    block.slice(range.start as usize..range.end as usize)
}

fn page(block: &Bytes, footer: &Footer, page: &PageInfo) -> Result<Entries, Error> {
    let stream = Arc::clone(&footer.streams[page.stream as usize].stream);
    decode_page(&slice(block, page.range()), page, stream)
}

/// Everything that is in a block; each part of it is read.
fn read(block: &Bytes) -> Result<Streams, Error> {
    let footer = footer(block)?;
    let grams = decode_grams(&slice(block, footer.grams()), &footer.pages)?;
    assert_eq!(grams.len(), footer.pages.len());
    let mut streams: Streams = Vec::new();
    for entry in &footer.streams {
        for number in entry.pages.clone() {
            let info = &footer.pages[number as usize];
            let entries = page(block, &footer, info)?;
            let columns = decode_columns(&slice(block, info.range()), info)?;
            let log = footer.logs[usize::from(info.log)].log;
            let run = &entries.runs[0];
            let owned = entries.entries(run).iter().enumerate().map(|(i, e)| {
                assert_eq!((columns.times[i], columns.lengths[i]), (e.timestamp, e.line_len));
                let metadata = entries.metadata(e).iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
                let place = entries.place(i as u32);
                Owned { timestamp: e.timestamp, line: entries.line(e).to_vec(), metadata, place }
            });
            let labels = &entry.stream.labels;
            match streams.last_mut() {
                Some((l, g, all)) if l == labels && *g == log => all.extend(owned),
                _ => streams.push((labels.clone(), log, owned.collect())),
            }
        }
    }
    Ok(streams)
}

fn small(page_bytes: usize) -> Options {
    Options { page_bytes, ..Options::default() }
}

/// A little of everything.
fn mixed() -> Streams {
    let log = LogId::from_u128(7);
    let a = vec![
        entry(1_000, "GET /api/orders 200", 1, 0),
        entry(1_000, "", 1, 1),
        with(
            entry(2_000, "POST /api/orders 500 upstream timed out", 2, 5),
            &[("trace_id", "4bf9"), ("level", "error")],
        ),
        with(entry(3_000, "GET /api/users 200", 3, 0), &[("trace_id", "4bfa")]),
    ];
    let b = vec![entry(-5, "line\nwith feed", 3, 1), entry(i64::MAX, "\u{e4}\u{212a}elvin", 9, 9)];
    vec![
        (labels(&[("app", "api"), ("pod", "1")]), log, a.clone()),
        (labels(&[("app", "api"), ("pod", "1")]), LogId::from_u128(8), a),
        (labels(&[("app", "db")]), log, b),
    ]
}

#[test]
fn what_is_written_is_read() {
    let (block, summary) = build(&mixed(), Options::default());
    assert_eq!(read(&block).unwrap(), mixed());
    assert_eq!((summary.min, summary.max, summary.lines), (-5, i64::MAX, 10));
    assert_eq!((summary.streams, summary.pages, summary.bytes), (2, 3, block.len() as u64));
    let covered = |log, first, last| Covered { log: LogId::from_u128(log), first, last };
    assert_eq!(summary.logs, [covered(7, 1, 9), covered(8, 1, 3)]);
    let Sizes { lines, columns, grams, index, footer: end } = summary.sizes;
    assert_eq!(lines + columns + grams + index + end, summary.bytes);
    let footer = footer(&block).unwrap();
    assert_eq!((footer.lines, footer.bytes), (summary.lines, summary.raw_bytes));
    assert!(footer.memory() > 100);
}

#[test]
fn an_empty_block_is_a_block() {
    let (block, summary) = build(&Vec::new(), Options::default());
    assert_eq!((read(&block).unwrap(), summary.pages), (Vec::new(), 0));
    assert!(summary.min > summary.max);
}

#[test]
fn pages_are_cut_at_their_size_and_a_long_line_is_one() {
    let log = LogId::from_u128(1);
    let lines = ["x".repeat(60), "y".repeat(40), "z".repeat(1), "long".repeat(100), String::new()];
    let entries = lines.iter().enumerate().map(|(i, line)| entry(i as i64, line, 1, i as u32)).collect();
    let streams = vec![(labels(&[("a", "b")]), log, entries)];
    let (block, _) = build(&streams, small(100));
    let footer = footer(&block).unwrap();
    assert_eq!(footer.pages.iter().map(|p| p.bytes).collect::<Vec<_>>(), [100, 1, 400, 0]);
    assert_eq!(read(&block).unwrap(), streams);
}

#[test]
fn what_comes_unsorted_is_sorted_within_pages() {
    let log = LogId::from_u128(1);
    let entries = vec![entry(5, "a", 1, 0), entry(4, "b", 1, 1), entry(4, "c", 1, 0), entry(9, "d", 2, 0)];
    let streams = vec![(labels(&[("a", "b")]), log, entries)];
    let (block, summary) = build(&streams, Options::default());
    assert_eq!((summary.pages, read(&block).unwrap()), (3, streams));
}

#[test]
fn an_entry_without_a_stream_is_told() {
    let mut writer = Writer::new(Options::default());
    writer.entry(&Entry { timestamp: 1, line: b"x", metadata: &[], place: place(1, 0) });
    assert_eq!(writer.finish().unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (block, _) = build(&mixed(), small(64));
    for at in 0..block.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut broken = block.to_vec();
            broken[at] ^= flip;
            let error = read(&broken.into()).expect_err(&format!("byte {at} of {}", block.len()));
            assert_eq!(error.kind(), Kind::Corrupt);
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let (block, _) = build(&mixed(), small(64));
    for len in 0..block.len() {
        assert_eq!(read(&block.slice(..len)).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(read(&block.slice(len + 1..)).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn a_footer_that_is_longer_than_the_guess_is_asked_for() {
    let log = LogId::from_u128(1);
    let name = |i: u64| format!("{:016x}", (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let streams: Streams =
        (0..20_000).map(|i| (labels(&[("pod", &name(i))]), log, vec![entry(i as i64, "x", i, 0)])).collect();
    let (block, _) = build(&streams, Options::default());
    let len = block.len() as u64;
    for guess in [0, 1, 20, 1000] {
        let tail = slice(&block, len - guess..len);
        let Located::Need(range) = Footer::locate(&tail, len).unwrap() else { panic!("found in {guess} bytes") };
        assert!(range.start < len - guess && range.end == len);
    }
    assert_eq!(read(&block).unwrap(), streams);
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-cA-C \n]{0,12}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..20),
        1 => (1_usize..2000).prop_map(|n| b"ab".repeat(n)),
    ]
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0_i64..20, 2 => (0_i64..20).prop_map(|s| s * 1_000_000), 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
}

prop_compose! {
    fn any_entry()(
        timestamp in any_time(), line in any_line(), seq in prop_oneof![0_u64..4, any::<u64>()], index in prop_oneof![0_u32..4, any::<u32>()],
        accepted in any::<i64>(), metadata in prop_oneof![3 => Just(Vec::new()), 1 => vec(("[a-c]{1,2}", "[x-z\u{e4}]{1,3}"), 0..4)],
    ) -> Owned {
        Owned { timestamp, line, metadata, place: Place { seq, index, accepted_at: Timestamp(accepted) } }
    }
}

fn any_streams() -> impl Strategy<Value = Streams> {
    vec((("[ab]", "[a-d]{1,3}"), 0_u128..3, vec(any_entry(), 1..30)), 0..6).prop_map(|streams| {
        let mut streams: Streams = streams
            .into_iter()
            .map(|((name, value), log, mut entries)| {
                entries.sort_by_key(Owned::key);
                (labels(&[(&name, &value)]), LogId::from_u128(log), entries)
            })
            .collect();
        streams.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        streams.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        streams
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn blocks_round_trip(streams in any_streams(), page_bytes in 1_usize..4000) {
        let (block, summary) = build(&streams, small(page_bytes));
        prop_assert_eq!(read(&block).unwrap(), streams);
        prop_assert_eq!(summary.bytes, block.len() as u64);
    }

    #[test]
    fn grams_never_hide_a_line(streams in any_streams(), needle in "[a-cA-C \n]{0,6}", page_bytes in 1_usize..4000) {
        let (block, _) = build(&streams, small(page_bytes));
        let footer = footer(&block).unwrap();
        let needle = needle.to_ascii_lowercase().into_bytes();
        let grams = decode_grams(&slice(&block, footer.grams()), &footer.pages).unwrap();
        for (info, grams) in footer.pages.iter().zip(grams) {
            let entries = page(&block, &footer, info).unwrap();
            let has = |e| memchr::memmem::find(&entries.line(e).to_ascii_lowercase(), &needle).is_some();
            let found = entries.entries(&entries.runs[0]).iter().any(has);
            prop_assert!(!found || grams.is_none_or(|g| g.may_contain(&needle)));
        }
    }

    #[test]
    fn garbage_is_no_block(garbage in vec(any::<u8>(), 0..200)) {
        let _ = footer(&garbage);
        // With an end that is right.
        let (block, _) = build(&mixed(), Options::default());
        let mut broken = garbage;
        broken.extend_from_slice(&block[block.len() - 32..]);
        prop_assert!(footer(&broken).is_err());
    }
}
