//! Each rule of the vector level by example. Series are written `labels: values`, a step without a value is `_`; `X`, `Y` and `Z`
//! in queries are range aggregations.

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

mod aggregations {
    use super::*;

    #[test]
    fn without_grouping_there_is_one_group() {
        let x = ["a=1 b=1: 1 2 _", "a=2: 10 _ _", ": 100 _ _"];
        same(&range("sum(X)", &x, &[]), &[": 111 2 _"]);
        same(&range("sum by () (X)", &x, &[]), &[": 111 2 _"]);
        same(&range("count(X)", &x, &[]), &[": 3 1 _"]);
    }

    #[test]
    fn by_keeps_empty_labels_apart_from_missing_ones() {
        let x = ["a=1 b=1: 1", "a=1 b=2: 2", "a= b=1: 4", "b=2: 8"];
        same(&range("sum by (a) (X)", &x, &[]), &[": 8", "a=: 4", "a=1: 3"]);
        same(&range("sum by (nope) (X)", &x, &[]), &[": 15"]);
        same(&range("sum by (a, a) (X)", &x, &[]), &[": 8", "a=: 4", "a=1: 3"]);
    }

    #[test]
    fn without_drops_empty_labels_from_the_result_only() {
        same(&range("sum without (b) (X)", &["a=1 b=1: 1", "a=1 b=2 c=: 2"], &[]), &["a=1: 1+2"]);
        same(&range("sum without (b) (X)", &["a=1 b=1: 1 _", "a=1 b=2 c=: _ 2"], &[]), &["a=1: 1 2"]);
        same(&instant("sum without (b) (X)", &["a=1 b=1: 1", "a=1 b=2 c=: 2"], &[]), &["a=1: 1", "a=1: 2"]);
        same(&range("sum without () (X)", &["a=1: 1", "a=2 __name__=x: 2"], &[]), &["a=1: 1", "a=2: 2"]);
    }

    #[test]
    fn nothing_aggregates_to_nothing() {
        for op in ["sum", "count", "avg", "min", "stddev", "sort"] {
            same(&range(&format!("{op}(X)"), &[], &[]), NOTHING);
            same(&instant(&format!("{op}(X)"), &["a=1: _"], &[]), NOTHING);
        }
        same(&range("topk(3, X)", &[], &[]), NOTHING);
    }

    #[test]
    fn minimum_and_maximum_prefer_numbers_to_nan() {
        let x = ["a=1: NaN NaN 3 -inf", "a=2: 3 NaN NaN 4", "a=3: 7 NaN 6 inf"];
        same(&range("min(X)", &x, &[]), &[": 3 NaN 3 -inf"]);
        same(&range("max(X)", &x, &[]), &[": 7 NaN 6 inf"]);
    }

    #[test]
    fn sums_and_means_of_nan_and_infinity() {
        let x = ["a=1: NaN inf inf -inf 1e308", "a=2: 1 1 -inf inf 1e308"];
        same(&range("sum(X)", &x, &[]), &[": NaN inf NaN NaN inf"]);
        same(&range("avg(X) == bool 1e308", &x, &[]), &[": 0 0 0 0 1"]);
        // Infinity stays, whether numbers or the same infinity follow or come first.
        same(&range("avg(X)", &["a=1: inf 1 inf", "a=2: 5 -inf inf", "a=3: 6 7 1"], &[]), &[": inf -inf inf"]);
        same(&range("avg(X)", &["a=1: inf -inf inf", "a=2: -inf inf NaN", "a=3: 1 1 1"], &[]), &[": NaN NaN NaN"]);
    }

    #[test]
    fn spread_is_that_of_a_whole_population() {
        let x = ["a=1: 5 2 7", "a=2: 5 4 _", "a=3: 3 6 _"];
        same(&range("stdvar(X)", &x, &[]), &[": 0.8888888888888887 2.6666666666666665 0"]);
        same(&range("stddev(X)", &x, &[]), &[": 0.9428090415820632 1.632993161855452 0"]);
    }

    #[test]
    fn topk_chooses_per_group_and_step_and_keeps_labels() {
        let x = ["g=1 n=a: 1 5 _", "g=1 n=b: 2 4 _", "g=1 n=c: 3 _ 1", "g=2 n=d: 0 _ _"];
        same(&range("topk(2, X)", &x, &[]), &["g=1 n=a: _ 5 _", "g=1 n=b: 2 4 _", "g=1 n=c: 3 _ 1"]);
        same(&range("topk(1, X) by (g)", &x, &[]), &["g=1 n=a: _ 5 _", "g=1 n=c: 3 _ 1", "g=2 n=d: 0 _ _"]);
        same(&range("topk without (n) (1, X)", &x, &[]), &["g=1 n=a: _ 5 _", "g=1 n=c: 3 _ 1", "g=2 n=d: 0 _ _"]);
        same(&range("bottomk(1, X)", &x, &[]), &["g=1 n=b: _ 4 _", "g=1 n=c: _ _ 1", "g=2 n=d: 0 _ _"]);
        same(&range("sum(topk(3, topk(100, X)))", &x, &[]), &[": 6 9 1"]);
    }

