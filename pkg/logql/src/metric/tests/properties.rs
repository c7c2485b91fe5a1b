//! Runners, columns and windows answer as the naive evaluator does: about made-up samples, and about lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tailwater_model::{Labels, Timestamp};

use super::naive::{Answer, Entry, Sample, windows};
use crate::ast::{Expr, MetricExpr, RangeOp};
use crate::metric::{Column, Leaf, PipelineError, Place, SampleQuery, Series, Steps, leaves, series};
use crate::parse;

/// Ranges are whole milliseconds; samples lie between them, too. In nanoseconds.
const TICK: i64 = 250_000;

/// The same by runners and columns: entries come in any order and go to several runners, whose columns are merged in that order.
/// `counted`: lines that need no look are counted.
fn collected(
    leaf: &Leaf<'_>,
    steps: Steps,
    entries: &[(usize, &Entry, usize)],
    merged: &[usize],
    (detect_level, counted): (bool, bool),
) -> Result<Answer, PipelineError> {
    let query = Arc::new(SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap());
    let grid = query.grid(steps);
    let mut room = 1 << 30;
    let mut all: BTreeMap<Labels, Column> = BTreeMap::new();
    for part in merged {
        let mut runner = query.runner(detect_level);
        let mut columns: Vec<Column> = Vec::new();
        for (index, entry, _) in entries.iter().filter(|(_, _, owner)| owner == part) {
            runner.enter(&entry.stream);
            let number = runner.series_of_stream().filter(|_| counted && entry.metadata.is_empty());
            let worth = runner.worth(entry.line.len() as u32);
            let line = entry.line.as_bytes();
            let Some(pane) = grid.pane(entry.at).map(|pane| pane.number) else { continue };
            let sample = number.map(|number| (number, worth));
            let sample = sample.or_else(|| runner.run(Timestamp(entry.at), line, entry.metadata));
            let Some((of, value)) = sample else { continue };
            assert!(query.may_match(line));
            columns.resize_with(columns.len().max(of as usize + 1), || query.column());
            match number {
                Some(_) => columns[of as usize].add_many(pane, 1, value, &mut room).unwrap(),
                None => columns[of as usize].add(pane, value, entry.place(*index), &mut room).unwrap(),
            }
        }
        for (column, number) in columns.into_iter().zip(0..) {
            let labels = runner.labels(number).unwrap().clone();
            merge(&mut all, labels, column, &query, &mut room);
        }
    }
    series(&query, &grid, all).map(answer)
}

fn merge(all: &mut BTreeMap<Labels, Column>, labels: Labels, column: Column, query: &SampleQuery, room: &mut usize) {
    all.entry(labels).or_insert_with(|| query.column()).merge(column, room).unwrap();
}

fn answer(found: Vec<Series>) -> Answer {
    let values = |series: &Series| (0..series.steps()).map(|step| series.get(step)).collect();
    let found: Vec<_> = found.into_iter().filter(|series| !series.is_empty()).collect();
    let answer: Answer = found.iter().map(|series| (series.labels.clone(), values(series))).collect();
    assert_eq!(answer.len(), found.len(), "each series is there once");
    answer
}

/// Equal but for rounding; of several errors any is told.
fn assert_same(got: &Result<Answer, PipelineError>, want: &Result<Answer, Vec<PipelineError>>) {
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * b.abs().max(1.0);
    let same = |(a, b): (&Option<f64>, &Option<f64>)| a.zip(*b).map_or(*a == *b, |(a, b)| close(a, b));
    let equal = match (got, want) {
        (Err(got), Err(want)) => want.contains(got),
        (Ok(got), Ok(want)) => {
            got.keys().eq(want.keys()) && got.values().flatten().zip(want.values().flatten()).all(same)
        }
        _ => false,
    };
    assert!(equal, "   got {got:?}\nwanted {want:?}");
}

fn metric(query: &str) -> MetricExpr {
    match parse(query) {
        Ok(Expr::Metric(expr)) => expr,
        other => panic!("{query}: {other:?}"),
    }
}

/// A whole number of milliseconds as ranges and offsets are written.
fn range_and_offset(range: i64, offset: i64) -> String {
    format!("[{range}ms] offset {offset}ms")
}

