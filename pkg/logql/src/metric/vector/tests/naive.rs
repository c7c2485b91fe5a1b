//! The rules of the vector level once more, as plain as can be: one step at a time, maps of labels, nothing cached. `evaluate`
//! has to answer the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tailwater_model::{Labels, Timestamp};

use super::super::{Evaluated, EvaluationErrorKind, EvaluationLimits, answered, evaluate, leaves};
use crate::ast::{
    BinOp, BinaryOp, Expr, GroupSide, Grouping, LabelReplace, MetricExpr, VectorAggregation, VectorMatching, VectorOp,
};
use crate::metric::{Series, Steps};

type Map = BTreeMap<String, String>;
type Vector = Vec<(Map, f64)>;

enum At {
    Scalar(f64),
    Vector(Vector),
}

struct Naive<'a> {
    leaves: std::slice::Iter<'a, Vec<Series>>,
    step: u32,
    instant: bool,
}

impl Naive<'_> {
    fn value(&mut self, expr: &MetricExpr) -> Result<At, String> {
        let mut vector = match expr {
            MetricExpr::Literal(value) => return Ok(At::Scalar(*value)),
            MetricExpr::VectorLiteral(value) => vec![(Map::new(), *value)],
            MetricExpr::Range(_) => {
                let series = self.leaves.next().unwrap();
                let mut vector: Vector =
                    series.iter().filter_map(|s| Some((map(&s.labels), s.get(self.step)?))).collect();
                vector.sort_by(|a, b| a.0.cmp(&b.0));
                vector
            }
            MetricExpr::Vector(of) => {
                let inner = self.vector(&of.inner)?;
                self.aggregate(of, inner)
            }
            MetricExpr::LabelReplace(of) => replace(of, self.vector(&of.inner)?),
            MetricExpr::Binary(of) => match (self.value(&of.left)?, self.value(&of.right)?) {
                (At::Scalar(l), At::Scalar(r)) => return Ok(At::Scalar(compute(of.op, true, l, r, l).unwrap())),
                (At::Vector(l), At::Scalar(r)) => {
                    l.into_iter().filter_map(|(m, v)| Some((m, compute(of.op, of.return_bool, v, r, v)?))).collect()
                }
                (At::Scalar(l), At::Vector(r)) => {
                    r.into_iter().filter_map(|(m, v)| Some((m, compute(of.op, of.return_bool, l, v, v)?))).collect()
                }
                (At::Vector(l), At::Vector(r)) => pairs(of, l, r)?,
            },
        };
        if !self.instant {
            vector.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Ok(At::Vector(vector))
    }

    fn vector(&mut self, expr: &MetricExpr) -> Result<Vector, String> {
        Ok(match self.value(expr)? {
            At::Scalar(value) => vec![(Map::new(), value)],
            At::Vector(vector) => vector,
        })
    }

    fn aggregate(&self, of: &VectorAggregation, inner: Vector) -> Vector {
        let (numbers, nans): (Vector, Vector) = inner.iter().cloned().partition(|(_, v)| !v.is_nan());
        let ordered = |descending: bool, (mut numbers, nans): (Vector, Vector)| {
            numbers.sort_by(|a, b| {
                let order = a.1.partial_cmp(&b.1).unwrap();
                if descending { order.reverse() } else { order }
            });
            numbers.into_iter().chain(nans).collect::<Vector>()
        };
        match of.op {
            VectorOp::Sort | VectorOp::SortDesc if !self.instant => return inner,
            VectorOp::Sort => return ordered(false, (numbers, nans)),
            VectorOp::SortDesc => return ordered(true, (numbers, nans)),
            _ => {}
        }
        let mut groups: BTreeMap<Map, Vector> = BTreeMap::new();
        for (labels, value) in inner {
            let mut key = labels.clone();
            key.retain(|name, _| match &of.grouping {
                None => false,
                Some(Grouping { without: false, labels }) => labels.contains(name),
                Some(Grouping { without: true, labels }) => !labels.contains(name),
            });
            groups.entry(key).or_default().push((labels, value));
        }
        let mut out = Vector::new();
        for (mut key, members) in groups {
            if let VectorOp::Topk | VectorOp::Bottomk = of.op {
                let places = members.into_iter().enumerate().map(|(at, (mut labels, value))| {
                    labels.insert("place".into(), format!("{at:05}"));
                    (labels, value)
                });
                let mut best = ordered(of.op == VectorOp::Topk, places.partition(|(_, v)| !v.is_nan()));
                best.truncate(usize::try_from(of.param.unwrap()).unwrap());
                if !self.instant {
                    best.sort_by(|a, b| a.0["place"].cmp(&b.0["place"]));
                }
                best.iter_mut().for_each(|(labels, _)| {
                    labels.remove("place");
                });
                out.append(&mut best);
                continue;
            }
            if of.grouping.as_ref().is_some_and(|grouping| grouping.without) {
                key.retain(|_, value| !value.is_empty());
            }
            let values: Vec<f64> = members.iter().map(|(_, value)| *value).collect();
            out.push((key, folded(of.op, &values)));
        }
        out
    }
}

