//! Each rule of the vector level by example. Series are written `labels: values`, a step without a value is `_`; `X`, `Y` and `Z`
//! in queries are range aggregations.

mod aggregations;
mod bounds;
mod label_replace;
mod matches;
mod naive;
mod numbers;
mod order;

use tailwater_model::{Labels, Timestamp};

use super::{Evaluated, EvaluationError, EvaluationErrorKind, EvaluationLimits, answered, check, evaluate, leaves};
use crate::ast::{Expr, MetricExpr};
use crate::metric::{Series, Steps};

fn labels(text: &str) -> Labels {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.into(), value.into())
    };
    Labels::keeping_empty(text.split_whitespace().map(pair).collect())
}

fn series(text: &str) -> Series {
    let (names, values) = text.split_once(':').unwrap();
    let values: Vec<&str> = values.split_whitespace().collect();
    let mut series = Series::empty(labels(names), values.len() as u32);
    for (step, value) in (0..).zip(values) {
        if value != "_" {
            series.set(step, value.parse().unwrap());
        }
    }
    series
}

fn parsed(query: &str) -> MetricExpr {
    let named = ["X", "Y", "Z"]
        .iter()
        .fold(query.to_owned(), |q, n| q.replace(n, &format!("count_over_time({{n=\"{n}\"}}[1s])")));
    match crate::parse(&named) {
        Ok(Expr::Metric(expr)) => expr,
        other => panic!("{query}: {other:?}"),
    }
}

/// The series of X, Y and Z.
type Data<'a> = [&'a [&'a str]; 3];

fn run(query: &str, steps: Steps, data: Data<'_>, limit: u32) -> Result<Evaluated, EvaluationError> {
    let expr = parsed(query);
    let of = |leaf: &super::Leaf<'_>| match leaf.aggregation.log.selector[0].value.as_bytes() {
        b"X" => data[0],
        b"Y" => data[1],
        _ => data[2],
    };
    let leaves = leaves(&expr).iter().map(|leaf| of(leaf).iter().map(|text| series(text)).collect()).collect();
    evaluate(&expr, steps, leaves, EvaluationLimits { max_query_series: limit })
}

fn told(labels: &Labels) -> String {
    labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
}

fn instant_of(query: &str, data: Data<'_>) -> Result<Vec<String>, EvaluationError> {
    Ok(match run(query, Steps::instant(Timestamp(0)), data, 0)? {
        Evaluated::Scalar(value) => vec![value.to_string()],
        Evaluated::Series(all) => {
            all.iter().map(|s| format!("{}: {}", told(&s.labels), s.get(0).unwrap()).trim_start().to_owned()).collect()
        }
    })
}

/// The answer of an instant query, in its order.
fn instant(query: &str, x: &[&str], y: &[&str]) -> Vec<String> {
    instant_of(query, [x, y, &[]]).unwrap()
}

/// The answer of a range query of as many steps as series have values.
fn range_of(query: &str, data: Data<'_>) -> Result<Vec<String>, EvaluationError> {
    let steps = data.iter().copied().flatten().map(|text| series(text).steps()).max().unwrap_or(2);
    let Evaluated::Series(all) = run(query, Steps { start: Timestamp(0), step: 1, count: steps }, data, 0)? else {
        panic!("{query}: a number")
    };
    let one = |(labels, points): (&Labels, Vec<(u32, f64)>)| {
        let value = |step| {
            let at: Vec<_> = points.iter().filter(|(s, _)| *s == step).map(|(_, v)| v.to_string()).collect();
            if at.is_empty() { "_".to_owned() } else { at.join("+") }
        };
        let values: Vec<_> = (0..steps).map(value).collect();
        format!("{}: {}", told(labels), values.join(" ")).trim_start().to_owned()
    };
    Ok(answered(&all).map(|(labels, points)| one((labels, points.collect()))).collect())
}

fn range(query: &str, x: &[&str], y: &[&str]) -> Vec<String> {
    range_of(query, [x, y, &[]]).unwrap()
}

fn fails(query: &str, x: &[&str], y: &[&str]) -> String {
    let error = range_of(query, [x, y, &[]]).unwrap_err();
    assert_eq!(error.kind(), EvaluationErrorKind::Internal);
    error.to_string()
}

#[track_caller]
fn same<T: AsRef<str>>(got: &[String], wanted: &[T]) {
    let wanted: Vec<&str> = wanted.iter().map(AsRef::as_ref).collect();
    assert_eq!(got, wanted);
}

const NOTHING: &[&str] = &[];
