//! Aggregations: groups, and what is made of them.

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
