//! `| json`: every field of the object that a line is.
//!
//! Invariants:
//! * A nested field is named by the sanitized keys on the way to it, joined by `_`. The first field of a name wins.
//! * What was found before the text turned out to be broken stays.
//! * Objects nested deeper than [`MAX_DEPTH`] are not read, nor names longer than [`MAX_NAME`], nor more new names of a line than
//!   [`MAX_NEW_NAMES`] bytes; nothing recurses.

use super::Work;
use super::json_scan::{self as scan, Kind, Member};
use super::labels::LineLabels;
use super::names::{EXTRACTED_SUFFIX, NameId, sanitize};

/// What `__error__` says when a line is not the JSON that was expected.
pub(crate) const ERROR: &str = "JSONParserErr";

/// Deepest nesting that is read; each level looks for the end of its object, so this bounds the work per byte.
pub(crate) const MAX_DEPTH: usize = 128;

/// Longest name of a nested field, in bytes. Each field's name is made of all keys above it.
const MAX_NAME: usize = 16 << 10;

/// Most bytes of names that were not known before the line.
const MAX_NEW_NAMES: usize = 1 << 20;

/// Our own: what comes after is not read.
const TOO_MANY_NAMES: &str = "names of fields are too long or too many";

/// An object that is being read: where its text ends and how long the names of its fields are before their own part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// Where the text goes on behind the object.
    end: usize,
    prefix: usize,
}

/// Sets a label for every field.
pub(crate) fn run(line: &[u8], labels: &mut LineLabels, work: &mut Work) {
    if labels.is_satisfied() {
        return;
    }
    if let Err(details) = walk(line, labels, work) {
        labels.set_parser_error(ERROR, details);
    }
}

fn walk(line: &[u8], labels: &mut LineLabels, work: &mut Work) -> Result<(), &'static str> {
    let start = scan::skip_space(line, 0).filter(|at| line[*at] == b'{').ok_or(scan::NO_OBJECT)?;
    work.open.clear();
    work.path.clear();
    let known = labels.names().bytes();
    let mut object = Open { end: line.len(), prefix: 0 };
    let mut at = start + 1;
    let mut first = true;
    loop {
        let text = &line[..object.end];
        let mut next = match scan::member(text, at, first)? {
            Member::End => None,
            Member::Key(raw, value_at) => {
                let key = scan::unescape(raw, &mut work.key).ok_or(scan::BAD_ESCAPE)?;
                let value = scan::value(text, value_at)?;
                match value.kind {
                    Kind::Null | Kind::Array => {}
                    Kind::Object
                        if labels.is_restricted()
                            && !labels.wants_below(prefix_of(&mut work.path, object.prefix, key)) => {}
                    Kind::Object => {
                        if work.open.len() + 1 >= MAX_DEPTH {
                            return Err(scan::TOO_DEEP);
                        }
                        work.open.push(object);
                        object = Open { end: value.end, prefix: push_part(&mut work.path, object.prefix, key) };
                        if object.prefix > MAX_NAME {
                            return Err(TOO_MANY_NAMES);
                        }
                        at = value_at + 1;
                        first = true;
                        continue;
                    }
                    kind => {
                        let nested = !work.open.is_empty();
                        if nested && (key.len() > MAX_NAME || labels.names().bytes() > known + MAX_NEW_NAMES) {
                            return Err(TOO_MANY_NAMES);
                        }
                        if let Some(name) = name(labels, &mut work.path, object.prefix, nested, key)
                            && !labels.is_extracted(name)
                        {
                            let text = match kind {
                                Kind::String => scan::unescape(value.raw, &mut work.text).unwrap_or_default(),
                                _ => value.raw,
                            };
                            labels.set_spaced(name, text);
                            if labels.is_satisfied() {
                                return Ok(());
                            }
                        }
                    }
                }
                scan::after_value(text, value.end)?
            }
        };
        first = false;
        while next.is_none() {
            let Some(outer) = work.open.pop() else { return Ok(()) };
            next = scan::after_value(&line[..outer.end], object.end)?;
            object = outer;
        }
        at = next.unwrap_or(object.end);
    }
}

/// Puts the part of a key behind a prefix; answers how long both are.
pub(crate) fn push_part(path: &mut String, prefix: usize, key: &[u8]) -> usize {
    path.truncate(prefix);
    if prefix > 0 {
        path.push('_');
    }
    if !sanitize(key, prefix == 0, path) {
        path.truncate(prefix);
    }
    path.len()
}

/// What the names of the fields of the object `key` begin with.
fn prefix_of<'a>(path: &'a mut String, prefix: usize, key: &[u8]) -> &'a str {
    push_part(path, prefix, key);
    path
}

/// The name of the field `key`; none if nothing is left of it or nobody wants it.
fn name(labels: &mut LineLabels, path: &mut String, prefix: usize, nested: bool, key: &[u8]) -> Option<NameId> {
    if !nested {
        let name = labels.wanted_key(key)?;
        return labels.wanted_target(name);
    }
    push_part(path, prefix, key);
    let mut name = labels.names().intern(path);
    if labels.is_taken(name) {
        let renamed = [key, EXTRACTED_SUFFIX.as_bytes()].concat();
        push_part(path, prefix, &renamed);
        name = labels.names().intern(path);
    }
    labels.wants(name).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tailwater_model::{Labels, Timestamp};

    use crate::LogQuery;

    #[test]
    fn names_of_nested_fields_are_bounded() {
        let query = Arc::new(LogQuery::parse(r#"{a="b"} | json"#).expect("a query"));
        let mut runner = query.runner(false);
        runner.enter(&Labels::from_pairs(vec![("a".into(), "b".into())]));
        let mut error = |line: &str| {
            let matched = runner.run(Timestamp(0), line.as_bytes(), &[]).expect("no filter");
            (matched.labels.get("__error__").is_some(), matched.labels.pairs().len())
        };
        let fields = |n: usize| (0..n).map(|i| format!(r#""f{i}":1"#)).collect::<Vec<_>>().join(",");
        let nested = |key: usize, n: usize| format!(r#"{{"first":1,"{}":{{{}}}}}"#, "k".repeat(key), fields(n));
        assert_eq!(error(&nested(1_000, 100)), (false, 102));
        assert_eq!(error(&nested(super::MAX_NAME + 1, 100)), (true, 4));
        // New names are counted in bytes; the fields before the bound stay.
        let (failed, labels) = error(&nested(10_000, 1_000));
        assert!(failed && (100..200).contains(&labels), "{labels}");
    }
}
