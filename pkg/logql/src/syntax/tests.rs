//! The two grammars describe one language, and no query is too much.

use proptest::prelude::*;

use super::parser::{MAX_DEPTH, Refused, build};
use super::token::{Kind, Token, Value};
use super::{MAX_NESTING, MAX_QUERY_BYTES, expected, lexer, parse};
use crate::ast::Expr;

/// A token with a value that passes every check: as a regular expression, as a `regexp` and as a `pattern` parser.
fn token(kind: Kind) -> Token<'static> {
    let (text, value) = match kind {
        Kind::Identifier => ("a", Value::None),
        Kind::Number => ("1", Value::None),
        Kind::String => ("", Value::Text(b"(?P<a>x)".to_vec())),
        Kind::Duration | Kind::Range => ("", Value::Nanos(1)),
        Kind::Bytes => ("", Value::Size(1)),
        _ => ("", Value::None),
    };
    Token { kind, text, value, line: 1, col: 1, fault: None }
}

fn sentence(kinds: &[Kind]) -> Vec<Token<'static>> {
    kinds.iter().copied().chain([Kind::End]).map(token).collect()
}

/// Whether both grammars agree on a sentence.
fn agree(kinds: &[Kind]) -> Result<(), TestCaseError> {
    let tokens = sentence(kinds);
    let explained = expected::explain(&tokens);
    let built = build(&tokens).map(|_| ());
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    prop_assert_eq!(explained.is_ok(), built != Err(Refused::Wrong), "{}: {:?}", names.join(" "), explained);
    Ok(())
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL[1..].to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn both_grammars_take_what_one_of_them_makes(choices in prop::collection::vec(any::<u8>(), 0..60)) {
        agree(&expected::walk(&choices))?;
    }

    #[test]
    fn both_grammars_refuse_the_same_mistakes(
        choices in prop::collection::vec(any::<u8>(), 0..60),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, kind()), 1..4),
    ) {
        let mut kinds = expected::walk(&choices);
        for (at, edit, kind) in edits {
            match edit {
                0 => kinds.insert(at.index(kinds.len() + 1), kind),
                1 if !kinds.is_empty() => { kinds.remove(at.index(kinds.len())); }
                _ if !kinds.is_empty() => { let at = at.index(kinds.len()); kinds[at] = kind; }
                _ => {}
            }
        }
        agree(&kinds)?;
    }

    #[test]
    fn no_text_is_too_strange(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_soup_of_words_is_too_strange(words in prop::collection::vec(word(), 0..40)) {
        let text = words.concat();
        match parse(&text) {
            Ok(expr) => {
                let printed = expr.to_string();
                // What has no spelling that can be read back: see `print`.
                let odd = !text.is_ascii()
                    || text.contains('\'') || printed.contains("Inf") || printed.contains("NaN");
                prop_assert!(odd || parse(&printed).is_ok(), "{printed}");
            }
            // Every refusal has a reason: the grammars never disagree about it.
            Err(e) => prop_assert_ne!(e.to_string(), "parse error : syntax error"),
        }
    }
}

fn word() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "{a=\"b\"}",
        "(",
        ")",
        "[5m]",
        "[1",
        "|",
        "|=",
        "!=",
        "=~",
        "=",
        "==",
        ">",
        "or",
        "and",
        "by",
        "on",
        "sum(",
        "rate(",
        "rate({a=\"b\"}[5m])",
        "topk(2,",
        "json",
        "logfmt",
        "--strict",
        "unwrap",
        "offset",
        "x",
        "y",
        "\"s\"",
        "`(`",
        "\"",
        "`",
        "'c'",
        "5",
        "5m",
        "5KB",
        "1e",
        "-",
        "+",
        "^",
        "ip(",
        ",",
        "#",
        "/*",
        "*/",
        "//",
        "\n",
        " ",
        "\t",
        "\0",
        "é",
        "bool",
        "group_left",
        "ignoring",
        "vector(1)",
        "label_format",
        "drop",
        "pattern \"<a>\"",
        "regexp \"(?P<x>.)\"",
    ];
    (prop::sample::select(words.to_vec()), prop::bool::ANY)
        .prop_map(|(w, space)| if space { format!("{w} ") } else { w.into() })
}

fn refusal(query: &str) -> String {
    parse(query).expect_err("the query is refused").to_string()
}

#[test]
fn the_length_is_bounded() {
    let query = |len: usize| format!("{{a=\"{}\"}}", "x".repeat(len - 6));
    assert!(parse(&query(MAX_QUERY_BYTES - 1)).is_ok());
    assert_eq!(refusal(&query(MAX_QUERY_BYTES)), "parse error : input size too long (131072 > 131072)");
    assert_eq!(refusal(&query(1_000_000)), "parse error : input size too long (1000000 > 131072)");
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(MAX_NESTING)).is_ok());
    let told = "parse error at line 1, col 129: nested too deeply: more than 128 parentheses in each other";
    assert_eq!(refusal(&nested(MAX_NESTING + 1)), told);
    assert_eq!(refusal(&nested(10_000)), told);
    // A mistake is told first, as ever.
    assert_eq!(refusal(&"(".repeat(10_000)), "parse error at line 1, col 10001: syntax error: unexpected $end");
}