fn folded(op: VectorOp, values: &[f64]) -> f64 {
    let numbers = || values.iter().copied().filter(|v| !v.is_nan());
    let count = values.len() as f64;
    match op {
        VectorOp::Sum => values[1..].iter().fold(values[0], |a, b| a + b),
        VectorOp::Count => count,
        VectorOp::Min => numbers().reduce(|a, b| if b < a { b } else { a }).unwrap_or(f64::NAN),
        VectorOp::Max => numbers().reduce(|a, b| if b > a { b } else { a }).unwrap_or(f64::NAN),
        VectorOp::Avg => {
            let mut mean = values[0];
            for (n, &v) in values.iter().enumerate().skip(1) {
                let same_infinity = v.is_infinite() && (v > 0.0) == (mean > 0.0);
                if !(mean.is_infinite() && (same_infinity || v.is_finite())) {
                    mean += (v - mean) / (n as f64 + 1.0);
                }
            }
            mean
        }
        _ => {
            let (mut mean, mut spread) = (values[0], 0.0);
            for (n, &v) in values.iter().enumerate().skip(1) {
                let old = mean;
                mean += (v - old) / (n as f64 + 1.0);
                spread += (v - old) * (v - mean);
            }
            if op == VectorOp::Stdvar { spread / count } else { (spread / count).sqrt() }
        }
    }
}

fn compute(op: BinOp, return_bool: bool, l: f64, r: f64, kept: f64) -> Option<f64> {
    let holds = match op {
        BinOp::Add => return Some(l + r),
        BinOp::Sub => return Some(l - r),
        BinOp::Mul => return Some(l * r),
        BinOp::Div => return Some(if r == 0.0 { f64::NAN } else { l / r }),
        BinOp::Mod => return Some(if r == 0.0 { f64::NAN } else { l % r }),
        BinOp::Pow => return Some(l.powf(r)),
        BinOp::Eq => l == r,
        BinOp::Neq => l != r,
        BinOp::Gt => l > r,
        BinOp::Gte => l >= r,
        BinOp::Lt => l < r,
        BinOp::Lte => l <= r,
        BinOp::And | BinOp::Or | BinOp::Unless => panic!("not of numbers"),
    };
    match (return_bool, holds) {
        (true, holds) => Some(if holds { 1.0 } else { 0.0 }),
        (false, true) => Some(kept),
        (false, false) => None,
    }
}

fn pairs(of: &BinaryOp, left: Vector, right: Vector) -> Result<Vector, String> {
    let matching = of.matching.clone().unwrap_or_default();
    let signature = |labels: &Map| {
        let mut signature = labels.clone();
        signature.retain(|name, value| !value.is_empty() && matching.labels.contains(name) == matching.on);
        signature
    };
    let signatures = |vector: &Vector| vector.iter().map(|(m, _)| signature(m)).collect::<BTreeSet<_>>();
    let (on_left, on_right) = (signatures(&left), signatures(&right));
    match of.op {
        BinOp::And => return Ok(left.into_iter().filter(|(m, _)| on_right.contains(&signature(m))).collect()),
        BinOp::Unless => return Ok(left.into_iter().filter(|(m, _)| !on_right.contains(&signature(m))).collect()),
        BinOp::Or => {
            let more = right.into_iter().filter(|(m, _)| !on_left.contains(&signature(m)));
            return Ok(left.into_iter().chain(more).collect());
        }
        _ => {}
    }
    let many_right = matching.group == Some(GroupSide::Right);
    let (many, one) = if many_right { (right, left) } else { (left, right) };
    if one.iter().map(|(m, _)| signature(m)).collect::<BTreeSet<_>>().len() < one.len() {
        return Err("many-to-many".into());
    }
    let (mut out, mut seen) = (Vector::new(), BTreeSet::new());
    for (labels, value) in &many {
        let Some((other_labels, other)) = one.iter().find(|(m, _)| signature(m) == signature(labels)) else { continue };
        let mut result = if matching.group.is_some() { labels.clone() } else { signature(labels) };
        if matching.group.is_some() {
            for name in &matching.include {
                result.remove(name);
                if let Some(value) = other_labels.get(name) {
                    result.insert(name.clone(), value.clone());
                }
            }
        }
        result.retain(|_, value| !value.is_empty());
        if !seen.insert(result.clone()) {
            return Err("multiple matches".into());
        }
        let (l, r) = if many_right { (*other, *value) } else { (*value, *other) };
        if let Some(value) = compute(of.op, of.return_bool, l, r, l) {
            out.push((result, value));
        }
    }
    Ok(out)
}

