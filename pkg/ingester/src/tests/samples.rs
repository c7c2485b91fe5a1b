//! What a node collects for range aggregations, held to a plain look at every entry that was pushed.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use tailwater_logql::ast::Expr;
use tailwater_logql::metric::{Column, Place, SampleQuery, Series, Steps, leaves, series};
use tailwater_model::Labels;
use tailwater_wire::node::{Gap, NodeError, Part, Sampled, SamplesRequest};

use super::*;

const TENANTS: [&str; 2] = ["one", "two"];

const STREAMS: [&[(&str, &str)]; 3] = [&[("app", "a")], &[("app", "b")], &[("app", "a"), ("n", "1")]];

const LINES: [&str; 6] = ["v=1", "v=2 x=y", "v=4 level=error", "v=NaN", "", "v=8 x=z"];

const METADATA: [&[(&str, &str)]; 3] = [&[], &[("k", "1")], &[("k", "2"), ("x", "m")]];

/// Some are counted without a look, some group by what only metadata or a level has, some need every sample in order.
const QUERIES: [&str; 12] = [
    r#"sum by (app) (count_over_time({app=~".+"}[R]))"#,
    r#"sum by (app, k) (bytes_over_time({app=~".+"}[R]))"#,
    r#"sum by (detected_level) (count_over_time({app="a"}[R]))"#,
    r#"sum(count_over_time({app=~".+"} |= "x" [R]))"#,
    r#"count_over_time({app="a", n=""} | logfmt [R])"#,
    r#"absent_over_time({app="b"}[R])"#,
    r#"sum_over_time({app=~".+"} | logfmt | unwrap v | __error__="" [R])"#,
    r#"first_over_time({app=~".+"} | logfmt | unwrap v [R]) by (x)"#,
    r#"last_over_time({app=~".+"} | logfmt | unwrap v [R]) by ()"#,
    r#"quantile_over_time(0.5, {app=~".+"} | logfmt | unwrap v [R]) by (app)"#,
    r#"rate_counter({app="a"} | logfmt | unwrap v [R])"#,
    r#"max_over_time({app=~".+"} | logfmt | unwrap v [R]) without (x)"#,
];

/// Stream, timestamp, line, metadata.
type Entry = (usize, i64, usize, usize);

/// A tenant's entries.
type PushOf = (usize, Vec<Entry>);

fn pushes() -> impl Strategy<Value = Vec<PushOf>> {
    // Most timestamps go up from push to push, some go back; what is pushed twice is often pushed next to itself.
    let entry = (0..STREAMS.len(), prop_oneof![3 => 0..4_i64, 1 => -12..4_i64], 0..LINES.len(), 0..METADATA.len());
    let push = (0..TENANTS.len(), proptest::collection::vec(entry, 1..14));
    let again = (0..4_u8, 0..3_u8);
    proptest::collection::vec((push, again), 1..14).prop_map(|pushes| {
        let mut all: Vec<PushOf> = Vec::new();
        for (((tenant, entries), (again, earlier)), time) in pushes.into_iter().zip((10..).step_by(3)) {
            let entries = entries.into_iter().map(|(stream, at, line, m)| (stream, time + at, line, m)).collect();
            all.push((tenant, entries));
            if again == 0 {
                let repeated = all[all.len().saturating_sub(1 + usize::from(earlier))].clone();
                all.push(repeated);
            }
        }
        all
    })
}

fn sample_query(text: &str, range: i64) -> Arc<SampleQuery> {
    let text = text.replace('R', &format!("{range}ms"));
    let Ok(Expr::Metric(expr)) = tailwater_logql::parse(&text) else { panic!("{text}") };
    let leaf = &leaves(&expr)[0];
    Arc::new(SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap())
}

/// Entries' timestamps count milliseconds.
fn at(millis: i64) -> i64 {
    millis * 1_000_000
}

fn steps(start: i64, step: i64, count: u32) -> Steps {
    Steps { start: Timestamp(at(start)), step: at(step), count }
}

