//! What must hold for every input, said once: the fuzz targets run these checks, and the tests replay the corpus through them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_logql::ast::{Expr, RangeOp};
use tailwater_logql::metric::{
    Column, Evaluated, EvaluationLimits, Grid, PipelineError, Place, SampleQuery, SampleRunner, Series, Steps,
    evaluate, leaves, series,
};
use tailwater_logql::template::{Data, Lookup, Template};
use tailwater_logql::{AnyOf, LogQuery, Requirements, regex as go_regex};
use tailwater_model::{LabelSet, Labels, Timestamp};

/// A query. It is read or refused with a reason, and what is printed and can be read again is the same query: only odd names
/// have no spelling.
pub(crate) fn parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match tailwater_logql::parse(&text) {
        Ok(expr) => {
            let printed = expr.to_string();
            assert!(!tailwater_logql::pretty(&expr).is_empty());
            if let Ok(again) = tailwater_logql::parse(&printed) {
                assert_eq!(again.to_string(), printed, "{text:?}");
            }
        }
        // Without more words the two grammars disagree: one refuses, the other finds nothing wrong.
        Err(e) => assert_ne!(e.to_string(), "parse error : syntax error", "{text:?}"),
    }
}

/// A query, a zero byte, and lines with zero bytes between them. What a runner answers depends on the line alone, the labels
/// are sorted, a line that passes may match, and the query's normal form means the same.
pub(crate) fn pipeline(data: &[u8]) {
    let mut parts = data.split(|b| *b == 0);
    let Some(query) = parts.next().and_then(|query| std::str::from_utf8(query).ok()) else { return };
    let Ok(query) = LogQuery::parse(query) else { return };
    let query = Arc::new(query);
    let again = LogQuery::parse(query.canonical()).ok().map(Arc::new);
    let pair = |(n, v): (&str, &str)| (n.into(), v.into());
    let stream = Labels::from_pairs([("app", "a"), ("level", "info"), ("x", "stream")].map(pair).into());
    let metadata = [("m", "1"), ("x", "metadata")];
    let mut runner = query.runner(true);
    for line in parts {
        runner.enter(&stream);
        let got = runner.run(Timestamp(1), line, &metadata).map(|m| (m.line.to_vec(), m.labels));
        assert_eq!(got, fresh(&query, &stream, line, &metadata), "what came before must not count");
        if let Some(again) = &again {
            assert_eq!(got, fresh(again, &stream, line, &metadata), "{} means something else", query.canonical());
        }
        if let Some((_, labels)) = got {
            assert!(labels.pairs().windows(2).all(|w| w[0].name < w[1].name), "{labels}");
            assert!(query.may_match(line));
            assert!(fulfils(query.requirements(), &stream, line, &metadata), "{}", query.canonical());
        }
    }
}

/// Whether an entry has all that is required.
fn fulfils(requirements: &Requirements, stream: &Labels, line: &[u8], metadata: &[(&str, &str)]) -> bool {
    let lower = line.to_ascii_lowercase();
    let holds = |any_of: &AnyOf| {
        let line = if any_of.any_case() { &lower } else { line };
        any_of.literals().iter().any(|literal| line.windows(literal.len()).any(|w| *w == **literal))
    };
    let has = |name: &str, value: &str| stream.get(name) == Some(value) || metadata.contains(&(name, value));
    requirements.literals.iter().all(holds) && requirements.fields.iter().all(|(name, value)| has(name, value))
}

fn fresh(
    query: &Arc<LogQuery>,
    stream: &Labels,
    line: &[u8],
    metadata: &[(&str, &str)],
) -> Option<(Vec<u8>, LabelSet)> {
    let mut runner = query.runner(true);
    runner.enter(stream);
    runner.run(Timestamp(1), line, metadata).map(|m| (m.line.to_vec(), m.labels))
}

