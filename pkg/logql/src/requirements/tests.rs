//! What is required of lines, by the query; and that nothing that passes lacks it.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tailwater_model::{Labels, Timestamp};

use super::*;
use crate::LogQuery;
use crate::ast::Expr;
use crate::metric::{SampleQuery, leaves};

fn query(stages: &str) -> Arc<LogQuery> {
    let text = format!(r#"{{app="a"}} {stages}"#);
    Arc::new(LogQuery::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}")))
}

/// `"a"|"b"` for alternatives, with an `i` if they are of any case; `&` between what all lines have.
fn print(literals: &[AnyOf]) -> String {
    let one = |any_of: &AnyOf| {
        let mut texts: Vec<_> = any_of.literals().iter().map(|l| format!("{:?}", String::from_utf8_lossy(l))).collect();
        texts.sort();
        texts.join("|") + if any_of.any_case() { "i" } else { "" }
    };
    let mut all: Vec<_> = literals.iter().map(one).collect();
    all.sort();
    all.join(" & ")
}

fn literals(stages: &str) -> String {
    print(&query(stages).requirements().literals)
}

fn fields(stages: &str) -> String {
    let fields = query(stages).requirements().fields.clone();
    fields.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// What a line lacks.
fn lacking(requirements: &Requirements, stream: &Labels, line: &[u8], metadata: &[(&str, &str)]) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let holds = |any_of: &&AnyOf| {
        let line = if any_of.any_case() { &lower } else { line };
        any_of.literals().iter().any(|l| line.windows(l.len()).any(|w| *w == **l))
    };
    if let Some(any_of) = requirements.literals.iter().find(|l| !holds(l)) {
        return Some(print(std::slice::from_ref(any_of)));
    }
    let has = |name: &str, value: &str| stream.get(name) == Some(value) || metadata.contains(&(name, value));
    requirements.fields.iter().find(|(n, v)| !has(n, v)).map(|(n, v)| format!("{n}={v}"))
}

#[test]
fn line_filters_require_their_texts() {
    assert_eq!(literals(r#"|= "one" |= "another""#), r#""another" & "one""#);
    assert_eq!(literals(r#"|= "one" or "two" or "someone""#), r#""one"|"two""#, "who has someone has one");
    assert_eq!(literals(r#"|= "failed" |= "fail""#), r#""failed""#, "the one follows from the other");
    assert_eq!(literals(r#"|= "one" or "" |= ip("10.0.0.1")"#), "");
    assert_eq!(literals(r#"|= "one" or ip("10.0.0.1")"#), "");
    assert_eq!(literals(r#"|= "é\n""#), r#""é\n""#);
    assert_eq!(literals(r#"|> "<_> status=500 <_> end" "#), r#"" end" & " status=500 ""#);
    assert_eq!(literals(r#"|> "<_>abc<_>defg" or "<_>xyz""#), r#""defg"|"xyz""#, "the best of each");
    assert_eq!(literals(r#"|> "" or "<_>xyz""#), "");
    assert_eq!(literals(r#"|> "<_>""#), "");
}

#[test]
fn what_is_negated_requires_nothing() {
    assert_eq!(literals(r#"!= "one" !~ "two" !> "<_>three""#), "");
    assert_eq!(fields(r#"| x!="one" | y!~"two" | z=~"three" | v="""#), "");
}

#[test]
fn regular_expressions_require_what_is_in_every_match() {
    for (pattern, want) in [
        (r"error", r#""error""#),
        (r"^error$", r#""error""#),
        (r".*", ""),
        (r".+", ""),
        (r"a|b", ""),
        (r"user=alice.*status=5\d\d", r#""status=5" & "user=alice""#),
        (r"(GET|POST) /api", r#""GET /api"|"POST /api""#),
        (r"(GET|POST|PUT .*) /api", r#"" /api" & "GET"|"POST"|"PUT ""#),
        (r"(foo.*bar1|quux.*x)", r#""bar1"|"quux" & "foo"|"quux""#),
        (r"(fatal )?error", r#""error""#),
        (r"foo(bar)+baz", r#""barbaz" & "foobar""#),
        (r"(abc){2}", r#""abcabc""#),
        (r"x(abc){2,}y", r#""abcabcy" & "xabcabc""#),
        (r"x(abc){0,2}y", ""),
        (r"gr[ae]y cat", r#""gray cat"|"grey cat""#),
        (r"er\x{FFFD}or", ""),
        (r"timeout\x{FFFD}again\x{FFFD}", r#""again" & "timeout""#),
        (r"(error|)", ""),
        (r"one\ntwo", r#""one\ntwo""#),
        (r"(?i)error", r#""error"i"#),
        (r"(?i)error|warn", r#""error"|"warn"i"#),
        (r"(?i)warn|.*", ""),
        (r"(?i:Err)or: X.*timeout", r#""error: x"i & "timeout""#),
        // By Go's lower case, which plain texts are compared by, İ is an i; by the folding of regular expressions it is none.
        ("(?i)exit", "\"exit\"|\"ex\u{130}t\"i"),
        ("(?i)exit.*", "\"exit\"i"),
        ("(?i)ä error", r#"" error"i"#),
        ("(?i)mask .*x", "\"mask \"|\"mas\u{212a} \"|\"maſk \"|\"maſ\u{212a} \"i"),
        ("(?i)ä error.*", "\"Ä error\"|\"ä error\"i"),
    ] {
        assert_eq!(literals(&format!("|~ `{pattern}`")), want, "{pattern}");
    }
    assert_eq!(literals("|~ `one` or `(?i)TWO`"), r#""one"|"two"i"#);
    assert_eq!(literals("|~ `one` or `.`"), "");
}

#[test]
fn what_is_known_is_bounded() {
    let many = |n: usize| (0..n).map(|i| format!("word{i:04}")).collect::<Vec<_>>();
    let count =
        |stages: &str| query(stages).requirements().literals.iter().map(|l| l.literals.len()).collect::<Vec<_>>();
    assert_eq!(count(&format!("|~ `{}`", many(128).join("|"))), [128]);
    assert_eq!(count(&format!("|~ `{}`", many(129).join("|"))), [0; 0]);
    assert_eq!(count(&format!("|= `{}`", many(128).join("` or `"))), [128]);
    assert_eq!(count(&format!("|= `{}`", many(129).join("` or `"))), [0; 0]);
    assert_eq!(count(&format!("|= `{}`", many(100).join("` |= `"))), [1; MAX_LITERALS]);
    assert!(count(&format!("|~ `{}`", many(100).join(".*"))).len() <= MAX_LITERALS);
    assert_eq!(fields(&format!("| x=`{}`", many(100).join("` | x=`"))).split(' ').count(), MAX_FIELDS);
    let long = query(&format!("|= `{}`", "x".repeat(100_000)));
    assert_eq!(long.requirements().literals[0].literals[0].len(), texts::MAX_BYTES);
    let long = query(&format!("|~ `a.*{}`", "x".repeat(20_000)));
    assert!(long.requirements().literals.iter().all(|l| l.literals[0].len() == texts::MAX_BYTES));
    for pattern in
        ["(ab|cd){500}x", "((a|b){30}){30}", "(?i)session missing skiing kiosk", "[ab][ab][ab][ab][ab][ab][ab]"]
    {
        let found = query(&format!("|~ `.{pattern}`"));
        let bytes = |l: &AnyOf| l.literals.iter().map(|l| l.len()).sum::<usize>();
        assert!(found.requirements().literals.iter().all(|l| bytes(l) <= texts::MAX_BYTES && l.literals.len() <= 16));
        assert!(!found.requirements().literals.is_empty(), "{pattern}");
    }
}

#[test]
fn line_filters_count_only_before_the_line_changes() {
    assert_eq!(literals(r#"| json | x="1" | drop y | label_format z=x |= "here""#), r#""here""#);
    for changes in ["unpack", "decolorize", r#"line_format "{{.x}}""#] {
        assert_eq!(literals(&format!(r#"|= "before" | {changes} |= "behind""#)), r#""before""#);
    }
}

#[test]
fn label_filters_require_labels_as_they_were_sent() {
    assert_eq!(fields(r#"| x="1" and y="2", z="3" | v="4""#), "x=1 y=2 z=3 v=4");
    assert_eq!(fields(r#"| x="1" or y="2" | z="3" and (v="4" or w="5")"#), "z=3");
    assert_eq!(fields(r#"| x="1" and y > 5 | level="error""#), "x=1 level=error");
    assert_eq!(fields(r#"| x="\xff""#), "");
    for name in ["detected_level", "__error__", "__error_details__", "__preserve_error__", "x_extracted"] {
        assert_eq!(fields(&format!(r#"| {name}="x""#)), "", "{name}");
    }
}

#[test]
fn label_filters_count_only_before_their_label_may_be_set() {
    for sets in ["json", "logfmt", "unpack", "pattern `<q> <_>`", "regexp `(?P<q>.)`"] {
        assert_eq!(fields(&format!(r#"| x="1" | {sets} | y="2""#)), "x=1", "{sets}");
    }
    for sets in [r#"json y="a""#, r#"logfmt y="a""#, "label_format y=a", r#"label_format y="{{.a}}""#] {
        assert_eq!(fields(&format!(r#"| {sets} | x="1" | y="2""#)), "x=1", "{sets}");
    }
    for leaves in ["decolorize", r#"line_format "{{.x}}""#, "drop x", "keep x", "label_format y=x", r#"z > 5"#] {
        assert_eq!(fields(&format!(r#"| {leaves} | x="1""#)), "x=1", "{leaves}");
    }
}

#[test]
fn metric_queries_require_what_their_log_queries_do() {
    let requirements = |text: &str| {
        let Ok(Expr::Metric(expr)) = crate::parse(text) else { panic!("{text}") };
        let leaf = &leaves(&expr)[0];
        SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).unwrap().requirements().clone()
    };
    let found =
        requirements(r#"sum(rate({a="1"} |= "one" | x="1" | logfmt | y="2" |= "two" | unwrap v | z="3" [1m]))"#);
    assert_eq!(print(&found.literals), r#""one" & "two""#);
    assert_eq!(found.fields, [("x".into(), "1".into())]);
    assert!(requirements(r#"count_over_time({a="1"} | json [1m])"#).is_empty());
}

/// Texts that meet in lines and filters: in all cases, and with characters that fold in odd ways.
fn piece() -> impl Strategy<Value = String> {
    let odd =
        ["k", "K", "\u{212a}", "s", "S", "ſ", "i", "I", "\u{130}", "\u{131}", "ä", "Ä", "\u{fffd}", "\n", "σ", "ς"];
    let words = ["err", "Err", "ERROR", "or", "task", "TASK", "ab", "abc", "x=1", " ", "10.0.0.1", "aaaa"];
    select(odd.into_iter().chain(words).map(str::to_owned).collect::<Vec<_>>())
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![8 => piece().prop_map(String::into_bytes), 1 => any::<u8>().prop_map(|b| vec![b])];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn regex() -> impl Strategy<Value = String> {
    let class =
        select(vec![".", "[ek]", "[^a]", r"\d", r"\w", "[a-dA-D]", "^", "$", r"\b", "(?i:s)", "[Kk]", "", ".*"]);
    let leaf = prop_oneof![4 => piece().prop_map(|p| p.replace('.', r"\.")), 1 => class.prop_map(str::to_owned)];
    let whole = leaf.prop_recursive(4, 24, 4, |inner| {
        let repeat = select(vec!["?", "*", "+", "{2}", "{1,3}", "{2,}", "{0}"]);
        prop_oneof![
            3 => vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            2 => vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
            1 => (inner.clone(), repeat).prop_map(|(part, repeat)| format!("(?:{part}){repeat}")),
            1 => inner.prop_map(|part| format!("(?i:{part})")),
        ]
    });
    (any::<bool>(), whole).prop_map(|(fold, whole)| if fold { format!("(?i){whole}") } else { whole })
}

fn line_filter() -> impl Strategy<Value = String> {
    let quoted = |texts: Vec<String>| texts.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" or ");
    let text = || vec(piece(), 1..4).prop_map(|pieces| pieces.concat());
    let folded = vec(text(), 1..3).prop_map(|texts| format!("(?i){}", texts.join("|").replace('.', r"\.")));
    let pattern = vec(text(), 1..4).prop_map(|texts| format!("<_>{}<_>", texts.join("<_>")));
    let escaped = move |texts: Vec<String>| quoted(texts);
    prop_oneof![
        (select(vec!["|=", "!="]), vec(text(), 1..4)).prop_map(move |(op, texts)| format!("{op} {}", escaped(texts))),
        (select(vec!["|~", "|~", "!~"]), vec(prop_oneof![regex(), folded], 1..3))
            .prop_map(move |(op, texts)| format!("{op} {}", escaped(texts))),
        vec(pattern, 1..3).prop_map(move |texts| format!("|> {}", escaped(texts))),
    ]
}

fn stage() -> impl Strategy<Value = String> {
    let name = || select(vec!["x", "y", "y_extracted", "level", "detected_level", "__error__"]);
    let value = || select(vec!["1", "1", "error", ""]);
    let field = (name(), select(vec!["=", "=", "=", "!=", "=~"]), value());
    let field = field.prop_map(|(name, op, value)| format!("{name}{op}\"{value}\""));
    let filter = field.prop_recursive(2, 6, 3, |inner| {
        (select(vec![" and ", ", ", " or "]), vec(inner, 1..4)).prop_map(|(op, parts)| format!("({})", parts.join(op)))
    });
    let other = vec![
        "json",
        "logfmt",
        "logfmt y=\"x\"",
        "json x=\"y\"",
        "unpack",
        "decolorize",
        "drop x",
        "keep y, level",
        "drop x=\"1\"",
        "label_format y=x",
        "label_format x=y",
        "label_format x=\"1\"",
        "line_format \"{{.x}} err\"",
        "regexp \"(?P<x>[^=]*)=(?P<y>.)\"",
        "pattern \"<x>=<y>\"",
    ];
    prop_oneof![
        3 => filter.prop_map(|filter| format!("| {filter}")),
        1 => line_filter(),
        4 => select(other).prop_map(|stage| format!("| {stage}")),
    ]
}

fn stream() -> Labels {
    Labels::from_pairs([("app", "a"), ("y", "1"), ("level", "error")].map(|(n, v)| (n.into(), v.into())).into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_line_that_passes_line_filters_has_what_they_require(
        filters in vec(line_filter(), 1..3),
        lines in vec(line(), 1..12),
    ) {
        let Ok(query) = LogQuery::parse(&format!("{{app=\"a\"}} {}", filters.join(" "))) else { return Ok(()) };
        let query = Arc::new(query);
        let mut runner = query.runner(false);
        runner.enter(&stream());
        for line in lines {
            if runner.run(Timestamp(0), &line, &[]).is_some() {
                let lacking = lacking(query.requirements(), &stream(), &line, &[]);
                prop_assert_eq!(lacking, None, "{} passes {:?}", query.canonical(), String::from_utf8_lossy(&line));
            }
        }
    }

    #[test]
    fn a_line_that_matches_has_what_the_expression_requires(pattern in regex(), lines in vec(line(), 1..24)) {
        let Ok(matcher) = crate::regex::unanchored(&pattern) else { return Ok(()) };
        let texts = matcher.required_texts().iter().cloned();
        let requirements = Requirements { literals: texts.filter_map(any_of).collect(), fields: Vec::new() };
        for line in lines.iter().filter(|line| matcher.is_match(line)) {
            let lacking = lacking(&requirements, &stream(), line, &[]);
            prop_assert_eq!(lacking, None, "{} matches {:?}", pattern, String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_line_that_passes_stages_has_what_they_require(
        stages in vec(stage(), 1..5),
        lines in vec(
            (
                prop_oneof![
                    line().prop_map(|line| String::from_utf8_lossy(&line).into_owned()),
                    select(vec!["x=1 y=error", "{\"x\":\"1\",\"_entry\":\"abc\"}", "x=err level=error", "\u{1b}[31mER\u{1b}[0mROR"])
                        .prop_map(str::to_owned),
                ],
                vec((select(vec!["x", "y", "level", "detected_level"]), select(vec!["1", "error"])), 0..3),
            ),
            1..12,
        ),
        detect_level in any::<bool>(),
    ) {
        let Ok(query) = LogQuery::parse(&format!("{{app=\"a\"}} {}", stages.join(" "))) else { return Ok(()) };
        let query = Arc::new(query);
        let mut runner = query.runner(detect_level);
        runner.enter(&stream());
        for (line, metadata) in &lines {
            if runner.run(Timestamp(0), line.as_bytes(), metadata).is_some() {
                let lacking = lacking(query.requirements(), &stream(), line.as_bytes(), metadata);
                prop_assert_eq!(lacking, None, "{} passes {:?} {:?}", query.canonical(), line, metadata);
            }
        }
    }
}