    #[test]
    fn numbers_go_before_nan_either_way() {
        let x = ["n=a: NaN", "n=b: 1", "n=c: 2", "n=d: -inf"];
        same(&range("topk(1, X)", &x, &[]), &["n=c: 2"]);
        same(&range("topk(3, X)", &x, &[]), &["n=b: 1", "n=c: 2", "n=d: -inf"]);
        same(&range("bottomk(3, X)", &x, &[]), &["n=b: 1", "n=c: 2", "n=d: -inf"]);
        same(&range("bottomk(4, X)", &x, &[]), &["n=a: NaN", "n=b: 1", "n=c: 2", "n=d: -inf"]);
        same(&instant("sort(X)", &x, &[]), &["n=d: -inf", "n=b: 1", "n=c: 2", "n=a: NaN"]);
        same(&instant("sort_desc(X)", &x, &[]), &["n=c: 2", "n=b: 1", "n=d: -inf", "n=a: NaN"]);
    }

    #[test]
    fn approx_topk_is_not_enabled() {
        let error = range_of("1 + sum(approx_topk(3, X))", [&[], &[], &[]]).unwrap_err();
        assert_eq!(error.to_string(), "approx_topk is not enabled. See -limits.shard_aggregations");
        assert_eq!(error.kind(), EvaluationErrorKind::Internal);
        assert_eq!(instant_of("approx_topk(3, X)", [&[], &[], &[]]), Err(error.clone()));
        assert_eq!((check(&parsed("approx_topk(3, X)")), check(&parsed("topk(3, X)"))), (Err(error), Ok(())));
    }

    #[test]
    fn recorded_answers() {
        // Counts of 5 minutes of three series, and what was answered of them.
        let x = ["i=1: 5 5 5 5 _", "i=2: 5 5 5 5 _", "i=3: 3 4 3 3 2"];
        same(&range("min(X)", &x, &[]), &[": 3 4 3 3 2"]);
        same(&range("count(X)", &x, &[]), &[": 3 3 3 3 1"]);
        same(
            &range("stddev(X)", &x, &[]),
            &[": 0.9428090415820632 0.4714045207910318 0.9428090415820632 0.9428090415820632 0"],
        );
        same(
            &range("stdvar(X)", &x, &[]),
            &[": 0.8888888888888887 0.22222222222222232 0.8888888888888887 0.8888888888888887 0"],
        );
    }
}

mod order {
    use super::*;

    const X: [&str; 4] = ["n=c: 1", "n=a: 3", "n=d: 2", "n=b: 4"];

    #[test]
    fn answers_are_sorted_by_labels() {
        same(&range("X", &X, &[]), &["n=a: 3", "n=b: 4", "n=c: 1", "n=d: 2"]);
        same(&instant("X", &X, &[]), &["n=a: 3", "n=b: 4", "n=c: 1", "n=d: 2"]);
        same(&instant("topk(2, X)", &X, &[]), &["n=a: 3", "n=b: 4"]);
        same(&instant("bottomk(4, X)", &X, &[]), &["n=a: 3", "n=b: 4", "n=c: 1", "n=d: 2"]);
        // Shorter label sets come before those that they begin.
        same(&range("X", &["a=1 b=1: 1", "b=0: 1", "a=1: 1", ": 1"], &[]), &[": 1", "a=1: 1", "a=1 b=1: 1", "b=0: 1"]);
    }

    #[test]
    fn an_instant_query_that_sorts_anywhere_is_in_order_of_value() {
        same(&instant("sort(X)", &X, &[]), &["n=c: 1", "n=d: 2", "n=a: 3", "n=b: 4"]);
        same(&instant("sort_desc(X)", &X, &[]), &["n=b: 4", "n=a: 3", "n=d: 2", "n=c: 1"]);
        same(&instant("sort_desc(X) * -1", &X, &[]), &["n=b: -4", "n=a: -3", "n=d: -2", "n=c: -1"]);
        same(&instant("sort(X + 1)", &X, &[]), &["n=c: 2", "n=d: 3", "n=a: 4", "n=b: 5"]);
        same(&instant("topk(3, sort(X))", &X, &[]), &["n=b: 4", "n=a: 3", "n=d: 2"]);
        same(&instant("bottomk(2, sort(X))", &X, &[]), &["n=c: 1", "n=d: 2"]);
        same(&instant("sort_desc(X) * on (n) X", &X, &[]), &["n=b: 16", "n=a: 9", "n=d: 4", "n=c: 1"]);
        same(&instant("sort_desc(X) > 2 or X", &X, &[]), &["n=b: 4", "n=a: 3", "n=c: 1", "n=d: 2"]);
        same(&instant("sort by () (X)", &X, &[]), &["n=c: 1", "n=d: 2", "n=a: 3", "n=b: 4"]);
    }

