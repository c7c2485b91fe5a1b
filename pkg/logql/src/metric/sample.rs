//! From lines to samples: what a range aggregation reads, what a line is worth to it, and to which series the line belongs.
//!
//! Invariants:
//! * A line that fails a parser or a conversion is worth a sample of a series that bears `__error__`; no line is left out silently but
//!   by a filter, or by `unwrap` where the label is missing or empty.
//! * Series have dense numbers in the order in which a runner meets them, and keep them for the runner's life.
//! * What a runner remembers besides its series is bounded by [`MAX_REMEMBERED_BYTES`].

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use tailwater_model::{Labels, Timestamp};

use super::column::Column;
use super::grid::Grid;
use super::hints::{Hints, Labelling, hints};
use super::series::Steps;
use crate::ast::{Conversion, Grouping, RangeAggregation, RangeOp, Unwrap};
use crate::matchers::Matchers;
use crate::pipeline::label_filter::Filter;
use crate::pipeline::names::{NameId, Names, PRESERVE_ERROR, WELL_KNOWN};
use crate::pipeline::{LineLabels, Machine, Pipeline, Wanted};
use crate::portable::Portable as _;
use crate::requirements::Requirements;
use crate::{Error, go};

/// What `__error__` says of a value that cannot be read.
const ERROR: &str = "SampleExtractionErr";

/// Most bytes of what is remembered of lines to find their series again.
const MAX_REMEMBERED_BYTES: usize = 16 << 20;

/// A range aggregation, compiled. Immutable; every reader of lines has its own [`SampleRunner`].
#[derive(Debug)]
pub struct SampleQuery {
    canonical: String,
    aggregation: RangeAggregation,
    pushed: Option<Grouping>,
    matchers: Matchers,
    pipeline: Pipeline,
    extractor: Extractor,
    series: SeriesOf,
    sees_level: bool,
    /// Whether a line without structured metadata belongs to the same series as any other of its stream.
    series_by_stream: bool,
}

/// What a line is worth.
#[derive(Debug)]
enum Extractor {
    One,
    Bytes,
    Unwrap { label: NameId, conversion: Option<Conversion>, filters: Box<[Filter]> },
}

/// Which series a line belongs to.
#[derive(Debug)]
enum SeriesOf {
    /// That of all its labels but these.
    Without(Box<[Box<str>]>),
    /// That of just these, sorted by name.
    By(Box<[NameId]>),
}

impl SampleQuery {
    /// Compiles a range aggregation; `pushed` is the grouping of the aggregation around it, as far as it may be handed down.
    ///
    /// # Errors
    /// [`Error::Stage`] for what is found out only when the pipeline is built, as for log queries.
    pub fn compile(aggregation: &RangeAggregation, pushed: Option<&Grouping>) -> Result<Self, Error> {
        let Hints { labelling, required, preserve_error, stages, sees_level } = hints(aggregation, pushed);
        if stages != aggregation.log.stages {
            // What has no effect must be right all the same.
            Pipeline::new(&aggregation.log.stages)?;
        }
        let more = |names: &mut Names| {
            let wanted =
                required.map(|all| Wanted { names: all.iter().map(|n| names.intern(n)).collect(), preserve_error });
            let series = match &labelling {
                Labelling::Without(labels) => SeriesOf::Without(labels.iter().map(|l| l.as_str().into()).collect()),
                Labelling::By(labels) => SeriesOf::By(labels.iter().map(|l| names.intern(l)).collect()),
            };
            Ok((wanted, series, Extractor::new(aggregation, names)?))
        };
        let (mut pipeline, (wanted, series, extractor)) = Pipeline::with(&stages, more)?;
        pipeline.wanted = wanted;
        let series_by_stream = pipeline.stages.is_empty()
            && !sees_level
            && matches!(series, SeriesOf::By(_))
            && !matches!(extractor, Extractor::Unwrap { .. });
        Ok(Self {
            canonical: format!("{aggregation} {labelling:?}"),
            aggregation: aggregation.clone(),
            pushed: pushed.cloned(),
            matchers: Matchers::new(&aggregation.log.selector)?,
            pipeline,
            extractor,
            series,
            sees_level,
            series_by_stream,
        })
    }

