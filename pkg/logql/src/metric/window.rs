//! From partial aggregates to a value per step: each window is the fold of its panes (contract, LogQL §12).
//!
//! Invariants: a step has a value exactly if a pane of its window holds a sample. However much windows overlap, each pane is folded a
//! constant number of times (two stacks, as in a queue made of them), but for quantiles, whose windows are gathered each anew.

use std::ops::Range;

use tailwater_model::Labels;

use super::column::{Cell, Cells, Column, Count, First, Greatest, Kind, Last, Least, Moments, Place, Placed, Sum};
use super::grid::Grid;
use super::sample::{SampleQuery, fatal_error};
use super::series::Series;
use crate::ast::{MatchOp, RangeAggregation, RangeOp};

/// Why series cannot be answered; the text is Loki's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pipeline error: '{error}' for series: '{labels}'.\nUse a label filter to intentionally skip this error. (e.g | __error__!=\"{error}\").\nTo skip all potential errors you can match empty errors.(e.g __error__=\"\")\nThe label filter can also be specified after unwrap. (e.g | unwrap latency | __error__=\"\" )\n"
)]
pub struct PipelineError {
    /// What `__error__` says.
    pub error: String,
    /// The series that bears it.
    pub labels: Labels,
}

/// The series of a range aggregation, of the partial aggregates that were collected for it.
///
/// # Errors
/// Lines that count bear an error.
pub fn series(
    query: &SampleQuery,
    grid: &Grid,
    columns: impl IntoIterator<Item = (Labels, Column)>,
) -> Result<Vec<Series>, PipelineError> {
    let found = columns.into_iter().map(|(labels, column)| values(query, grid, labels, column));
    of_found(query, grid.steps().count, found)
}

/// The series at one step of a grid, with that step alone.
///
/// # Errors
/// As [`series`].
pub fn series_at<'a>(
    query: &SampleQuery,
    grid: &Grid,
    step: u32,
    columns: impl IntoIterator<Item = (&'a Labels, &'a Column)>,
) -> Result<Vec<Series>, PipelineError> {
    let window = Window::of(query, grid, step);
    let found = columns.into_iter().filter_map(|(labels, column)| {
        let value = value_at(&window, grid.window(step), column)?;
        Some(Series::constant(labels.clone(), 1, value))
    });
    of_found(query, 1, found)
}

/// What is answered of the series that were found.
fn of_found(
    query: &SampleQuery,
    steps: u32,
    found: impl Iterator<Item = Series>,
) -> Result<Vec<Series>, PipelineError> {
    let mut all = Vec::new();
    for series in found.filter(|series| !series.is_empty()) {
        if let Some(error) = fatal_error(&series.labels).map(str::to_owned) {
            return Err(PipelineError { error, labels: series.labels });
        }
        all.push(series);
    }
    let absent_is_asked = query.aggregation().op == RangeOp::AbsentOverTime;
    Ok(if absent_is_asked { vec![absent(query, steps, &all)] } else { all })
}

/// One where no series has a value.
fn absent(query: &SampleQuery, steps: u32, found: &[Series]) -> Series {
    let mut series = Series::empty(absent_labels(query), steps);
    (0..steps).filter(|step| found.iter().all(|s| s.get(*step).is_none())).for_each(|step| series.set(step, 1.0));
    series
}

/// The labels that the selector says a missing series would have had: those of `=`, unless anything else is asked of the same name.
fn absent_labels(query: &SampleQuery) -> Labels {
    let matchers: Vec<_> = query.matchers().iter().collect();
    let alone = |name: &str| matchers.iter().filter(|m| m.name == name).count() == 1;
    let certain = matchers.iter().filter(|m| m.op == MatchOp::Eq && alone(&m.name));
    Labels::from_pairs(certain.map(|m| (m.name.as_str().into(), m.value.to_str_lossy().into())).collect())
}

/// What is asked of a window.
struct Window<'a> {
    aggregation: &'a RangeAggregation,
    /// Its length in seconds.
    seconds: f64,
    /// It is `(begin, end]`.
    begin: i64,
    end: i64,
}

impl<'a> Window<'a> {
    fn of(query: &'a SampleQuery, grid: &Grid, step: u32) -> Self {
        let aggregation = query.aggregation();
        let end = grid.steps().time(step).nanos().saturating_sub(aggregation.offset_nanos);
        Self { aggregation, seconds: aggregation.range.as_secs_f64(), begin: end.saturating_sub(grid.range()), end }
    }