    #[test]
    fn a_range_query_has_no_order_of_value() {
        same(&range("sort_desc(X)", &X, &[]), &["n=a: 3", "n=b: 4", "n=c: 1", "n=d: 2"]);
        same(&range("topk(2, sort_desc(X))", &X, &[]), &["n=a: 3", "n=b: 4"]);
    }

    #[test]
    fn equal_values_are_chosen_by_labels() {
        same(&range("topk(2, X)", &["n=c: 1 1", "n=b: 1 1", "n=a: _ 1"], &[]), &["n=a: _ 1", "n=b: 1 1", "n=c: 1 _"]);
    }
}

mod numbers {
    use super::*;

    #[test]
    fn an_instant_query_may_be_a_number() {
        for (query, value) in [("1.5", "1.5"), ("-3", "-3"), ("1 + 2 * 3 - 4 / 2", "5"), ("2 ^ 3 ^ 2", "512")] {
            same(&instant(query, &[], &[]), &[value]);
        }
        same(&instant("1 > 2", &[], &[]), &["0"]);
        same(&instant("2 > bool 1", &[], &[]), &["1"]);
        same(&instant("1 / 0", &[], &[]), &["NaN"]);
        same(&instant("-2 ^ 2", &[], &[]), &["4"]);
    }

    #[test]
    fn in_a_range_query_a_number_is_a_series() {
        same(&range("42", &[], &[]), &[": 42 42"]);
        same(&range("1 + 2 * 3", &[], &[]), &[": 7 7"]);
        same(&range("2 > 1", &[], &[]), &[": 1 1"]);
        same(&range("1 / 0", &[], &[]), &[": NaN NaN"]);
    }

    #[test]
    fn a_vector_is_a_series_without_labels() {
        same(&range("vector(5)", &[], &[]), &[": 5 5"]);
        same(&instant("vector(5)", &[], &[]), &[": 5"]);
        same(&instant("sum(vector(5))", &[], &[]), &[": 5"]);
        same(&instant("topk(1, vector(5))", &[], &[]), &[": 5"]);
        same(&instant("count(vector(5)) + avg(vector(4)) * stddev(vector(3))", &[], &[]), &[": 1"]);
        same(&instant("vector(1)+vector(1)", &[], &[]), &[": 2"]);
        same(&instant("vector(1) and vector(2)", &[], &[]), &[": 1"]);
        same(&instant("vector(1) or vector(2)", &[], &[]), &[": 1"]);
        same(&instant("vector(1) unless vector(2)", &[], &[]), NOTHING);
        same(&range("sum(X) or vector(0)", &["a=1: 5 _ 7"], &[]), &[": 5 0 7"]);
    }

    #[test]
    fn a_number_applies_to_every_series_and_changes_no_labels() {
        let x = ["a=1 b=: 1 _", "a=2: 5 6"];
        same(&range("X - 2", &x, &[]), &["a=1 b=: -1 _", "a=2: 3 4"]);
        same(&range("2 - X", &x, &[]), &["a=1 b=: 1 _", "a=2: -3 -4"]);
        same(&range("2 ^ X", &x, &[]), &["a=1 b=: 2 _", "a=2: 32 64"]);
        same(&range("X % 4", &x, &[]), &["a=1 b=: 1 _", "a=2: 1 2"]);
        same(&range("(X - 6) % 4", &x, &[]), &["a=1 b=: -1 _", "a=2: -1 0"]);
        same(&range("X % 2.5", &x, &[]), &["a=1 b=: 1 _", "a=2: 0 1"]);
        // Matching is not about numbers.
        same(&range("X * on (a) 2", &x, &[]), &["a=1 b=: 2 _", "a=2: 10 12"]);
        same(&range("2 * ignoring (a) group_left X", &x, &[]), &["a=1 b=: 2 _", "a=2: 10 12"]);
    }