    /// Compiles what [`SampleQuery::to_bytes`] made, possibly in another process.
    ///
    /// # Errors
    /// The bytes are not such; otherwise as [`SampleQuery::compile`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (aggregation, pushed) = <(RangeAggregation, Option<Grouping>)>::from_bytes(bytes)?;
        Self::compile(&aggregation, pushed.as_ref())
    }

    /// The query as bytes, exactly: what is compiled of them is worth the same and makes the same series.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        (self.aggregation.clone(), self.pushed.clone()).to_bytes()
    }

    /// A text that names the query: equal texts mean equal series.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// What it was compiled from.
    #[must_use]
    pub fn aggregation(&self) -> &RangeAggregation {
        &self.aggregation
    }

    /// Which streams.
    #[must_use]
    pub fn matchers(&self) -> &Matchers {
        &self.matchers
    }

    /// False only if no line that lies wholly inside `region` can pass. A region holds many lines with other bytes between them.
    #[must_use]
    pub fn may_match(&self, region: &[u8]) -> bool {
        self.pipeline.may_match(region)
    }

    /// What every line that counts has.
    #[must_use]
    pub fn requirements(&self) -> &Requirements {
        &self.pipeline.requirements
    }

    /// Whether a line without structured metadata need not be looked at to know what it is worth: see
    /// [`SampleRunner::series_of_stream`].
    #[must_use]
    pub fn counts_unread(&self) -> bool {
        self.series_by_stream && matches!(self.series, SeriesOf::By(_)) && self.pipeline.head.is_empty()
    }

    /// The windows of its range at these steps.
    #[must_use]
    pub fn grid(&self, steps: Steps) -> Grid {
        let range = i64::try_from(self.aggregation.range.as_nanos()).unwrap_or(i64::MAX);
        Grid::new(steps, range, self.aggregation.offset_nanos)
    }

    /// An empty column for a series of this query.
    #[must_use]
    pub fn column(&self) -> Column {
        Column::new(self.aggregation.op, self.aggregation.unwrap.is_some())
    }

    /// What runs this query over lines. With `detect_level` entries that bring no `detected_level` get one.
    #[must_use]
    pub fn runner(self: &Arc<Self>, detect_level: bool) -> SampleRunner {
        SampleRunner {
            machine: Machine::new(&self.pipeline, detect_level && self.sees_level),
            query: Arc::clone(self),
            known: Known::default(),
            of_stream: None,
        }
    }
}

impl Extractor {
    fn new(aggregation: &RangeAggregation, names: &mut Names) -> Result<Self, Error> {
        let Some(Unwrap { label, conversion, filters }) = &aggregation.unwrap else {
            let bytes = matches!(aggregation.op, RangeOp::BytesOverTime | RangeOp::BytesRate);
            return Ok(if bytes { Self::Bytes } else { Self::One });
        };
        let mut intern = |name: &str| names.intern(name);
        let compile = |filter| {
            let stage = || format!("| {filter}");
            Filter::new(filter, &mut intern).map_err(|msg| Error::Stage { stage: stage(), msg })
        };
        let filters = filters.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self::Unwrap { label: names.intern(label), conversion: *conversion, filters })
    }
}

/// The number of a series of a [`SampleRunner`].
pub type SeriesNumber = u32;

/// Runs a query over lines. Owns everything that changes meanwhile.
#[derive(Debug)]
pub struct SampleRunner {
    query: Arc<SampleQuery>,
    machine: Machine,
    known: Known,
    /// The series of every line of the entered stream that has no structured metadata, if it is one.
    of_stream: Option<SeriesNumber>,
}

impl SampleRunner {
    /// The query that is run.
    #[must_use]
    pub fn query(&self) -> &Arc<SampleQuery> {
        &self.query
    }

    /// The lines that follow are of this stream. Cheap if it is the stream of last time.
    pub fn enter(&mut self, stream: &Labels) {
        self.machine.labels.enter(stream);
        if self.query.series_by_stream
            && let SeriesOf::By(names) = &self.query.series
        {
            self.machine.labels.begin(&[], None);
            self.of_stream = Some(self.known.group(&self.machine.labels, names));
        }
    }

    /// The series of every line of the entered stream that has no structured metadata, if no line need be looked at to know it.
    /// Each is then worth [`SampleRunner::worth`].
    #[must_use]
    pub fn series_of_stream(&self) -> Option<SeriesNumber> {
        self.of_stream.filter(|_| self.query.pipeline.head.is_empty())
    }

    /// What a line of this many bytes is worth, if nothing else decides.
    #[must_use]
    pub fn worth(&self, bytes: u32) -> f64 {
        if matches!(self.query.extractor, Extractor::Bytes) { f64::from(bytes) } else { 1.0 }
    }