    /// What a total is divided by.
    fn per(&self) -> f64 {
        let is_rate = matches!(self.aggregation.op, RangeOp::Rate | RangeOp::BytesRate);
        if is_rate { self.seconds } else { 1.0 }
    }
}

/// A cell that says what a window is worth, if it holds the window's samples and there are any.
trait Worth: Cell {
    fn worth(&self, window: &Window<'_>) -> f64;
}

impl Worth for Count {
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53")]
    fn worth(&self, window: &Window<'_>) -> f64 {
        self.0 as f64 / window.per()
    }
}

impl Worth for Sum {
    fn worth(&self, window: &Window<'_>) -> f64 {
        self.sum / window.per()
    }
}

impl Worth for Least {
    fn worth(&self, _: &Window<'_>) -> f64 {
        self.0.unwrap_or(f64::NAN)
    }
}

impl Worth for Greatest {
    fn worth(&self, _: &Window<'_>) -> f64 {
        self.0.unwrap_or(f64::NAN)
    }
}

impl Worth for First {
    fn worth(&self, _: &Window<'_>) -> f64 {
        self.0.map_or(f64::NAN, |(_, value)| value)
    }
}

impl Worth for Last {
    fn worth(&self, _: &Window<'_>) -> f64 {
        self.0.map_or(f64::NAN, |(_, value)| value)
    }
}

impl Worth for Moments {
    fn worth(&self, window: &Window<'_>) -> f64 {
        of_moments(window.aggregation.op, self)
    }
}

impl Worth for Counter {
    fn worth(&self, window: &Window<'_>) -> f64 {
        self.rate(window.begin, window.end, window.seconds)
    }
}

fn values(query: &SampleQuery, grid: &Grid, labels: Labels, column: Column) -> Series {
    let mut out = Series::empty(labels, grid.steps().count);
    match column.0 {
        Kind::Count(cells) => slide(&cells, query, grid, &mut out),
        Kind::Sum(cells) => slide(&cells, query, grid, &mut out),
        Kind::Least(cells) => slide(&cells, query, grid, &mut out),
        Kind::Greatest(cells) => slide(&cells, query, grid, &mut out),
        Kind::First(cells) => slide(&cells, query, grid, &mut out),
        Kind::Last(cells) => slide(&cells, query, grid, &mut out),
        Kind::Moments(cells) => slide(&cells, query, grid, &mut out),
        Kind::Values(cells) => {
            let q = query.aggregation().param.unwrap_or(f64::NAN);
            for step in 0..grid.steps().count {
                if let Some(all) = fold(&cells, grid.window(step)) {
                    out.set(step, all.quantile(q));
                }
            }
        }
        Kind::Placed(cells) => slide(&cells.map(Counter::of), query, grid, &mut out),
    }
    out
}

/// The value of one window, if it holds a sample.
fn value_at(window: &Window<'_>, panes: Range<u64>, column: &Column) -> Option<f64> {
    fn worth<T: Worth>(cells: &Cells<T>, panes: Range<u64>, window: &Window<'_>) -> Option<f64> {
        fold(cells, panes).map(|cell| cell.worth(window))
    }
    match &column.0 {
        Kind::Count(cells) => worth(cells, panes, window),
        Kind::Sum(cells) => worth(cells, panes, window),
        Kind::Least(cells) => worth(cells, panes, window),
        Kind::Greatest(cells) => worth(cells, panes, window),
        Kind::First(cells) => worth(cells, panes, window),
        Kind::Last(cells) => worth(cells, panes, window),
        Kind::Moments(cells) => worth(cells, panes, window),
        Kind::Values(cells) => {
            let q = window.aggregation.param.unwrap_or(f64::NAN);
            fold(cells, panes).map(|all| all.quantile(q))
        }
        Kind::Placed(cells) => fold(cells, panes).map(|all| Counter::of(all).worth(window)),
    }
}

/// The samples of some panes together, if there are any.
fn fold<T: Cell>(cells: &Cells<T>, panes: Range<u64>) -> Option<T> {
    let mut held = overlap(&panes, &cells.range()).filter_map(|pane| cells.get(pane));
    let mut sum = held.next()?.clone();
    held.for_each(|cell| {
        sum.merge(cell.clone());
    });
    Some(sum)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Sets the value of every window that holds a sample.
fn slide<T: Worth>(cells: &Cells<T>, query: &SampleQuery, grid: &Grid, out: &mut Series) {
    // The window is what `suffixes` and `back` hold: folds of the panes from each of `begin..turn` up to `turn`, and of `turn..end`.
    let (mut begin, mut turn, mut end) = (0, 0, 0);
    let mut suffixes: Vec<T> = Vec::new();
    let mut back = T::default();
    let fold = |into: &mut T, pane: u64| {
        if let Some(cell) = cells.get(pane) {
            into.merge(cell.clone());
        }
    };
    for step in 0..grid.steps().count {
        let window = overlap(&grid.window(step), &cells.range());
        if window.is_empty() {
            continue;
        }
        if window.start >= turn {
            // Nothing of the front is left: all that the window holds becomes the front.
            (begin, turn, end) = (window.start, window.end, window.end);
            suffixes.clear();
            let mut sum = T::default();
            for pane in window.clone().rev() {
                let mut with = T::default();
                fold(&mut with, pane);
                with.merge(sum);
                sum = with.clone();
                suffixes.push(with);
            }
            suffixes.reverse();
            back = T::default();
        } else {
            (end..window.end).for_each(|pane| fold(&mut back, pane));
            end = window.end;
        }
        let mut sum = suffixes.get((window.start - begin) as usize).cloned().unwrap_or_default();
        sum.merge(back.clone());
        if !sum.is_empty() {
            out.set(step, sum.worth(&Window::of(query, grid, step)));
        }
    }
}

fn of_moments(op: RangeOp, moments: &Moments) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53")]
    let variance = moments.squares / moments.count as f64;
    match op {
        RangeOp::AvgOverTime => moments.mean,
        RangeOp::StddevOverTime => variance.sqrt(),
        _ => variance,
    }
}

/// What a counter did in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    count: u64,
    first: (i64, f64),
    last: (i64, f64),
    /// What was counted before each time the counter began anew.
    resets: f64,
}

