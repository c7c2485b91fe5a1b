//! What must hold of an expression that is well-formed, found out as soon as it is built and told when the whole text was read.

use super::checks;
use crate::ast::{Grouping, MatchOp, Matcher, RangeOp, Unwrap, VectorOp};
use crate::error::Error;
use crate::go::number;
use crate::regex;

const SELECTS_NOTHING: &str = "queries require at least one regexp or equality matcher that does not have an empty-compatible \
    value. For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will";

/// At least one matcher refuses the empty value: otherwise the query would be about every stream there is.
pub(crate) fn selector(matchers: &[Matcher]) -> Result<(), Error> {
    for matcher in matchers {
        let accepts_empty = match matcher.op {
            MatchOp::Eq => matcher.value.as_bytes().is_empty(),
            MatchOp::Neq => !matcher.value.as_bytes().is_empty(),
            MatchOp::Re | MatchOp::NotRe => matches_empty(matcher)?,
        };
        if !accepts_empty {
            return Ok(());
        }
    }
    Err(Error::invalid(SELECTS_NOTHING))
}

fn matches_empty(matcher: &Matcher) -> Result<bool, Error> {
    let matches = regex::anchored(&matcher.value.0, true).map_err(Error::Invalid)?.is_match(b"");
    Ok(matches == (matcher.op == MatchOp::Re))
}

/// The parameter, the grouping and the unwrap of a range aggregation; gives the parameter.
pub(crate) fn range(
    op: RangeOp,
    parameter: Option<&str>,
    grouping: Option<&Grouping>,
    unwrap: Option<&Unwrap>,
) -> Result<Option<f64>, Error> {
    let parameter = match (parameter, op) {
        (Some(text), RangeOp::QuantileOverTime) => Some(
            number::parse_float(text)
                .map_err(|e| Error::invalid(format!("invalid parameter for operation {op}: {e}")))?,
        ),
        (Some(text), _) => return Err(Error::invalid(format!("parameter {text} not supported for operation {op}"))),
        (None, RangeOp::QuantileOverTime) => {
            return Err(Error::invalid(format!("parameter required for operation {op}")));
        }
        (None, _) => None,
    };
    if grouping.is_some() && !may_group(op) {
        return Err(Error::invalid(format!("grouping not allowed for {op} aggregation")));
    }
    match unwrap {
        Some(_) if !of_values(op) => Err(Error::invalid(format!("invalid aggregation {op} with unwrap"))),
        None if !of_lines(op) => Err(Error::invalid(format!("invalid aggregation {op} without unwrap"))),
        _ => Ok(parameter),
    }
}

fn may_group(op: RangeOp) -> bool {
    use RangeOp::*;
    matches!(
        op,
        AvgOverTime
            | StddevOverTime
            | StdvarOverTime
            | QuantileOverTime
            | MaxOverTime
            | MinOverTime
            | FirstOverTime
            | LastOverTime
    )
}

fn of_values(op: RangeOp) -> bool {
    !matches!(op, RangeOp::CountOverTime | RangeOp::BytesOverTime | RangeOp::BytesRate)
}

fn of_lines(op: RangeOp) -> bool {
    use RangeOp::*;
    matches!(op, CountOverTime | BytesOverTime | Rate | BytesRate | AbsentOverTime)
}

/// The parameter and the grouping of a vector aggregation; gives the parameter. The unbalanced parentheses are Loki's.
pub(crate) fn vector(op: VectorOp, parameter: Option<&str>, grouping: Option<&Grouping>) -> Result<Option<i64>, Error> {
    let limited = matches!(op, VectorOp::Topk | VectorOp::Bottomk | VectorOp::ApproxTopk);
    let parameter = match parameter {
        Some(text) if limited => match number::atoi(text) {
            Ok(count) if count > 0 => Some(count),
            Ok(_) => return Err(Error::invalid(format!("invalid parameter (must be greater than 0) {op}({text}"))),
            Err(_) => return Err(Error::invalid(format!("invalid parameter {op}({text},"))),
        },
        Some(text) => return Err(Error::invalid(format!("unsupported parameter for operation {op}({text},"))),
        None if limited => return Err(Error::invalid(format!("parameter required for operation {op}"))),
        None => None,
    };
    match (op, grouping) {
        (VectorOp::ApproxTopk, Some(_)) => Err(Error::invalid(format!("grouping not allowed for {op} aggregation"))),
        (VectorOp::Sort | VectorOp::SortDesc, Some(grouping)) if !grouping.labels.is_empty() => {
            Err(Error::invalid("sort and sort_desc doesn't allow grouping by "))
        }
        _ => Ok(parameter),
    }
}

/// The regular expression of `label_replace`.
pub(crate) fn replacement(pattern: &[u8]) -> Result<(), Error> {
    let anchored = [b"^(?:", pattern, b")$"].concat();
    checks::regex(&anchored).map_err(|e| Error::invalid(format!("invalid regex in label_replace: {e}")))
}
