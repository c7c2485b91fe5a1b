//! Metric expressions without log lines: literals, `vector()`, and what operators, aggregations and `label_replace` make of
//! them (contract, LogQL §13). Their value is the same at every time. Grafana's health check, `vector(1)+vector(1)`, is one.

use tailwater_logql::ast::{
    BinOp, BinaryOp, Grouping, LabelReplace, MetricExpr, VectorAggregation, VectorMatching, VectorOp,
};
use tailwater_logql::{ast::GroupSide, regex};
use tailwater_model::Labels;

use crate::answer::Failure;

/// Longest value that `label_replace` makes, in bytes.
const MAX_REPLACED_BYTES: usize = 1 << 20;

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    /// A number.
    Scalar(f64),
    /// Series with a value each, in the order of the answer.
    Vector(Vec<(Labels, f64)>),
}

type Series = Vec<(Labels, f64)>;

/// Whether an expression needs log lines.
pub(super) fn reads_logs(expr: &MetricExpr) -> bool {
    match expr {
        MetricExpr::Range(_) => true,
        MetricExpr::Vector(of) => reads_logs(&of.inner),
        MetricExpr::Binary(of) => reads_logs(&of.left) || reads_logs(&of.right),
        MetricExpr::LabelReplace(of) => reads_logs(&of.inner),
        MetricExpr::Literal(_) | MetricExpr::VectorLiteral(_) => false,
    }
}

/// The value of an expression that needs no log lines.
///
/// # Errors
/// 500, as Loki: operands that do not match one to one.
pub(super) fn evaluate(expr: &MetricExpr) -> Result<Constant, Failure> {
    let mut value = value_of(expr)?;
    if let Constant::Vector(series) = &mut value
        && !sorts(expr)
    {
        series.sort_by(|(a, _), (b, _)| a.iter().cmp(b.iter()));
    }
    Ok(value)
}

/// Whether the order is asked for anywhere in the expression.
fn sorts(expr: &MetricExpr) -> bool {
    match expr {
        MetricExpr::Vector(of) => matches!(of.op, VectorOp::Sort | VectorOp::SortDesc) || sorts(&of.inner),
        MetricExpr::Binary(of) => sorts(&of.left) || sorts(&of.right),
        MetricExpr::LabelReplace(of) => sorts(&of.inner),
        MetricExpr::Range(_) | MetricExpr::Literal(_) | MetricExpr::VectorLiteral(_) => false,
    }
}

fn value_of(expr: &MetricExpr) -> Result<Constant, Failure> {
    Ok(match expr {
        MetricExpr::Literal(value) => Constant::Scalar(*value),
        MetricExpr::VectorLiteral(value) => Constant::Vector(vec![(no_labels(), *value)]),
        MetricExpr::Vector(of) => Constant::Vector(aggregate(of)?),
        MetricExpr::Binary(of) => binary(of)?,
        MetricExpr::LabelReplace(of) => Constant::Vector(label_replace(of)?),
        // Excluded by `reads_logs`; without lines there are no series.
        MetricExpr::Range(_) => Constant::Vector(Vec::new()),
    })
}

fn series_of(expr: &MetricExpr) -> Result<Series, Failure> {
    Ok(match value_of(expr)? {
        Constant::Scalar(value) => vec![(no_labels(), value)],
        Constant::Vector(series) => series,
    })
}

fn no_labels() -> Labels {
    Labels::from_pairs(Vec::new())
}

fn restricted(labels: &Labels, keep: impl Fn(&str, &str) -> bool) -> Labels {
    Labels::from_pairs(labels.iter().filter(|(n, v)| keep(n, v)).map(|(n, v)| (n.into(), v.into())).collect())
}

