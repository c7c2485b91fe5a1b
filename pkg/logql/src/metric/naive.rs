//! Range aggregations once more, as plain as can be: every line by itself, every window gathered anew, every formula from its first
//! sample to its last (contract, LogQL §11, §12). What lines are worth is asked of *log* queries, so all labels are there and nothing
//! is left out. Runners, columns and windows have to answer the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tailwater_model::{Labels, Timestamp};

use super::{Column, Leaf, PipelineError, Place, SampleQuery, Series, Steps, leaves, series};
use crate::ast::{
    Conversion, Expr, Grouping, LabelFilter, LogExpr, MatchOp, MetricExpr, RangeAggregation, RangeOp, Stage,
};
use crate::{LogQuery, go, parse};

/// Places of commas in time: ranges have whole milliseconds, samples lie between them too.
const TICK: i64 = 250_000;

/// A sample of a series.
#[derive(Clone, Debug)]
struct Sample {
    labels: Labels,
    place: Place,
    value: f64,
}

/// Series, and for every step a value or none.
type Answer = BTreeMap<Labels, Vec<Option<f64>>>;

/// The values of windows; or all that is wrong with them.
fn windows(of: &RangeAggregation, steps: Steps, samples: &[Sample]) -> Result<Answer, Vec<PipelineError>> {
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| sample.place);
    let (mut answer, mut errors) = (Answer::new(), Vec::new());
    let nothing = || vec![None; steps.count as usize];
    let mut absent = nothing();
    for step in 0..steps.count {
        let end = steps.time(step).nanos() - of.offset_nanos;
        let begin = end - of.range.as_nanos() as i64;
        let mut found: BTreeMap<&Labels, Vec<(i64, f64)>> = BTreeMap::new();
        for Sample { labels, place, value } in &sorted {
            if begin < place.timestamp && place.timestamp <= end {
                found.entry(labels).or_default().push((place.timestamp, *value));
            }
        }
        absent[step as usize] = found.is_empty().then_some(1.0);
        for (labels, window) in found {
            let error = labels.get("__error__").unwrap_or_default();
            if !error.is_empty() && labels.get("__preserve_error__") != Some("true") {
                errors.push(PipelineError { error: error.to_owned(), labels: labels.clone() });
            }
            let values = answer.entry(labels.clone()).or_insert_with(nothing);
            values[step as usize] = Some(value(of, begin, end, &window));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if of.op == RangeOp::AbsentOverTime {
        answer = Answer::from([(absent_labels(&of.log), absent)]);
    }
    answer.retain(|_, values| values.iter().any(Option::is_some));
    Ok(answer)
}

fn absent_labels(of: &LogExpr) -> Labels {
    let (mut pairs, mut doubtful) = (Vec::new(), Vec::new());
    for matcher in &of.selector {
        let known = pairs.iter().any(|(name, _): &(Box<str>, _)| **name == *matcher.name);
        if matcher.op == MatchOp::Eq && !known {
            pairs.push((matcher.name.as_str().into(), matcher.value.to_str_lossy().into()));
        } else {
            doubtful.push(matcher.name.clone());
        }
    }
    pairs.retain(|(name, _)| !doubtful.iter().any(|doubtful| **name == **doubtful));
    Labels::from_pairs(pairs)
}

/// The value of a window `(begin, end]` that holds these samples.
fn value(of: &RangeAggregation, begin: i64, end: i64, window: &[(i64, f64)]) -> f64 {
    let secs = of.range.as_secs_f64();
    let values: Vec<f64> = window.iter().map(|(_, value)| *value).collect();
    let count = values.len() as f64;
    let sum = values.iter().fold(0.0, |sum, value| sum + value);
    let (mut mean, mut welford, mut squares) = (0.0_f64, 0.0, 0.0);
    for (value, k) in values.iter().zip(1..) {
        let delta = value - welford;
        welford += delta / f64::from(k);
        squares += delta * (value - welford);
        let stays = mean.is_infinite() && (value.is_finite() || *value == mean);
        mean += if stays { 0.0 } else { value / f64::from(k) - mean / f64::from(k) };
    }
    match of.op {
        RangeOp::CountOverTime => count,
        RangeOp::Rate if of.unwrap.is_none() => count / secs,
        RangeOp::Rate | RangeOp::BytesRate => sum / secs,
        RangeOp::BytesOverTime | RangeOp::SumOverTime => sum,
        RangeOp::AvgOverTime => mean,
        RangeOp::StdvarOverTime => squares / count,
        RangeOp::StddevOverTime => (squares / count).sqrt(),
        RangeOp::MinOverTime => {
            values.iter().fold(f64::NAN, |least, value| if *value < least || least.is_nan() { *value } else { least })
        }
        RangeOp::MaxOverTime => {
            values.iter().fold(f64::NAN, |most, value| if *value > most || most.is_nan() { *value } else { most })
        }
        RangeOp::FirstOverTime => values[0],
        RangeOp::LastOverTime => values[values.len() - 1],
        RangeOp::QuantileOverTime => quantile(of.param.unwrap(), values),
        RangeOp::RateCounter => rate_counter(begin, end, secs, window),
        RangeOp::AbsentOverTime => 1.0,
    }
}

fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let rank = q * (values.len() - 1) as f64;
    let (low, weight) = (rank.floor() as usize, rank - rank.floor());
    let high = (low + 1).min(values.len() - 1);
    values[low] * (1.0 - weight) + values[high] * weight
}

