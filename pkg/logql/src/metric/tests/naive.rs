//! Range aggregations once more, as plain as can be: every line by itself, every window gathered anew, every formula from its first
//! sample to its last (contract, LogQL §11, §12). What lines are worth is asked of *log* queries, so all labels are there and nothing
//! is left out. Runners, columns and windows have to answer the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_model::{Labels, Timestamp};

use crate::ast::{Conversion, Grouping, LabelFilter, LogExpr, MatchOp, RangeAggregation, RangeOp, Stage};
use crate::metric::{Leaf, PipelineError, Place, Steps};
use crate::{LogQuery, go};

/// A sample of a series.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    pub(super) place: Place,
    pub(super) value: f64,
}

/// Series, and for every step a value or none.
pub(super) type Answer = BTreeMap<Labels, Vec<Option<f64>>>;

/// The values of windows; or all that is wrong with them.
pub(super) fn windows(of: &RangeAggregation, steps: Steps, samples: &[Sample]) -> Result<Answer, Vec<PipelineError>> {
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

/// Names and values.
type Pairs = Vec<(Box<str>, Box<str>)>;

/// A line of a stream.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) at: i64,
    pub(super) stream: Labels,
    pub(super) metadata: &'static [(&'static str, &'static str)],
    pub(super) line: String,
}

impl Entry {
    pub(super) fn place(&self, index: usize) -> Place {
        Place { timestamp: self.at, stream_hash: self.stream.loki_hash(), seq: index as u64, index: 0 }
    }

    /// Its line and its labels behind these stages.
    fn behind(&self, log: &LogExpr, stages: &[Stage], detect_level: bool) -> Option<(Vec<u8>, Pairs)> {
        let log = LogExpr { selector: log.selector.clone(), stages: stages.to_vec() };
        let mut runner = Arc::new(LogQuery::compile(&log).unwrap()).runner(detect_level);
        runner.enter(&self.stream);
        let matched = runner.run(Timestamp(self.at), self.line.as_bytes(), self.metadata)?;
        let pairs = matched.labels.pairs().iter().map(|pair| (pair.name.clone(), pair.value.clone()));
        Some((matched.line.to_vec(), pairs.collect()))
    }

    /// The sample it is, by all of its labels.
    pub(super) fn sample(&self, leaf: &Leaf<'_>, detect_level: bool, index: usize) -> Option<Sample> {
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
    pub(super) fn is_sound(&self, leaf: &Leaf<'_>, detect_level: bool) -> bool {
        let log = &leaf.aggregation.log;
        let sound = |end: usize| {
            let found = self.behind(log, &log.stages[..end], detect_level);
            found.is_none_or(|(_, labels)| !labels.iter().any(|(name, _)| **name == *"__error__"))
        };
        let sample = self.sample(leaf, detect_level, 0);
        (0..=log.stages.len()).all(sound) && sample.is_none_or(|sample| sample.labels.get("__error__").is_none())
    }
}