fn aggregate(of: &VectorAggregation) -> Result<Series, Failure> {
    if of.op == VectorOp::ApproxTopk {
        return Err(Failure::internal("approx_topk is not enabled. See -limits.shard_aggregations"));
    }
    let series = series_of(&of.inner)?;
    let order = |a: &f64, b: &f64| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    match of.op {
        VectorOp::Sort | VectorOp::SortDesc => {
            let mut series = series;
            series.sort_by(|(_, a), (_, b)| match (of.op, a.is_nan() || b.is_nan()) {
                (VectorOp::SortDesc, false) => order(b, a),
                _ => order(a, b),
            });
            return Ok(series);
        }
        _ => {}
    }
    let mut groups: Vec<(Labels, Series)> = Vec::new();
    for (labels, value) in series {
        let key = group_of(&labels, of.grouping.as_ref());
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, members)) => members.push((labels, value)),
            None => groups.push((key, vec![(labels, value)])),
        }
    }
    let mut out = Vec::new();
    for (key, mut members) in groups {
        if let VectorOp::Topk | VectorOp::Bottomk = of.op {
            // Numbers before NaN, either way.
            members.sort_by(|(_, a), (_, b)| match (of.op, a.is_nan() || b.is_nan()) {
                (VectorOp::Topk, false) => order(b, a),
                _ => order(a, b),
            });
            members.truncate(of.param.map_or(0, |k| usize::try_from(k).unwrap_or(0)));
            out.append(&mut members);
        } else {
            let values: Vec<f64> = members.into_iter().map(|(_, value)| value).collect();
            out.push((key, fold(of.op, &values)));
        }
    }
    Ok(out)
}

fn group_of(labels: &Labels, grouping: Option<&Grouping>) -> Labels {
    match grouping {
        None => no_labels(),
        Some(Grouping { without: false, labels: names }) => {
            restricted(labels, |n, _| names.iter().any(|name| name == n))
        }
        Some(Grouping { without: true, labels: names }) => {
            restricted(labels, |n, v| !v.is_empty() && n != "__name__" && names.iter().all(|name| name != n))
        }
    }
}

fn fold(op: VectorOp, values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = || {
        let mut mean = 0.0;
        for (n, value) in values.iter().enumerate() {
            mean += (value - mean) / (n as f64 + 1.0);
        }
        mean
    };
    let variance = || {
        let mean = mean();
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count
    };
    match op {
        VectorOp::Sum => values.iter().sum(),
        VectorOp::Avg => mean(),
        VectorOp::Min => values.iter().copied().fold(f64::NAN, f64::min),
        VectorOp::Max => values.iter().copied().fold(f64::NAN, f64::max),
        VectorOp::Count => count,
        VectorOp::Stddev => variance().sqrt(),
        VectorOp::Stdvar => variance(),
        VectorOp::Topk | VectorOp::Bottomk | VectorOp::ApproxTopk | VectorOp::Sort | VectorOp::SortDesc => f64::NAN,
    }
}

/// Whether a comparison holds; `None` if the operator is not one.
fn compare(op: BinOp, l: f64, r: f64) -> Option<bool> {
    Some(match op {
        BinOp::Eq => l == r,
        BinOp::Neq => l != r,
        BinOp::Gt => l > r,
        BinOp::Gte => l >= r,
        BinOp::Lt => l < r,
        BinOp::Lte => l <= r,
        _ => return None,
    })
}

fn arithmetic(op: BinOp, l: f64, r: f64) -> f64 {
    match op {
        BinOp::Add => l + r,
        BinOp::Sub => l - r,
        BinOp::Mul => l * r,
        // As Loki: never infinite.
        BinOp::Div | BinOp::Mod if r == 0.0 => f64::NAN,
        BinOp::Div => l / r,
        BinOp::Mod => l % r,
        BinOp::Pow => l.powf(r),
        _ => f64::NAN,
    }
}

