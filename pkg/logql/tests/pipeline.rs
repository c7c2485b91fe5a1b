//! What must hold for every line and every pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tailwater_logql::ast::{
    CmpOp, Extraction, LabelFilter, LabelFormat, LabelFormatValue, LineFilter, LineOp, LineOperand, LogExpr, MatchOp,
    Matcher, NameOrMatcher, Stage, Text,
};
use tailwater_logql::{AnyOf, LogQuery, Requirements};
use tailwater_model::{LabelSet, Labels, Timestamp};

/// A line that passed, owned.
#[derive(Clone, Debug, PartialEq)]
struct Passed(Vec<u8>, LabelSet);

fn query(stages: Vec<Stage>) -> Arc<LogQuery> {
    let selector = vec![Matcher { name: "app".into(), op: MatchOp::Eq, value: "a".into() }];
    Arc::new(LogQuery::compile(&LogExpr { selector, stages }).expect("the generated stages are valid"))
}

fn stream(name: &str) -> Labels {
    Labels::from_pairs(vec![("app".into(), "a".into()), ("x".into(), name.into()), ("level".into(), "info".into())])
}

fn text(s: &str) -> Text {
    s.into()
}

/// Words that lines, labels and filters are made of, few so that they meet.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a",
        "b",
        "x",
        "level",
        "app",
        "x_extracted",
        "_entry",
        "a.b",
        "1",
        "5s",
        "1KB",
        "10.0.0.1",
        "é\u{fffd}",
        "",
        "error",
        "__error__",
    ])
    .prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "x", "level", "app", "x_extracted", "a_b", "__error__"]).prop_map(str::to_owned)
}

/// Bytes of all kinds, most of them near to what the parsers look for.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => word().prop_map(String::into_bytes),
        8 => prop::sample::select(b"{}[]\":,= \\\n\x1b<>|".to_vec()).prop_map(|b| vec![b]),
        2 => Just(br#"\u00e9"#.to_vec()),
        2 => Just(br#"\ud800"#.to_vec()),
        1 => any::<u8>().prop_map(|b| vec![b]),
        4 => (word(), word()).prop_map(|(k, v)| format!("{k}={v} ").into_bytes()),
        4 => (word(), word()).prop_map(|(k, v)| format!("\"{k}\":\"{v}\",").into_bytes()),
        2 => word().prop_map(|k| format!("\"{k}\":{{").into_bytes()),
        1 => Just(b"\x1b[31m".to_vec()),
    ];
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|p| p.concat()).boxed();
    prop_oneof![
        pieces.clone(),
        pieces.prop_map(|inner| [b"{".as_slice(), &inner, b"}"].concat()),
        json_object().prop_map(|(text, _)| text.into_bytes()),
    ]
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let op = prop::sample::select(vec![MatchOp::Eq, MatchOp::Neq, MatchOp::Re, MatchOp::NotRe]);
    let pattern = prop_oneof![4 => word().prop_map(|w| w.replace('.', "\\.")), 3 => prop::sample::select(vec![".*", ".+", "a|b.*"]).prop_map(str::to_owned)];
    (name(), op, pattern).prop_map(|(name, op, value)| Matcher { name, op, value: value.as_str().into() })
}

fn label_filter() -> impl Strategy<Value = LabelFilter> {
    let op = || prop::sample::select(vec![CmpOp::Eq, CmpOp::Neq, CmpOp::Gt, CmpOp::Gte, CmpOp::Lt, CmpOp::Lte]);
    let leaf = prop_oneof![
        matcher().prop_map(LabelFilter::Text),
        (name(), op(), -3.0..3.0).prop_map(|(name, op, value)| LabelFilter::Number { name, op, value }),
        (name(), op(), 0..9_000_000_000_i64).prop_map(|(name, op, nanos)| LabelFilter::Duration { name, op, nanos }),
        (name(), op(), 0..2_000_u64).prop_map(|(name, op, bytes)| LabelFilter::Bytes { name, op, bytes }),
        (name(), any::<bool>()).prop_map(|(name, negated)| LabelFilter::Ip {
            name,
            negated,
            pattern: text("10.0.0.0/8")
        }),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        (any::<bool>(), inner.clone(), inner).prop_map(|(and, a, b)| {
            if and { LabelFilter::And(Box::new(a), Box::new(b)) } else { LabelFilter::Or(Box::new(a), Box::new(b)) }
        })
    })
}

