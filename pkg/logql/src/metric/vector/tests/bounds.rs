//! What is too much, and what is not.

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
