//! `| json label="path"`: single values of what a line is.
//!
//! A path is `field`, `.field`, `["any text"]` and `[N]` in a row; no dot leads. Invariants:
//! * the text is scanned once, from left to right, until every path has found its value; what comes after is not looked at;
//! * the first value on a path counts;
//! * a path that finds nothing makes its label empty.

use super::Work;
use super::json_scan::{self as scan, Kind};
use super::labels::LineLabels;
use super::names::NameId;

/// Most elements of a path.
const MAX_PATH: usize = 256;

/// An element of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(Box<[u8]>),
    Index(usize),
}

/// A label and where its value is.
#[derive(Debug)]
pub(crate) struct Extraction {
    pub(crate) label: NameId,
    pub(crate) path: Box<[Step]>,
}

/// How far the scan is with an [`Extraction`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// How many steps of the path lead to where the scan is.
    depth: usize,
    found: bool,
}

/// Sets the labels.
pub(crate) fn run(extractions: &[Extraction], line: &[u8], labels: &mut LineLabels, work: &mut Work) {
    let Some(first) = line.first().filter(|_| !labels.is_satisfied()) else { return };
    if !matches!(first, b'{' | b'"' | b'[') {
        return labels.set_parser_error(super::json::ERROR, "");
    }
    work.progress.clear();
    work.progress.resize(extractions.len(), Progress::default());
    let mut delivered = 0;
    if let Err(details) = walk(extractions, line, labels, work, &mut delivered) {
        labels.set_parser_error(super::json::ERROR, details);
    }
    if delivered < extractions.len() {
        for extraction in extractions {
            if labels.wants(extraction.label) && labels.get(extraction.label).is_none() {
                labels.set(extraction.label, "");
            }
        }
    }
}

fn walk(
    extractions: &[Extraction],
    line: &[u8],
    labels: &mut LineLabels,
    work: &mut Work,
    delivered: &mut usize,
) -> Result<(), &'static str> {
    let mut level = 0_usize;
    let mut at = 0;
    while *delivered < extractions.len() {
        let Some(next) =
            line.get(at..).and_then(|rest| rest.iter().position(|b| matches!(b, b'"' | b'{' | b'}' | b'[')))
        else {
            return Ok(());
        };
        at += next;
        match line[at] {
            b'{' => {
                level += 1;
                at += 1;
            }
            b'}' => {
                level = level.saturating_sub(1);
                at += 1;
            }
            b'[' => {
                let wanted = |(p, e): (&Progress, &Extraction)| {
                    !p.found && p.depth == level && matches!(e.path.get(level), Some(Step::Index(_)))
                };
                let Some(end) = scan::block_end(line, at, b'[', b']') else { return Ok(()) };
                if work.progress.iter().zip(extractions).any(wanted) {
                    for (index, extraction) in extractions.iter().enumerate() {
                        if !wanted((&work.progress[index], extraction)) {
                            continue;
                        }
                        if let Some(value) = at_path(&line[at..end], &extraction.path[level..], work) {
                            work.progress[index].found = true;
                            *delivered += 1;
                            deliver(extraction.label, value?, labels, work);
                        }
                    }
                }
                at = end;
            }
            _ => {
                let Some(end) = scan::string_end(line, at + 1) else { return Ok(()) };
                let raw = &line[at + 1..end];
                at = end + 1;
                let Some(colon) = scan::skip_space(line, at).filter(|c| line[*c] == b':') else { continue };
                let Some(depth) = level.checked_sub(1) else { return Err(scan::MALFORMED) };
                at = colon + 1;
                let Some(key) = scan::unescape(raw, &mut work.key) else { return Err(scan::BAD_ESCAPE) };
                let (mut complete, mut deeper) = (false, false);
                for (progress, extraction) in work.progress.iter_mut().zip(extractions) {
                    if progress.found || progress.depth < depth {
                        continue;
                    }
                    progress.depth = depth;
                    if matches!(extraction.path.get(depth), Some(Step::Key(step)) if **step == *key) {
                        progress.depth = level;
                        complete |= extraction.path.len() == level;
                        deeper |= extraction.path.len() > level;
                    }
                }
                let Some(begin) = scan::skip_space(line, at) else { return Ok(()) };
                at = begin;
                if deeper && !complete {
                    continue;
                }
                let value = scan::value(line, begin);
                if complete {
                    let value = value?;
                    for (index, extraction) in extractions.iter().enumerate() {
                        let progress = &mut work.progress[index];
                        if !progress.found && progress.depth == level && extraction.path.len() == level {
                            progress.found = true;
                            *delivered += 1;
                            deliver(extraction.label, value, labels, work);
                        }
                    }
                }
                if !deeper {
                    match value {
                        Ok(value) => at = value.end,
                        // What has no end hides all that follows; a strange word is passed over.
                        Err(scan::UNKNOWN) => {}
                        Err(_) => return Ok(()),
                    }
                }
            }
        }
    }
    Ok(())
}

