//! Whole blocks: what is written is read, what is damaged is noticed, what is searched for is found.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tailwater_model::{Labels, LogId, Timestamp};

use super::frame::{CRC_LEN, Sealer};
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
    if !footer.index.range.is_empty() {
        Index::open(&slice(block, footer.index.range.clone()), &footer)?;
    }
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

/// [`mixed`] as a block, of one page per stream and log.
static MIXED: LazyLock<Bytes> = LazyLock::new(|| build(&mixed(), Options::default()).0);

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
    let lines = ["x".repeat(60), "y".repeat(40), "z".to_owned(), "long".repeat(100), String::new()];
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
        for flip in [0x01, 0x80] {
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
    #![proptest_config(ProptestConfig::with_cases(150))]

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
        let mut broken = garbage;
        broken.extend_from_slice(&MIXED[MIXED.len() - 32..]);
        prop_assert!(footer(&broken).is_err());
    }
}

/// The block of which `part` is exchanged for one that has other bytes, but a right checksum.
fn resealed(block: &Bytes, part: std::ops::Range<usize>, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let frame = &block[part.start..part.end - CRC_LEN];
    let mut raw = zstd::bulk::decompress(frame, 1 << 20).unwrap();
    change(&mut raw);
    let mut out = block[..part.start].to_vec();
    let len = Sealer::new(3).unwrap().seal(&raw, &mut out).unwrap() as usize;
    out.extend_from_slice(&block[part.end..]);
    assert_eq!(out.len() + part.len(), block.len() + len);
    out.into()
}

/// The block with another footer, whose checksum is right.
fn with_footer(block: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    const TRAILER: usize = 32;
    let trailer = &block[block.len() - TRAILER..];
    let len = u32::from_le_bytes(trailer[..4].try_into().unwrap()) as usize;
    let start = block.len() - TRAILER - len;
    let mut raw = zstd::bulk::decompress(&block[start..start + len], 1 << 20).unwrap();
    change(&mut raw);
    let mut end = Vec::new();
    let len = Sealer::new(3).unwrap().seal(&raw, &mut end).unwrap() as usize - CRC_LEN;
    end.truncate(len);
    end.extend_from_slice(&(len as u32).to_le_bytes());
    end.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    end.extend_from_slice(&((start + len + TRAILER) as u64).to_le_bytes());
    end.extend_from_slice(&trailer[16..20]);
    let crc = crc32c::crc32c(&end);
    end.extend_from_slice(&crc.to_le_bytes());
    end.extend_from_slice(&trailer[24..]);
    [&block[..start], &end].concat().into()
}

#[test]
fn the_tests_make_footers_that_are_right() {
    let (block, _) = build(&mixed(), Options::default());
    assert_eq!(with_footer(&block, |_| ()), block);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Checksums find what was damaged; what was made wrong must do no harm either.
    #[test]
    fn footers_that_lie_are_refused_or_harmless(at in any::<prop::sample::Index>(), byte in any::<u8>(), insert in any::<bool>()) {
        let liar = with_footer(&MIXED, |raw| {
            let at = at.index(raw.len());
            if insert { raw.insert(at, byte) } else { raw[at] = byte }
        });
        let _ = read(&liar);
    }

    #[test]
    fn pages_that_lie_are_refused_or_harmless(at in any::<prop::sample::Index>(), byte in any::<u8>(), number in 0_usize..3) {
        let footer = footer(&MIXED).unwrap();
        let mut info = footer.pages[number].clone();
        let part = info.offset as usize..(info.offset + info.columns_len) as usize;
        let liar = resealed(&MIXED, part, |raw| {
            let at = at.index(raw.len());
            raw[at] = byte;
        });
        let (was, is) = (MIXED.len() as u64, liar.len() as u64);
        info.len = (info.len + is).saturating_sub(was);
        info.columns_len = (info.columns_len + is).saturating_sub(was);
        if let Ok(entries) = page(&liar, &footer, &info) {
            let run = &entries.runs[0];
            for e in entries.entries(run) {
                let _ = (entries.line(e), entries.metadata(e), entries.content_key(e, 0));
            }
            prop_assert_eq!(entries.entries(run).len(), run.len as usize);
        }
    }
}

mod index {
    //! What the index of a block finds.

    use tailwater_logql::ast::{MatchOp, Matcher};
    use tailwater_logql::matchers::Matchers;

    use super::*;

    fn open(block: &Bytes) -> (Footer, Index) {
        let footer = footer(block).unwrap();
        let index = Index::open(&slice(block, footer.index.range.clone()), &footer).unwrap();
        (footer, index)
    }

