//! Numbers, and operators between them and series.

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
