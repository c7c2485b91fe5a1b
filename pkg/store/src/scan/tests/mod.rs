//! Searches over blocks, the write-ahead log and memory, held to a plain look at every entry.

mod boundaries;
mod damage;
mod listed;
mod world;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use tailwater_logql::LogQuery;
use tailwater_logql::ast::Expr;
use tailwater_logql::matchers::Matchers;
use tailwater_logql::metric::{SampleQuery, Steps, leaves, series};
use tailwater_model::{TenantId, Timestamp};
use tailwater_wire::node::{
    Direction, LabelsRequest, Part, PatternsRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest,
    Stats, VolumeRequest,
};

use self::world::{Batch, LINES, METADATA, MS, Plain, World, batches, labels, layouts};
use super::*;
use crate::deletes::{Deletion, Request, Status};

/// Some require texts, some metadata; some cannot be told from the grams.
const QUERIES: [&str; 16] = [
    r#"{app=~".+"}"#,
    r#"{app="a"}"#,
    r#"{app="b", level="info"} != "needle""#,
    r#"{app=~".+"} |= "needle""#,
    r#"{app=~".+"} |= "eedl" |= "haystack""#,
    r#"{app=~".+"} |~ "(?i)needle""#,
    r#"{app=~".+"} |~ "needle|yard""#,
    r#"{app=~".+"} |= "v=""#,
    r#"{app=~".+"} |= "nowhere""#,
    r#"{app=~".+"} | trace="1""#,
    r#"{app=~".+"} | trace="2" |= "needle""#,
    r#"{app=~".+"} | level="info""#,
    r#"{app=~".+"} | level="warn""#,
    r#"{app=~".+"} | level="error" | trace!="1""#,
    r#"{app=~".+"} | logfmt | x="yard""#,
    r#"{app=~".+"} | json | x="yard" | line_format "{{.v}} yard" |= "8 yard""#,
];

fn tenant() -> TenantId {
    TenantId::parse("t").unwrap()
}

fn deletion(query: &str, start: i64, end: i64) -> Deletion {
    let (request_id, query) = (String::new(), query.to_owned());
    let request =
        Request { request_id, start, end, query, status: Status::Received, created_at: 0, processed_at: None };
    Deletion::new(&request).unwrap()
}

fn deletions() -> impl Strategy<Value = Vec<Deletion>> {
    let one = (0..QUERIES.len(), -5..40_i64, 0..20_i64);
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..3).prop_map(|all| {
        all.into_iter().map(|(query, start, len)| deletion(QUERIES[query], start * MS, (start + len) * MS)).collect()
    })]
}

/// An answered line: timestamp, place, stream, line, labels.
type Answered = (i64, (u64, i64, u32), u64, String, String);

fn answered(selected: &Selected) -> Vec<Answered> {
    let line = |(line, text): &(tailwater_wire::node::MatchedLine, bytes::Bytes)| {
        let place = (line.seq, line.accepted_at.nanos(), line.index);
        let text = String::from_utf8_lossy(text).into_owned();
        (line.timestamp.nanos(), place, line.stream_hash, text, line.labels.to_string())
    };
    selected.lines.iter().map(line).collect()
}

/// What a plain look at every line answers.
fn naive(batches: &[Batch], request: &SelectRequest, deletions: &[Deletion]) -> Vec<Answered> {
    let mut met = HashSet::new();
    let mut found = Vec::new();
    let mut runner = request.query.runner(request.detect_level);
    let mut erasers: Vec<_> = deletions.iter().map(|d| (d, d.query.runner(request.detect_level))).collect();
    for batch in batches.iter().filter(|batch| batch.seq() <= request.as_of) {
        for (line, index) in batch.lines.iter().zip(0..) {
            let labels = labels(line.stream);
            let (text, metadata, time) = (LINES[line.line].as_bytes(), METADATA[line.metadata], line.time);
            if !(request.start.nanos()..request.end.nanos()).contains(&time) || !met.insert(*line) {
                continue;
            }
            let deleted = erasers.iter_mut().any(|(deletion, runner)| {
                runner.enter(&labels);
                (deletion.start..=deletion.end).contains(&time)
                    && deletion.query.matchers().matches(&labels)
                    && runner.run(Timestamp(time), text, metadata).is_some()
            });
            if deleted || !request.query.matchers().matches(&labels) {
                continue;
            }
            runner.enter(&labels);
            if let Some(hit) = runner.run(Timestamp(time), text, metadata) {
                let place = (batch.seq(), batch.accepted_at, index);
                let line = String::from_utf8_lossy(hit.line).into_owned();
                found.push((time, place, labels.loki_hash(), line, hit.labels.to_string()));
            }
        }
    }
    found.sort_by(|a, b| match request.direction {
        Direction::Forward => (a.0, a.2, a.1).cmp(&(b.0, b.2, b.1)),
        Direction::Backward => b.0.cmp(&a.0).then(a.2.cmp(&b.2)).then(b.1.cmp(&a.1)),
    });
    found.truncate(request.limit);
    found
}

