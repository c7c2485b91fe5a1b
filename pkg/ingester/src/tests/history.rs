//! Reads of history: by time, and what streams there are.

use std::collections::HashSet;

use proptest::prelude::*;
use tailwater_logql::matchers::Matchers;
use tailwater_wire::node::{LabelsRequest, MatchedLine, Part, ReadRequest, Scanned, Selected, SeriesRequest, Stats};

use super::*;

const STREAMS: [&str; 3] = [r#"{app="a"}"#, r#"{app="b"}"#, r#"{app="a",n="1"}"#];
const LINES: [&str; 4] = ["same", "other", "with 7", ""];
const METADATA: [&[(&str, &str)]; 3] = [&[], &[("k", "1")], &[("k", "2")]];

/// Stream, timestamp, line, metadata.
type Entry = (usize, i64, usize, usize);

fn pushes() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    let entry = (0..STREAMS.len(), 0..12_i64, 0..LINES.len(), 0..METADATA.len());
    proptest::collection::vec(proptest::collection::vec(entry, 1..12), 1..12)
}

fn naive(all: &[(MatchedLine, bytes::Bytes)], request: &SelectRequest) -> Vec<(i64, u64, u64, u32, Vec<u8>)> {
    let mut lines: Vec<_> = all
        .iter()
        .filter(|(l, _)| l.seq <= request.as_of && request.start <= l.timestamp && l.timestamp < request.end)
        .collect();
    lines.sort_by_key(|(l, _)| (l.seq, l.index));
    let mut known = HashSet::new();
    lines.retain(|(l, line)| known.insert((l.timestamp, l.stream_hash, l.labels.to_string(), line.clone())));
    lines.sort_by(|(a, _), (b, _)| {
        let place = |l: &MatchedLine| (l.seq, l.index);
        match request.direction {
            Direction::Forward => (a.timestamp, a.stream_hash, place(a)).cmp(&(b.timestamp, b.stream_hash, place(b))),
            Direction::Backward => {
                b.timestamp.cmp(&a.timestamp).then(a.stream_hash.cmp(&b.stream_hash)).then(place(b).cmp(&place(a)))
            }
        }
    });
    lines.truncate(request.limit);
    lines.into_iter().map(|(l, line)| (l.timestamp.nanos(), l.stream_hash, l.seq, l.index, line.to_vec())).collect()
}

async fn all_lines(bench: &Bench, query: &Arc<LogQuery>) -> Vec<(MatchedLine, bytes::Bytes)> {
    let (tenant, query) = (tenant("t"), Arc::clone(query));
    let through = bench.ingester.log.head();
    let request = ReadRequest { tenant, query, detect_level: false, after: 0, through, max_bytes: usize::MAX };
    let chunk = bench.ingester.read(request).await.unwrap();
    assert_eq!((chunk.through, chunk.gap), (through, None));
    chunk.batch.lines.iter().map(|l| (l.clone(), chunk.batch.line(l))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_selection_is_that_of_a_plain_look_at_every_line(
        pushes in pushes(),
        (start, len) in (0..12_i64, 0..14_i64),
        as_of in 0..14_u64,
        limit in 1..20_usize,
        backward: bool,
        filter: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new(no_limits());
            for push in &pushes {
                let entries: Vec<_> = push.iter().map(|(s, at, line, m)| (STREAMS[*s], [(*at, LINES[*line], METADATA[*m])])).collect();
                let parts: Vec<_> = entries.iter().map(|(stream, entries)| (*stream, &entries[..])).collect();
                bench.push(&parts).unwrap();
            }
            let query = query_of(vec![matcher("app", MatchOp::Re, "a|b")], filter.then_some("7"));
            let request = SelectRequest {
                tenant: tenant("t"),
                part: Part::Whole,
                query: Arc::clone(&query),
                detect_level: false,
                as_of,
                start: Timestamp(start),
                end: Timestamp(start + len),
                direction: if backward { Direction::Backward } else { Direction::Forward },
                limit,
            };
            let want = naive(&all_lines(&bench, &query).await, &request);
            let got = bench.ingester.select(request).await.unwrap();
            let got: Vec<_> = got
                .lines
                .iter()
                .map(|(l, line)| (l.timestamp.nanos(), l.stream_hash, l.seq, l.index, line.to_vec()))
                .collect();
            assert_eq!(got, want);
        });
    }
}