/// A pattern, a zero byte, and a text. What is valid translates, the translation compiles unless it is too large, and all ways
/// to match agree with it where it is defined: on texts that are UTF-8.
pub(crate) fn regex(data: &[u8]) {
    let (pattern, text) = data.split_at(data.iter().position(|b| *b == 0).unwrap_or(data.len()));
    let text = text.get(1..).unwrap_or_default();
    let translated = match (go_regex::validate(pattern), go_regex::translate(pattern)) {
        (Ok(()), Ok(translated)) => translated,
        (Err(a), Err(b)) => {
            assert_eq!(a, b);
            assert!(a.starts_with("error parsing regexp: "), "{a}");
            return;
        }
        (valid, translated) => panic!("{valid:?} but {translated:?}"),
    };
    let plain = match regex::bytes::RegexBuilder::new(&translated).nest_limit(10_000).build() {
        Ok(plain) => plain,
        Err(regex::Error::CompiledTooBig(_)) => return,
        Err(e) => panic!("{translated}: {e}"),
    };
    let (Ok(matcher), Ok(captures)) = (go_regex::unanchored(pattern), go_regex::captures(pattern)) else { return };
    let found = matcher.is_match(text);
    let mut groups = captures.groups();
    assert_eq!(captures.find(text, &mut groups), found, "{translated}");
    if found {
        let whole = groups.get(0).expect("a match has bounds");
        assert!(whole.start <= whole.end && whole.end <= text.len());
        // U+FFFD in a pattern stands for any byte that is not UTF-8, and is then not in the text.
        if let Some(literal) = matcher.required_literal() {
            assert!(text.windows(literal.len()).any(|w| w == literal), "{translated} needs {literal:?}");
        }
    }
    if let Ok(text) = std::str::from_utf8(text) {
        assert_eq!(found, plain.is_match(text.as_bytes()), "{translated} in {text:?}");
        // Quoting that does not end would swallow what follows.
        let whole = format!("^(?:{})$", String::from_utf8_lossy(pattern));
        if let (false, Ok(anchored), Ok(whole)) =
            (whole.contains("\\Q"), go_regex::anchored(pattern, false), go_regex::unanchored(&whole))
        {
            assert_eq!(anchored.is_match(text.as_bytes()), whole.is_match(text.as_bytes()), "{translated} is {text:?}");
        }
    }
}

struct Fields<'a>(&'a [u8]);

impl Lookup for Fields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        (name == "a").then_some(self.0)
    }
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        visit(b"a", self.0);
    }
}

/// A template, a zero byte, and the value of the line and of a label. It is refused, fails or prints; an error prints nothing,
/// and nothing is remembered.
pub(crate) fn template(data: &[u8]) {
    let (text, line) = data.split_at(data.iter().position(|b| *b == 0).unwrap_or(data.len()));
    let line = line.get(1..).unwrap_or_default();
    let template = match Template::parse("line", text) {
        Ok(template) => template,
        Err(e) => return assert!(e.starts_with("template: line:"), "{e}"),
    };
    let fields = Fields(line);
    let data = Data { labels: &fields, line, timestamp: Timestamp(1), now: Timestamp(2) };
    let mut out = Vec::new();
    let result = template.execute(&data, &mut out);
    if let Err(e) = &result {
        assert!(e.starts_with("template: line:") && out.is_empty(), "{e}");
    }
    if let Some(name) = template.single_field() {
        assert_eq!(template.fields(), [name]);
    }
    let mut again = Vec::new();
    assert_eq!((template.execute(&data, &mut again), again), (result, out));
}

/// Seconds between the steps of a range query.
const STEP: i64 = 7;

const SECOND: i64 = 1_000_000_000;

/// Most lines of a metric query: more tell nothing new.
const MAX_LINES: usize = 64;

/// A line of a metric query.
struct Entry<'a> {
    seconds: i64,
    stream: usize,
    line: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(part: &'a [u8]) -> Option<Self> {
        let (first, line) = part.split_first()?;
        Some(Self { seconds: i64::from(first % 64), stream: usize::from(first / 64), line })
    }
}

/// A metric query, a zero byte, and lines with zero bytes between them, each after a byte that says its stream (two bits) and its
/// second (six bits). The order in which lines come and who collects them makes no difference but for rounding; lines that are
/// counted without a look are worth the same with one; and whatever there is can be evaluated.
pub(crate) fn metric(data: &[u8]) {
    let mut parts = data.split(|b| *b == 0);
    let Some(query) = parts.next().and_then(|query| std::str::from_utf8(query).ok()) else { return };
    let Ok(Expr::Metric(expr)) = tailwater_logql::parse(query) else { return };
    let entries: Vec<_> = parts.take(MAX_LINES).filter_map(Entry::read).collect();
    let time = |seconds: i64| Timestamp(seconds * SECOND);
    for steps in [Steps::instant(time(40)), Steps::range(time(0), time(9 * STEP), STEP * SECOND)] {
        let mut all = Vec::new();
        for leaf in leaves(&expr) {
            let Ok(query) = SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()) else { return };
            let query = Arc::new(query);
            let grid = query.grid(steps);
            let in_order = collect(&query, &grid, entries.iter().enumerate());
            let (front, back): (Vec<_>, Vec<_>) = entries.iter().enumerate().rev().partition(|(i, _)| i % 3 == 0);
            let mut parts = collect(&query, &grid, front.into_iter());
            for (labels, (column, sum)) in collect(&query, &grid, back.into_iter()) {
                let into = parts.entry(labels).or_insert_with(|| (query.column(), 0.0));
                into.0.merge(column, &mut usize::MAX.clone()).expect("there is room");
                into.1 += sum;
            }
            let sums: BTreeMap<_, _> = in_order.iter().map(|(labels, (_, sum))| (labels.clone(), *sum)).collect();
            let answer =
                |found: Collected| series(&query, &grid, found.into_iter().map(|(l, (column, _))| (l, column)));
            let (found, again) = (answer(in_order), answer(parts));
            same_series(&query, &found, &again, &sums);
            // Errors are told; the rest is evaluated all the same.
            all.push(found.unwrap_or_default());
        }
        for limit in [0, 2] {
            let limits = EvaluationLimits { max_query_series: limit };
            match evaluate(&expr, steps, all.clone(), limits) {
                Ok(Evaluated::Series(found)) => {
                    assert!(found.iter().all(|s| !s.is_empty() && s.steps() == steps.count))
                }
                Ok(Evaluated::Scalar(_)) => assert_eq!(steps.count, 1),
                Err(e) => assert!(!e.to_string().is_empty()),
            }
        }
    }
}