fn steps() -> impl Strategy<Value = Steps> {
    let several = (0..120_i64, 1..25_i64, 2..9_u32);
    let several = several.prop_map(|(start, step, count)| (start, step * 1_000_000, count));
    prop_oneof![1 => (0..120_i64).prop_map(|start| (start, 0, 1)), 4 => several]
        .prop_map(|(start, step, count)| Steps { start: Timestamp(start * 1_000_000), step, count })
}

/// Quarters, whose sums are exact, and what is no finite number.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        20 => (-4000..4000_i32).prop_map(|n| f64::from(n) / 4.0),
        8 => (0..12_u8).prop_map(f64::from),
        1 => select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1]),
    ]
}

fn sample() -> impl Strategy<Value = Sample> {
    let pairs = prop_oneof![
        30 => Just(&[][..]),
        10 => Just(&[("x", "1")][..]),
        10 => Just(&[("x", "")][..]),
        1 => Just(&[("__error__", "E")][..]),
        2 => Just(&[("__error__", "E"), ("__preserve_error__", "true")][..]),
    ];
    (pairs, -80..500_i64, 0..3_u64, number()).prop_map(|(pairs, at, stream_hash, value)| Sample {
        labels: Labels::keeping_empty(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect()),
        place: Place { timestamp: at * TICK, stream_hash, seq: 0, index: 0 },
        value,
    })
}

/// Range aggregations whose samples are made up; `R` stands for the range.
const MADE_UP: [&str; 20] = [
    r#"count_over_time({n="1"}R)"#,
    r#"rate({n="1"}R)"#,
    r#"bytes_over_time({n="1"}R)"#,
    r#"bytes_rate({n="1"}R)"#,
    r#"absent_over_time({n="1", m="2", n=~".+", m!="3", k="4", k="5", l="6"}R)"#,
    r#"rate({n="1"} | unwrap v R)"#,
    r#"sum_over_time({n="1"} | unwrap v R)"#,
    r#"avg_over_time({n="1"} | unwrap v R)"#,
    r#"min_over_time({n="1"} | unwrap v R)"#,
    r#"max_over_time({n="1"} | unwrap v R)"#,
    r#"stdvar_over_time({n="1"} | unwrap v R)"#,
    r#"stddev_over_time({n="1"} | unwrap v R)"#,
    r#"first_over_time({n="1"} | unwrap v R)"#,
    r#"last_over_time({n="1"} | unwrap v R)"#,
    r#"rate_counter({n="1"} | unwrap v R)"#,
    r#"quantile_over_time(0, {n="1"} | unwrap v R)"#,
    r#"quantile_over_time(0.5, {n="1"} | unwrap v R)"#,
    r#"quantile_over_time(0.9, {n="1"} | unwrap v R)"#,
    r#"quantile_over_time(1, {n="1"} | unwrap v R)"#,
    r#"quantile_over_time(1.5, {n="1"} | unwrap v R)"#,
];

/// How lines are counted or what they say is used; `L` stands for the log query and the range, `U` for an unwrap before the latter.
const OVER_LINES: [&str; 16] = [
    "G(count_over_time(L))",
    "G(rate(L))",
    "G(bytes_over_time(L))",
    "G(bytes_rate(L))",
    "G(rate(LU))",
    "G(sum_over_time(LU))",
    "rate_counter(LU)",
    "avg_over_time(LU) G",
    "min_over_time(LU) G",
    "max_over_time(LU) G",
    "stddev_over_time(LU) G",
    "stdvar_over_time(LU) G",
    "first_over_time(LU) G",
    "last_over_time(LU) G",
    "quantile_over_time(0.75, LU) G",
    "absent_over_time(L)",
];

/// The first is none.
const PARSERS: [&str; 13] = [
    "",
    "| logfmt",
    "| logfmt",
    "| logfmt",
    "| logfmt --keep-empty",
    "| logfmt --strict",
    "| json",
    "| json",
    "| unpack",
    r#"| regexp "x=(?P<x>\\w+)""#,
    r#"| pattern "<p>=<q> <_>""#,
    r#"| logfmt y="x", m="n""#,
    r#"| json y="x", m="n""#,
];

const STAGES: [&str; 17] = [
    r#"|= "1""#,
    r#"!= "error""#,
    r#"|~ "y|n""#,
    r#"| x="1""#,
    r#"| x!="2" or n > 1"#,
    "| n > 1",
    r#"| detected_level="error""#,
    r#"| __error__="""#,
    r#"| __error__!="""#,
    r#"| line_format "{{.x}} y={{.n}}""#,
    "| decolorize",
    "| logfmt",
    "| label_format y=x",
    r#"| label_format z="{{.x}}-{{.app}}", w=n"#,
    "| drop x",
    r#"| drop n, app="a""#,
    "| keep app, x, n, y",
];