fn request(tenant_name: &str, query: &Arc<SampleQuery>, steps: Steps) -> SamplesRequest {
    SamplesRequest {
        tenant: tenant(tenant_name),
        part: Part::Whole,
        query: Arc::clone(query),
        detect_level: true,
        after: 0,
        as_of: u64::MAX,
        grid: query.grid(steps),
        from: Timestamp::MIN,
        settled: None,
        max_bytes: 1 << 20,
    }
}

impl Bench {
    /// Answers the position, if anything was stored: what equals the entry before it is not.
    fn push_entries(&self, (tenant_of, entries): &PushOf) -> Option<u64> {
        let labels = |stream: usize| {
            let pairs: Vec<_> = STREAMS[stream].iter().map(|(n, v)| format!("{n}={v:?}")).collect();
            format!("{{{}}}", pairs.join(","))
        };
        // Entries of a stream come together, as senders send them, in the order in which they are.
        let streams = (0..STREAMS.len()).map(|stream| {
            let own = entries.iter().filter(|(of, ..)| *of == stream);
            (labels(stream), own.map(|(_, time, line, m)| (at(*time), LINES[*line], METADATA[*m])).collect::<Vec<_>>())
        });
        let streams: Vec<_> = streams.filter(|(_, entries)| !entries.is_empty()).collect();
        let parts: Vec<_> = streams.iter().map(|(labels, entries)| (labels.as_str(), entries.as_slice())).collect();
        self.push_to(&tenant(TENANTS[*tenant_of]), push_of(&parts)).unwrap().seq
    }
}

/// What a plain look at all pushes, each with its position, finds.
fn naive(pushes: &[(u64, PushOf)], request: &SamplesRequest) -> BTreeMap<Labels, Column> {
    let (mut met, mut found) = (HashSet::new(), BTreeMap::new());
    for (seq, (tenant_of, entries)) in pushes {
        let seq = *seq;
        if TENANTS[*tenant_of] != request.tenant.as_str() || seq > request.as_of {
            continue;
        }
        for (entry, index) in entries.iter().zip(0..) {
            let (stream, time, line, metadata) = *entry;
            let timestamp = at(time);
            if !met.insert(*entry) || seq <= request.after {
                continue;
            }
            let app = STREAMS[stream][0].1;
            let pairs = STREAMS[stream].iter().copied().chain([("service_name", app)]);
            let labels = Labels::from_pairs(pairs.map(|(n, v)| (n.into(), v.into())).collect());
            let Some(pane) = request.grid.pane(timestamp).filter(|_| request.query.matchers().matches(&labels)) else {
                continue;
            };
            let mut runner = request.query.runner(request.detect_level);
            runner.enter(&labels);
            let sample = runner.run(Timestamp(timestamp), LINES[line].as_bytes(), METADATA[metadata]);
            let Some((number, value)) = sample else { continue };
            let place = Place { timestamp, stream_hash: labels.loki_hash(), seq, index };
            let column = found.entry(runner.labels(number).unwrap().clone()).or_insert_with(|| request.query.column());
            column.add(pane.number, value, place, &mut usize::MAX.clone()).unwrap();
        }
    }
    found
}

/// What columns are worth: labels, and for every step its value or none, as text, for NaN is a value.
fn worth(request: &SamplesRequest, columns: impl IntoIterator<Item = (Labels, Column)>) -> Vec<String> {
    let columns = columns.into_iter().filter(|(_, column)| !column.is_empty());
    let found = match series(&request.query, &request.grid, columns) {
        Ok(found) => found,
        // Which of several errors is told is unspecified.
        Err(e) => return vec![format!("error {}", e.error)],
    };
    let text = |series: &Series| {
        let values: Vec<_> = (0..series.steps()).map(|step| series.get(step)).collect();
        format!("{} {values:?}", series.labels)
    };
    let mut all: Vec<_> = found.iter().map(text).collect();
    all.sort();
    all
}