impl Counter {
    fn of(Placed(mut samples): Placed) -> Self {
        samples.sort_unstable_by_key(|(place, _)| *place);
        let mut counter = Self::default();
        for (place, value) in samples {
            counter.add(value, place);
        }
        counter
    }

    /// The rate per second over a window `(begin, end]` that its samples lie in, extrapolated towards the window's ends.
    fn rate(&self, begin: i64, end: i64, seconds: f64) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let secs = |from: i64, to: i64| to.saturating_sub(from) as f64 / 1e9;
        let delta = self.last.1 - self.first.1 + self.resets;
        let (mut to_start, mut to_end) = (secs(begin, self.first.0), secs(self.last.0, end));
        let span = secs(self.first.0, self.last.0);
        #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53")]
        let average = span / (self.count - 1) as f64;
        let threshold = average * 1.1;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if delta > 0.0 && self.first.1 >= 0.0 {
            // A counter is not negative: it cannot have begun earlier than where it was zero.
            to_start = to_start.min(span * self.first.1 / delta);
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        delta * ((span + to_start + to_end) / span) / seconds
    }
}

impl Cell for Counter {
    fn add(&mut self, value: f64, place: Place) -> usize {
        let sample = (place.timestamp, value);
        if self.count == 0 {
            self.first = sample;
        } else if value < self.last.1 {
            self.resets += self.last.1;
        }
        self.count += 1;
        self.last = sample;
        0
    }