    /// Runs a line of the entered stream: its series and its worth; nothing if it does not count.
    pub fn run(&mut self, timestamp: Timestamp, line: &[u8], metadata: &[(&str, &str)]) -> Option<(SeriesNumber, f64)> {
        let Self { query, machine, known, of_stream } = self;
        if !query.pipeline.passes_head(line) {
            return None;
        }
        if let Some(number) = of_stream
            && metadata.is_empty()
        {
            #[expect(clippy::cast_precision_loss, reason = "a line has less than 2^53 bytes")]
            let worth = if matches!(query.extractor, Extractor::Bytes) { line.len() as f64 } else { 1.0 };
            return Some((*number, worth));
        }
        let rewritten = machine.run(&query.pipeline, timestamp, line, metadata)?;
        let value = match &query.extractor {
            Extractor::One => 1.0,
            #[expect(clippy::cast_precision_loss, reason = "a line has less than 2^53 bytes")]
            Extractor::Bytes => machine.line(rewritten, line).len() as f64,
            Extractor::Unwrap { label, conversion, filters } => {
                let text = machine.labels.get(*label).filter(|text| !text.is_empty())?;
                let value = convert(text, *conversion).unwrap_or_else(|details| {
                    machine.labels.set_error(ERROR, &details);
                    0.0
                });
                let mut passes = true;
                for filter in filters {
                    passes &= filter.passes(&mut machine.labels);
                }
                if !passes {
                    return None;
                }
                value
            }
        };
        let number = match &query.series {
            SeriesOf::By(names) if machine.labels.error().is_empty() => known.group(&machine.labels, names),
            SeriesOf::By(_) => known.without(&mut machine.labels, &[]),
            SeriesOf::Without(names) if machine.labels.error().is_empty() => known.without(&mut machine.labels, names),
            SeriesOf::Without(_) => known.without(&mut machine.labels, &[]),
        };
        Some((number, value))
    }

    /// How many series there are.
    #[must_use]
    pub fn series_count(&self) -> u32 {
        self.known.series.len() as u32
    }

    /// The labels of a series.
    #[must_use]
    pub fn labels(&self, number: SeriesNumber) -> Option<&Labels> {
        self.known.series.get(number as usize)
    }
}

/// The number that a text stands for.
fn convert(text: &str, conversion: Option<Conversion>) -> Result<f64, String> {
    match conversion {
        None => go::number::parse_float(text),
        Some(Conversion::Duration | Conversion::DurationSeconds) => go::duration::parse_go(text).map(seconds),
        #[expect(clippy::cast_precision_loss, reason = "as Loki: sizes above 2^53 are rounded")]
        Some(Conversion::Bytes) => go::bytes::parse_humanize(text).map(|bytes| bytes as f64),
    }
}

/// Seconds as Go counts them: whole ones and the rest are added.
#[expect(clippy::cast_precision_loss, reason = "64 bits of nanoseconds have less than 2^53 seconds")]
fn seconds(nanos: i64) -> f64 {
    (nanos / 1_000_000_000) as f64 + (nanos % 1_000_000_000) as f64 / 1e9
}

/// The series that were met.
#[derive(Debug, Default)]
struct Known {
    series: Vec<Labels>,
    by_labels: HashTable<SeriesNumber>,
    hasher: DefaultHashBuilder,
    /// What lines were grouped by, and the series.
    by_key: HashMap<Box<[u8]>, SeriesNumber>,
    key_bytes: usize,
    /// The epoch of the labels that `by_key` speaks of, where that matters.
    epoch: u64,
    key: Vec<u8>,
    /// The group of the line before and its series: lines of a kind come in runs.
    last_key: Vec<u8>,
    last: Option<SeriesNumber>,
}

impl Known {
    /// The series of the group of a line.
    fn group(&mut self, labels: &LineLabels, names: &[NameId]) -> SeriesNumber {
        self.key.clear();
        labels.write_group(names, &mut self.key);
        if let Some(last) = self.last
            && self.key == self.last_key
        {
            return last;
        }
        let number = match self.by_key.get(&*self.key) {
            Some(number) => *number,
            None => {
                let number = self.number(labels.group(names));
                let key = std::mem::take(&mut self.key);
                self.remember(&key, number);
                self.key = key;
                number
            }
        };
        std::mem::swap(&mut self.key, &mut self.last_key);
        self.last = Some(number);
        number
    }