#[tokio::test]
async fn a_limit_ends_the_search_early() {
    let bench = Bench::new(no_limits());
    for i in 0..2000 {
        bench.push(&[(STREAMS[0], &[(NOW + i, "line", &[])])]).unwrap();
    }
    let request = SelectRequest {
        tenant: tenant("t"),
        part: Part::Whole,
        query: app("a"),
        detect_level: false,
        as_of: u64::MAX,
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        direction: Direction::Backward,
        limit: 3,
    };
    let Selected { lines, scanned: Scanned { lines: scanned_lines, bytes: scanned_bytes, .. }, .. } =
        bench.ingester.select(request.clone()).await.unwrap();
    assert_eq!(lines.iter().map(|(l, _)| l.timestamp.nanos() - NOW).collect::<Vec<_>>(), [1999, 1998, 1997]);
    assert!(scanned_lines < 600 && scanned_bytes == scanned_lines * 4, "{scanned_lines} {scanned_bytes}");
    let nothing = [
        SelectRequest { limit: 0, ..request.clone() },
        SelectRequest { as_of: 0, ..request.clone() },
        SelectRequest { end: Timestamp::MIN, ..request.clone() },
        SelectRequest { tenant: tenant("unknown"), ..request },
    ];
    for request in nothing {
        assert!(bench.ingester.select(request).await.unwrap().lines.is_empty());
    }
}

#[tokio::test]
async fn streams_are_found_by_matchers_and_time() {
    let bench = Bench::new(no_limits());
    bench
        .push(&[
            (r#"{app="a",pod="1"}"#, &[(NOW, "1", &[("hidden", "x")]), (NOW + 10, "22", &[])]),
            (r#"{app="b"}"#, &[(NOW + 100, "333", &[])]),
        ])
        .unwrap();
    bench.push(&[(r#"{app="a",pod="1"}"#, &[(NOW + 20, "4444", &[])])]).unwrap();
    let matchers = |value: &str| Arc::new(Matchers::new(&[matcher("app", MatchOp::Eq, value)]).unwrap());
    let at = |from: i64, to: i64| (Timestamp(NOW + from), Timestamp(NOW + to));
    let series = |m: Vec<Arc<Matchers>>, (start, end)| {
        let request = SeriesRequest { tenant: tenant("t"), part: Part::Whole, matchers: m, start, end };
        bench.ingester.series(request).map(|all| all.unwrap().value.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (a, b) = (r#"{app="a", pod="1", service_name="a"}"#, r#"{app="b", service_name="b"}"#);
    assert_eq!(series(vec![], at(0, 1000)).await, [a, b]);
    assert_eq!(series(vec![matchers("a"), matchers("b")], at(0, 1000)).await, [a, b]);
    assert_eq!(series(vec![matchers("b")], at(0, 1000)).await, [b]);
    assert_eq!(series(vec![], at(10, 99)).await, [a]);
    assert_eq!(series(vec![], at(100, 100)).await, [b]);
    assert_eq!(series(vec![], at(1, 9)).await, Vec::<String>::new(), "between two entries");
    assert_eq!(series(vec![], at(101, 1000)).await, Vec::<String>::new());

    let labels = |name: Option<&str>, m: Option<Arc<Matchers>>| {
        let (start, end) = at(0, 1000);
        let name = name.map(str::to_owned);
        bench
            .ingester
            .labels(LabelsRequest { tenant: tenant("t"), part: Part::Whole, matchers: m, start, end, name })
            .map(|answer| answer.unwrap().value)
    };
    assert_eq!(labels(None, None).await, ["app", "pod", "service_name"], "metadata is no label of a stream");
    assert_eq!(labels(None, Some(matchers("b"))).await, ["app", "service_name"]);
    assert_eq!(labels(Some("app"), None).await, ["a", "b"]);
    assert_eq!(labels(Some("pod"), Some(matchers("b"))).await, Vec::<String>::new());

    let stats = |m: Vec<Arc<Matchers>>, (start, end)| {
        bench
            .ingester
            .stats(SeriesRequest { tenant: tenant("t"), part: Part::Whole, matchers: m, start, end })
            .map(|answer| answer.unwrap().value)
    };
    assert_eq!(stats(vec![], at(0, 1000)).await, Stats { streams: 2, chunks: 2, bytes: 10, entries: 4 });
    assert_eq!(stats(vec![matchers("a")], at(10, 1000)).await, Stats { streams: 1, chunks: 2, bytes: 6, entries: 2 });
    assert_eq!(stats(vec![matchers("a")], at(11, 19)).await, Stats::default());
}

#[tokio::test]
async fn tenants_see_only_their_own() {
    let bench = Bench::new(no_limits());
    bench.push_to(&tenant("other"), push_of(&[(STREAMS[0], &[(NOW, "secret", &[])])])).unwrap();
    bench.push(&[(STREAMS[0], &[(NOW, "mine", &[])])]).unwrap();
    assert_eq!(bench.stored().await.len(), 1);
    let range = (Timestamp::MIN, Timestamp::MAX);
    let stats =
        SeriesRequest { tenant: tenant("t"), part: Part::Whole, matchers: vec![], start: range.0, end: range.1 };
    assert_eq!(bench.ingester.stats(stats).await.unwrap().value.entries, 1);
    assert_eq!(lines(&next(&mut bench.follow(&everything(), 0)).await.unwrap()), ["mine"]);
}