fn line_filter() -> impl Strategy<Value = LineFilter> {
    let operands = |texts: Vec<&'static str>| {
        prop::collection::vec(prop::sample::select(texts).prop_map(|r| LineOperand::Text(text(r))), 1..3).boxed()
    };
    let plain = prop::collection::vec(
        prop_oneof![4 => word().prop_map(|w| LineOperand::Text(text(&w))), 1 => Just(LineOperand::Ip(text("10.0.0.0/8")))],
        1..3,
    )
    .boxed();
    let regex = operands(vec!["a", "a|b", "(?i)LEVEL", "x.*=", "", ".+", "a(b|1)", "^\\{", "\"$", "(err|war)or?n?"]);
    let pattern = operands(vec!["<_>a<_>", "{<_>", "", "<_>", "<_>=<_> <_>", "<_>}"]);
    prop_oneof![
        (prop::sample::select(vec![LineOp::Contains, LineOp::NotContains]), plain),
        (prop::sample::select(vec![LineOp::Re, LineOp::NotRe]), regex),
        (prop::sample::select(vec![LineOp::Pattern, LineOp::NotPattern]), pattern),
    ]
    .prop_map(|(op, operands)| LineFilter { op, operands })
}

fn stage() -> impl Strategy<Value = Stage> {
    let extractions = |paths: Vec<&'static str>| {
        prop::collection::vec(
            (name(), prop::sample::select(paths))
                .prop_map(|(label, path)| Extraction { label, expression: path.into() }),
            0..3,
        )
    };
    let items = || {
        prop::collection::vec(
            prop_oneof![name().prop_map(NameOrMatcher::Name), matcher().prop_map(NameOrMatcher::Matcher)],
            1..3,
        )
    };
    prop_oneof![
        line_filter().prop_map(Stage::Line),
        extractions(vec!["a", "a.b", "[\"x\"]", "b[0]", "[0]", "a[1].b", "level"]).prop_map(Stage::Json),
        (any::<bool>(), any::<bool>(), extractions(vec!["a", "b", "\"a_b\"", "level"]))
            .prop_map(|(strict, keep_empty, extractions)| Stage::Logfmt { strict, keep_empty, extractions }),
        prop::sample::select(vec!["(?P<a>\\w+)=(?P<x>\\S*)", "(?P<b>.)?$", "(?P<level>[^\"]*)\"(?P<q>.*)"])
            .prop_map(|r| Stage::Regexp(text(r))),
        prop::sample::select(vec!["<a>=<x> <_>", "{<b>:<level>", "<q>"]).prop_map(|p| Stage::Pattern(text(p))),
        Just(Stage::Unpack),
        Just(Stage::Decolorize),
        prop::sample::select(vec!["{{.a}}", "{{.x}}={{.b}} {{__line__}}", "{{substr 2 1 .x}}", "{{.}}", "{{.a.b}}"])
            .prop_map(|t| Stage::LineFormat(text(t))),
        label_format(),
        items().prop_map(Stage::Drop),
        items().prop_map(Stage::Keep),
        label_filter().prop_map(Stage::Label),
    ]
}

fn label_format() -> impl Strategy<Value = Stage> {
    let value = prop_oneof![
        name().prop_map(LabelFormatValue::Rename),
        prop::sample::select(vec![
            "{{.x}}{{.b}}",
            "fixed",
            "{{__line__}}",
            "{{div 1 .a}}",
            "{{range $k, $v := .}}{{$k}}{{end}}"
        ])
        .prop_map(|t| LabelFormatValue::Template(text(t))),
    ];
    prop::collection::vec((name(), value), 1..4).prop_map(|items| {
        let mut seen = std::collections::BTreeSet::from(["__error__".to_owned()]);
        let items = items.into_iter().filter(|(label, _)| seen.insert(label.clone()));
        Stage::LabelFormat(items.map(|(label, value)| LabelFormat { label, value }).collect())
    })
}

