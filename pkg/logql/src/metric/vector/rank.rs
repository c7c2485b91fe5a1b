//! Aggregations that order series or choose among them, and keep their labels: `sort`, `topk` and their like.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use tailwater_model::Labels;

use super::rows::{Row, is_instant};
use crate::ast::VectorOp;
use crate::metric::{Series, Steps};

/// Which of two values comes first. NaN comes last, whichever way numbers are ordered.
fn order(op: VectorOp, a: f64, b: f64) -> Ordering {
    let descending = matches!(op, VectorOp::Topk | VectorOp::SortDesc);
    let (first, second) = if descending { (b, a) } else { (a, b) };
    first.partial_cmp(&second).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// `sort` and `sort_desc`: an order of instant queries; the series of a range query have none by value.
pub(super) fn sorted(op: VectorOp, mut series: Vec<Series>, steps: Steps) -> Vec<Series> {
    if is_instant(steps) {
        let value = |series: &Series| series.get(0).unwrap_or(f64::NAN);
        series.sort_by(|a, b| order(op, value(a), value(b)));
    }
    series
}

/// `topk` and `bottomk`: the first `count` series of each group, step by step; of equal values, those that come first. In an
/// instant query they come in order of value.
pub(super) fn best(
    op: VectorOp,
    count: usize,
    series: &[Series],
    groups: &BTreeMap<Labels, Vec<usize>>,
    steps: Steps,
) -> Vec<Series> {
    let before = |&(a, at): &(f64, usize), &(b, bt): &(f64, usize)| order(op, a, b).then(at.cmp(&bt));
    let mut rows: Vec<Row> = series.iter().map(|_| Row::default()).collect();
    let mut by_value = Vec::new();
    let mut values: Vec<(f64, usize)> = Vec::new();
    for members in groups.values() {
        for step in 0..steps.count {
            values.clear();
            values.extend(members.iter().filter_map(|&at| Some((series.get(at)?.get(step)?, at))));
            if count < values.len() {
                values.select_nth_unstable_by(count, before);
                values.truncate(count);
            }
            if is_instant(steps) {
                values.sort_by(before);
                by_value.extend(values.iter().map(|&(_, at)| at));
            }
            for &(value, at) in &values {
                if let (Some(row), Some(from)) = (rows.get_mut(at), series.get(at)) {
                    row.set(&from.labels, steps, step, value);
                }
            }
        }
    }
    if !is_instant(steps) {
        return rows.into_iter().filter_map(Row::into_series).collect();
    }
    by_value.into_iter().filter_map(|at| std::mem::take(rows.get_mut(at)?).into_series()).collect()
}