/// The value on a path within a value; none if there is none.
fn at_path<'a>(text: &'a [u8], path: &[Step], work: &mut Work) -> Option<Result<scan::Value<'a>, &'static str>> {
    let mut value = match scan::value(text, scan::skip_space(text, 0)?) {
        Ok(value) => value,
        Err(details) => return Some(Err(details)),
    };
    for step in path {
        let inner = match (step, value.kind) {
            (Step::Key(key), Kind::Object) => of_key(value.raw, key, work)?,
            (Step::Index(index), Kind::Array) => of_index(value.raw, *index)?,
            _ => return None,
        };
        match inner {
            Ok(inner) => value = inner,
            Err(details) => return Some(Err(details)),
        }
    }
    Some(Ok(value))
}

fn of_key<'a>(object: &'a [u8], key: &[u8], work: &mut Work) -> Option<Result<scan::Value<'a>, &'static str>> {
    let mut at = 1;
    let mut first = true;
    loop {
        let Ok(scan::Member::Key(raw, value_at)) = scan::member(object, at, first) else { return None };
        first = false;
        let value = scan::value(object, value_at);
        if scan::unescape(raw, &mut work.key) == Some(key) {
            return Some(value);
        }
        at = scan::after_value(object, value.ok()?.end).ok()??;
    }
}

fn of_index(array: &[u8], index: usize) -> Option<Result<scan::Value<'_>, &'static str>> {
    let mut at = scan::skip_space(array, 1).filter(|at| array[*at] != b']')?;
    let mut passed = 0;
    loop {
        let value = scan::value(array, at);
        if passed == index {
            return Some(value);
        }
        passed += 1;
        let comma = scan::skip_space(array, value.ok()?.end).filter(|at| array[*at] == b',')?;
        at = scan::skip_space(array, comma + 1)?;
    }
}

fn deliver(label: NameId, value: scan::Value<'_>, labels: &mut LineLabels, work: &mut Work) {
    let Some(target) = labels.wanted_target(label) else { return };
    match value.kind {
        Kind::Null => labels.set(target, ""),
        Kind::String | Kind::Array => {
            labels.set_spaced(target, scan::unescape(value.raw, &mut work.text).unwrap_or_default());
        }
        Kind::Number | Kind::Bool | Kind::Object => labels.set_lossy(target, value.raw),
    }
}

/// What an expression is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Dot,
    Open,
    Close,
    Text(Box<[u8]>),
    Field(Box<[u8]>),
    Index(usize),
}

impl Token {
    fn name(token: Option<&Self>) -> &'static str {
        match token {
            None => "$end",
            Some(Self::Dot) => "DOT",
            Some(Self::Open) => "LSB",
            Some(Self::Close) => "RSB",
            Some(Self::Text(_)) => "STRING",
            Some(Self::Field(_)) => "FIELD",
            Some(Self::Index(_)) => "INDEX",
        }
    }
}

/// Reads a path.
pub(crate) fn parse(expression: &[u8]) -> Result<Box<[Step]>, String> {
    let refuse = |msg: String| format!("cannot parse expression [{}]: {msg}", String::from_utf8_lossy(expression));
    let (tokens, broken) = tokens(expression);
    let mut tokens = tokens.into_iter();
    let mut path = Vec::new();
    let unexpected = |token: Option<&Token>, expecting: &str| {
        refuse(format!("syntax error: unexpected {}{expecting}", Token::name(token)))
    };
    loop {
        match tokens.next() {
            Some(Token::Field(key)) if path.is_empty() => path.push(Step::Key(key)),
            Some(Token::Dot) if !path.is_empty() => match tokens.next() {
                Some(Token::Field(key)) => path.push(Step::Key(key)),
                other => return Err(unexpected(other.as_ref(), ", expecting FIELD")),
            },
            Some(Token::Open) => {
                path.push(match tokens.next() {
                    Some(Token::Text(key)) => Step::Key(key),
                    Some(Token::Index(index)) => Step::Index(index),
                    other => return Err(unexpected(other.as_ref(), ", expecting STRING or INDEX")),
                });
                match tokens.next() {
                    Some(Token::Close) => {}
                    other => return Err(unexpected(other.as_ref(), ", expecting RSB")),
                }
            }
            other if path.is_empty() => return Err(unexpected(other.as_ref(), ", expecting LSB or FIELD")),
            None => break,
            other => return Err(unexpected(other.as_ref(), "")),
        }
        if path.len() > MAX_PATH {
            return Err(refuse(format!("more than {MAX_PATH} elements")));
        }
    }
    match broken {
        Some(msg) => Err(refuse(msg)),
        None => Ok(path.into()),
    }
}