    #[test]
    fn comparing_with_a_number_keeps_the_value_of_the_series() {
        let x = ["a=1: 1 2 3", "a=2 b=: 3 1 2"];
        same(&range("X > 1", &x, &[]), &["a=1: _ 2 3", "a=2 b=: 3 _ 2"]);
        same(&range("2 > X", &x, &[]), &["a=1: 1 _ _", "a=2 b=: _ 1 _"]);
        same(&range("X == 3", &x, &[]), &["a=1: _ _ 3", "a=2 b=: 3 _ _"]);
        same(&range("X > bool 1", &x, &[]), &["a=1: 0 1 1", "a=2 b=: 1 0 1"]);
        same(&range("2 <= bool X", &x, &[]), &["a=1: 0 1 1", "a=2 b=: 1 0 1"]);
        same(&range("X > 5", &x, &[]), NOTHING);
        same(&range("X > 1 < 3", &x, &[]), &["a=1: _ 2 _", "a=2 b=: _ _ 2"]);
        same(&instant("3 > vector(2)", &[], &[]), &[": 2"]);
        same(&instant("vector(1) > bool 2", &[], &[]), &[": 0"]);
    }

    #[test]
    fn dividing_by_zero_is_nan_and_never_infinite() {
        let x = ["a=1: 1 0 -1 NaN"];
        same(&range("X / 0", &x, &[]), &["a=1: NaN NaN NaN NaN"]);
        same(&range("X % 0", &x, &[]), &["a=1: NaN NaN NaN NaN"]);
        same(&range("1 / X", &x, &[]), &["a=1: 1 NaN -1 NaN"]);
        same(&range("X / (X - X)", &x, &[]), &["a=1: NaN NaN NaN NaN"]);
        same(&range("1 / (X * -1)", &x, &[]), &["a=1: -1 NaN 1 NaN"]);
    }

    #[test]
    fn nan_is_unequal_even_to_itself() {
        let x = ["a=1: NaN 1"];
        same(&range("X == X", &x, &[]), &["a=1: _ 1"]);
        same(&range("X != X", &x, &[]), &["a=1: NaN _"]);
        same(&range("X > 0", &x, &[]), &["a=1: _ 1"]);
        same(&range("X == bool X", &x, &[]), &["a=1: 0 1"]);
    }
}

mod matches {
    use super::*;

    const MANY_TO_MANY: &str =
        "hand-side;many-to-many matching not allowed: matching labels must be unique on one side";
    const MANY_TO_ONE: &str =
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
    const NOT_UNIQUE: &str = "multiple matches for labels: grouping labels must ensure unique matches";

    #[test]
    fn series_of_the_same_labels_match_at_steps_at_which_both_have_a_value() {
        let (x, y) = (["a=1: 1 2 _ _", "a=2: 1 1 1 1"], ["a=1: 10 _ 30 _", "a=3: 1 1 1 1"]);
        same(&range("X + Y", &x, &y), &["a=1: 11 _ _ _"]);
        same(&range("X - Y", &x, &y), &["a=1: -9 _ _ _"]);
        same(&range("Y - X", &x, &y), &["a=1: 9 _ _ _"]);
    }

    #[test]
    fn empty_labels_neither_count_nor_stay() {
        same(&range("X + Y", &["a=1 b=: 1"], &["a=1 c=: 2"]), &["a=1: 3"]);
        same(&range("X + on (a, b) Y", &["a=1 b=: 1"], &["a=1 z=1: 2"]), &["a=1: 3"]);
        same(&range("X and Y", &["a=1 b=: 1"], &["a=1: 2"]), &["a=1 b=: 1"]);
        same(&range("X * on (a) group_left (c) Y", &["a=1 b=: 2"], &["a=1 c=: 3"]), &["a=1: 6"]);
    }

    #[test]
    fn results_have_the_labels_that_matched() {
        let (x, y) = (["a=1 b=1: 1", "a=2 b=1: 2"], ["a=1 c=1: 10", "a=2 c=1: 20"]);
        same(&range("X + on (a) Y", &x, &y), &["a=1: 11", "a=2: 22"]);
        same(&range("X + ignoring (b, c) Y", &x, &y), &["a=1: 11", "a=2: 22"]);
        same(&range("X + on () vector(1)", &["a=1: 1"], &[]), &[": 2"]);
        same(&range("X + Y", &x, &y), NOTHING);
    }

    #[test]
    fn a_comparison_keeps_the_left_value() {
        let (x, y) = (["a=1: 1 5", "a=2: 3 3"], ["a=1: 2 2", "a=2: 3 4"]);
        same(&range("X > Y", &x, &y), &["a=1: _ 5"]);
        same(&range("X <= Y", &x, &y), &["a=1: 1 _", "a=2: 3 3"]);
        same(&range("X >= bool Y", &x, &y), &["a=1: 0 1", "a=2: 1 0"]);
        same(&range("X > on (a) Y", &["a=1 b=1: 5"], &["a=1 c=1: 1"]), &["a=1: 5"]);
    }

