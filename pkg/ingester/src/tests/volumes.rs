//! Reads that sum up: volume and patterns.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tailwater_logql::matchers::Matchers;
use tailwater_wire::node::{Part, PatternsRequest, SeriesRequest, VolumeRequest};

use super::*;

const STREAMS: [&str; 3] = [r#"{app="a"}"#, r#"{app="b"}"#, r#"{app="a",n="1"}"#];
/// Every line begins elsewhere in it, so that no two are equal: of equal ones that follow each other one is stored.
const TEXT: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const METADATA: [&[(&str, &str)]; 2] = [&[], &[("key", "1"), ("k", "23")]];

fn series_of(value: &str, start: i64, end: i64) -> SeriesRequest {
    let matchers = Matchers::new(&[matcher("app", MatchOp::Re, value)]).unwrap();
    SeriesRequest {
        tenant: tenant("t"),
        part: Part::Whole,
        matchers: vec![Arc::new(matchers)],
        start: Timestamp(start),
        end: Timestamp(end),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_volume_is_the_sum_of_a_plain_look_at_every_line(
        entries in proptest::collection::vec((0..STREAMS.len(), -5..40_i64, 0..6_usize, 0..METADATA.len()), 1..40),
        (start, len) in (-5..30_i64, 0..40_i64),
        step in proptest::option::of(1..12_i64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new(no_limits());
            let end = start + len;
            let mut want: BTreeMap<&str, BTreeMap<i64, u64>> = BTreeMap::new();
            let entries: Vec<_> = entries.into_iter().enumerate().map(|(i, (s, at, len, m))| (s, at, &TEXT[i..=i + len], m)).collect();
            for pushed in entries.chunks(4) {
                let parts: Vec<_> = pushed.iter().map(|(s, at, line, m)| (STREAMS[*s], [(*at, *line, METADATA[*m])])).collect();
                let parts: Vec<_> = parts.iter().map(|(stream, entries)| (*stream, &entries[..])).collect();
                bench.push(&parts).unwrap();
                for (s, at, line, m) in pushed.iter().filter(|(_, at, ..)| (start..=end).contains(at)) {
                    let bytes = line.len() + METADATA[*m].iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
                    let ends = (start - 60..=end).find(|e| e >= at && (*e == end || (e > at && step.is_some_and(|step| e % step == 0))));
                    *want.entry(STREAMS[*s]).or_default().entry(ends.unwrap()).or_default() += bytes as u64;
                }
            }
            let request = VolumeRequest { series: series_of("a|b", start, end), step };
            let got = bench.ingester.volume(request).await.unwrap().value;
            let got: BTreeMap<_, BTreeMap<_, _>> = got
                .iter()
                .map(|v| (v.labels.to_string(), v.bytes.iter().map(|(at, bytes)| (at.nanos(), *bytes)).collect()))
                .collect();
            let canonical = |stream: &str| match stream {
                r#"{app="b"}"# => r#"{app="b", service_name="b"}"#,
                r#"{app="a"}"# => r#"{app="a", service_name="a"}"#,
                _ => r#"{app="a", n="1", service_name="a"}"#,
            };
            let want: BTreeMap<_, _> = want.into_iter().map(|(stream, steps)| (canonical(stream).to_owned(), steps)).collect();
            assert_eq!(got, want);
        });
    }
}

#[tokio::test]
async fn patterns_are_of_the_lines_that_match() {
    let bench = Bench::new(no_limits());
    let level = [("detected_level", "warning")];
    bench
        .push(&[
            (
                STREAMS[0],
                &[(5, "level=info took 1", &[]), (19, "level=info took 2", &[]), (20, "level=info took 3", &[])],
            ),
            (STREAMS[2], &[(7, "level=info took 4", &[]), (8, "took 5", &level), (99, "took 6", &[])]),
            (STREAMS[1], &[(7, "other", &[])]),
        ])
        .unwrap();
    let ask = async |detect_level: bool, limit: usize| {
        let request = PatternsRequest { series: series_of("a", 5, 20), step: 10, detect_level, limit };
        let found = bench.ingester.patterns(request).await.unwrap().value;
        found.into_iter().map(|p| (p.text, p.level, p.samples)).collect::<Vec<_>>()
    };
    let pattern =
        |text: &str, level: &str, samples: &[(i64, u64)]| (text.to_owned(), level.to_owned(), samples.to_vec());
    let frequent = pattern("level=info took <_>", "info", &[(0, 2), (10, 1), (20, 1)]);
    assert_eq!(ask(true, 10).await, [frequent.clone(), pattern("took 5", "warn", &[(0, 1)])]);
    assert_eq!(ask(true, 1).await, [frequent]);
    assert_eq!(ask(false, 10).await[1], pattern("took 5", "warning", &[(0, 1)]), "as it was sent");
    let unknown = SeriesRequest { tenant: tenant("unknown"), ..series_of("a", 5, 20) };
    let request = PatternsRequest { series: unknown.clone(), step: 10, detect_level: true, limit: 10 };
    assert!(bench.ingester.patterns(request).await.unwrap().value.is_empty());
    assert!(bench.ingester.volume(VolumeRequest { series: unknown, step: None }).await.unwrap().value.is_empty());
}
