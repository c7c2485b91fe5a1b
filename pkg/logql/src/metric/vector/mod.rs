//! The vector level of metric queries: from the series of all range aggregations to the answer (contract, LogQL §13, §14).
//!
//! Operators work on whole series, one after the other, operands first; what depends on labels only, as groups, signatures
//! and result labels, is found out once per series and not per step. What a step gives depends on that step alone all the
//! same: a series without a value at a step does not take part in it, neither in sums nor in matches that are no matches.
//!
//! Nothing here recurses. Memory grows with series times steps of the operands that are in work.

mod aggregate;
mod binary;
mod error;
mod leaves;
mod matching;
mod rank;
mod replace;
mod rows;

use super::{Series, Steps};
use crate::ast::{MetricExpr, VectorOp};
pub use error::{EvaluationError, EvaluationErrorKind};
pub use leaves::{Leaf, leaves};
use rows::{is_instant, tidy};
use tailwater_model::Labels;

/// What an evaluation may use.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationLimits {
    /// Most series of the answer, and of what `topk` and `bottomk` choose from; 0 is no limit.
    pub max_query_series: u32,
}

impl EvaluationLimits {
    /// Series with equal labels are listed each in an instant query, and are one in a range query.
    fn check(self, series: &[Series], steps: Steps) -> Result<(), EvaluationError> {
        let equal = |a: &Series, b: &Series| !is_instant(steps) && a.labels == b.labels;
        let limit = self.max_query_series;
        if limit > 0 && series.chunk_by(equal).count() > limit as usize {
            return Err(EvaluationError::TooManySeries { limit });
        }
        Ok(())
    }
}

/// The answer of a metric query.
#[derive(Clone, Debug)]
pub enum Evaluated {
    /// A number: only of an instant query that is one.
    Scalar(f64),
    /// Series in the order of the answer, each with a value somewhere. In a range query, neighbours with equal labels are one
    /// series of the answer: see [`answered`].
    Series(Vec<Series>),
}

/// Series on the way, or a number that has not met any.
enum Value {
    Scalar(f64),
    Series(Vec<Series>),
}

/// Refuses what has no answer, whatever the lines: what [`evaluate`] would refuse, found out before they are read.
///
/// # Errors
/// [`EvaluationError::NoApproxTopk`].
pub fn check(expr: &MetricExpr) -> Result<(), EvaluationError> {
    let approximate = |node: &&MetricExpr| matches!(node, MetricExpr::Vector(of) if of.op == VectorOp::ApproxTopk);
    if leaves::nodes(expr).iter().any(approximate) { Err(EvaluationError::NoApproxTopk) } else { Ok(()) }
}

/// The answer of an expression. `leaves` are the series of its range aggregations in the order of [`leaves()`], each with as many
/// steps as `steps` has; one that is missing has no series.
///
/// It is an instant query if `steps.step` is 0. Then a number is answered as a number, series are sorted by labels unless `sort`
/// or `sort_desc` is anywhere in the expression, and series that `label_replace` has made equal are all listed. In a range query
/// a number is a series without labels, and series are sorted by labels.
///
/// # Errors
/// See [`EvaluationError`]. An operator fails if it fails at one step; if several do, it is unspecified which is told.
pub fn evaluate(
    expr: &MetricExpr,
    steps: Steps,
    leaves: Vec<Vec<Series>>,
    limits: EvaluationLimits,
) -> Result<Evaluated, EvaluationError> {
    check(expr)?;
    let nodes = leaves::nodes(expr);
    let mut leaves = leaves.into_iter();
    let mut values: Vec<Value> = Vec::new();
    for node in &nodes {
        // An operator takes its operands, which were made before it, from the end.
        let mut operand = || values.pop().unwrap_or(Value::Series(Vec::new()));
        let value = match node {
            MetricExpr::Range(_) => Value::Series(leaf(leaves.next().unwrap_or_default())),
            MetricExpr::Literal(value) => Value::Scalar(*value),
            MetricExpr::VectorLiteral(value) => Value::Series(Value::Scalar(*value).into_series(steps)),
            MetricExpr::Vector(of) => {
                Value::Series(aggregate::aggregate(of, operand().into_series(steps), steps, limits)?)
            }
            MetricExpr::LabelReplace(of) => Value::Series(replace::label_replace(of, operand().into_series(steps))?),
            MetricExpr::Binary(of) => {
                let (right, left) = (operand(), operand());
                binary::binary(of, left, right, steps)?
            }
        };
        values.push(match value {
            Value::Series(series) => Value::Series(tidy(series, steps)),
            number => number,
        });
    }
    let mut series = match values.pop() {
        Some(Value::Scalar(value)) if is_instant(steps) => return Ok(Evaluated::Scalar(value)),
        Some(value) => value.into_series(steps),
        None => Vec::new(),
    };
    let sorts = |node: &&MetricExpr| match node {
        MetricExpr::Vector(of) => matches!(of.op, VectorOp::Sort | VectorOp::SortDesc),
        _ => false,
    };
    if is_instant(steps) && !nodes.iter().any(sorts) {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
    limits.check(&series, steps)?;
    Ok(Evaluated::Series(series))
}

/// The series of a range aggregation, in an order that does not depend on how they were found.
fn leaf(mut series: Vec<Series>) -> Vec<Series> {
    series.retain(|series| !series.is_empty());
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

/// The series of the answer of a range query, and their points in order of time. `label_replace` and `without` may make several
/// series equal; their points are one series then, which has several of them at a step at which several have a value.
pub fn answered(series: &[Series]) -> impl Iterator<Item = (&Labels, impl Iterator<Item = (u32, f64)> + '_)> {
    series.chunk_by(|a, b| a.labels == b.labels).filter_map(|equal| {
        let steps = equal.iter().map(Series::steps).max().unwrap_or(0);
        let at = move |step| equal.iter().filter_map(move |series| Some((step, series.get(step)?)));
        Some((&equal.first()?.labels, (0..steps).flat_map(at)))
    })
}

#[cfg(test)]
mod tests;