    #[test]
    fn the_left_value_is_kept_even_if_it_is_that_of_one_for_many() {
        let (one, many) = (["a=1: 5 1"], ["a=1 b=1: 3 3", "a=1 b=2: 9 0"]);
        same(&range("X > on (a) group_right Y", &one, &many), &["a=1 b=1: 5 _", "a=1 b=2: _ 1"]);
        same(&range("X > bool on (a) group_right Y", &one, &many), &["a=1 b=1: 1 0", "a=1 b=2: 0 1"]);
        same(&range("X < on (a) group_left Y", &many, &one), &["a=1 b=1: 3 _", "a=1 b=2: _ 0"]);
    }

    #[test]
    fn many_series_match_one_if_they_are_said_to() {
        let (many, one) = (["a=1 b=1: 8 6", "a=1 b=2: 4 2", "a=2 b=1: 1 1"], ["a=1 c=1: 2 _"]);
        same(&range("X / on (a) group_left Y", &many, &one), &["a=1 b=1: 4 _", "a=1 b=2: 2 _"]);
        same(&range("Y / on (a) group_right X", &many, &one), &["a=1 b=1: 0.25 _", "a=1 b=2: 0.5 _"]);
        same(&range("X / ignoring (b, c) group_left Y", &many, &one), &["a=1 b=1: 4 _", "a=1 b=2: 2 _"]);
    }

    #[test]
    fn labels_of_the_one_side_are_included() {
        let (many, one) = (["a=1 b=1 c=x: 1 1", "a=1 b=2: 2 2"], ["a=1 c=y d=z e=w: 10 20"]);
        same(&range("X * on (a) group_left (c) Y", &many, &one), &["a=1 b=1 c=y: 10 20", "a=1 b=2 c=y: 20 40"]);
        same(
            &range("Y * on (a) group_right (d, nope) X", &many, &one),
            &["a=1 b=1 c=x d=z: 10 20", "a=1 b=2 d=z: 20 40"],
        );
        // Missing or empty on the one side, gone.
        same(&range("X * on (a) group_left (b) Y", &many[..1], &one), &["a=1 c=x: 10 20"]);
        same(&range("X * on (a) group_left (b) Y", &many[..1], &["a=1 b=: 3 3"]), &["a=1 c=x: 3 3"]);
        // What makes series match is equal on both sides.
        same(&range("X * on (a) group_left (a) Y", &many[1..], &one), &["a=1 b=2: 20 40"]);
    }

    #[test]
    fn included_labels_may_change_from_step_to_step() {
        let (many, one) = (["a=1 b=1: 1 1 1", "a=1 b=2: 2 2 2"], ["a=1 v=1: 10 _ 10", "a=1 v=2: _ 20 _"]);
        same(
            &range("X * on (a) group_left (v) Y", &many, &one),
            &["a=1 b=1 v=1: 10 _ 10", "a=1 b=1 v=2: _ 20 _", "a=1 b=2 v=1: 20 _ 20", "a=1 b=2 v=2: _ 40 _"],
        );
        same(&range("X * on (a) group_left Y", &many, &one), &["a=1 b=1: 10 20 10", "a=1 b=2: 20 40 20"]);
    }

    #[test]
    fn one_side_must_have_one_series_per_match() {
        let (x, two) = (["a=1: 1 1"], ["a=1 b=1: _ 1", "a=1 b=2: _ 2"]);
        assert_eq!(fails("X + on (a) Y", &x, &two), format!("found duplicate series on the right {MANY_TO_MANY}"));
        assert_eq!(
            fails("X + on (a) group_left Y", &x, &two),
            format!("found duplicate series on the right {MANY_TO_MANY}")
        );
        assert_eq!(
            fails("Y + on (a) group_right X", &x, &two),
            format!("found duplicate series on the left {MANY_TO_MANY}")
        );
        // Whether or not anything matches it.
        assert!(fails("X + on (b, c) Y", &x, &["b=1 d=1: 1 1", "b=1 d=2: 1 1"]).contains(MANY_TO_MANY));
        // At no step two.
        same(&range("X + on (a) Y", &x, &["a=1 b=1: _ 1", "a=1 b=2: 2 _"]), &["a=1: 3 2"]);
    }