fn replace(of: &LabelReplace, vector: Vector) -> Vector {
    let text = |text: &crate::ast::Text| text.to_str_lossy().into_owned();
    let regex = regex::Regex::new(&format!("^(?:{})$", text(&of.regex))).unwrap();
    let one = |(mut labels, value): (Map, f64)| {
        let source = labels.get(&text(&of.src)).cloned().unwrap_or_default();
        if let Some(found) = regex.captures(&source) {
            let mut replacement = String::new();
            found.expand(&text(&of.replacement), &mut replacement);
            labels.insert(text(&of.dst), replacement);
            labels.retain(|_, value| !value.is_empty());
        }
        (labels, value)
    };
    vector.into_iter().map(one).collect()
}

fn map(labels: &Labels) -> Map {
    labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// What is compared: values as bits, any NaN as the same.
#[derive(Debug, PartialEq)]
enum Seen {
    Scalar(u64),
    /// Of an instant query, in order.
    Vector(Vec<(Map, u64)>),
    Matrix(Vec<(Map, Vec<(u32, u64)>)>),
}

fn bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

fn naive(expr: &MetricExpr, steps: Steps, leaves: &[Vec<Series>]) -> Result<Seen, String> {
    let instant = steps.step == 0;
    let mut matrix: BTreeMap<Map, Vec<(u32, u64)>> = BTreeMap::new();
    for step in 0..steps.count {
        let vector = match (Naive { leaves: leaves.iter(), step, instant }).value(expr)? {
            At::Scalar(value) if instant => return Ok(Seen::Scalar(bits(value))),
            At::Scalar(value) => vec![(Map::new(), value)],
            At::Vector(vector) => vector,
        };
        if instant {
            let mut vector: Vec<_> = vector.into_iter().map(|(m, v)| (m, bits(v))).collect();
            if !expr.to_string().contains("sort") {
                vector.sort_by(|a, b| a.0.cmp(&b.0));
            }
            return Ok(Seen::Vector(vector));
        }
        for (labels, value) in vector {
            matrix.entry(labels).or_default().push((step, bits(value)));
        }
    }
    Ok(Seen::Matrix(matrix.into_iter().collect()))
}

fn seen(expr: &MetricExpr, steps: Steps, leaves: &[Vec<Series>]) -> Result<Seen, String> {
    let limits = EvaluationLimits { max_query_series: 0 };
    let evaluated = evaluate(expr, steps, leaves.to_vec(), limits).map_err(|e| {
        assert_eq!(e.kind(), EvaluationErrorKind::Internal);
        e.to_string()
    })?;
    Ok(match evaluated {
        Evaluated::Scalar(value) => Seen::Scalar(bits(value)),
        Evaluated::Series(series) if steps.step == 0 => {
            Seen::Vector(series.iter().map(|s| (map(&s.labels), bits(s.get(0).unwrap()))).collect())
        }
        Evaluated::Series(series) => {
            assert!(series.iter().all(|s| !s.is_empty()));
            let points =
                answered(&series).map(|(labels, points)| (map(labels), points.map(|(at, v)| (at, bits(v))).collect()));
            Seen::Matrix(points.collect())
        }
    })
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(&NAMES[..]).prop_map(str::to_owned), 0..3)
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (-3..5_i32).prop_map(f64::from),
        1 => proptest::sample::select(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1, 2.5, 1e308][..]),
    ]
}

fn series(steps: u32) -> impl Strategy<Value = Vec<Series>> {
    let labels = proptest::collection::btree_map(
        proptest::sample::select(&NAMES[..3]),
        proptest::sample::select(&["", "x", "y", "xy"][..]),
        0..4,
    );
    let values = proptest::collection::vec(proptest::option::weighted(0.7, number()), steps as usize);
    proptest::collection::btree_map(labels, values, 0..7).prop_map(move |all| {
        let one = |(labels, values): (BTreeMap<&str, &str>, Vec<Option<f64>>)| {
            let pairs = labels.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let mut series = Series::empty(Labels::keeping_empty(pairs), steps);
            for (step, value) in (0..).zip(values) {
                value.into_iter().for_each(|value| series.set(step, value));
            }
            series
        };
        // In any order.
        all.into_iter().map(one).rev().collect()
    })
}