    fn matchers(matchers: &[(&str, MatchOp, &str)]) -> Matchers {
        let matcher = |(name, op, value): &(&str, MatchOp, &str)| Matcher {
            name: (*name).into(),
            op: *op,
            value: (*value).into(),
        };
        Matchers::new(&matchers.iter().map(matcher).collect::<Vec<_>>()).unwrap()
    }

    fn numbered(streams: u32) -> Streams {
        let stream = |i: u32| {
            let pod = format!("pod-{i:05}");
            let set = labels(&[
                ("app", if i.is_multiple_of(3) { "api" } else { "db" }),
                ("pod", &pod),
                ("long", &"x".repeat(5000)),
            ]);
            (set, LogId::from_u128(1), vec![entry(i.into(), "x", 1, i)])
        };
        (0..streams).map(stream).collect()
    }

    #[test]
    fn streams_are_selected_as_by_testing_each() {
        let (block, _) = build(&numbered(4200), Options::default());
        let (footer, index) = open(&block);
        assert!(footer.indexed.streams && index.memory() > 1000);
        let long = "x".repeat(5000);
        for (query, by_index, found) in [
            (vec![("pod", MatchOp::Eq, "pod-00017")], true, 1),
            (vec![("pod", MatchOp::Eq, "pod-00017"), ("app", MatchOp::Eq, "api")], true, 0),
            (vec![("app", MatchOp::Eq, "api"), ("pod", MatchOp::Re, "pod-000.*")], true, 34),
            (vec![("app", MatchOp::Eq, "none")], true, 0),
            (vec![("long", MatchOp::Eq, &long), ("app", MatchOp::Eq, "db")], true, 2800),
            (vec![("long", MatchOp::Eq, &long)], false, 4200),
            (vec![("none", MatchOp::Eq, "")], false, 4200),
            (vec![("app", MatchOp::Neq, "api")], false, 2800),
        ] {
            let matchers = matchers(&query);
            let selected = footer.select(&matchers);
            assert_eq!((footer.index_selects(&matchers), selected.len()), (by_index, found), "{query:?}");
            assert_eq!(index.select(&footer, &matchers).unwrap(), selected);
        }
    }

    #[test]
    fn few_streams_are_not_indexed() {
        let (block, _) = build(&numbered(10), Options::default());
        let footer = footer(&block).unwrap();
        assert_eq!((footer.indexed, footer.index.range.is_empty()), (Indexed::default(), true));
        assert!(Index::open(&[], &footer).is_err());
        assert_eq!(footer.select(&matchers(&[("app", MatchOp::Eq, "api")])), [0, 3, 6, 9]);
    }

    /// Pages of one entry each.
    fn paged(entries: Vec<Owned>) -> Streams {
        vec![(labels(&[("a", "b")]), LogId::from_u128(1), entries)]
    }

    #[test]
    fn pages_are_found_by_their_metadata() {
        let entries = vec![
            with(entry(0, "a", 1, 0), &[("level", "error"), ("region", "eu")]),
            entry(1, "b", 1, 1),
            with(entry(2, "c", 1, 2), &[("level", "info")]),
            with(entry(3, "d", 1, 3), &[("level", "error")]),
        ];
        let (block, _) = build(&paged(entries), small(1));
        let (footer, index) = open(&block);
        assert_eq!(footer.pages.iter().map(|p| p.has_metadata).collect::<Vec<_>>(), [true, false, true, true]);
        let only = |pages: &[u32]| PageSet::Only(pages.to_vec());
        for (pairs, pages) in [
            (vec![("level", "error")], only(&[0, 3])),
            (vec![("level", "error"), ("region", "eu")], only(&[0])),
            (vec![("level", "info"), ("region", "eu")], only(&[])),
            (vec![("level", "none")], only(&[])),
            (vec![("none", "x")], only(&[])),
            (vec![("level", &"x".repeat(9000))], only(&[])),
            (vec![], PageSet::All),
        ] {
            assert_eq!(index.pages_with(&footer, &pairs).unwrap(), pages, "{pairs:?}");
            let without = footer.pages_without_index(&pairs);
            assert!(without == PageSet::All || without == pages);
            assert!(!footer.index_prunes(&pairs) || pages != PageSet::All);
        }
        assert!(only(&[0, 3]).contains(3) && !only(&[0, 3]).contains(2) && PageSet::All.contains(9));
    }

