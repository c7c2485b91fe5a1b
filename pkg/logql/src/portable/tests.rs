use proptest::prelude::*;

use super::*;
use crate::LogQuery;
use crate::ast::{Expr, LogExpr};
use crate::matchers::Matchers;
use crate::metric::{SampleQuery, leaves};

/// Queries with every stage, and what the printed form does not keep.
const QUERIES: [&str; 12] = [
    r#"{a="1"}"#,
    r#"{a="1", b!="2", c=~"x|y", d!~"z.+"}"#,
    r#"{a="1"} |= "x" != "y" or "z" |~ "[0-9]+" !~ "q" |> "<_> a" !> "b <_>" |= ip("10.0.0.0/8")"#,
    r#"{a="1"} | json | json x="y.z", w | logfmt --strict --keep-empty | logfmt v="u""#,
    r#"{a="1"} | regexp "(?P<m>.)" | pattern "<n> <_>" | unpack | decolorize"#,
    r#"{a="1"} | line_format "{{.x}}" | label_format p=q, r="{{.s}}" | drop a, b="c" | keep d, e=~"f""#,
    r#"{a="1"} | size > 1234B | took >= 1h0m0.000000001s or n != 1.5 and (x="y" or z=ip("::1"))"#,
    r#"{a="\xff\x00\n"} |= "\xfe""#,
    r#"{a="1"} | x="1" or x="2" or x="3" and y!=ip("1.2.3.4") , z == -2"#,
    r#"sum by (x, y) (count_over_time({a="1"} |= "x" [90s] offset -7ns))"#,
    r#"quantile_over_time(0.99, {a="1"} | json | unwrap duration(v) | v > 1 | w="2" [5m]) without (q)"#,
    r#"sum without (x) (rate({a="1"} | unwrap bytes(v) [1h]))"#,
];

fn bytes_of(query: &str) -> Vec<u8> {
    match crate::parse(query).unwrap() {
        Expr::Log(log) => log.to_bytes(),
        Expr::Metric(metric) => {
            let leaf = &leaves(&metric)[0];
            SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap().to_bytes()
        }
    }
}

#[test]
fn queries_survive_exactly() {
    for query in QUERIES {
        match crate::parse(query).unwrap() {
            Expr::Log(log) => {
                assert_eq!(LogExpr::from_bytes(&log.to_bytes()), Ok(log.clone()), "{query}");
                let compiled = LogQuery::compile(&log).unwrap();
                let again = LogQuery::from_bytes(&compiled.to_bytes()).unwrap();
                assert_eq!((again.canonical(), again.to_bytes()), (compiled.canonical(), compiled.to_bytes()));
                let matchers = Matchers::from_bytes(&compiled.matchers().to_bytes()).unwrap();
                assert!(matchers.iter().eq(&log.selector), "{query}");
            }
            Expr::Metric(metric) => {
                let leaf = &leaves(&metric)[0];
                let compiled = SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap();
                let again = SampleQuery::from_bytes(&compiled.to_bytes()).unwrap();
                assert_eq!(again.aggregation(), leaf.aggregation, "{query}");
                assert_eq!(again.canonical(), compiled.canonical(), "{query}");
            }
        }
    }
}

#[test]
fn what_the_printed_form_cannot_say_survives_too() {
    // No matchers at all: those of several tenants may have been on the tenant alone.
    let all = LogExpr { selector: Vec::new(), stages: Vec::new() };
    let query = LogQuery::from_bytes(&LogQuery::compile(&all).unwrap().to_bytes()).unwrap();
    assert_eq!((query.canonical(), query.matchers().iter().len()), ("{}", 0));
    // Printed, this is nested more deeply than may be parsed.
    let many = format!(r#"{{a="1"}} | {}"#, vec![r#"x="1""#; 300].join(" or "));
    let query = LogQuery::parse(&many).unwrap();
    assert!(LogQuery::parse(query.canonical()).is_err());
    assert_eq!(LogQuery::from_bytes(&query.to_bytes()).unwrap().canonical(), query.canonical());
    // Labels that are not ASCII are quoted where they are printed.
    let query = LogQuery::parse(r#"{ä="1"}"#);
    if let Ok(query) = query {
        assert_eq!(LogQuery::from_bytes(&query.to_bytes()).unwrap().canonical(), query.canonical());
    }
}

#[test]
fn the_bounds_of_the_parser_hold() {
    let mut deep = vec![1, 0, 1, 11];
    deep.extend(vec![5; 100_000]);
    assert_eq!(LogExpr::from_bytes(&deep).unwrap_err(), Malformed("nested too deeply"));
    let matcher = crate::parse_selector(r#"{a=~"b"}"#).unwrap();
    let many: Vec<_> = (0..101).map(|_| matcher[0].clone()).collect();
    assert!(Matchers::from_bytes(&many.to_bytes()).is_err());
    assert!(Matchers::from_bytes(&many[..100].to_vec().to_bytes()).is_ok());
}

proptest! {
    #[test]
    fn corrupt_queries_are_refused_or_compiled(
        query in prop::sample::select(&QUERIES[..]), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(query);
        let at = at.index(bytes.len());
        bytes[at] = with;
        let cut = cut.index(bytes.len());
        for bytes in [&bytes[..], &bytes[..cut]] {
            let _any = (LogQuery::from_bytes(bytes), SampleQuery::from_bytes(bytes), Matchers::from_bytes(bytes));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(rest in prop::collection::vec(0..16_u8, 0..60)) {
        let bytes = [&[1][..], &rest].concat();
        let _any = (LogQuery::from_bytes(&bytes), SampleQuery::from_bytes(&bytes), Matchers::from_bytes(&bytes));
    }

    #[test]
    fn numbers_survive(number in any::<u64>(), signed in any::<i64>()) {
        let mut out = vec![1];
        put_number(&mut out, number);
        put_signed(&mut out, signed);
        let mut from = Source::new(&out, 1).unwrap();
        prop_assert_eq!((from.number(), from.signed(), from.end()), (Ok(number), Ok(signed), Ok(())));
    }
}