#[test]
fn every_way_of_nesting_fits_the_stack() {
    let depth = MAX_NESTING - 2;
    for (open, middle, close) in [
        ("(", "vector(1)", ")"),
        ("sum(", "vector(1)", ")"),
        ("sum by (a) (", "vector(1)", ")"),
        ("label_replace(", "vector(1)", ",\"\",\"\",\"\",\"\")"),
        ("(vector(1) + ", "vector(1)", ")"),
        ("(vector(1) ^ on (a) group_left () ", "vector(1)", ")"),
    ] {
        let depth = if open.starts_with("label") { super::parser::MAX_REGEXES as usize } else { depth };
        let query = format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
        let expr = parse(&query).unwrap_or_else(|e| panic!("{open}: {e}"));
        assert_eq!(parse(&expr.to_string()), Ok(expr));
    }
    for (open, close) in [("(", ")"), ("(b=\"c\" or ", ")")] {
        let query = format!("{{a=\"b\"}} | {}a=\"b\"{}", open.repeat(depth), close.repeat(depth));
        let expr = parse(&query).unwrap_or_else(|e| panic!("{open}: {e}"));
        assert_eq!(parse(&expr.to_string()), Ok(expr));
    }
    let ranges = format!("rate{}{{a=\"b\"}}[5m]{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&ranges).is_ok());
}

#[test]
fn chains_are_bounded_by_the_depth_of_the_tree_they_make() {
    let filter = |operator: &str, count: u32| {
        format!("{{a=\"b\"}} | a=1{}", format!("{operator}a=1").repeat(count as usize - 1))
    };
    for operator in [" or ", " and ", " , ", " "] {
        let expr = parse(&filter(operator, MAX_DEPTH)).unwrap_or_else(|e| panic!("{operator}: {e}"));
        // Cloning, comparing, printing and dropping recurse.
        let printed = expr.clone().to_string();
        assert!(printed.len() > 4 * MAX_DEPTH as usize, "{operator}");
        assert_eq!(expr.clone(), expr);
        assert_eq!(
            refusal(&filter(operator, MAX_DEPTH + 1)),
            "parse error : nested too deeply: more than 500 operators in a row"
        );
        let longest = (MAX_QUERY_BYTES - 20) / (operator.len() + 3);
        assert!(refusal(&filter(operator, longest as u32)).contains("nested too deeply"), "{operator}");
    }
    let chain =
        |operator: &str, count: u32| format!("vector(1){}", format!("{operator}vector(1)").repeat(count as usize - 1));
    for operator in ["+", "^", " or "] {
        let expr = parse(&chain(operator, MAX_DEPTH)).unwrap_or_else(|e| panic!("{operator}: {e}"));
        assert!(crate::pretty(&expr).lines().count() > MAX_DEPTH as usize, "{operator}");
        assert!(refusal(&chain(operator, MAX_DEPTH + 1)).contains("nested too deeply"), "{operator}");
        assert!(refusal(&chain(operator, 10_000)).contains("nested too deeply"), "{operator}");
    }
}

#[test]
fn what_folds_or_lies_side_by_side_may_be_as_long_as_a_query() {
    let sum = format!("1{}", "+1".repeat(60_000));
    assert_eq!(parse(&sum).map(|e| e.to_string()), Ok("60001".to_owned()));
    let power = format!("1{}", "^1".repeat(60_000));
    assert_eq!(parse(&power).map(|e| e.to_string()), Ok("1".to_owned()));
    let stages = format!("{{a=\"b\"}}{}", "|=\"\"".repeat(30_000));
    assert!(matches!(parse(&stages), Ok(Expr::Log(log)) if log.stages.len() == 30_000));
    let operands = format!("{{a=\"b\"}} |= \"\"{}", " or \"\"".repeat(20_000));
    assert!(parse(&operands).is_ok());
    let labels = format!("sum by (a{}) (vector(1))", ",a".repeat(60_000));
    assert!(parse(&labels).is_ok());
}

#[test]
fn looking_ahead_costs_no_more_than_the_query_is_long() {
    for piece in [".1", "-", "1m.", "sum ", "[", "\"", "0x", "1e", "/*"] {
        let query = piece.repeat((MAX_QUERY_BYTES - 1) / piece.len());
        assert!(parse(&query).is_err(), "{piece}");
    }
}

#[test]
fn regular_expressions_are_counted() {
    let most = super::parser::MAX_REGEXES as usize;
    let told = "parse error : too many regular expressions and templates: more than 100";
    for (start, one) in [
        ("{a=\"b\"}", "|~ \"x\" "),
        ("{a=\"b\"} !~ \"x\" ", "or \"x\" "),
        ("{a=\"b\"}", "| regexp \"(?P<a>x)\" "),
        ("{a=\"b\"}", "| a =~ \"x\" "),
        ("{a=\"b\"}", "| keep a !~ \"x\" "),
        ("{a=\"b\"}", "| line_format \"x\" "),
        ("{a=\"b\"}", "| label_format a=\"x\" "),
    ] {
        let already = usize::from(start.contains("!~"));
        let query = |count: usize| format!("{start}{}", one.repeat(count - already));
        assert!(parse(&query(most)).is_ok(), "{one}");
        assert_eq!(refusal(&query(most + 1)), told, "{one}");
    }
    let selector = |count: usize| format!("{{a=\"b\"{}}}", ", a=~\"x\"".repeat(count));
    assert!(parse(&selector(most)).is_ok());
    assert_eq!(refusal(&selector(most + 1)), told);
    // What else is wrong is told first.
    assert!(refusal(&format!("{}}}", selector(most + 1))).ends_with("unexpected }"));
}

#[test]
fn tokens_end_once() {
    for query in ["", "{a=\"b\"}", "{a=\"b", "rate({a=\"b\"}[", "\"\\400\" {"] {
        let tokens = lexer::tokens(query);
        let ends = tokens.iter().filter(|token| token.kind == Kind::End).count();
        assert_eq!((ends, tokens.last().map(|token| token.kind)), (1, Some(Kind::End)), "{query}");
    }
}
