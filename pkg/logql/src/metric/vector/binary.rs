//! Operators between two numbers, a number and series, and series and series (contract, LogQL §13.2).

use super::error::EvaluationError;
use super::rows::{map, no_labels};
use super::{Value, matching};
use crate::ast::{BinOp, BinaryOp, VectorMatching};
use crate::metric::{Series, Steps};
use crate::syntax::operators::{arithmetic, compare};

/// What an operator makes of two values.
#[derive(Clone, Copy)]
pub(super) struct Operator {
    op: BinOp,
    return_bool: bool,
}

impl Operator {
    /// The result, `None` if a comparison does not hold; if it holds it is `kept`.
    pub(super) fn apply(self, left: f64, right: f64, kept: f64) -> Option<f64> {
        match compare(self.op, left, right) {
            // Set operators, which are neither, pair series in `matching`.
            None => Some(arithmetic(self.op, left, right).unwrap_or(f64::NAN)),
            Some(holds) if self.return_bool => Some(f64::from(u8::from(holds))),
            Some(holds) => holds.then_some(kept),
        }
    }
}

pub(super) fn binary(of: &BinaryOp, left: Value, right: Value, steps: Steps) -> Result<Value, EvaluationError> {
    let operator = Operator { op: of.op, return_bool: of.return_bool };
    let set = matches!(of.op, BinOp::And | BinOp::Or | BinOp::Unless);
    Ok(match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) if !set => {
            // The parser has folded these, so that none comes here; there is nothing to filter, so `bool` goes without saying.
            Value::Scalar(Operator { return_bool: true, ..operator }.apply(left, right, left).unwrap_or(f64::NAN))
        }
        // A comparison keeps the value of the series, whichever side it is on.
        (Value::Series(left), Value::Scalar(right)) if !set => {
            Value::Series(map(left, steps, |_, value| operator.apply(value, right, value)))
        }
        (Value::Scalar(left), Value::Series(right)) if !set => {
            Value::Series(map(right, steps, |_, value| operator.apply(left, value, value)))
        }
        (left, right) => {
            let (left, right) = (left.into_series(steps), right.into_series(steps));
            let any = VectorMatching::default();
            let matching = of.matching.as_ref().unwrap_or(&any);
            Value::Series(match of.op {
                BinOp::And => matching::with_match(left, &right, matching, steps, true),
                BinOp::Unless => matching::with_match(left, &right, matching, steps, false),
                BinOp::Or => matching::either(left, right, matching, steps),
                _ => matching::paired(operator, &left, &right, matching, steps)?,
            })
        }
    })
}

impl Value {
    /// A number as series: one without labels.
    pub(super) fn into_series(self, steps: Steps) -> Vec<Series> {
        match self {
            Self::Scalar(value) => vec![Series::constant(no_labels(), steps.count, value)],
            Self::Series(series) => series,
        }
    }
}