    #[test]
    fn many_to_one_must_be_explicit() {
        let (two, y) = (["a=1 b=1: 1 1", "a=1 b=2: _ 2"], ["a=1: 5 6"]);
        assert_eq!(fails("X + on (a) Y", &two, &y), MANY_TO_ONE);
        // A match that a comparison does not let through is a match.
        assert_eq!(fails("X > on (a) Y", &two, &y), MANY_TO_ONE);
        // At no step are there two, or nothing that they match.
        same(&range("X + on (a) Y", &["a=1 b=1: 1 _", "a=1 b=2: _ 2"], &y), &["a=1: 6 8"]);
        same(&range("X + on (a) Y", &two, &["a=1: 5 _"]), &["a=1: 6 _"]);
    }

    #[test]
    fn results_of_many_to_one_must_be_unique() {
        let (many, one) = (["a=1 b=1: 1 1", "a=1 b=2: _ 2"], ["a=1 b=3: 5 6"]);
        assert_eq!(fails("X + on (a) group_left (b) Y", &many, &one), NOT_UNIQUE);
        assert_eq!(fails("X > on (a) group_left (b) Y", &many, &one), NOT_UNIQUE);
        let apart = ["a=1 b=1: 1 _", "a=1 b=2: _ 2"];
        same(&range("X + on (a) group_left (b) Y", &apart, &one), &["a=1 b=3: 6 8"]);
    }

    #[test]
    fn sets_are_of_series_as_they_are() {
        let (x, y) = (["a=1 b=: 1 2 3", "a=2: 4 5 6"], ["a=1: 7 _ 7", "a=3: 9 9 _"]);
        same(&range("X and Y", &x, &y), &["a=1 b=: 1 _ 3"]);
        same(&range("X unless Y", &x, &y), &["a=1 b=: _ 2 _", "a=2: 4 5 6"]);
        same(&range("X or Y", &x, &y), &["a=1 b=: 1 2 3", "a=2: 4 5 6", "a=3: 9 9 _"]);
        same(&range("Y or X", &x, &y), &["a=1: 7 _ 7", "a=1 b=: _ 2 _", "a=2: 4 5 6", "a=3: 9 9 _"]);
        same(&range("X and Y", &x, &[]), NOTHING);
        same(&range("X or Y", &[], &y), &["a=1: 7 _ 7", "a=3: 9 9 _"]);
    }

    #[test]
    fn sets_match_many_to_many() {
        let (x, y) = (["a=1 b=1: 1", "a=1 b=2: 2", "a=2 b=1: 3"], ["a=1 c=1: 4", "a=1 c=2: 5", "a=3: 6"]);
        same(&range("X and on (a) Y", &x, &y), &["a=1 b=1: 1", "a=1 b=2: 2"]);
        same(&range("X unless ignoring (b, c) Y", &x, &y), &["a=2 b=1: 3"]);
        same(&range("X or on (a) Y", &x, &y), &["a=1 b=1: 1", "a=1 b=2: 2", "a=2 b=1: 3", "a=3: 6"]);
        same(&range("X or on () Y", &x, &y), &["a=1 b=1: 1", "a=1 b=2: 2", "a=2 b=1: 3"]);
        same(&range("X unless on () vector(1)", &x, &[]), NOTHING);
    }

    #[test]
    fn series_that_alternate_are_one() {
        same(&range("X or Y", &["a=1: 1 _ _"], &["a=1: 5 6 _"]), &["a=1: 1 6 _"]);
        let thrice = "X or Y or X or Y or X";
        let Ok(Evaluated::Series(all)) =
            run(thrice, Steps { start: Timestamp(0), step: 1, count: 3 }, [&["a=1: 1 _ 3"], &["a=1: 5 6 _"], &[]], 0)
        else {
            panic!()
        };
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn precedence_and_nesting() {
        let (x, y) = (["a=1: 21", "a=2: 15"], ["a=2: 2", "a=3: 3"]);
        same(&range("X + Y * 2", &x, &y), &["a=2: 19"]);
        same(&range("(X + Y) * 2", &x, &y), &["a=2: 34"]);
        same(&range("X and Y or Y", &x, &y), &["a=2: 15", "a=3: 3"]);
        same(&range("X - 1 - 2", &x, &y), &["a=1: 18", "a=2: 12"]);
        same(&range("sum(X) / sum(Y)", &x, &y), &[": 7.2"]);
        assert_eq!(range_of("X - (Y - Z)", [&["a=1: 10"], &["a=1: 4"], &["a=1: 1"]]), Ok(vec!["a=1: 7".to_owned()]));
    }
}

mod label_replace {
    use super::*;

    fn replaced(arguments: &str, x: &str) -> Vec<String> {
        range(&format!("label_replace(X, {arguments})"), &[x], &[])
    }

