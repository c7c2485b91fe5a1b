//! `label_replace`.

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
    same(&range(&format!(r#"label_replace({inner}, "d", "$1!", "c", "(.*)")"#), &x[..1], &[]), &["a=200 c=2 d=2!: 1"]);
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
