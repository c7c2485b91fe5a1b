//! What is printed is read again as what it was: `parse(print(tree)) == tree`, for trees of every kind of node.
//!
//! Left out are the few things that the normal form does not keep, as Loki's does not: sizes that need rounding, empty groupings
//! that mean nothing, names that are not ASCII, and numbers that have no spelling.

use std::time::Duration;

use proptest::prelude::*;
use tailwater_logql::ast::*;
use tailwater_logql::{parse, pretty};

fn name() -> impl Strategy<Value = String> {
    let names = ["a", "app", "_x", "level", "A9", "sum", "rate", "ip", "duration", "bytes", "vector", "strict", "of"];
    prop::sample::select(names.to_vec()).prop_map(str::to_owned)
}

fn names(least: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(name(), least..4)
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        any::<String>().prop_map(|s| Text(s.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Text),
    ]
}

fn regex() -> impl Strategy<Value = Text> {
    let patterns = ["", ".+", "a|b", "(?i)err", "x`y", r"\d+\.", "warn|warning", "(?P<n>x)", "é.*\n", "^[a-z]{2,3}$"];
    prop::sample::select(patterns.to_vec()).prop_map(Text::from)
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let plain = (name(), prop::sample::select(vec![MatchOp::Eq, MatchOp::Neq]), text());
    let pattern = (name(), prop::sample::select(vec![MatchOp::Re, MatchOp::NotRe]), regex());
    prop_oneof![plain.boxed(), pattern.boxed()].prop_map(|(name, op, value)| Matcher { name, op, value })
}

/// With one matcher that refuses the empty value.
fn selector() -> impl Strategy<Value = Vec<Matcher>> {
    let first = Matcher { name: "app".into(), op: MatchOp::Eq, value: Text::from("x") };
    prop::collection::vec(matcher(), 0..3).prop_map(move |mut rest| {
        rest.insert(0, first.clone());
        rest
    })
}

/// Numbers that a literal can have: there is no way to write `-0`, and `-` is read on its own only in some places.
fn number() -> impl Strategy<Value = f64> {
    let any = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL;
    prop_oneof![any, (0..1000_u32).prop_map(f64::from), Just(0.25)]
}

fn cmp_op() -> impl Strategy<Value = CmpOp> {
    prop::sample::select(vec![CmpOp::Eq, CmpOp::Neq, CmpOp::Gt, CmpOp::Gte, CmpOp::Lt, CmpOp::Lte])
}

fn comparison() -> impl Strategy<Value = LabelFilter> {
    let size = (10..1000_u64, 0..5_u32).prop_map(|(n, unit)| n * 1000_u64.pow(unit));
    prop_oneof![
        matcher().prop_map(LabelFilter::Text),
        (name(), cmp_op(), number()).prop_map(|(name, op, value)| LabelFilter::Number { name, op, value }),
        (name(), cmp_op(), any::<i64>()).prop_map(|(name, op, nanos)| LabelFilter::Duration { name, op, nanos }),
        (name(), cmp_op(), size).prop_map(|(name, op, bytes)| LabelFilter::Bytes { name, op, bytes }),
        (name(), any::<bool>(), text()).prop_map(|(name, negated, pattern)| LabelFilter::Ip { name, negated, pattern }),
    ]
}

fn label_filter() -> impl Strategy<Value = LabelFilter> {
    comparison().prop_recursive(4, 12, 2, |inner| {
        (any::<bool>(), inner.clone(), inner).prop_map(|(and, left, right)| {
            let (left, right) = (Box::new(left), Box::new(right));
            if and { LabelFilter::And(left, right) } else { LabelFilter::Or(left, right) }
        })
    })
}

fn line_filter() -> impl Strategy<Value = LineFilter> {
    let operand = || prop_oneof![3 => text().prop_map(LineOperand::Text), 1 => text().prop_map(LineOperand::Ip)];
    let chain = (
        prop::sample::select(vec![LineOp::Contains, LineOp::Re, LineOp::Pattern]),
        prop::collection::vec(operand(), 1..4),
    );
    // A chain of excluded operands is printed as filters in a row.
    let excluded = (
        prop::sample::select(vec![LineOp::NotContains, LineOp::NotRe, LineOp::NotPattern]),
        prop::collection::vec(operand(), 1..2),
    );
    prop_oneof![chain.boxed(), excluded.boxed()].prop_map(|(op, operands)| LineFilter { op, operands })
}

