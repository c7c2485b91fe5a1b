//! The order of answers.

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