/// What lines are worth per series, and the sum of what all of them are in size.
type Collected = BTreeMap<Labels, (Column, f64)>;

fn collect<'a>(
    query: &Arc<SampleQuery>,
    grid: &Grid,
    entries: impl Iterator<Item = (usize, &'a Entry<'a>)>,
) -> Collected {
    let pair = |(n, v): (&str, &str)| (n.into(), v.into());
    let streams = [[("app", "a"), ("x", "stream")], [("app", "b"), ("level", "info")], [("a", "1"), ("b", "2")]];
    let streams = streams.map(|pairs| Labels::from_pairs(pairs.map(pair).into()));
    let (mut runner, mut found, mut room) = (query.runner(true), Collected::new(), usize::MAX);
    for (index, entry) in entries {
        // The last stream is the first one again, with metadata.
        let stream = &streams[entry.stream % 3];
        let metadata: &[_] = if entry.stream == 3 { &[("m", "1"), ("x", "metadata")] } else { &[] };
        let timestamp = entry.seconds * SECOND;
        let Some(pane) = grid.pane(timestamp) else { continue };
        runner.enter(stream);
        let counted = runner.series_of_stream().filter(|_| metadata.is_empty());
        let Some((number, value)) = runner.run(Timestamp(timestamp), entry.line, metadata) else {
            assert_eq!(counted, None);
            continue;
        };
        assert!(query.may_match(entry.line));
        assert!(fulfils(query.requirements(), stream, entry.line, metadata), "{}", query.canonical());
        assert!(counted.is_none_or(|counted| (counted, runner.worth(entry.line.len() as u32)) == (number, value)));
        let labels = labels_of(&runner, number);
        let place = Place { timestamp, stream_hash: stream.loki_hash(), seq: 1, index: index as u32 };
        let (column, sum) = found.entry(labels).or_insert_with(|| (query.column(), 0.0));
        column.add(pane.number, value, place, &mut room).expect("there is room");
        *sum += value.abs();
    }
    found
}

fn labels_of(runner: &SampleRunner, number: u32) -> Labels {
    let labels = runner.labels(number).expect("a series that was met").clone();
    assert!(labels.iter().zip(labels.iter().skip(1)).all(|(a, b)| a.0 < b.0), "{labels}");
    labels
}

/// Series that were collected in different orders. Where sums meet rounding, they differ by no more.
fn same_series(
    query: &SampleQuery,
    found: &Result<Vec<Series>, PipelineError>,
    again: &Result<Vec<Series>, PipelineError>,
    sums: &BTreeMap<Labels, f64>,
) {
    let (Ok(found), Ok(again)) = (found, again) else {
        // Which of several errors is told is unspecified.
        return assert_eq!(found.is_err(), again.is_err());
    };
    let sorted = |series: &[Series]| {
        let mut all = series.to_vec();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        all
    };
    let (found, again) = (sorted(found), sorted(again));
    assert_eq!(found.len(), again.len());
    for (one, other) in found.iter().zip(&again) {
        assert_eq!(one.labels, other.labels);
        let size = sums.get(&one.labels).copied().unwrap_or_default().max(1.0);
        for (a, b) in (0..one.steps()).map(|step| (one.get(step), other.get(step))) {
            assert_eq!(a.is_some(), b.is_some());
            let (Some(a), Some(b)) = (a, b) else { continue };
            let rounding = match query.aggregation().op {
                RangeOp::SumOverTime | RangeOp::AvgOverTime | RangeOp::BytesOverTime => size,
                RangeOp::Rate | RangeOp::BytesRate => size / query.aggregation().range.as_secs_f64(),
                RangeOp::StdvarOverTime => size * size,
                // The root of what is lost is lost.
                RangeOp::StddevOverTime => size * 1e4,
                // Resets are added up, and what is left of them may be nothing but rounding.
                RangeOp::RateCounter => f64::INFINITY,
                _ => 0.0,
            };
            // Sums that overflow do so in some orders only.
            let equal = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= rounding * 1e-9 || size > 1e100;
            assert!(equal, "{} {}: {a} {b}", query.canonical(), one.labels);
        }
    }
}