fn as_number(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

fn binary(of: &BinaryOp) -> Result<Constant, Failure> {
    let (left, right) = (value_of(&of.left)?, value_of(&of.right)?);
    // A comparison of a vector with a number keeps the vector's value.
    let one = |l: f64, r: f64, kept: f64| match compare(of.op, l, r) {
        None => Some(arithmetic(of.op, l, r)),
        Some(holds) if of.return_bool => Some(as_number(holds)),
        Some(holds) => holds.then_some(kept),
    };
    Ok(match (left, right) {
        (Constant::Scalar(l), Constant::Scalar(r)) => {
            Constant::Scalar(compare(of.op, l, r).map_or_else(|| arithmetic(of.op, l, r), as_number))
        }
        (Constant::Vector(l), Constant::Scalar(r)) => {
            Constant::Vector(l.into_iter().filter_map(|(labels, v)| Some((labels, one(v, r, v)?))).collect())
        }
        (Constant::Scalar(l), Constant::Vector(r)) => {
            Constant::Vector(r.into_iter().filter_map(|(labels, v)| Some((labels, one(l, v, v)?))).collect())
        }
        (Constant::Vector(l), Constant::Vector(r)) => Constant::Vector(vectors(of, l, r)?),
    })
}

fn vectors(of: &BinaryOp, left: Series, right: Series) -> Result<Series, Failure> {
    let all = VectorMatching::default();
    let matching = of.matching.as_ref().unwrap_or(&all);
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    let signature = |labels: &Labels| restricted(labels, |n, v| !v.is_empty() && named(n) == matching.on);
    let has = |series: &Series, wanted: &Labels| series.iter().any(|(labels, _)| signature(labels) == *wanted);
    match of.op {
        BinOp::And => return Ok(left.into_iter().filter(|(l, _)| has(&right, &signature(l))).collect()),
        BinOp::Unless => return Ok(left.into_iter().filter(|(l, _)| !has(&right, &signature(l))).collect()),
        BinOp::Or => {
            let more: Series = right.into_iter().filter(|(r, _)| !has(&left, &signature(r))).collect();
            return Ok(left.into_iter().chain(more).collect());
        }
        _ => {}
    }
    let swapped = matching.group == Some(GroupSide::Right);
    let (many, one, side) = if swapped { (right, left, "left") } else { (left, right, "right") };
    let mut by_signature: Vec<(Labels, &Labels, f64)> = Vec::new();
    for (labels, value) in &one {
        let key = signature(labels);
        if by_signature.iter().any(|(k, ..)| *k == key) {
            let text = format!(
                "found duplicate series on the {side} hand-side;many-to-many matching not allowed: matching labels must be \
                 unique on one side"
            );
            return Err(Failure::internal(text));
        }
        by_signature.push((key, labels, value.to_owned()));
    }
    let mut out: Series = Vec::new();
    let mut used: Vec<Labels> = Vec::new();
    for (labels, value) in &many {
        let key = signature(labels);
        let Some((_, other, other_value)) = by_signature.iter().find(|(k, ..)| *k == key) else { continue };
        let (l, r) = if swapped { (*other_value, *value) } else { (*value, *other_value) };
        let value = match compare(of.op, l, r) {
            None => arithmetic(of.op, l, r),
            Some(holds) if of.return_bool => as_number(holds),
            Some(true) => l,
            Some(false) => continue,
        };
        let labels = result_labels(labels, other, matching);
        if matching.group.is_none() && used.contains(&key) {
            let text = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
            return Err(Failure::internal(text));
        }
        if matching.group.is_some() && out.iter().any(|(l, _)| *l == labels) {
            return Err(Failure::internal("multiple matches for labels: grouping labels must ensure unique matches"));
        }
        used.push(key);
        out.push((labels, value));
    }
    Ok(out)
}

fn result_labels(many: &Labels, one: &Labels, matching: &VectorMatching) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.group.is_none() {
        return restricted(many, |n, v| !v.is_empty() && named(n) == matching.on);
    }
    let included = |name: &str| matching.include.iter().any(|label| label == name);
    let own = many.iter().filter(|(n, v)| !v.is_empty() && !included(n));
    let taken = one.iter().filter(|(n, v)| !v.is_empty() && included(n));
    Labels::from_pairs(own.chain(taken).map(|(n, v)| (n.into(), v.into())).collect())
}