/// What a runner answers that has seen nothing before.
fn fresh(query: &Arc<LogQuery>, stream: &Labels, line: &[u8], metadata: &[(&str, &str)]) -> Option<Passed> {
    let mut runner = query.runner(true);
    runner.enter(stream);
    runner.run(Timestamp(0), line, metadata).map(|m| Passed(m.line.to_vec(), m.labels))
}

/// Whether an entry has all that is required.
fn fulfils(requirements: &Requirements, stream: &Labels, line: &[u8], metadata: &[(&str, &str)]) -> bool {
    let lower = line.to_ascii_lowercase();
    let holds = |any_of: &AnyOf| {
        let line = if any_of.any_case() { &lower } else { line };
        any_of.literals().iter().any(|literal| line.windows(literal.len()).any(|w| *w == **literal))
    };
    let has = |name: &str, value: &str| stream.get(name) == Some(value) || metadata.contains(&(name, value));
    requirements.literals.iter().all(holds) && requirements.fields.iter().all(|(name, value)| has(name, value))
}

fn parsed(passed: &Passed) -> BTreeMap<String, String> {
    let pairs = passed.1.of(tailwater_model::Category::Parsed);
    pairs.map(|p| (p.name.to_string(), p.value.to_string())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_runner_answers_the_same_whatever_it_has_seen_before(
        stages in prop::collection::vec(stage(), 0..5),
        lines in prop::collection::vec((line(), prop::collection::vec((name(), word()), 0..3), any::<bool>()), 1..8),
    ) {
        let query = query(stages);
        let mut runner = query.runner(true);
        let streams = [stream("one"), stream("two")];
        for (line, metadata, second) in &lines {
            let metadata: Vec<(&str, &str)> = metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let stream = &streams[usize::from(*second)];
            runner.enter(stream);
            let got = runner.run(Timestamp(0), line, &metadata).map(|m| Passed(m.line.to_vec(), m.labels));
            prop_assert_eq!(&got, &fresh(&query, stream, line, &metadata));
            if let Some(Passed(_, labels)) = got {
                prop_assert!(labels.pairs().windows(2).all(|w| w[0].name < w[1].name), "{}", labels);
                prop_assert!(query.may_match(line));
                prop_assert!(fulfils(query.requirements(), stream, line, &metadata), "{}", query.canonical());
            }
        }
    }

    #[test]
    fn a_region_with_a_matching_line_may_match(
        filters in prop::collection::vec(line_filter(), 1..4),
        lines in prop::collection::vec(line(), 1..6),
    ) {
        let query = query(filters.into_iter().map(Stage::Line).collect());
        let region = lines.join(&b"\x00\n\xff"[..]);
        let mut runner = query.runner(false);
        runner.enter(&stream("one"));
        if lines.iter().any(|line| runner.run(Timestamp(0), line, &[]).is_some()) {
            prop_assert!(query.may_match(&region));
        }
    }

    #[test]
    fn behind_stages_that_leave_the_line_alone_a_line_filter_may_as_well_stand_in_front(
        stages in prop::collection::vec(stage(), 0..4),
        filter in line_filter(),
        line in line(),
    ) {
        prop_assume!(!stages.iter().any(|s| matches!(s, Stage::Unpack | Stage::Decolorize | Stage::LineFormat(_))));
        let behind = query([stages.clone(), vec![Stage::Line(filter.clone())]].concat());
        let front = query([vec![Stage::Line(filter)], stages].concat());
        prop_assert_eq!(fresh(&behind, &stream("one"), &line, &[]), fresh(&front, &stream("one"), &line, &[]));
    }

    #[test]
    fn json_is_read_as_a_plain_reader_reads_it((text, fields) in json_object()) {
        let passed = fresh(&query(vec![Stage::Json(Vec::new())]), &stream("one"), text.as_bytes(), &[]).expect("no filter");
        prop_assert_eq!(parsed(&passed), fields, "{}", text);
    }

    #[test]
    fn logfmt_is_read_as_it_was_written(pairs in prop::collection::vec(("[a-z]{1,3}", "[a-z0-9 \"\\\\\n=é]{0,6}"), 0..6)) {
        prop_assume!(pairs.iter().all(|(k, _)| k != "app"));
        let mut text = String::new();
        let mut want: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in &pairs {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric());
            text += &if plain { format!("{key}={value} ") } else { format!("{key}=\"{quoted}\" ") };
            if !value.is_empty() {
                want.entry(if key == "x" { "x_extracted".into() } else { key.clone() }).or_insert_with(|| value.clone());
            }
        }
        let stage = Stage::Logfmt { strict: true, keep_empty: false, extractions: Vec::new() };
        let passed = fresh(&query(vec![stage]), &stream("one"), text.as_bytes(), &[]).expect("no filter");
        prop_assert_eq!(parsed(&passed), want, "{}", text);
    }
}