fn extractions() -> impl Strategy<Value = Vec<Extraction>> {
    let extraction = (name(), text()).prop_map(|(label, expression)| Extraction { label, expression });
    prop::collection::vec(extraction, 0..3)
}

fn stage() -> impl Strategy<Value = Stage> {
    let format = prop_oneof![name().prop_map(LabelFormatValue::Rename), text().prop_map(LabelFormatValue::Template)];
    let format = (name(), format).prop_map(|(label, value)| LabelFormat { label, value });
    let dropped = prop_oneof![name().prop_map(NameOrMatcher::Name), matcher().prop_map(NameOrMatcher::Matcher)];
    let dropped = || prop::collection::vec(dropped.clone(), 1..4);
    prop_oneof![
        3 => line_filter().prop_map(Stage::Line),
        3 => label_filter().prop_map(Stage::Label),
        1 => extractions().prop_map(Stage::Json),
        1 => (any::<bool>(), any::<bool>(), extractions())
            .prop_map(|(strict, keep_empty, extractions)| Stage::Logfmt { strict, keep_empty, extractions }),
        1 => Just(Stage::Regexp(Text::from("(?P<a>.)`"))),
        1 => Just(Stage::Pattern(Text::from("<a> \"<_>"))),
        1 => prop::sample::select(vec![Stage::Unpack, Stage::Decolorize]),
        1 => text().prop_map(Stage::LineFormat),
        1 => prop::collection::vec(format, 1..3).prop_map(Stage::LabelFormat),
        1 => dropped().prop_map(Stage::Drop),
        1 => dropped().prop_map(Stage::Keep),
    ]
}

/// After a name to drop or keep, `!=` is about that label: such a line filter cannot stand there.
fn readable(stages: &[Stage]) -> bool {
    !stages.windows(2).any(|pair| {
        let ends_with_name = match &pair[0] {
            Stage::Drop(names) | Stage::Keep(names) => matches!(names.last(), Some(NameOrMatcher::Name(_))),
            _ => false,
        };
        let excludes = matches!(&pair[1], Stage::Line(f) if matches!(f.op, LineOp::NotContains | LineOp::NotRe));
        ends_with_name && excludes
    })
}

fn log() -> impl Strategy<Value = LogExpr> {
    let stages = prop::collection::vec(stage(), 0..4).prop_filter("it can be written", |stages| readable(stages));
    (selector(), stages).prop_map(|(selector, stages)| LogExpr { selector, stages })
}

fn grouping(least: usize) -> impl Strategy<Value = Option<Grouping>> {
    prop::option::of((any::<bool>(), names(least)).prop_map(|(without, labels)| Grouping { without, labels }))
}

fn unwrap() -> impl Strategy<Value = Unwrap> {
    let conversions =
        vec![None, Some(Conversion::Bytes), Some(Conversion::Duration), Some(Conversion::DurationSeconds)];
    (name(), prop::sample::select(conversions), prop::collection::vec(label_filter(), 0..3))
        .prop_map(|(label, conversion, filters)| Unwrap { label, conversion, filters })
}

fn range() -> impl Strategy<Value = MetricExpr> {
    use RangeOp::*;
    let of_lines = vec![Rate, BytesRate, CountOverTime, BytesOverTime, AbsentOverTime];
    let of_values = vec![Rate, RateCounter, SumOverTime, AbsentOverTime];
    let of_groups = vec![
        AvgOverTime,
        MinOverTime,
        MaxOverTime,
        StddevOverTime,
        StdvarOverTime,
        FirstOverTime,
        LastOverTime,
        QuantileOverTime,
    ];
    let kind = prop_oneof![
        (prop::sample::select(of_lines), Just(None), Just(None)).boxed(),
        (prop::sample::select(of_values), unwrap().prop_map(Some), Just(None)).boxed(),
        (prop::sample::select(of_groups), unwrap().prop_map(Some), grouping(0)).boxed(),
    ];
    let offset = prop_oneof![Just(0), any::<i64>()];
    (kind, log(), 0..1_000_000_000_000_u64, offset, 0.0..1.0_f64).prop_map(
        |((op, unwrap, grouping), log, millis, offset_nanos, quantile)| {
            let param = (op == QuantileOverTime).then_some(quantile);
            let range = Duration::from_millis(millis);
            MetricExpr::Range(Box::new(RangeAggregation { op, param, log, range, offset_nanos, unwrap, grouping }))
        },
    )
}