fn label_replace(of: &LabelReplace) -> Result<Series, Failure> {
    let pattern = [b"^(?:".as_slice(), of.regex.as_bytes(), b")$"].concat();
    let regex = regex::captures(&pattern).map_err(Failure::bad_request)?;
    let mut groups = regex.groups();
    let (src, dst) = (of.src.to_str_lossy(), of.dst.to_str_lossy());
    let mut out = Vec::new();
    for (labels, value) in series_of(&of.inner)? {
        let source = labels.get(&src).unwrap_or_default().as_bytes();
        if !regex.find(source, &mut groups) {
            out.push((labels, value));
            continue;
        }
        let mut replacement = Vec::new();
        regex.expand(source, &groups, of.replacement.as_bytes(), MAX_REPLACED_BYTES, &mut replacement);
        if replacement.len() > MAX_REPLACED_BYTES {
            let text = format!("label_replace makes a value of more than {MAX_REPLACED_BYTES} bytes");
            return Err(Failure::bad_request(text));
        }
        let replacement = String::from_utf8_lossy(&replacement);
        let kept = labels.iter().filter(|(n, v)| !v.is_empty() && *n != dst);
        let set = (!replacement.is_empty()).then_some((&*dst, &*replacement));
        out.push((Labels::from_pairs(kept.chain(set).map(|(n, v)| (n.into(), v.into())).collect()), value));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_logql::ast::Expr;

    #[test]
    fn label_replace_does_not_grow_without_bound() {
        let grow = |inner: &str| format!(r#"label_replace({inner}, "a", "{}", "a", "(.*)")"#, "x${1}".repeat(300));
        let query = grow(&grow(&grow(&grow("vector(1)"))));
        assert!(eval(&query).unwrap_err().contains("more than 1048576 bytes"));
        assert!(eval(&grow("vector(1)")).is_ok());
    }

    fn eval(query: &str) -> Result<Constant, String> {
        let Ok(Expr::Metric(expr)) = tailwater_logql::parse(query) else { panic!("{query}") };
        assert!(!reads_logs(&expr));
        evaluate(&expr).map_err(|failure| failure.text)
    }

    fn vector(series: &[(&[(&str, &str)], f64)]) -> Result<Constant, String> {
        let labels = |pairs: &[(&str, &str)]| {
            Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
        };
        Ok(Constant::Vector(series.iter().map(|(pairs, value)| (labels(pairs), *value)).collect()))
    }

    #[test]
    fn numbers_and_single_series() {
        assert_eq!(eval("1 + 2 * 3 - 4 / 2"), Ok(Constant::Scalar(5.0)));
        assert_eq!(eval("vector(1)+vector(1)"), vector(&[(&[], 2.0)]));
        assert_eq!(eval("vector(1) + 2"), vector(&[(&[], 3.0)]));
        assert_eq!(eval("10 - vector(4)"), vector(&[(&[], 6.0)]));
        assert_eq!(eval("3 > vector(2)"), vector(&[(&[], 2.0)]));
        assert_eq!(eval("vector(1) > 2"), vector(&[]));
        assert_eq!(eval("vector(1) > bool 2"), vector(&[(&[], 0.0)]));
        assert_eq!(eval("vector(1) and vector(2)"), vector(&[(&[], 1.0)]));
        assert_eq!(eval("vector(1) or vector(2)"), vector(&[(&[], 1.0)]));
        assert_eq!(eval("vector(1) unless vector(2)"), vector(&[]));
        assert_eq!(eval("sum(vector(5))"), vector(&[(&[], 5.0)]));
        assert_eq!(eval("count(vector(5)) + avg(vector(4)) * stddev(vector(3))"), vector(&[(&[], 1.0)]));
        assert_eq!(eval("topk(1, vector(5))"), vector(&[(&[], 5.0)]));
        let Ok(Constant::Vector(nan)) = eval("vector(1) / 0") else { panic!() };
        assert!(nan[0].1.is_nan());
    }

    #[test]
    fn labels_come_from_label_replace() {
        assert_eq!(eval(r#"label_replace(vector(1), "a", "b", "", "")"#), vector(&[(&[("a", "b")], 1.0)]));
        let two = r#"(label_replace(vector(1), "a", "x", "", "") or label_replace(vector(2), "a", "y", "", ""))"#;
        assert_eq!(eval(two), vector(&[(&[("a", "x")], 1.0), (&[("a", "y")], 2.0)]));
        assert_eq!(eval(&format!("sum({two})")), vector(&[(&[], 3.0)]));
        assert_eq!(eval(&format!("sort_desc({two})")), vector(&[(&[("a", "y")], 2.0), (&[("a", "x")], 1.0)]));
        assert_eq!(eval(&format!("max by (a) ({two})")), vector(&[(&[("a", "x")], 1.0), (&[("a", "y")], 2.0)]));
        assert_eq!(eval(&format!("bottomk(1, {two})")), vector(&[(&[("a", "x")], 1.0)]));
        assert_eq!(eval(&format!("{two} * on (a) {two}")), vector(&[(&[("a", "x")], 1.0), (&[("a", "y")], 4.0)]));
        assert_eq!(
            eval(&format!("{two} * on () group_left () vector(10)")),
            vector(&[(&[("a", "x")], 10.0), (&[("a", "y")], 20.0)])
        );
        assert!(eval(&format!("{two} * on () vector(10)")).unwrap_err().contains("many-to-one"));
        assert!(eval(&format!("vector(10) * on () {two}")).unwrap_err().contains("many-to-many"));
        assert!(eval(&format!("approx_topk(1, {two})")).unwrap_err().starts_with("approx_topk is not enabled"));
        let replaced = eval(&format!(r#"label_replace({two}, "b", "<$1>", "a", "(x)")"#));
        assert_eq!(replaced, vector(&[(&[("a", "x"), ("b", "<x>")], 1.0), (&[("a", "y")], 2.0)]));
    }
}
