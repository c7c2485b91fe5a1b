//! Operators between series.

use super::*;

const MANY_TO_MANY: &str = "hand-side;many-to-many matching not allowed: matching labels must be unique on one side";
const MANY_TO_ONE: &str = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
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
    same(&range("Y * on (a) group_right (d, nope) X", &many, &one), &["a=1 b=1 c=x d=z: 10 20", "a=1 b=2 d=z: 20 40"]);
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