    #[test]
    fn a_label_is_made_of_another() {
        same(&replaced(r#""c", "${1}xx", "a", "(.).*""#, "a=200: 1"), &["a=200 c=2xx: 1"]);
        same(&replaced(r#""c", "$2-$1", "a", "(.)(.).""#, "a=200: 1"), &["a=200 c=0-2: 1"]);
        same(&replaced(r#""c", "${n}$n", "a", "(?P<n>.).*""#, "a=200: 1"), &["a=200 c=22: 1"]);
        same(&replaced(r#""a", "x", "a", ".*""#, "a=200: 1"), &["a=x: 1"]);
        same(&replaced(r#""a", "$$$nope|", "a", ".*""#, "a=200: 1"), &["a=$|: 1"]);
        // A group by the name of `1x`.
        same(&replaced(r#""c", "$1x", "a", "(.).*""#, "a=200: 1"), &["a=200: 1"]);
        same(&replaced(r#""c", "hit", "a", "(?i)EU""#, "a=eu: 1"), &["a=eu c=hit: 1"]);
        same(&replaced(r#""dé", "ü", "a", ".*""#, "a=1: 1"), &["a=1 dé=ü: 1"]);
        same(&replaced(r#""", "x", "a", ".*""#, "a=1: 1"), &["=x a=1: 1"]);
    }

    #[test]
    fn what_does_not_match_as_a_whole_stays() {
        same(&replaced(r#""c", "hit", "a", "0""#, "a=200 b=: 1"), &["a=200 b=: 1"]);
        same(&replaced(r#""c", "hit", "nope", ".+""#, "a=200 b=: 1"), &["a=200 b=: 1"]);
        same(&replaced(r#""c", "hit", "a", "..""#, "a=20\u{e9}: 1"), &["a=20\u{e9}: 1"]);
    }

    #[test]
    fn a_missing_source_is_empty() {
        same(&replaced(r#""c", "core", "", """#, "a=1: 1"), &["a=1 c=core: 1"]);
        same(&replaced(r#""c", "<$1>", "nope", "(.*)""#, "a=1: 1"), &["a=1 c=<>: 1"]);
    }

    #[test]
    fn an_empty_value_removes_the_label_and_a_match_all_empty_ones() {
        same(&replaced(r#""a", "", "a", ".*""#, "a=1 b=: 1"), &[": 1"]);
        same(&replaced(r#""a", "$1", "b", "(.*)""#, "a=1: 1"), &[": 1"]);
        same(&replaced(r#""c", "x", "a", ".*""#, "a=1 b=: 1"), &["a=1 c=x: 1"]);
    }

    #[test]
    fn equal_series_are_one_in_a_range_query_and_all_listed_in_an_instant_one() {
        let query = r#"label_replace(X, "a", "", "a", ".*")"#;
        same(&range(query, &["a=1: 1 _ 3 _", "a=2: _ 2 4 _"], &[]), &[": 1 2 3+4 _"]);
        same(&instant(query, &["a=1: 1", "a=2: 2"], &[]), &[": 1", ": 2"]);
        same(&range(&format!("count({query})"), &["a=1: 1 _ 3 _", "a=2: _ 2 4 _"], &[]), &[": 1 1 2 _"]);
        assert!(fails(&format!("vector(1) + {query}"), &["a=1: 1", "a=2: 2"], &[]).contains("many-to-many"));
        same(&range(&format!("vector(1) + {query}"), &["a=1: 1 _", "a=2: _ 2"], &[]), &[": 2 3"]);
    }

    #[test]
    fn it_nests_and_composes() {
        let (inner, x) = (r#"label_replace(X, "c", "$1", "a", "(.).*")"#, ["a=200: 1", "a=201: 2", "a=404: 4"]);
        same(&range(&format!("sum by (c) ({inner})"), &x, &[]), &["c=2: 3", "c=4: 4"]);
        same(
            &range(&format!(r#"label_replace({inner}, "d", "$1!", "c", "(.*)")"#), &x[..1], &[]),
            &["a=200 c=2 d=2!: 1"],
        );
        same(&instant(r#"label_replace(vector(1), "a", "b", "", "")"#, &[], &[]), &["a=b: 1"]);
        same(&instant(r#"label_replace(1, "a", "b", "", "")"#, &[], &[]), &["a=b: 1"]);
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let grow = |inner: &str| format!(r#"label_replace({inner}, "a", "{}", "a", "(.*)")"#, "x${1}".repeat(300));
        let refused = |query: &str, x: &[&str]| {
            let error = range_of(query, [x, &[], &[]]).unwrap_err();
            assert_eq!(error.kind(), EvaluationErrorKind::Refused);
            error.to_string()
        };
        assert!(range_of(&grow("vector(1)"), [&[], &[], &[]]).is_ok());
        let query = grow(&grow(&grow(&grow("vector(1)"))));
        assert_eq!(refused(&query, &[]), "label_replace makes a value of more than 1048576 bytes");
        let wide: Vec<String> = (0..300).map(|n| format!("n={n}: 1")).collect();
        let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
        assert_eq!(refused(&grow(&grow("X")), &wide), "label_replace makes values of more than 16777216 bytes");
    }
}

mod bounds {
    use super::*;

    const FOUR: [&str; 4] = ["n=a: 1 _", "n=b: 2 _", "n=c: _ 3", "n=d: _ 4"];

    fn limited(query: &str, step: i64, limit: u32) -> Result<usize, String> {
        let steps = Steps { start: Timestamp(0), step, count: if step == 0 { 1 } else { 2 } };
        match run(query, steps, [&FOUR, &[], &[]], limit) {
            Ok(Evaluated::Series(series)) => Ok(series.len()),
            Ok(Evaluated::Scalar(_)) => Ok(0),
            Err(error) => {
                assert_eq!(error.kind(), EvaluationErrorKind::Refused);
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn an_answer_has_so_many_series() {
        assert_eq!(limited("X", 1, 4), Ok(4));
        assert_eq!(limited("X", 1, 0), Ok(4));
        assert_eq!(
            limited("X", 1, 3).unwrap_err(),
            "maximum number of series (3) reached for a single query; consider reducing query cardinality by adding more \
             specific stream selectors, reducing the time range, or aggregating results with functions like sum(), count() \
             or topk()"
        );
        // What is aggregated may have more.
        assert_eq!(limited("sum(X)", 1, 1), Ok(1));
        assert_eq!(limited("X > 3", 1, 1), Ok(1));
        assert_eq!(limited(r#"label_replace(X, "n", "", "n", ".*")"#, 1, 1), Ok(2));
    }

    #[test]
    fn topk_chooses_from_so_many_series() {
        for op in ["topk", "bottomk"] {
            assert!(limited(&format!("{op}(1, X)"), 1, 3).is_err());
            assert!(limited(&format!("sum({op}(1, X))"), 1, 3).is_err());
            assert_eq!(limited(&format!("sum({op}(1, X))"), 1, 4), Ok(1));
            assert_eq!(limited(&format!("{op}(1, sum(X))"), 1, 1), Ok(1));
        }
    }

    #[test]
    fn pairs_are_bounded() {
        // Each of the one side has its turn, and gives each of the many sides new labels.
        let turns = 260_u32;
        let steps = Steps { start: Timestamp(0), step: 1, count: turns };
        let many = (0..turns).map(|n| Series::constant(labels(&format!("m={n}")), turns, 1.0)).collect();
        let one = |n: u32| {
            let mut series = Series::empty(labels(&format!("v={n}")), turns);
            series.set(n, 1.0);
            series
        };
        let leaves = vec![many, (0..turns).map(one).collect()];
        let expr = parsed("X * on () group_left (v) Y");
        let error = evaluate(&expr, steps, leaves, EvaluationLimits { max_query_series: 0 }).unwrap_err();
        assert_eq!(error.kind(), EvaluationErrorKind::Refused);
        assert_eq!(error, EvaluationError::TooManyPairs);
    }

    #[test]
    fn the_deepest_expressions_need_no_stack() {
        let chain = |start: &str, more: &str| format!("{start}{}", more.repeat(490));
        let nested = |open: &str, close: &str| format!("{}X{}", open.repeat(120), close.repeat(120));
        let exprs = [
            chain("X", " + X"),
            chain("X", " ^ X"),
            chain("X", " or X"),
            nested("sum by (a) (", ")"),
            nested("1 + (", ") * X"),
        ]
        .map(|query| parsed(&query));
        let deep = || {
            for expr in &exprs {
                let leaves = leaves(expr).iter().map(|_| vec![series("a=1: 1 1")]).collect();
                let steps = Steps { start: Timestamp(0), step: 1, count: 2 };
                assert!(evaluate(expr, steps, leaves, EvaluationLimits { max_query_series: 1 }).is_ok());
            }
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, deep).unwrap();
            assert!(thread.join().is_ok());
        });
    }

    #[test]
    fn fewer_series_than_asked_for_are_none() {
        let limits = EvaluationLimits { max_query_series: 0 };
        let steps = Steps::instant(Timestamp(0));
        let Ok(Evaluated::Series(series)) = evaluate(&parsed("X or Y"), steps, Vec::new(), limits) else { panic!() };
        assert!(series.is_empty());
    }
}
