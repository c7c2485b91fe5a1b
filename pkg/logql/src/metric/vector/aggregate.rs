//! Aggregations over series: `sum by (…) (…)` and its like (contract, LogQL §13.1).
//!
//! A group has a value at every step at which one of its series has one; series are folded in their order.

use std::collections::BTreeMap;

use tailwater_model::Labels;

use super::error::EvaluationError;
use super::rows::{no_labels, restricted};
use super::{EvaluationLimits, rank};
use crate::ast::{Grouping, VectorAggregation, VectorOp};
use crate::metric::{Series, Steps};

pub(super) fn aggregate(
    of: &VectorAggregation,
    series: Vec<Series>,
    steps: Steps,
    limits: EvaluationLimits,
) -> Result<Vec<Series>, EvaluationError> {
    let grouping = of.grouping.as_ref();
    Ok(match of.op {
        VectorOp::Sort | VectorOp::SortDesc => rank::sorted(of.op, series, steps),
        VectorOp::Topk | VectorOp::Bottomk => {
            limits.check(&series, steps)?;
            let count = of.param.map_or(0, |k| usize::try_from(k).unwrap_or(0));
            rank::best(of.op, count, &series, &groups(&series, grouping), steps)
        }
        VectorOp::ApproxTopk => return Err(EvaluationError::NoApproxTopk),
        VectorOp::Sum
        | VectorOp::Avg
        | VectorOp::Min
        | VectorOp::Max
        | VectorOp::Count
        | VectorOp::Stddev
        | VectorOp::Stdvar => {
            let groups = groups(&series, grouping);
            let one = |(key, members): (&Labels, &Vec<usize>)| {
                let members = members.iter().filter_map(|&at| series.get(at));
                folded(of.op, answered_labels(key, grouping), members, steps)
            };
            groups.iter().map(one).collect()
        }
    })
}

/// The places of the series of each group, by the labels that tell groups apart.
fn groups(series: &[Series], grouping: Option<&Grouping>) -> BTreeMap<Labels, Vec<usize>> {
    let mut groups: BTreeMap<Labels, Vec<usize>> = BTreeMap::new();
    for (at, one) in series.iter().enumerate() {
        let key = match grouping {
            None => no_labels(),
            Some(Grouping { without: false, labels }) => restricted(&one.labels, |n, _| labels.iter().any(|l| l == n)),
            Some(Grouping { without: true, labels }) => {
                restricted(&one.labels, |n, _| n != "__name__" && labels.iter().all(|l| l != n))
            }
        };
        groups.entry(key).or_default().push(at);
    }
    groups
}

/// The labels of a group in the answer: labels without a value tell groups apart, but `without` does not show them.
fn answered_labels(key: &Labels, grouping: Option<&Grouping>) -> Labels {
    match grouping {
        Some(Grouping { without: true, .. }) => restricted(key, |_, value| !value.is_empty()),
        _ => key.clone(),
    }
}

fn folded<'a>(op: VectorOp, labels: Labels, members: impl Iterator<Item = &'a Series>, steps: Steps) -> Series {
    match op {
        VectorOp::Sum => fold(labels, members, steps, |v| v, |sum, v| sum + v, |sum| sum),
        VectorOp::Min => {
            fold(labels, members, steps, |v| v, |min, v| if v < min || min.is_nan() { v } else { min }, |min| min)
        }
        VectorOp::Max => {
            fold(labels, members, steps, |v| v, |max, v| if v > max || max.is_nan() { v } else { max }, |max| max)
        }
        VectorOp::Avg => fold(labels, members, steps, |v| (1.0, v), mean, |(_, mean)| mean),
        VectorOp::Stddev => fold(labels, members, steps, Moments::first, Moments::next, |m| m.variance().sqrt()),
        VectorOp::Stdvar => fold(labels, members, steps, Moments::first, Moments::next, |m| m.variance()),
        // The others choose among series and do not come here.
        _ => fold(labels, members, steps, |_| 1.0, |count, _| count + 1.0, |count| count),
    }
}

/// Folds the values of each step.
fn fold<'a, A: Copy>(
    labels: Labels,
    members: impl Iterator<Item = &'a Series>,
    steps: Steps,
    first: impl Fn(f64) -> A,
    next: impl Fn(A, f64) -> A,
    last: impl Fn(A) -> f64,
) -> Series {
    let mut folded: Vec<Option<A>> = vec![None; steps.count as usize];
    for series in members {
        for (step, value) in series.iter() {
            if let Some(slot) = folded.get_mut(step as usize) {
                *slot = Some(slot.map_or_else(|| first(value), |so_far| next(so_far, value)));
            }
        }
    }
    let mut out = Series::empty(labels, steps.count);
    for (step, value) in (0..).zip(folded) {
        if let Some(value) = value {
            out.set(step, last(value));
        }
    }
    out
}

/// The running mean of so many values, which does not overflow as a sum might. Infinity stays what it is until it meets its
/// opposite or NaN: the difference to it would be NaN.
fn mean((count, mean): (f64, f64), value: f64) -> (f64, f64) {
    let count = count + 1.0;
    let stays = mean.is_infinite() && (value.is_finite() || value == mean);
    (count, if stays { mean } else { mean + (value - mean) / count })
}

/// Mean and spread as Welford runs them.
#[derive(Clone, Copy)]
struct Moments {
    count: f64,
    mean: f64,
    /// The sum of squared differences from the mean.
    spread: f64,
}

impl Moments {
    fn first(value: f64) -> Self {
        Self { count: 1.0, mean: value, spread: 0.0 }
    }

    fn next(self, value: f64) -> Self {
        let count = self.count + 1.0;
        let off = value - self.mean;
        let mean = self.mean + off / count;
        Self { count, mean, spread: self.spread + off * (value - mean) }
    }

    /// Of the values as the whole population.
    fn variance(self) -> f64 {
        self.spread / self.count
    }
}
