//! Samples of stretches of the log: put together they are the samples of all of it, and what is late is counted.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use tailwater_logql::ast::Expr;
use tailwater_logql::metric::{Column, Grid, SampleQuery, Steps, series_at};
use tailwater_model::Labels;
use tailwater_wire::node::{Late, Part, Sampled, SamplesRequest};

use super::*;

const STREAMS: [&str; 2] = [r#"{app="a"}"#, r#"{app="b"}"#];
const LINES: [&str; 3] = ["k=1", "k=2", "other"];
const QUERIES: [&str; 3] = [
    r#"count_over_time({app=~"a|b"} | logfmt [1s])"#,
    // Counts runs of plain lines without looking at them.
    r#"sum by (app) (count_over_time({app=~"a|b"}[1s]))"#,
    r#"max_over_time({app=~"a|b"} | logfmt | unwrap k [1s])"#,
];

/// A query with a range of so many nanoseconds.
fn query(text: &str, range: u64) -> Arc<SampleQuery> {
    let Ok(Expr::Metric(expr)) = tailwater_logql::syntax::parse(text) else { panic!("{text}") };
    let leaf = &tailwater_logql::metric::leaves(&expr)[0];
    let mut aggregation = leaf.aggregation.clone();
    aggregation.range = std::time::Duration::from_nanos(range);
    Arc::new(SampleQuery::compile(&aggregation, leaf.pushed.as_ref()).unwrap())
}

fn request(query: &Arc<SampleQuery>, grid: Grid, (after, as_of): (u64, u64)) -> SamplesRequest {
    SamplesRequest {
        tenant: tenant("t"),
        part: Part::Whole,
        query: Arc::clone(query),
        detect_level: false,
        after,
        as_of,
        grid,
        from: Timestamp::MIN,
        settled: None,
        max_bytes: 1 << 30,
    }
}

fn put(all: &mut HashMap<Labels, Column>, sampled: Sampled) {
    for (labels, column) in sampled.series {
        match all.get_mut(&labels) {
            Some(known) => known.merge(column, &mut usize::MAX.clone()).unwrap(),
            None => assert!(all.insert(labels, column).is_none()),
        }
    }
}

/// The values at a step.
fn values(query: &SampleQuery, grid: &Grid, step: u32, columns: &HashMap<Labels, Column>) -> Vec<(String, f64)> {
    let series = series_at(query, grid, step, columns).unwrap();
    let mut values: Vec<_> = series.iter().map(|s| (s.labels.to_string(), s.get(0).unwrap())).collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// After each push the next step is answered, from nothing but what is new; it is what a look at everything answers.
    #[test]
    fn stretches_make_up_the_whole(
        which in 0..QUERIES.len(), range in 1_u64..40, step in 1_i64..20,
        pushes in prop::collection::vec(prop::collection::vec((0..STREAMS.len(), -30_i64..40, 0..LINES.len()), 0..8), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bench = Bench::new(no_limits());
        let query = query(QUERIES[which], range);
        let count = pushes.len() as u32 + 1;
        let grid = query.grid(Steps { start: Timestamp(NOW), step, count });
        let (mut kept, mut after, mut told, mut expected) = (HashMap::new(), 0, Late::default(), Late::default());
        let mut met = HashSet::new();
        for (i, lines) in (0..).zip(&pushes) {
            let settled = if i == 0 { None } else { grid.span(i - 1).map(|(_, last)| last) };
            for (stream, ago, line) in lines {
                let timestamp = NOW + i64::from(i) * step + ago;
                bench.push(&[(STREAMS[*stream], &[(timestamp, LINES[*line], &[])])]).unwrap();
                let counts = which != 2 || *line < 2;
                let in_window = grid.pane(timestamp).is_some();
                let late = settled.is_some_and(|settled| timestamp <= settled);
                if met.insert((stream, timestamp, line)) && counts && in_window && late {
                    expected += Late { lines: 1, oldest: Timestamp(timestamp) };
                }
            }
            let from = Timestamp(grid.span(i).unwrap().0);
            let settled = settled.map(Timestamp);
            let sampled = runtime.block_on(bench.ingester.samples(SamplesRequest { from, settled, ..request(&query, grid, (after, u64::MAX)) })).unwrap();
            prop_assert_eq!(sampled.through, bench.ingester.log.head());
            after = sampled.through;
            told += sampled.late;
            put(&mut kept, sampled);
            for column in kept.values_mut() {
                column.forget_before(grid.window(i).start);
            }
            let mut whole = HashMap::new();
            put(&mut whole, runtime.block_on(bench.ingester.samples(request(&query, grid, (0, after)))).unwrap());
            prop_assert_eq!(values(&query, &grid, i, &kept), values(&query, &grid, i, &whole), "step {}", i);
        }
        prop_assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn who_goes_on_is_told_what_was_trimmed() {
    let bench = Bench::with_memory(no_limits(), 20_000);
    let query = query(QUERIES[0], 100);
    let grid = query.grid(Steps { start: Timestamp(NOW), step: 100, count: 10 });
    let push = |lines: i64| {
        (0..lines).for_each(|i| {
            bench.push(&[(STREAMS[0], &[(NOW + i, &"x".repeat(2000), &[])])]).unwrap();
        })
    };
    push(2);
    let first = bench.ingester.samples(request(&query, grid, (0, u64::MAX))).await.unwrap();
    assert_eq!((first.through, first.gap), (2, None));
    push(30);
    let settled = Some(Timestamp(NOW));
    let next =
        bench.ingester.samples(SamplesRequest { settled, ..request(&query, grid, (2, u64::MAX)) }).await.unwrap();
    let gap = next.gap.unwrap();
    assert_eq!((gap.after, gap.through - 2), (2, gap.lines));
    let left = bench.ingester.samples(request(&query, grid, (0, u64::MAX))).await.unwrap();
    assert_eq!(left.gap, None, "a query is not told");
    assert_eq!(gap.lines + left.scanned.lines, 30);
}