fn matching() -> impl Strategy<Value = Option<VectorMatching>> {
    let labels = prop_oneof![(Just(true), names(0)).boxed(), (Just(false), names(1)).boxed()];
    let side = prop::sample::select(vec![GroupSide::Left, GroupSide::Right]);
    let group = prop_oneof![(Just(None), Just(Vec::new())).boxed(), (side.prop_map(Some), names(0)).boxed(),];
    prop::option::of((labels, group).prop_map(|((on, labels), (group, include))| VectorMatching {
        on,
        labels,
        group,
        include,
    }))
}

fn metric() -> impl Strategy<Value = MetricExpr> {
    let leaf = prop_oneof![
        3 => range(),
        1 => (0..100_u32).prop_map(|n| MetricExpr::VectorLiteral(f64::from(n) / 4.0)),
    ];
    leaf.prop_recursive(4, 8, 2, |inner| {
        use VectorOp::*;
        let grouped = prop::sample::select(vec![Sum, Avg, Min, Max, Count, Stddev, Stdvar]);
        let limited = prop::sample::select(vec![Topk, Bottomk]);
        let bare = prop::sample::select(vec![Sort, SortDesc]);
        // `by ()` is printed as nothing, so it is not made here.
        let group = || grouping(0).prop_map(|g| g.filter(|g| g.without || !g.labels.is_empty()));
        let kind = prop_oneof![
            (grouped, Just(None), group()).boxed(),
            (limited, (1..i64::MAX).prop_map(Some), group()).boxed(),
            (Just(ApproxTopk), (1..50_i64).prop_map(Some), Just(None)).boxed(),
            (bare, Just(None), Just(None)).boxed(),
        ];
        let vector = (kind, inner.clone()).prop_map(|((op, param, grouping), inner)| {
            MetricExpr::Vector(Box::new(VectorAggregation { op, param, grouping, inner }))
        });
        let replace =
            (inner.clone(), text(), text(), text(), regex()).prop_map(|(inner, dst, replacement, src, regex)| {
                MetricExpr::LabelReplace(Box::new(LabelReplace { inner, dst, replacement, src, regex }))
            });
        let set = prop::sample::select(vec![BinOp::Or, BinOp::And, BinOp::Unless]);
        let other = {
            use BinOp::*;
            prop::sample::select(vec![Eq, Neq, Gt, Gte, Lt, Lte, Add, Sub, Mul, Div, Mod, Pow])
        };
        let sides = (inner.clone(), inner.clone());
        // One side may be a literal; two would be folded.
        let with_literal = (inner, number(), any::<bool>()).prop_map(|(expr, value, first)| {
            let literal = MetricExpr::Literal(value);
            if first { (literal, expr) } else { (expr, literal) }
        });
        let operands =
            prop_oneof![(set, sides.clone()).boxed(), (other.clone(), sides).boxed(), (other, with_literal).boxed(),];
        let binary = (operands, any::<bool>(), matching()).prop_map(|((op, (left, right)), return_bool, matching)| {
            MetricExpr::Binary(Box::new(BinaryOp { op, return_bool, matching, left, right }))
        });
        prop_oneof![vector, replace, binary]
    })
}

fn expr() -> impl Strategy<Value = Expr> {
    prop_oneof![log().prop_map(Expr::Log), metric().prop_map(Expr::Metric)]
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(expr in expr()) {
        let printed = expr.to_string();
        let again = parse(&printed).map_err(|e| TestCaseError::fail(format!("{printed}\n{e}")))?;
        prop_assert_eq!(&again, &expr, "{}", printed);
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn a_prettified_log_query_means_the_same(log in log()) {
        let expr = Expr::Log(log);
        let lines = pretty(&expr);
        prop_assert_eq!(parse(&lines), Ok(expr), "{}", lines);
    }
}