fn rate_counter(begin: i64, end: i64, secs: f64, window: &[(i64, f64)]) -> f64 {
    let n = window.len();
    if n < 2 {
        return 0.0;
    }
    let ((t1, v1), (tn, vn)) = (window[0], window[n - 1]);
    let mut delta = vn - v1;
    let mut previous = 0.0;
    for (_, value) in window {
        if *value < previous {
            delta += previous;
        }
        previous = *value;
    }
    let seconds = |nanos: i64| nanos as f64 / 1e9;
    let (mut start, mut end, span) = (seconds(t1 - begin), seconds(end - tn), seconds(tn - t1));
    let average = span / (n - 1) as f64;
    if start >= average * 1.1 {
        start = average / 2.0;
    }
    if delta > 0.0 && v1 >= 0.0 {
        start = start.min(span * v1 / delta);
    }
    if end >= average * 1.1 {
        end = average / 2.0;
    }
    delta * ((span + start + end) / span) / secs
}

/// A line of a stream.
#[derive(Clone, Debug)]
struct Entry {
    at: i64,
    stream: Labels,
    metadata: &'static [(&'static str, &'static str)],
    line: String,
}

impl Entry {
    fn place(&self, index: usize) -> Place {
        Place { timestamp: self.at, stream_hash: self.stream.loki_hash(), seq: index as u64, index: 0 }
    }

    /// Its line and its labels behind these stages.
    fn behind(
        &self,
        log: &LogExpr,
        stages: &[Stage],
        detect_level: bool,
    ) -> Option<(Vec<u8>, Vec<(Box<str>, Box<str>)>)> {
        let log = LogExpr { selector: log.selector.clone(), stages: stages.to_vec() };
        let mut runner = Arc::new(LogQuery::compile(&log).unwrap()).runner(detect_level);
        runner.enter(&self.stream);
        let matched = runner.run(Timestamp(self.at), self.line.as_bytes(), self.metadata)?;
        let pairs = matched.labels.pairs().iter().map(|pair| (pair.name.clone(), pair.value.clone()));
        Some((matched.line.to_vec(), pairs.collect()))
    }

    /// The sample it is, by all of its labels.
    fn sample(&self, leaf: &Leaf<'_>, detect_level: bool, index: usize) -> Option<Sample> {
        let RangeAggregation { op, log, unwrap, grouping, .. } = leaf.aggregation;
        let (line, mut labels) = self.behind(log, &log.stages, detect_level)?;
        let mut value = if matches!(op, RangeOp::BytesOverTime | RangeOp::BytesRate) { line.len() as f64 } else { 1.0 };
        if let Some(unwrap) = unwrap {
            let (_, text) = labels.iter().find(|(name, text)| **name == *unwrap.label && !text.is_empty())?;
            let text = &**text;
            let read = match unwrap.conversion {
                None => go::number::parse_float(text),
                Some(Conversion::Bytes) => go::bytes::parse_humanize(text).map(|bytes| bytes as f64),
                Some(_) => go::duration::parse_go(text).map(|nanos| nanos as f64 / 1e9),
            };
            value = read.unwrap_or_else(|details| {
                labels.retain(|(name, _)| !name.starts_with("__error"));
                labels.push(("__error__".into(), "SampleExtractionErr".into()));
                labels.push(("__error_details__".into(), details.into()));
                0.0
            });
            let passes = |filter: &LabelFilter| {
                let LabelFilter::Text(matcher) = filter else { panic!("{filter}") };
                let value = labels.iter().find(|(name, _)| **name == *matcher.name).map_or("", |(_, value)| value);
                assert_eq!(matcher.op, MatchOp::Eq);
                *value == *matcher.value.to_str_lossy()
            };
            if !unwrap.filters.iter().all(passes) {
                return None;
            }
        }
        let grouping = grouping.as_ref().or(leaf.pushed.as_ref());
        if !labels.iter().any(|(name, _)| **name == *"__error__") {
            let named = |name: &str, labels: &[String]| labels.iter().any(|label| label == name);
            labels.retain(|(name, _)| match (op, grouping) {
                (RangeOp::AbsentOverTime, _) => false,
                (_, Some(Grouping { without: false, labels })) => named(name, labels),
                (_, Some(grouping)) if named(name, &grouping.labels) => false,
                _ => unwrap.as_ref().is_none_or(|unwrap| *unwrap.label != **name),
            });
        }
        Some(Sample { labels: Labels::keeping_empty(labels), place: self.place(index), value })
    }

    /// Whether no parser finds anything wrong with it, and the rest neither.
    fn is_sound(&self, leaf: &Leaf<'_>, detect_level: bool) -> bool {
        let log = &leaf.aggregation.log;
        let sound = |end: usize| {
            let found = self.behind(log, &log.stages[..end], detect_level);
            found.is_none_or(|(_, labels)| !labels.iter().any(|(name, _)| **name == *"__error__"))
        };
        let sample = self.sample(leaf, detect_level, 0);
        (0..=log.stages.len()).all(sound) && sample.is_none_or(|sample| sample.labels.get("__error__").is_none())
    }
}

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
fn assert_same(got: Result<Answer, PipelineError>, want: &Result<Answer, Vec<PipelineError>>) {
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * b.abs().max(1.0);
    let same = |(a, b): (&Option<f64>, &Option<f64>)| a.zip(*b).map_or(*a == *b, |(a, b)| close(a, b));
    let equal = match (&got, want) {
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
    assert_same(collected(leaf, steps, &entries, merged, how), &want);
}

fn entries() -> impl Strategy<Value = Vec<(usize, Entry, usize)>> {
    let numbered =
        |all: Vec<(Entry, usize)>| all.into_iter().enumerate().map(|(i, (e, owner))| (i, e, owner)).collect();
    vec((entry(), 0..3_usize), 3..30).prop_map(numbered).prop_flat_map(|all: Vec<_>| Just(all).prop_shuffle())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

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
        assert_same(series(&query, &grid, all).map(answer), &windows(leaf.aggregation, steps, &placed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

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