fn any_leaf() -> MetricExpr {
    let Ok(Expr::Metric(expr)) = crate::parse(r#"count_over_time({a="b"}[1s])"#) else { panic!() };
    expr
}

fn expr() -> impl Strategy<Value = MetricExpr> {
    let leaf = prop_oneof![
        6 => Just(any_leaf()),
        1 => number().prop_map(MetricExpr::Literal),
        1 => number().prop_map(MetricExpr::VectorLiteral),
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        use BinOp::*;
        use VectorOp::*;
        let grouping =
            proptest::option::of((any::<bool>(), names()).prop_map(|(without, labels)| Grouping { without, labels }));
        let vector_op = proptest::sample::select(
            &[Sum, Avg, Min, Max, Count, Stddev, Stdvar, Topk, Topk, Bottomk, Sort, SortDesc][..],
        );
        let aggregation = (vector_op, 1..4_i64, grouping, inner.clone()).prop_map(|(op, k, grouping, inner)| {
            let param = matches!(op, Topk | Bottomk).then_some(k);
            let grouping = grouping.filter(|_| !matches!(op, Sort | SortDesc));
            MetricExpr::Vector(Box::new(VectorAggregation { op, param, grouping, inner }))
        });
        let group = proptest::sample::select(&[None, None, Some(GroupSide::Left), Some(GroupSide::Right)][..]);
        let matching = (any::<bool>(), names(), group, names()).prop_map(|(on, labels, group, include)| {
            let include = if group.is_some() { include } else { Vec::new() };
            VectorMatching { on, labels, group, include }
        });
        let bin_op = proptest::sample::select(
            &[Or, And, Unless, Eq, Neq, Gt, Gte, Lt, Lte, Add, Add, Sub, Mul, Div, Mod, Pow][..],
        );
        let operands = (inner.clone(), inner.clone());
        let binary = (bin_op, any::<bool>(), proptest::option::weighted(0.7, matching), operands).prop_map(
            |(op, return_bool, matching, (left, right))| {
                // The parser refuses numbers there.
                let series = |expr| match (op, expr) {
                    (Or | And | Unless, MetricExpr::Literal(value)) => MetricExpr::VectorLiteral(value),
                    (_, expr) => expr,
                };
                let (left, right) = (series(left), series(right));
                let folds = matches!((&left, &right), (MetricExpr::Literal(_), MetricExpr::Literal(_)));
                let left = if folds { any_leaf() } else { left };
                MetricExpr::Binary(Box::new(BinaryOp { op, return_bool, matching, left, right }))
            },
        );
        let regex = proptest::sample::select(
            &[("(.*)", "$1"), ("x(.*)", "<$1>"), ("(x|y)", "${1}x"), (".+", ""), ("", "x"), ("z", "z")][..],
        );
        let name = || proptest::sample::select(&NAMES[..]);
        let replace = (inner, name(), name(), regex).prop_map(|(inner, dst, src, (regex, replacement))| {
            let (dst, src) = (dst.into(), src.into());
            MetricExpr::LabelReplace(Box::new(LabelReplace {
                inner,
                dst,
                replacement: replacement.into(),
                src,
                regex: regex.into(),
            }))
        });
        prop_oneof![3 => aggregation, 4 => binary, 1 => replace]
    })
}

/// An expression, and series for each of its leaves.
fn query(steps: u32) -> impl Strategy<Value = (MetricExpr, Vec<Vec<Series>>)> {
    expr().prop_flat_map(move |expr| {
        let leaves = leaves(&expr).len();
        (Just(expr), proptest::collection::vec(series(steps), leaves))
    })
}

fn same(expr: &MetricExpr, steps: Steps, leaves: &[Vec<Series>]) {
    let (wanted, got) = (naive(expr, steps, leaves), seen(expr, steps, leaves));
    match (&wanted, &got) {
        // Which of several errors is told depends on what is looked at first.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(wanted, got, "{expr}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn range_queries_answer_the_same((expr, leaves) in query(4)) {
        same(&expr, Steps { start: Timestamp(0), step: 1, count: 4 }, &leaves);
    }

    #[test]
    fn instant_queries_answer_the_same((expr, leaves) in query(1)) {
        same(&expr, Steps::instant(Timestamp(0)), &leaves);
    }
}