fn select_request(query: &str) -> SelectRequest {
    SelectRequest {
        tenant: tenant(),
        part: Part::Whole,
        query: Arc::new(LogQuery::parse(query).unwrap()),
        detect_level: true,
        as_of: u64::MAX,
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        direction: Direction::Backward,
        limit: 1000,
    }
}

/// Number of the query, range, as of, forward, limit.
type Asked = (usize, (i64, i64), u64, bool, usize);

fn asked() -> impl Strategy<Value = Asked> {
    let range = prop_oneof![1 => Just((i64::MIN, i64::MAX)), 2 => (-20..40_i64, 0..30_i64).prop_map(|(a, n)| (a * MS, (a + n) * MS))];
    let as_of = prop_oneof![2 => Just(u64::MAX), 1 => 0..14_u64];
    (0..QUERIES.len(), range, as_of, any::<bool>(), prop_oneof![1..6_usize, Just(1000)])
}

fn asks((query, (start, end), as_of, forward, limit): Asked) -> SelectRequest {
    SelectRequest {
        as_of,
        start: Timestamp(start),
        end: Timestamp(end),
        direction: if forward { Direction::Forward } else { Direction::Backward },
        limit,
        ..select_request(QUERIES[query])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn lines_are_those_of_a_plain_look_wherever_they_are(
        batches in batches(),
        layout in layouts(),
        requests in prop::collection::vec(asked(), 1..6),
        deletions in deletions(),
    ) {
        let mut world = World::new(&batches, &layout);
        world.deletions = deletions.clone().into();
        for request in requests.into_iter().map(asks) {
            let found = select(&world, &request, 1, &Cancel::default()).unwrap();
            prop_assert_eq!(answered(&found), naive(&batches, &request, &deletions), "{:?}", request.query.canonical());
            prop_assert!(found.warnings.is_empty());
        }
    }

    #[test]
    fn samples_are_those_of_batches_wherever_they_are(
        batches in batches(),
        layout in layouts(),
        requests in prop::collection::vec(samples_asked(), 1..6),
    ) {
        let (world, plain) = (World::new(&batches, &layout), Plain::new(&batches));
        for request in requests.into_iter().map(asks_samples) {
            let sampled = |source: &dyn Source| {
                let known = Sampled { through: request.as_of, ..Sampled::default() };
                samples(source, &request, known, 1, &Cancel::default()).unwrap()
            };
            let (found, want) = (sampled(&world), sampled(&plain));
            prop_assert_eq!(worth(&request, found.series), worth(&request, want.series), "{:?}", request.query.canonical());
            prop_assert_eq!(found.late, want.late);
            prop_assert!(found.warnings.is_empty());
        }
    }

    #[test]
    fn what_streams_hold_is_that_of_batches_wherever_they_are(
        batches in batches(),
        layout in layouts(),
        query in 0..2_usize,
        (start, len, step) in (-20..40_i64, 0..40_i64, prop::option::of(1..9_i64)),
        name in prop::option::of(Just("app".to_owned())),
    ) {
        let (world, plain) = (World::new(&batches, &layout), Plain::new(&batches));
        let cancel = Cancel::default();
        let matchers = || vec![Arc::new(Matchers::new(&tailwater_logql::parse_selector(QUERIES[query]).unwrap()).unwrap())];
        let (start, end) = (Timestamp(start * MS), Timestamp((start + len) * MS));
        let of = SeriesRequest { tenant: tenant(), part: Part::Whole, matchers: matchers(), start, end };
        prop_assert_eq!(
            series_of(&world, &of, &cancel),
            series_of(&plain, &of, &cancel),
        );
        let size = |source: &dyn Source| Stats { chunks: 0, ..stats(source, &of, &cancel).unwrap().value };
        prop_assert_eq!(size(&world), size(&plain));
        let names = LabelsRequest { tenant: tenant(), part: Part::Whole, matchers: matchers().pop(), start, end, name };
        prop_assert_eq!(labels_of(&world, &names, &cancel), labels_of(&plain, &names, &cancel));
        let volumes = VolumeRequest { series: of.clone(), step: step.map(|step| step * MS) };
        prop_assert_eq!(volume(&world, &volumes, &cancel).unwrap(), volume(&plain, &volumes, &cancel).unwrap());
        let mined = PatternsRequest { series: of, step: 5 * MS, detect_level: true, limit: 1000 };
        let count = |source: &dyn Source| -> u64 {
            patterns(source, &mined, &cancel).unwrap().value.iter().map(tailwater_logql::patterns::Pattern::count).sum()
        };
        prop_assert_eq!(count(&world), count(&plain));
    }
}

fn series_of(source: &dyn Source, request: &SeriesRequest, cancel: &Cancel) -> Vec<String> {
    super::series(source, request, cancel).unwrap().value.iter().map(ToString::to_string).collect()
}

fn labels_of(source: &dyn Source, request: &LabelsRequest, cancel: &Cancel) -> Vec<String> {
    super::labels(source, request, cancel).unwrap().value
}

/// Some count without a look, some look at metadata, some at the line.
const AGGREGATIONS: [&str; 8] = [
    r#"sum by (app) (count_over_time({app=~".+"}[R]))"#,
    r#"sum(bytes_over_time({app=~".+"}[R]))"#,
    r#"sum by (app, trace) (bytes_over_time({app=~".+"}[R]))"#,
    r#"sum by (detected_level) (count_over_time({app="a"}[R]))"#,
    r#"sum(count_over_time({app=~".+"} |= "needle" [R]))"#,
    r#"count_over_time({app="a", n=""} | logfmt [R])"#,
    r#"sum_over_time({app=~".+"} | logfmt | unwrap v | __error__="" [R])"#,
    r#"quantile_over_time(0.5, {app=~".+"} | logfmt | unwrap v [R]) by (app)"#,
];

fn sample_query(text: &str, range: i64) -> Arc<SampleQuery> {
    let text = text.replace('R', &format!("{range}ms"));
    let Ok(Expr::Metric(expr)) = tailwater_logql::parse(&text) else { panic!("{text}") };
    let leaf = &leaves(&expr)[0];
    Arc::new(SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap())
}

/// Number of the aggregation, range, steps, positions, settled.
type SamplesAsked = (usize, i64, (i64, i64, u32), (u64, u64), Option<i64>);

fn samples_asked() -> impl Strategy<Value = SamplesAsked> {
    let steps = (-10..40_i64, 1..12_i64, 1..6_u32);
    let positions = (prop_oneof![2 => Just(0), 1 => 1..10_u64], prop_oneof![1 => Just(u64::MAX), 1 => 0..14_u64]);
    (0..AGGREGATIONS.len(), 1..40_i64, steps, positions, prop::option::of(0..40_i64))
}

fn asks_samples((query, range, (start, step, count), (after, as_of), settled): SamplesAsked) -> SamplesRequest {
    let query = sample_query(AGGREGATIONS[query], range);
    let steps = Steps { start: Timestamp(start * MS), step: step * MS, count };
    SamplesRequest {
        tenant: tenant(),
        part: Part::Whole,
        grid: query.grid(steps),
        query,
        detect_level: true,
        after,
        as_of,
        from: Timestamp::MIN,
        // Who goes on has seen something: what earlier logs hold is known then.
        settled: settled.filter(|_| after > 0).map(|at| Timestamp(at * MS)),
        max_bytes: 1 << 20,
    }
}

/// What columns are worth: labels, and for every step its value or none, as text, for NaN is a value.
fn worth(
    request: &SamplesRequest,
    columns: Vec<(tailwater_model::Labels, tailwater_logql::metric::Column)>,
) -> BTreeMap<String, String> {
    let columns = columns.into_iter().filter(|(_, column)| !column.is_empty());
    let found = match series(&request.query, &request.grid, columns) {
        Ok(found) => found,
        // Which of several errors is told is unspecified.
        Err(e) => return BTreeMap::from([("error".into(), e.error)]),
    };
    let values = |series: &tailwater_logql::metric::Series| {
        let values: Vec<_> = (0..series.steps()).map(|step| series.get(step)).collect();
        (series.labels.to_string(), format!("{values:?}"))
    };
    found.iter().map(values).collect()
}