async fn sampled(bench: &Bench, request: &SamplesRequest) -> Sampled {
    bench.ingester.samples(request.clone()).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn samples_are_those_of_a_plain_look_at_every_entry(
        pushes in pushes(),
        (query, tenant_of) in (0..QUERIES.len(), 0..TENANTS.len()),
        (start, step, count, range) in (0..60_i64, 1..15_i64, 1..6_u32, 0..40_i64),
        (cut, as_of) in (0..20_u64, prop_oneof![Just(u64::MAX), 0..20_u64]),
        detect_level: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new(no_limits());
            let pushes: Vec<_> = pushes.into_iter().filter_map(|push| Some((bench.push_entries(&push)?, push))).collect();
            let query = sample_query(QUERIES[query], range);
            let of = SamplesRequest { detect_level, as_of, ..request(TENANTS[tenant_of], &query, steps(start, step, count)) };
            let whole = sampled(&bench, &of).await;
            let head = bench.ingester.log.head();
            assert_eq!((whole.through, whole.gap), (head.min(as_of), None));
            assert!(whole.scanned.matched <= whole.scanned.lines);
            let want = worth(&of, naive(&pushes, &of));
            assert_eq!(worth(&of, whole.series), want);

            // The parts make up the whole.
            let cut = cut.min(whole.through);
            let first = sampled(&bench, &SamplesRequest { as_of: cut, ..of.clone() }).await;
            let rest = SamplesRequest { after: cut, ..of.clone() };
            let second = sampled(&bench, &rest).await;
            assert_eq!(worth(&rest, second.series.clone()), worth(&rest, naive(&pushes, &rest)));
            assert_eq!((first.through, second.through), (cut, whole.through));
            let mut together: BTreeMap<Labels, Column> = first.series.into_iter().collect();
            for (labels, column) in second.series {
                let into = together.entry(labels).or_insert_with(|| query.column());
                into.merge(column, &mut usize::MAX.clone()).unwrap();
            }
            assert_eq!(worth(&of, together), want);
        });
    }
}