/// The tokens up to the end or to what is no token, and what is wrong with that.
fn tokens(text: &[u8]) -> (Vec<Token>, Option<String>) {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(b) = text.get(at) {
        let rest = &text[at..];
        let (token, len) = match b {
            b' ' | b'\t' | b'\n' => {
                at += 1;
                continue;
            }
            b'.' => (Token::Dot, 1),
            b'[' => (Token::Open, 1),
            b']' => (Token::Close, 1),
            b'"' => {
                let len = rest[1..].iter().position(|b| matches!(b, b'"' | b']')).unwrap_or(rest.len() - 1);
                (Token::Text(rest[1..=len].into()), (len + 2).min(rest.len()))
            }
            b if b.is_ascii_alphabetic() || *b == b'_' => {
                let ends = |b: &u8| !b.is_ascii_alphanumeric() && *b != b'_';
                let len = rest.iter().position(ends).unwrap_or(rest.len());
                (Token::Field(rest[..len].into()), len)
            }
            b if b.is_ascii_digit() => {
                let len = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
                match (rest.get(len), std::str::from_utf8(&rest[..len]).ok().and_then(|n| n.parse::<i64>().ok())) {
                    (Some(b']'), Some(n)) => (Token::Index(usize::try_from(n).unwrap_or(usize::MAX)), len),
                    (Some(b'.'), _) => return (tokens, Some("cannot use float as array index".to_owned())),
                    (Some(b']') | None, _) => return (tokens, Some("no array index".to_owned())),
                    (Some(_), _) => return (tokens, Some(format!("non-integer value: {}", first_char(&rest[len..])))),
                }
            }
            _ => return (tokens, Some(format!("unexpected char {}", first_char(rest)))),
        };
        tokens.push(token);
        at += len;
    }
    (tokens, None)
}

/// The character that a text begins with.
pub(crate) fn first_char(text: &[u8]) -> char {
    crate::go::unicode::decode(text).map_or('\u{fffd}', |(c, _)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(expression: &str) -> String {
        let text = parse(expression.as_bytes()).expect_err(expression);
        text.strip_prefix(&format!("cannot parse expression [{expression}]: ")).expect("prefix").to_owned()
    }

    #[test]
    fn paths_are_read() {
        let key = |k: &str| Step::Key(k.as_bytes().into());
        let path = |e: &str| parse(e.as_bytes()).expect(e).into_vec();
        assert_eq!(path("a.b_1"), [key("a"), key("b_1")]);
        assert_eq!(path(r#"["x y"][2].z["w"]"#), [key("x y"), Step::Index(2), key("z"), key("w")]);
        assert_eq!(path(" a . b [ 0] "), [key("a"), key("b"), Step::Index(0)]);
        assert_eq!(path(r#"[""]"#), [key("")]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert_eq!(refusal(""), "syntax error: unexpected $end, expecting LSB or FIELD");
        assert_eq!(refusal("q w"), "syntax error: unexpected FIELD");
        assert_eq!(refusal("q]"), "syntax error: unexpected RSB");
        assert_eq!(refusal(".q"), "syntax error: unexpected DOT, expecting LSB or FIELD");
        assert_eq!(refusal("q."), "syntax error: unexpected $end, expecting FIELD");
        assert_eq!(refusal("q..w"), "syntax error: unexpected DOT, expecting FIELD");
        assert_eq!(refusal(r#""q"]"#), "syntax error: unexpected STRING, expecting LSB or FIELD");
        assert_eq!(refusal(r#"["q"#), "syntax error: unexpected $end, expecting RSB");
        assert_eq!(refusal(r#"q["w]"#), "syntax error: unexpected $end, expecting RSB");
        assert_eq!(refusal(r#"["q""w"]"#), "syntax error: unexpected STRING, expecting RSB");
        for e in ["q[1.5]", "q[-1]", "q[0", "[0", "q[99999999999999999999]", "q[0 ]"] {
            assert_eq!(refusal(e), "syntax error: unexpected $end, expecting STRING or INDEX");
        }
        assert_eq!(refusal("[w]"), "syntax error: unexpected FIELD, expecting STRING or INDEX");
        assert_eq!(refusal("[]"), "syntax error: unexpected RSB, expecting STRING or INDEX");
        assert_eq!(refusal("q?"), "unexpected char ?");
        assert_eq!(refusal("qé"), "unexpected char é");
        assert_eq!(refusal("é"), "syntax error: unexpected $end, expecting LSB or FIELD");
    }
}