    #[test]
    fn names_with_too_many_values_prune_nothing() {
        let mut entries: Vec<_> = (0..16_385_u32)
            .map(|i| {
                with(entry(i.into(), "", 1, i), &[("id", &i.to_string()), ("kind", if i < 9000 { "a" } else { "b" })])
            })
            .collect();
        entries.push(with(entry(1 << 40, "", 2, 0), &[("huge", &"x".repeat(5000)), ("kind", "c")]));
        let (block, _) = build(&paged(entries), small(8192));
        let (footer, index) = open(&block);
        let names: Vec<_> = footer.names.iter().map(|(name, indexed)| (&**name, *indexed)).collect();
        assert_eq!((names, footer.names_complete), (vec![("huge", false), ("id", false), ("kind", true)], true));
        assert_eq!(index.pages_with(&footer, &[("id", "7")]).unwrap(), PageSet::All);
        assert!(!footer.index_prunes(&[("id", "7")]) && footer.index_prunes(&[("id", "7"), ("kind", "c")]));
        let last = footer.pages.len() as u32 - 1;
        assert_eq!(index.pages_with(&footer, &[("id", "7"), ("kind", "c")]).unwrap(), PageSet::Only(vec![last]));
    }

    #[test]
    fn more_names_than_are_told_apart_prune_nothing() {
        let entries = (0..1030_u32).map(|i| with(entry(i.into(), "x", 1, i), &[(&format!("n{i:04}"), "v")])).collect();
        let (block, _) = build(&paged(entries), small(1));
        let (footer, index) = open(&block);
        assert_eq!((footer.names.len(), footer.names_complete), (1024, false));
        assert_eq!(index.pages_with(&footer, &[("n1029", "v")]).unwrap(), PageSet::All);
        assert_eq!(index.pages_with(&footer, &[("n0000", "v")]).unwrap(), PageSet::Only(vec![0]));
    }

    #[test]
    fn pages_are_found_by_their_words() {
        let long = "w".repeat(65);
        let lines = ["GET /api/Orders took 12ms", "\u{e4}pi orders", &long, "take 12 ms"];
        let entries: Vec<_> = lines.iter().enumerate().map(|(i, l)| entry(i as i64, l, 1, i as u32)).collect();
        let (block, _) = build(&paged(entries), Options { full_text: true, ..small(1) });
        let (footer, index) = open(&block);
        assert_eq!(footer.indexed, Indexed { words: true, ..Indexed::default() });
        let found = |words: &[&str]| index.pages_with_words(words).unwrap();
        assert_eq!(found(&["orders"]), PageSet::Only(vec![0, 1]));
        assert_eq!(found(&["ORDERS", "12ms"]), PageSet::Only(vec![0]));
        assert_eq!(found(&["12"]), PageSet::Only(vec![3]));
        assert_eq!(found(&["pi"]), PageSet::Only(vec![1]));
        assert_eq!(found(&[&long, "a-b", "", "\u{e4}"]), PageSet::All);
    }

    #[test]
    fn kinds_of_documents_do_not_mix() {
        let mut streams = numbered(4100);
        streams[7].2[0] = with(entry(7, "needle", 1, 7), &[("level", "error")]);
        let (block, _) = build(&streams, Options { full_text: true, ..Options::default() });
        let (footer, index) = open(&block);
        assert_eq!(footer.indexed, Indexed { words: true, metadata: true, streams: true });
        assert_eq!(index.pages_with_words(&["needle"]).unwrap(), PageSet::Only(vec![7]));
        assert_eq!(index.pages_with(&footer, &[("level", "error")]).unwrap(), PageSet::Only(vec![7]));
        assert_eq!(index.select(&footer, &matchers(&[("pod", MatchOp::Eq, "pod-00007")])).unwrap(), [7]);
    }

    #[test]
    fn every_flipped_byte_of_an_index_is_noticed() {
        let (block, _) = build(&paged(vec![with(entry(0, "a", 1, 0), &[("level", "error")])]), Options::default());
        let footer = footer(&block).unwrap();
        let section = slice(&block, footer.index.range.clone());
        for at in 0..section.len() {
            let mut broken = section.to_vec();
            broken[at] ^= 0x10;
            assert_eq!(Index::open(&broken, &footer).unwrap_err().kind(), Kind::Corrupt);
            assert!(Index::open(&section[..at], &footer).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn pages_with_metadata_are_never_left_out(streams in any_streams(), name in "[a-c]{1,2}", value in "[x-z\u{e4}]{1,2}") {
            let (block, _) = build(&streams, small(20));
            let footer = footer(&block).unwrap();
            let mut set = footer.pages_without_index(&[(&name, &value)]);
            if footer.index_prunes(&[(&name, &value)]) {
                set = open(&block).1.pages_with(&footer, &[(&name, &value)]).unwrap();
            }
            for (info, number) in footer.pages.iter().zip(0..) {
                let entries = page(&block, &footer, info).unwrap();
                let run = entries.entries(&entries.runs[0]);
                let has = run.iter().any(|e| entries.metadata(e).contains(&(name.as_str(), value.as_str())));
                prop_assert_eq!(set.contains(number), has);
            }
        }
    }
}
