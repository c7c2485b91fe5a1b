//! From partial aggregates to a value per step: each window is the fold of its panes (contract, LogQL §12).
//!
//! Invariants: a step has a value exactly if a pane of its window holds a sample. However much windows overlap, each pane is folded a
//! constant number of times (two stacks, as in a queue made of them), but for quantiles, whose windows are gathered each anew.

use std::ops::Range;

use tailwater_model::Labels;

use super::column::{Cell, Cells, Column, Count, First, Greatest, Kind, Last, Least, Moments, Place, Placed, Sum};
use super::grid::Grid;
use super::quantile::quantile;
use super::sample::{SampleQuery, fatal_error};
use super::series::Series;
use crate::ast::{MatchOp, RangeOp};

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
    let op = query.aggregation().op;
    let mut found = Vec::new();
    for (labels, column) in columns {
        let error = fatal_error(&labels).map(str::to_owned);
        let series = values(query, grid, labels, column);
        if series.is_empty() {
            continue;
        }
        if let Some(error) = error {
            return Err(PipelineError { error, labels: series.labels });
        }
        found.push(series);
    }
    Ok(if op == RangeOp::AbsentOverTime { vec![absent(query, grid, &found)] } else { found })
}

/// One where no series has a value.
fn absent(query: &SampleQuery, grid: &Grid, found: &[Series]) -> Series {
    let steps = grid.steps().count;
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

fn values(query: &SampleQuery, grid: &Grid, labels: Labels, column: Column) -> Series {
    let aggregation = query.aggregation();
    let seconds = aggregation.range.as_secs_f64();
    let is_rate = matches!(aggregation.op, RangeOp::Rate | RangeOp::BytesRate);
    let per = if is_rate { seconds } else { 1.0 };
    let mut out = Series::empty(labels, grid.steps().count);
    match column.0 {
        #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53")]
        Kind::Count(cells) => slide(&cells, grid, &mut out, |_, Count(n)| *n as f64 / per),
        Kind::Sum(cells) => slide(&cells, grid, &mut out, |_, Sum { sum, .. }| sum / per),
        Kind::Least(cells) => slide(&cells, grid, &mut out, |_, Least(v)| v.unwrap_or(f64::NAN)),
        Kind::Greatest(cells) => slide(&cells, grid, &mut out, |_, Greatest(v)| v.unwrap_or(f64::NAN)),
        Kind::First(cells) => slide(&cells, grid, &mut out, |_, First(v)| v.map_or(f64::NAN, |(_, v)| v)),
        Kind::Last(cells) => slide(&cells, grid, &mut out, |_, Last(v)| v.map_or(f64::NAN, |(_, v)| v)),
        Kind::Moments(cells) => slide(&cells, grid, &mut out, |_, moments| of_moments(aggregation.op, moments)),
        Kind::Values(cells) => {
            let mut gathered = Vec::new();
            for step in 0..grid.steps().count {
                gathered.clear();
                for pane in overlap(&grid.window(step), &cells.range()) {
                    gathered.extend_from_slice(cells.get(pane).map_or(&[], |values| values.runs()));
                }
                if !gathered.is_empty() {
                    out.set(step, quantile(aggregation.param.unwrap_or(f64::NAN), &mut gathered));
                }
            }
        }
        Kind::Placed(cells) => {
            let counters = cells.map(Counter::of);
            slide(&counters, grid, &mut out, |step, counter| {
                let end = grid.steps().time(step).nanos().saturating_sub(aggregation.offset_nanos);
                counter.rate(end.saturating_sub(grid.range()), end, seconds)
            });
        }
    }
    out
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Sets the value of every window that holds a sample.
fn slide<T: Cell>(cells: &Cells<T>, grid: &Grid, out: &mut Series, value: impl Fn(u32, &T) -> f64) {
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
            out.set(step, value(step, &sum));
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