#[tokio::test]
async fn lines_that_are_counted_stay_in_their_window_when_one_that_is_looked_at_comes_between() {
    let bench = Bench::new(no_limits());
    bench.push(&[(r#"{app="a"}"#, &[(at(15), "plain", &[]), (at(13), "other", &[("k", "1")])])]).unwrap();
    let query = sample_query(QUERIES[0], 1);
    let of = request("t", &query, steps(13, 1, 3));
    let got = worth(&of, sampled(&bench, &of).await.series);
    assert_eq!(got, [r#"{app="a"} [Some(1.0), None, Some(1.0)]"#]);
}

/// Pushes of one line of 100 bytes each, a millisecond apart, of two tenants in turn.
fn push_many(bench: &Bench, count: i64) {
    for i in 0..count {
        let line = format!("{i:0100}");
        let stream: &[TestEntry<'_>] = &[(at(i), &line, &[])];
        bench.push_to(&tenant(TENANTS[i as usize % 2]), push_of(&[(r#"{app="a"}"#, stream)])).unwrap();
    }
}

fn counted(sampled: &Sampled, request: &SamplesRequest) -> f64 {
    let found = series(&request.query, &request.grid, sampled.series.iter().cloned()).unwrap();
    found.iter().filter_map(|series| series.get(0)).sum()
}

#[tokio::test]
async fn what_was_trimmed_is_a_gap_of_a_stretch_and_is_not_counted() {
    let bench = Bench::with_memory(no_limits(), 8_000);
    push_many(&bench, 200);
    let kept = bench.ingester.log.size().batches;
    let (head, trimmed) = (200, 200 - kept);
    assert!(trimmed > 50 && kept > 4, "{kept}");
    let query = sample_query(QUERIES[0], 1000);
    let all = request("one", &query, steps(500, 0, 1));

    let whole = sampled(&bench, &all).await;
    assert_eq!((whole.through, whole.gap), (head, None), "from the beginning there is no position that was lost");
    // Every second batch is the tenant's, beginning with the first.
    let own = |after: u64, through: u64| through.div_ceil(2) - after.div_ceil(2);
    assert_eq!(counted(&whole, &all), own(trimmed, head) as f64);

    let rest = SamplesRequest { after: trimmed - 9, ..all.clone() };
    let part = sampled(&bench, &rest).await;
    let lines = own(trimmed - 9, trimmed);
    assert!(
        matches!(part.gap, Some(Gap { after, through, lines: n, .. }) if (after, through, n) == (trimmed - 9, trimmed, lines)),
        "{:?}",
        part.gap
    );
    assert_eq!(counted(&part, &rest), counted(&whole, &all));

    let recent = SamplesRequest { after: head - 4, as_of: head - 1, ..all.clone() };
    let part = sampled(&bench, &recent).await;
    assert_eq!((part.gap, part.through, counted(&part, &recent)), (None, head - 1, own(head - 4, head - 1) as f64));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused() {
    let bench = Bench::new(no_limits());
    for i in 0..400 {
        let stream: &[TestEntry<'_>] = &[(at(i), &format!("v={i}"), &[])];
        bench.push(&[(r#"{app="a"}"#, stream)]).unwrap();
    }
    for (query, range) in [
        // Many series; few, of many panes; many samples that are kept.
        (r#"count_over_time({app="a"} | logfmt [R])"#, 1000),
        (r#"sum(count_over_time({app="a"}[R]))"#, 1),
        (r#"quantile_over_time(0.5, {app="a"} | logfmt | unwrap v [R]) by ()"#, 1000),
    ] {
        let query = sample_query(query, range);
        let large = request("t", &query, steps(0, 1, 400));
        assert!(!sampled(&bench, &large).await.series.is_empty());
        for max_bytes in [0, 1, 100, 1000] {
            let answer = bench.ingester.samples(SamplesRequest { max_bytes, ..large.clone() }).await;
            assert!(
                matches!(answer, Err(NodeError::TooLarge { limit }) if limit == max_bytes),
                "{max_bytes} {answer:?}"
            );
        }
    }
    // Nothing takes no room.
    let query = sample_query(r#"count_over_time({app="b"}[R])"#, 1000);
    let none = SamplesRequest { max_bytes: 0, ..request("t", &query, steps(0, 1, 10)) };
    assert_eq!(sampled(&bench, &none).await.series, []);
}

#[tokio::test]
async fn a_cancelled_read_ends_early() {
    let bench = Bench::new(no_limits());
    push_many(&bench, 100);
    let query = sample_query(QUERIES[0], 1000);
    let all = request("one", &query, steps(500, 0, 1));
    let cancel = tailwater_store::scan::Cancel::default();
    let source = bench.ingester.source(&all.tenant, Part::Whole);
    let read = || crate::read::samples(&source, &all, 0, &cancel).unwrap();
    assert_eq!((read().scanned.batches, counted(&read(), &all)), (50, 50.0));
    cancel.set();
    assert_eq!(read().scanned.batches, 0);
}

#[tokio::test]
async fn tenants_that_are_unknown_have_no_samples() {
    let bench = Bench::new(no_limits());
    push_many(&bench, 4);
    let query = sample_query(QUERIES[0], 1000);
    for (as_of, through) in [(u64::MAX, 4), (3, 3)] {
        let Sampled { series, through: seen, gap, scanned, watermark, .. } =
            sampled(&bench, &SamplesRequest { as_of, ..request("unknown", &query, steps(500, 0, 1)) }).await;
        assert_eq!((series, seen, gap, scanned), (vec![], through, None, Default::default()));
        assert_eq!(watermark, Timestamp(NOW));
    }
    assert!(bench.ingester.tenants.get(&tenant("unknown")).is_none(), "asking makes no tenant");
}
