//! What must hold for every input, said once: the fuzz targets run these checks, and the tests replay the corpus through them.

use std::sync::Arc;

use tailwater_logql::template::{Data, Lookup, Template};
use tailwater_logql::{LogQuery, regex as go_regex};
use tailwater_model::{LabelSet, Labels, Timestamp};

/// A query. It is read or refused with a reason, and what is printed and can be read again is the same query: only odd names
/// have no spelling.
pub(crate) fn parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match tailwater_logql::parse(&text) {
        Ok(expr) => {
            let printed = expr.to_string();
            assert!(!tailwater_logql::pretty(&expr).is_empty());
            if let Ok(again) = tailwater_logql::parse(&printed) {
                assert_eq!(again.to_string(), printed, "{text:?}");
            }
        }
        // Without more words the two grammars disagree: one refuses, the other finds nothing wrong.
        Err(e) => assert_ne!(e.to_string(), "parse error : syntax error", "{text:?}"),
    }
}

/// A query, a zero byte, and lines with zero bytes between them. What a runner answers depends on the line alone, the labels
/// are sorted, a line that passes may match, and the query's normal form means the same.
pub(crate) fn pipeline(data: &[u8]) {
    let mut parts = data.split(|b| *b == 0);
    let Some(query) = parts.next().and_then(|query| std::str::from_utf8(query).ok()) else { return };
    let Ok(query) = LogQuery::parse(query) else { return };
    let query = Arc::new(query);
    let again = LogQuery::parse(query.canonical()).ok().map(Arc::new);
    let pair = |(n, v): (&str, &str)| (n.into(), v.into());
    let stream = Labels::from_pairs([("app", "a"), ("level", "info"), ("x", "stream")].map(pair).into());
    let metadata = [("m", "1"), ("x", "metadata")];
    let mut runner = query.runner(true);
    for line in parts {
        runner.enter(&stream);
        let got = runner.run(Timestamp(1), line, &metadata).map(|m| (m.line.to_vec(), m.labels));
        assert_eq!(got, fresh(&query, &stream, line, &metadata), "what came before must not count");
        if let Some(again) = &again {
            assert_eq!(got, fresh(again, &stream, line, &metadata), "{} means something else", query.canonical());
        }
        if let Some((_, labels)) = got {
            assert!(labels.pairs().windows(2).all(|w| w[0].name < w[1].name), "{labels}");
            assert!(query.may_match(line));
        }
    }
}

fn fresh(
    query: &Arc<LogQuery>,
    stream: &Labels,
    line: &[u8],
    metadata: &[(&str, &str)],
) -> Option<(Vec<u8>, LabelSet)> {
    let mut runner = query.runner(true);
    runner.enter(stream);
    runner.run(Timestamp(1), line, metadata).map(|m| (m.line.to_vec(), m.labels))
}

/// A pattern, a zero byte, and a text. What is valid translates, the translation compiles unless it is too large, and all ways
/// to match agree with it where it is defined: on texts that are UTF-8.
pub(crate) fn regex(data: &[u8]) {
    let (pattern, text) = data.split_at(data.iter().position(|b| *b == 0).unwrap_or(data.len()));
    let text = text.get(1..).unwrap_or_default();
    let translated = match (go_regex::validate(pattern), go_regex::translate(pattern)) {
        (Ok(()), Ok(translated)) => translated,
        (Err(a), Err(b)) => {
            assert_eq!(a, b);
            assert!(a.starts_with("error parsing regexp: "), "{a}");
            return;
        }
        (valid, translated) => panic!("{valid:?} but {translated:?}"),
    };
    let plain = match regex::bytes::RegexBuilder::new(&translated).nest_limit(10_000).build() {
        Ok(plain) => plain,
        Err(regex::Error::CompiledTooBig(_)) => return,
        Err(e) => panic!("{translated}: {e}"),
    };
    let (Ok(matcher), Ok(captures)) = (go_regex::unanchored(pattern), go_regex::captures(pattern)) else { return };
    let found = matcher.is_match(text);
    let mut groups = captures.groups();
    assert_eq!(captures.find(text, &mut groups), found, "{translated}");
    if found {
        let whole = groups.get(0).expect("a match has bounds");
        assert!(whole.start <= whole.end && whole.end <= text.len());
        // U+FFFD in a pattern stands for any byte that is not UTF-8, and is then not in the text.
        if let Some(literal) = matcher.required_literal() {
            assert!(text.windows(literal.len()).any(|w| w == literal), "{translated} needs {literal:?}");
        }
    }
    if let Ok(text) = std::str::from_utf8(text) {
        assert_eq!(found, plain.is_match(text.as_bytes()), "{translated} in {text:?}");
        // Quoting that does not end would swallow what follows.
        let whole = format!("^(?:{})$", String::from_utf8_lossy(pattern));
        if let (false, Ok(anchored), Ok(whole)) =
            (whole.contains("\\Q"), go_regex::anchored(pattern, false), go_regex::unanchored(&whole))
        {
            assert_eq!(anchored.is_match(text.as_bytes()), whole.is_match(text.as_bytes()), "{translated} is {text:?}");
        }
    }
}

struct Fields<'a>(&'a [u8]);

impl Lookup for Fields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        (name == "a").then_some(self.0)
    }
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        visit(b"a", self.0);
    }
}

/// A template, a zero byte, and the value of the line and of a label. It is refused, fails or prints; an error prints nothing,
/// and nothing is remembered.
pub(crate) fn template(data: &[u8]) {
    let (text, line) = data.split_at(data.iter().position(|b| *b == 0).unwrap_or(data.len()));
    let line = line.get(1..).unwrap_or_default();
    let template = match Template::parse("line", text) {
        Ok(template) => template,
        Err(e) => return assert!(e.starts_with("template: line:"), "{e}"),
    };
    let fields = Fields(line);
    let data = Data { labels: &fields, line, timestamp: Timestamp(1), now: Timestamp(2) };
    let mut out = Vec::new();
    let result = template.execute(&data, &mut out);
    if let Err(e) = &result {
        assert!(e.starts_with("template: line:") && out.is_empty(), "{e}");
    }
    if let Some(name) = template.single_field() {
        assert_eq!(template.fields(), [name]);
    }
    let mut again = Vec::new();
    assert_eq!((template.execute(&data, &mut again), again), (result, out));
}