    /// The series of all labels of a line but these.
    fn without(&mut self, labels: &mut LineLabels, names: &[Box<str>]) -> SeriesNumber {
        let has_error = !labels.error().is_empty();
        if self.epoch != labels.epoch() {
            self.forget();
            self.epoch = labels.epoch();
        }
        self.key.clear();
        // No group begins so, and lines with an error leave nothing out.
        self.key.extend_from_slice(if has_error { b"\xfe\xff\xff\xff" } else { b"\xfd\xff\xff\xff" });
        self.key.extend_from_slice(labels.key());
        if let Some(number) = self.by_key.get(&*self.key) {
            return *number;
        }
        let set = labels.finish();
        let kept = set.pairs().iter().filter(|pair| !names.contains(&pair.name));
        let number = self.number(Labels::keeping_empty(kept.map(|p| (p.name.clone(), p.value.clone())).collect()));
        let key = std::mem::take(&mut self.key);
        self.remember(&key, number);
        self.key = key;
        number
    }

    fn number(&mut self, labels: Labels) -> SeriesNumber {
        let hash = self.hasher.hash_one(&labels);
        if let Some(number) = self.by_labels.find(hash, |n| self.series[*n as usize] == labels) {
            return *number;
        }
        let number = self.series.len() as u32;
        self.series.push(labels);
        let (series, hasher) = (&self.series, &self.hasher);
        self.by_labels.insert_unique(hash, number, |n| hasher.hash_one(&series[*n as usize]));
        number
    }

    fn remember(&mut self, key: &[u8], number: SeriesNumber) {
        if self.key_bytes > MAX_REMEMBERED_BYTES {
            self.forget();
        }
        self.key_bytes += key.len() + size_of::<(Box<[u8]>, SeriesNumber)>();
        self.by_key.insert(key.into(), number);
    }

    fn forget(&mut self) {
        self.by_key.clear();
        self.key_bytes = 0;
        self.last = None;
    }
}