const UNWRAPS: [&str; 6] = [
    "| unwrap n",
    "| unwrap x",
    r#"| unwrap n | __error__="""#,
    "| unwrap duration(n)",
    r#"| unwrap bytes(n) | x="1""#,
    r#"| unwrap n_extracted | __error__="" | app="a""#,
];

const LABELS: [&str; 10] = ["app", "x", "y", "n", "k", "z", "x_extracted", "detected_level", "__error__", "p"];

const STREAMS: [&[(&str, &str)]; 3] = [&[("app", "a")], &[("app", "b"), ("x", "1")], &[("app", "a"), ("n", "5")]];

const METADATA: [&[(&str, &str)]; 5] =
    [&[], &[("k", "1")], &[("x", "m")], &[("detected_level", "warn"), ("k", "2")], &[("n", "7")]];

/// A query over lines; its series are made of all labels but some, or of just some.
fn query(by: bool) -> impl Strategy<Value = String> {
    let stages = (select(&PARSERS[..]), vec(select(&STAGES[..]), 0..3)).prop_map(move |(parser, mut stages)| {
        // A label that was deleted is not grouped by, even if it is there again.
        stages.sort_by_key(|stage| by && ["| label", "| drop", "| keep"].iter().any(|first| stage.starts_with(first)));
        // Where no label counts lines are not unpacked, and may be of another size then.
        let parser = if by && parser == "| unpack" { "" } else { parser };
        format!("{parser} {}", stages.join(" "))
    });
    let labels = vec(select(&LABELS[..]), 0..3).prop_map(|labels| labels.join(","));
    let grouped = if by { Just(true).boxed() } else { any::<bool>().boxed() };
    // That nothing is there needs no labels.
    let over = &OVER_LINES[..if by { OVER_LINES.len() } else { OVER_LINES.len() - 1 }];
    (select(over), stages, select(&UNWRAPS[..]), labels, grouped, 5..150_i64, -30..30_i64).prop_map(
        move |(over, stages, unwrap, labels, grouped, range, offset)| {
            let grouping = match (by, grouped) {
                (true, _) => format!("by ({labels})"),
                (false, true) => format!("without ({labels})"),
                (false, false) => String::new(),
            };
            let grouping = match (over.starts_with('G'), grouped) {
                (true, true) => format!("sum {grouping} "),
                _ => grouping,
            };
            let range = range_and_offset(range, offset);
            let log = format!(r#"{{app=~"a|b"}} {stages}"#);
            let over = over.replace("LU", &format!("{log} {unwrap} {range}")).replace('L', &format!("{log} {range}"));
            over.replace('G', &grouping)
        },
    )
}

/// Lines of words that queries name, each at most once.
fn line() -> impl Strategy<Value = String> {
    let odd = select(vec!["a", "", "NaN", "-Inf", "1.5s", "10KB", "error"]);
    let value = prop_oneof![2 => select(vec!["1", "2", "3.5"]), 1 => odd];
    let key = select(vec!["x", "y", "n", "k", "app", "level", "a.b", "m"]);
    let pairs = proptest::collection::btree_map(key, value, 1..6);
    let tail =
        prop_oneof![8 => Just(""), 1 => Just(" ="), 1 => Just("{"), 1 => Just("\u{1b}[31m"), 1 => Just(" error")];
    (pairs, tail, 0..5_u8).prop_map(|(pairs, tail, form)| {
        let each = |one: &dyn Fn(&str, &str) -> String| pairs.iter().map(|(k, v)| one(k, v)).collect::<Vec<_>>();
        match form {
            0 | 2 => format!("{{{}}}{tail}", each(&|k, v| format!("{k:?}:{v:?}")).join(",")),
            1 => format!("{{{}, \"_entry\":\"x={}\"}}", each(&|k, v| format!("{k:?}:{v:?}")).join(","), tail.len()),
            _ => format!("{}{tail}", each(&|k, v| format!("{k}={v}")).join(" ")),
        }
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    (-80..500_i64, select(&STREAMS[..]), select(&METADATA[..]), line()).prop_map(|(at, stream, metadata, line)| Entry {
        at: at * TICK,
        stream: Labels::from_pairs(stream.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect()),
        metadata,
        line,
    })
}

/// Holds the answers about entries, which have come in some order, to each other.
fn check(
    query: &str,
    steps: Steps,
    entries: &[(usize, Entry, usize)],
    merged: &[usize],
    how: (bool, bool),
    sound: bool,
) {
    let expr = metric(query);
    let leaf = &leaves(&expr)[0];
    let told = |entry: &Entry| !sound || entry.is_sound(leaf, how.0);
    let entries: Vec<_> = entries.iter().filter(|(_, e, _)| told(e)).map(|(i, e, owner)| (*i, e, *owner)).collect();
    let samples: Vec<_> = entries.iter().filter_map(|(i, entry, _)| entry.sample(leaf, how.0, *i)).collect();
    let want = windows(leaf.aggregation, steps, &samples);
    assert_same(&collected(leaf, steps, &entries, merged, how), &want);
}

fn entries() -> impl Strategy<Value = Vec<(usize, Entry, usize)>> {
    let numbered =
        |all: Vec<(Entry, usize)>| all.into_iter().enumerate().map(|(i, (e, owner))| (i, e, owner)).collect();
    vec((entry(), 0..3_usize), 3..30).prop_map(numbered).prop_flat_map(|all: Vec<_>| Just(all).prop_shuffle())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever order samples come in, however they are shared among columns, and in whatever order these are merged.
    #[test]
    fn columns_and_windows_answer_as_the_formulas_do(
        query in select(&MADE_UP[..]),
        (range, offset) in (0..70_i64, -30..30_i64),
        steps in steps(),
        samples in vec((sample(), 0..3_usize), 0..40),
        merged in Just([0, 1, 2]).prop_shuffle(),
        many: bool,
    ) {
        let expr = metric(&query.replace('R', &range_and_offset(range, offset)));
        let leaf = &leaves(&expr)[0];
        let query = SampleQuery::compile(leaf.aggregation, None).unwrap();
        let grid = query.grid(steps);
        let adds_up = query.aggregation().unwrap.is_none() || query.aggregation().op == RangeOp::SumOverTime;
        let mut room = 1 << 30;
        let mut all = BTreeMap::new();
        let mut placed = Vec::new();
        for part in merged {
            let mut columns: BTreeMap<Labels, Column> = BTreeMap::new();
            let mut run: Option<(Labels, u64, u64, f64)> = None;
            for (index, (sample, _)) in samples.iter().enumerate().filter(|(_, (_, owner))| *owner == part) {
                let Sample { labels, value, .. } = sample.clone();
                let place = Place { seq: index as u64, ..sample.place };
                placed.push(Sample { place, ..sample.clone() });
                let Some(pane) = grid.pane(place.timestamp).map(|pane| pane.number) else { continue };
                let column = columns.entry(labels.clone()).or_insert_with(|| query.column());
                if !(many && adds_up) {
                    column.add(pane, value, place, &mut room).unwrap();
                    continue;
                }
                run = match run {
                    Some((of, at, count, sum)) if of == labels && at == pane => Some((of, at, count + 1, sum + value)),
                    before => {
                        if let Some((of, at, count, sum)) = before {
                            columns.get_mut(&of).unwrap().add_many(at, count, sum, &mut room).unwrap();
                        }
                        Some((labels, pane, 1, value))
                    }
                };
            }
            if let Some((of, at, count, sum)) = run {
                columns.get_mut(&of).unwrap().add_many(at, count, sum, &mut room).unwrap();
            }
            columns.into_iter().for_each(|(labels, column)| merge(&mut all, labels, column, &query, &mut room));
        }
        assert_same(&series(&query, &grid, all).map(answer), &windows(leaf.aggregation, steps, &placed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Where all labels are part of a series' identity, parsers set all, and errors are told.
    #[test]
    fn a_series_per_label_set_is_that_of_the_log_query(
        query in query(false), steps in steps(), entries in entries(), merged in Just([0, 1, 2]).prop_shuffle(), how: (bool, bool),
    ) {
        check(&query, steps, &entries, &merged, how, false);
    }

    /// What parsers need not set, where just some labels count, makes no difference.
    #[test]
    fn a_series_per_group_is_that_of_the_log_query(
        query in query(true), steps in steps(), entries in entries(), merged in Just([0, 1, 2]).prop_shuffle(), how: (bool, bool),
    ) {
        check(&query, steps, &entries, &merged, how, true);
    }
}