/// A tree that is written as JSON, and flattened by a second, plain set of rules.
#[derive(Clone, Debug)]
enum Tree {
    Text(String),
    Token(&'static str),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    text.replace('é', "\\u00e9").replace('😀', "\\ud83d\\ude00")
}

/// The name of a path as the rules say it.
fn flat(path: &[String]) -> String {
    let clean = |part: &String| {
        part.trim().chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect::<String>()
    };
    let name = path.iter().map(clean).filter(|p| !p.is_empty()).collect::<Vec<_>>().join("_");
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

impl Tree {
    fn write(&self, space: &str, out: &mut String) {
        match self {
            Self::Text(s) => *out += &format!("\"{}\"", escape(s)),
            Self::Token(t) => *out += t,
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    *out += if i > 0 { "," } else { space };
                    item.write(space, out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    *out += if i > 0 { "," } else { space };
                    *out += &format!("\"{}\"{space}:{space}", escape(key));
                    value.write(space, out);
                    *out += space;
                }
                out.push('}');
            }
        }
    }

    fn flatten(&self, path: &mut Vec<String>, out: &mut BTreeMap<String, String>) {
        let value = match self {
            Self::Text(s) => s.replace('\u{fffd}', " "),
            Self::Token("null") | Self::List(_) => return,
            Self::Token(t) => (*t).to_owned(),
            Self::Object(members) => {
                for (key, value) in members {
                    path.push(key.clone());
                    value.flatten(path, out);
                    path.pop();
                }
                return;
            }
        };
        let mut name = flat(path);
        if name.is_empty() && path.len() == 1 {
            return;
        }
        if ["app", "x", "level"].contains(&name.as_str()) {
            let mut renamed = path.clone();
            if let Some(last) = renamed.last_mut() {
                last.push_str("_extracted");
            }
            name = flat(&renamed);
        }
        out.entry(name).or_insert(value);
    }
}

fn json_object() -> impl Strategy<Value = (String, BTreeMap<String, String>)> {
    let value = prop_oneof![
        "[a-z \"\\\\\n{}\\[\\]é😀\u{fffd}]{0,6}".prop_map(Tree::Text),
        prop::sample::select(vec!["true", "null", "1", "-2.5e3", "0"]).prop_map(Tree::Token),
    ];
    let key = || prop_oneof![4 => "[a-cx]{1,2}", 1 => Just("app".to_owned()), 1 => "[ .1é\"_]{0,2}"].boxed();
    let tree = value.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Tree::List),
            prop::collection::vec((key(), inner), 0..4).prop_map(Tree::Object),
        ]
    });
    let space = prop::sample::select(vec!["", " ", "\t\n"]);
    (prop::collection::vec((key(), tree), 0..5), space).prop_map(|(members, space)| {
        let tree = Tree::Object(members);
        let (mut text, mut fields) = (String::new(), BTreeMap::new());
        tree.write(space, &mut text);
        tree.flatten(&mut Vec::new(), &mut fields);
        (text, fields)
    })
}