/// The error that a series bears, if lines with it may not be counted.
pub(super) fn fatal_error(labels: &Labels) -> Option<&str> {
    let error = labels.get(WELL_KNOWN[0]).filter(|error| !error.is_empty())?;
    (labels.get(WELL_KNOWN[PRESERVE_ERROR as usize]) != Some("true")).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Expr;
    use crate::metric::leaves;

    fn query(text: &str) -> Arc<SampleQuery> {
        let Ok(Expr::Metric(expr)) = crate::parse(text) else { panic!("{text}") };
        let leaf = &leaves(&expr)[0];
        Arc::new(SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap())
    }

    fn stream(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
    }

    /// A runner that has entered `{a="1", pod="x"}`.
    fn runner(text: &str) -> SampleRunner {
        let mut runner = query(text).runner(false);
        runner.enter(&stream(&[("a", "1"), ("pod", "x")]));
        runner
    }

    /// What a line is worth, and the labels of its series.
    fn sample(runner: &mut SampleRunner, line: &str, metadata: &[(&str, &str)]) -> Option<(String, f64)> {
        let (number, value) = runner.run(Timestamp(0), line.as_bytes(), metadata)?;
        Some((runner.labels(number).unwrap().to_string(), value))
    }

    fn one(text: &str, line: &str) -> Option<(String, f64)> {
        sample(&mut runner(text), line, &[])
    }

    #[test]
    fn lines_are_worth_one_or_their_bytes_or_what_they_say() {
        let own = r#"{a="1", pod="x"}"#.to_owned();
        assert_eq!(one(r#"rate({a="1"}[1m])"#, "line"), Some((own.clone(), 1.0)));
        assert_eq!(one(r#"bytes_rate({a="1"}[1m])"#, "line"), Some((own.clone(), 4.0)));
        assert_eq!(one(r#"bytes_rate({a="1"} | line_format "{{.pod}}" [1m])"#, "line"), Some((own.clone(), 1.0)));
        let unwrapped = |conversion: &str, value: &str| {
            let query = format!(r#"sum_over_time({{a="1"}} | logfmt | unwrap {conversion} [1m])"#);
            one(&query, &format!("v={value}"))
        };
        assert_eq!(unwrapped("v", "-1e3"), Some((own.clone(), -1000.0)));
        assert_eq!(unwrapped("duration(v)", "1m0.5s"), Some((own.clone(), 60.5)));
        assert_eq!(unwrapped("duration_seconds(v)", "-250ms"), Some((own.clone(), -0.25)));
        assert_eq!(unwrapped("bytes(v)", "2KiB"), Some((own, 2048.0)));
        assert_eq!(unwrapped("v", ""), None, "nothing to unwrap is no error");
        assert_eq!(unwrapped("w", "1"), None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_filters_may_skip() {
        let query =
            |filter: &str| format!(r#"sum by (a) (sum_over_time({{a="1"}} | logfmt | unwrap v {filter} [1m]))"#);
        let (labels, value) = one(&query(""), "v=many").unwrap();
        assert!(labels.starts_with(r#"{__error__="SampleExtractionErr", __error_details__="#), "{labels}");
        assert!(labels.ends_with(r#"a="1", pod="x", v="many"}"#), "an error bears all labels: {labels}");
        assert_eq!(value, 0.0);
        assert_eq!(one(&query(r#"| __error__="""#), "v=many"), None);
        assert_eq!(one(&query(r#"| __error__="""#), "v=1"), Some((r#"{a="1"}"#.into(), 1.0)));
    }

    #[test]
    fn groups_keep_labels_that_are_empty_but_not_those_that_are_not_there() {
        let mut runner = runner(r#"sum by (a, k, z) (rate({a="1"} | label_format z="" [1m]))"#);
        assert_eq!(sample(&mut runner, "", &[]), Some((r#"{a="1", z=""}"#.into(), 1.0)));
        assert_eq!(sample(&mut runner, "", &[("k", "v")]), Some((r#"{a="1", k="v", z=""}"#.into(), 1.0)));
        assert_eq!(sample(&mut runner, "", &[]), Some((r#"{a="1", z=""}"#.into(), 1.0)));
        assert_eq!(runner.series_count(), 2);
    }

    #[test]
    fn series_are_numbered_as_they_are_met() {
        let mut runner = runner(r#"rate({a="1"} | logfmt [1m])"#);
        let mut number = |line: &str| runner.run(Timestamp(0), line.as_bytes(), &[]).unwrap().0;
        assert_eq!([number("x=1"), number("x=2"), number("y=1"), number("x=1 x=3"), number("x=2")], [0, 1, 2, 0, 1]);
        // The same labels from another stream are the same series.
        runner.enter(&stream(&[("a", "1"), ("pod", "x"), ("x", "2")]));
        assert_eq!(runner.run(Timestamp(0), b"", &[]).unwrap().0, 1);
        assert_eq!((runner.series_count(), runner.labels(3)), (3, None));
    }

    #[test]
    fn series_are_found_again_after_much_was_forgotten() {
        for query in [r#"rate({a="1"} | logfmt [1m])"#, r#"sum by (x) (rate({a="1"} | logfmt [1m]))"#] {
            let mut runner = runner(query);
            let lines: Vec<_> = (0..20).map(|n| format!("x={n}{}", "·".repeat(1 << 19))).collect();
            for _ in 0..2 {
                for (line, want) in lines.iter().zip(0..) {
                    assert_eq!(runner.run(Timestamp(0), line.as_bytes(), &[]).unwrap().0, want);
                    assert!(runner.known.key_bytes <= MAX_REMEMBERED_BYTES + (2 << 20), "{query}");
                }
            }
        }
    }

    #[test]
    fn lines_are_counted_without_a_look_where_none_is_needed() {
        let counted = |query: &str| {
            let mut runner = runner(query);
            let number = runner.series_of_stream()?;
            assert_eq!(runner.run(Timestamp(0), b"line", &[]), Some((number, runner.worth(4))), "{query}");
            Some(runner.labels(number)?.to_string())
        };
        assert_eq!(counted(r#"sum(rate({a="1"}[1m]))"#).as_deref(), Some("{}"));
        assert_eq!(counted(r#"sum by (pod, k) (bytes_rate({a="1"}[1m]))"#).as_deref(), Some(r#"{pod="x"}"#));
        assert_eq!(counted(r#"absent_over_time({a="1"} | json [1m])"#).as_deref(), Some("{}"));
        for looked_at in [
            r#"rate({a="1"}[1m])"#,
            r#"sum(rate({a="1"} |= "x" [1m]))"#,
            r#"sum(rate({a="1"} | unwrap v [1m]))"#,
            r#"sum by (detected_level) (rate({a="1"}[1m]))"#,
            r#"sum by (x) (rate({a="1"} | json [1m]))"#,
        ] {
            assert_eq!(counted(looked_at), None, "{looked_at}");
        }
    }

    #[test]
    fn what_has_no_effect_must_be_right_all_the_same() {
        let Ok(Expr::Metric(expr)) = crate::parse(r#"sum(rate({a="1"} | json x="a..b" [1m]))"#) else {
            panic!("no query")
        };
        let leaf = &leaves(&expr)[0];
        assert!(SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).is_err());
    }
}