    /// `later` lies wholly after this one.
    fn merge(&mut self, later: Self) -> usize {
        if self.count == 0 {
            *self = later;
        } else if later.count > 0 {
            if later.first.1 < self.last.1 {
                self.resets += self.last.1;
            }
            self.resets += later.resets;
            self.count += later.count;
            self.last = later.last;
        }
        0
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use tailwater_model::Timestamp;

    use super::*;
    use crate::ast::{Expr, MetricExpr};
    use crate::metric::Steps;

    const SECOND: i64 = 1_000_000_000;

    fn query(text: &str) -> SampleQuery {
        match crate::parse(text) {
            Ok(Expr::Metric(MetricExpr::Range(of))) => SampleQuery::compile(&of, None).unwrap(),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::keeping_empty(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
    }

    /// The samples of a series: seconds and values.
    fn column(query: &SampleQuery, grid: &Grid, samples: &[(i64, f64)]) -> Column {
        let mut column = query.column();
        for (seconds, value) in samples {
            let place = Place { timestamp: seconds * SECOND, ..Place::default() };
            if let Some(pane) = grid.pane(place.timestamp) {
                column.add(pane.number, *value, place, &mut 10_000).unwrap();
            }
        }
        column
    }

    fn steps(start: i64, end: i64, step: i64) -> Steps {
        Steps::range(Timestamp(start * SECOND), Timestamp(end * SECOND), step * SECOND)
    }

    /// The values of one series at 10 s, 20 s, …, 60 s.
    fn values_of(text: &str, samples: &[(i64, f64)]) -> Vec<Option<f64>> {
        let query = query(text);
        let grid = query.grid(steps(10, 60, 10));
        let found = series(&query, &grid, [(labels(&[]), column(&query, &grid, samples))]).unwrap();
        (0..6).map(|step| found.iter().find_map(|series| series.get(step))).collect()
    }

    #[test]
    fn a_step_has_a_value_if_its_window_holds_a_sample() {
        let samples = [(5, 1.0), (15, 2.0), (20, 4.0), (31, 0.0)];
        let sum = |range| values_of(&format!(r#"sum_over_time({{n="1"}} | unwrap v [{range}])"#), &samples);
        assert_eq!(sum("10s"), [Some(1.0), Some(6.0), None, Some(0.0), None, None]);
        assert_eq!(sum("30s"), [Some(1.0), Some(7.0), Some(7.0), Some(6.0), Some(0.0), Some(0.0)]);
        assert_eq!(sum("13s"), [Some(1.0), Some(6.0), Some(4.0), Some(0.0), None, None]);
        assert_eq!(sum("1h"), [Some(1.0), Some(7.0), Some(7.0), Some(7.0), Some(7.0), Some(7.0)]);
        assert_eq!(sum("0s"), [None; 6]);
    }

    #[test]
    fn a_series_that_is_never_there_is_not_told() {
        let query = query(r#"count_over_time({n="1"}[5s])"#);
        let grid = query.grid(steps(0, 10, 10));
        let error = labels(&[("__error__", "E")]);
        let found = series(&query, &grid, [(labels(&[]), query.column()), (error, query.column())]);
        assert!(found.is_ok_and(|found| found.is_empty()), "nor its error");
    }

    #[test]
    fn an_error_is_told_unless_it_is_asked_for() {
        let query = query(r#"count_over_time({n="1"}[5s])"#);
        let grid = query.grid(steps(0, 10, 10));
        let found =
            |pairs: &[(&str, &str)]| series(&query, &grid, [(labels(pairs), column(&query, &grid, &[(9, 1.0)]))]);
        let error = found(&[("__error__", "E"), ("a", "b")]).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "pipeline error: 'E' for series: '{__error__=\"E\", a=\"b\"}'.\nUse a label filter to intentionally skip this \
                 error. (e.g | __error__!=\"E\").\n"
            ),
            "{error}"
        );
        assert!(found(&[("__error__", "E"), ("__preserve_error__", "true")]).is_ok());
        assert!(found(&[("__error__", "E"), ("__preserve_error__", "false")]).is_err());
        assert!(found(&[("__error__", "")]).is_ok());
    }

    #[test]
    fn what_is_absent_has_the_labels_that_it_must_have_had() {
        let labels = |selector: &str| absent_labels(&query(&format!("absent_over_time({selector}[1m])"))).to_string();
        assert_eq!(labels(r#"{b="1", a="2", c=~"3", d!="4", e=""}"#), r#"{a="2", b="1"}"#);
        assert_eq!(labels(r#"{a="1", a="1", b="2", b!="3", c="4"}"#), r#"{c="4"}"#);
    }

    #[test]
    fn absence_is_one_where_nothing_is() {
        assert_eq!(
            values_of(r#"absent_over_time({n="1"}[10s])"#, &[(5, 1.0), (31, 0.0)]),
            [None, Some(1.0), Some(1.0), None, Some(1.0), Some(1.0)]
        );
    }

    #[test]
    fn a_counter_may_begin_anew() {
        let rate = |samples: &[(i64, f64)]| {
            values_of(r#"rate_counter({n="1"} | unwrap v [60s])"#, samples)[5]
                .map(|rate| (rate * 60.0 * 1e6).round() / 1e6)
        };
        // From 10 s to 50 s it grows by 40, towards both ends of the minute as much again per second.
        assert_eq!(rate(&[(10, 100.0), (20, 110.0), (30, 120.0), (40, 130.0), (50, 140.0)]), Some(60.0));
        // 10 up to the reset, 5 after it.
        assert_eq!(
            rate(&[(1, 10.0), (20, 20.0), (40, 0.0), (59, 5.0)]),
            rate(&[(1, 10.0), (20, 20.0), (40, 20.0), (59, 25.0)])
        );
        // It cannot have been there before it was zero.
        assert_eq!(rate(&[(10, 0.0), (60, 50.0)]), Some(50.0));
        assert_eq!((rate(&[(10, 5.0)]), rate(&[])), (Some(0.0), None));
    }
}

#[cfg(test)]
mod step_tests {
    use proptest::prelude::*;
    use tailwater_model::Timestamp;

    use super::super::series::Steps;
    use super::*;
    use crate::ast::{Expr, MetricExpr};

    const QUERIES: [&str; 12] = [
        r#"count_over_time({a="b"}[1s])"#,
        r#"rate({a="b"}[1s])"#,
        r#"absent_over_time({a="b"}[1s])"#,
        r#"bytes_over_time({a="b"}[1s])"#,
        r#"sum_over_time({a="b"} | unwrap v [1s])"#,
        r#"avg_over_time({a="b"} | unwrap v [1s])"#,
        r#"min_over_time({a="b"} | unwrap v [1s])"#,
        r#"max_over_time({a="b"} | unwrap v [1s])"#,
        r#"first_over_time({a="b"} | unwrap v [1s])"#,
        r#"last_over_time({a="b"} | unwrap v [1s])"#,
        r#"quantile_over_time(0.7, {a="b"} | unwrap v [1s])"#,
        r#"rate_counter({a="b"} | unwrap v [1s])"#,
    ];

    fn query(text: &str, range: u64, offset: i64) -> SampleQuery {
        let Ok(Expr::Metric(MetricExpr::Range(mut aggregation))) = crate::syntax::parse(text) else { panic!("{text}") };
        aggregation.range = std::time::Duration::from_nanos(range);
        aggregation.offset_nanos = offset;
        SampleQuery::compile(&aggregation, None).unwrap()
    }

    proptest! {
        /// One step of a grid has the values that all of them together have there, also when what lies before it is forgotten.
        #[test]
        fn a_step_alone_is_one_of_all(
            which in 0..QUERIES.len(), range in 1_u64..25, offset in -5_i64..5, step in 1_i64..12, count in 1_u32..15,
            samples in prop::collection::vec((80_i64..260, 0_u32..9), 0..60),
        ) {
            let query = query(QUERIES[which], range, offset);
            let grid = query.grid(Steps { start: Timestamp(100), step, count });
            let (mut column, mut room) = (query.column(), usize::MAX);
            for (index, (timestamp, value)) in (0..).zip(&samples) {
                if let Some(pane) = grid.pane(*timestamp) {
                    let place = Place { timestamp: *timestamp, index, ..Place::default() };
                    column.add(pane.number, f64::from(*value), place, &mut room).unwrap();
                }
            }
            let labels = Labels::from_pairs(vec![("a".into(), "b".into())]);
            let all = series(&query, &grid, [(labels.clone(), column.clone())]).unwrap();
            for i in 0..count {
                column.forget_before(grid.window(i).start);
                let one = series_at(&query, &grid, i, [(&labels, &column)]).unwrap();
                let at = |of: &[Series], i: u32| of.first().and_then(|series| series.get(i));
                let (wanted, got) = (at(&all, i), at(&one, 0));
                let equal = match (wanted, got) {
                    (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-12 || a.to_bits() == b.to_bits(),
                    (a, b) => a == b,
                };
                prop_assert!(equal, "step {}: {:?} and {:?}", i, wanted, got);
            }
        }
    }

    #[test]
    fn memory_is_given_back() {
        let query = query(QUERIES[10], 10, 0);
        let grid = query.grid(Steps { start: Timestamp(0), step: 10, count: 100 });
        let (mut column, mut room) = (query.column(), usize::MAX);
        for timestamp in 1..=1000 {
            let pane = grid.pane(timestamp - 10).unwrap();
            column.add(pane.number, timestamp as f64, Place::default(), &mut room).unwrap();
        }
        let full = column.memory();
        assert!(full >= 1000 * size_of::<f64>(), "{full}");
        column.forget_before(50);
        assert!(column.memory() < full - 400 * size_of::<f64>(), "{} of {full}", column.memory());
    }
}
