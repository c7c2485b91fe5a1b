//! The parts of an expression in the order in which they are evaluated, and which of them read log lines.
//!
//! Nothing here recurses.

use crate::ast::{Grouping, MetricExpr, RangeAggregation, RangeOp, VectorOp};

/// A range aggregation of an expression, and what its surroundings let it forget.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf<'a> {
    /// The aggregation.
    pub aggregation: &'a RangeAggregation,
    /// The grouping of the `sum` right around it, if it may count by these labels at once: its own series are not asked for.
    /// A `sum` without grouping is `by ()`. It also decides what parsers extract (contract, LogQL §8).
    pub pushed: Option<Grouping>,
}

/// The range aggregations of an expression, left to right, each with the grouping that is handed down to it.
#[must_use]
pub fn leaves(expr: &MetricExpr) -> Vec<Leaf<'_>> {
    let mut out: Vec<Leaf<'_>> = Vec::new();
    for node in nodes(expr) {
        match node {
            MetricExpr::Range(of) => out.push(Leaf { aggregation: of, pushed: None }),
            // What a `sum` is right around comes right before it.
            MetricExpr::Vector(of) if of.op == VectorOp::Sum && adds_up(&of.inner) => {
                if let Some(leaf) = out.last_mut() {
                    leaf.pushed = Some(of.grouping.clone().unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    out
}

/// Whether it is a range aggregation whose sum over series is the aggregation over all their lines.
fn adds_up(inner: &MetricExpr) -> bool {
    use RangeOp::*;
    let MetricExpr::Range(of) = inner else { return false };
    of.grouping.is_none() && matches!(of.op, CountOverTime | Rate | BytesOverTime | BytesRate | SumOverTime)
}

/// The expression and all its parts: operands before what is made of them, the left one before the right one.
pub(super) fn nodes(expr: &MetricExpr) -> Vec<&MetricExpr> {
    let (mut out, mut open) = (Vec::new(), vec![expr]);
    while let Some(node) = open.pop() {
        out.push(node);
        match node {
            MetricExpr::Vector(of) => open.push(&of.inner),
            MetricExpr::LabelReplace(of) => open.push(&of.inner),
            MetricExpr::Binary(of) => open.extend([&of.left, &of.right]),
            MetricExpr::Range(_) | MetricExpr::Literal(_) | MetricExpr::VectorLiteral(_) => {}
        }
    }
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Expr;

    fn metric(query: &str) -> MetricExpr {
        let Ok(Expr::Metric(expr)) = crate::parse(query) else { panic!("{query}") };
        expr
    }

    fn pushed(query: &str) -> Vec<String> {
        let text = |leaf: Leaf<'_>| leaf.pushed.map_or("-".into(), |grouping| grouping.to_string());
        leaves(&metric(query)).into_iter().map(text).collect()
    }

    #[test]
    fn leaves_come_left_to_right() {
        let expr = metric(
            r#"count_over_time({n="1"}[1s]) + max(label_replace(rate({n="2"}[1s]) * 2, "", "", "", "") or vector(1))
               ^ (1 - topk(1, rate({n="3"}[1s]) and rate({n="4"}[1s])))"#,
        );
        let names: Vec<_> =
            leaves(&expr).iter().map(|of| of.aggregation.log.selector[0].value.to_str_lossy().into_owned()).collect();
        assert_eq!(names, ["1", "2", "3", "4"]);
        assert!(leaves(&metric("vector(1) + 2")).is_empty());
    }

    #[test]
    fn a_sum_hands_its_grouping_to_what_adds_up() {
        for op in ["count_over_time", "rate", "bytes_over_time", "bytes_rate"] {
            assert_eq!(pushed(&format!(r#"sum by (b, a) ({op}({{n="1"}}[1s]))"#)), ["by (b,a)"], "{op}");
        }
        assert_eq!(pushed(r#"sum by (a) (sum_over_time({n="1"} | unwrap v [1s]))"#), ["by (a)"]);
        assert_eq!(pushed(r#"sum without (a) (rate({n="1"}[1s]))"#), ["without (a)"]);
        assert_eq!(pushed(r#"sum(rate({n="1"}[1s]))"#), ["by ()"]);
        assert_eq!(pushed(r#"sum by () (rate({n="1"}[1s]))"#), ["by ()"]);
        assert_eq!(pushed(r#"sum(rate({n="1"}[1s])) / sum by (a) (rate({n="2"}[1s]))"#), ["by ()", "by (a)"]);
    }

    #[test]
    fn nothing_else_hands_a_grouping_down() {
        let leaf = r#"count_over_time({n="1"}[1s])"#;
        assert_eq!(pushed(leaf), ["-"]);
        assert_eq!(pushed(&format!("max by (a) ({leaf})")), ["-"]);
        assert_eq!(pushed(&format!("sum by (a) ({leaf} * 2)")), ["-"]);
        assert_eq!(pushed(&format!("sum by (a) (topk(1, {leaf}))")), ["-"]);
        assert_eq!(pushed(&format!("sum by (a) (sum by (a, b) ({leaf}))")), ["by (a,b)"]);
        assert_eq!(pushed(&format!("{leaf} + sum(vector(1))")), ["-"]);
        assert_eq!(pushed(r#"sum(avg_over_time({n="1"} | unwrap v [1s]))"#), ["-"]);
        assert_eq!(pushed(r#"sum(max_over_time({n="1"} | unwrap v [1s]) by (a))"#), ["-"]);
        assert_eq!(pushed(r#"sum(absent_over_time({n="1"}[1s]))"#), ["-"]);
    }
}
