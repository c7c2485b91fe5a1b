//! `detected_level`: the severity of an entry, from what its labels, its metadata or its line say. A pure function of the
//! entry, so readers compute it and the push path does not.
//!
//! Invariants: nothing is allocated; a line is read once for its structure and at most once more for a word.

use tailwater_model::Labels;

use crate::pipeline::json_scan::{block_end, string_end};

/// The name of the label.
pub const NAME: &str = "detected_level";

/// What a line can be found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
    Critical,
    Unknown,
}

impl Level {
    /// How many there are.
    pub(crate) const COUNT: usize = 8;

    /// The value of the label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// The level that a value names, in any case.
    fn named(value: &[u8]) -> Option<Self> {
        let is = |name: &str| value.eq_ignore_ascii_case(name.as_bytes());
        let level = match value.first()?.to_ascii_lowercase() {
            b't' if is("trace") || is("trc") => Self::Trace,
            b'd' if is("debug") || is("dbg") => Self::Debug,
            b'i' if is("info") || is("inf") || is("information") => Self::Info,
            b'w' if is("warn") || is("wrn") || is("warning") => Self::Warn,
            b'e' if is("error") || is("err") => Self::Error,
            b'f' if is("fatal") => Self::Fatal,
            b'c' if is("critical") => Self::Critical,
            _ => return None,
        };
        Some(level)
    }
}

/// The names under which labels, metadata and JSON fields tell the level; earlier ones win among labels.
pub const NAMES: [&str; 14] = [
    "level",
    "LEVEL",
    "Level",
    "log.level",
    "severity",
    "SEVERITY",
    "Severity",
    "SeverityText",
    "lvl",
    "LVL",
    "Lvl",
    "severity_text",
    "Severity_Text",
    "SEVERITY_TEXT",
];

/// The same names in any case, as logfmt keys have them; earlier ones win.
const KEYS: [&[u8]; 6] = [b"level", b"log.level", b"severity", b"severitytext", b"lvl", b"severity_text"];

/// The number of OpenTelemetry.
const SEVERITY_NUMBER: &str = "severity_number";

/// Objects within objects are looked into up to here; the line's own object is 1.
const MAX_JSON_DEPTH: usize = 2;

/// The value of `detected_level` for an entry, as Loki would have added it when the entry was accepted.
#[must_use]
pub fn detect<'a>(stream: &'a Labels, metadata: &[(&'a str, &'a str)], line: &[u8]) -> &'a str {
    if let Some((_, value)) = metadata.iter().find(|(n, _)| *n == NAME) {
        return normalize(value);
    }
    of_pairs(stream.iter()).or_else(|| of_metadata(metadata)).unwrap_or_else(|| of_line(line).as_str())
}

/// What Loki makes of a level that it is told.
pub(crate) fn normalize(value: &str) -> &str {
    match Level::named(value.as_bytes()) {
        Some(level) => level.as_str(),
        None => value,
    }
}

/// The level that labels name.
pub(crate) fn of_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    let mut best = NAMES.len();
    let mut found = None;
    for (name, value) in pairs {
        // What all names begin with.
        if matches!(name.as_bytes().first(), Some(b'l' | b'L' | b's' | b'S'))
            && let Some(rank) = NAMES[..best].iter().position(|n| *n == name)
        {
            (best, found) = (rank, Some(value));
        }
    }
    found.map(normalize)
}

/// The level that metadata name, by text or by number.
pub(crate) fn of_metadata<'a>(metadata: &[(&'a str, &'a str)]) -> Option<&'a str> {
    if metadata.is_empty() {
        return None;
    }
    of_pairs(metadata.iter().copied()).or_else(|| {
        let (_, number) = metadata.iter().find(|(n, _)| *n == SEVERITY_NUMBER)?;
        Some(of_number(number).as_str())
    })
}

fn of_number(text: &str) -> Level {
    match text.parse::<i64>() {
        Err(_) => Level::Info,
        Ok(1..=4) => Level::Trace,
        Ok(5..=8) => Level::Debug,
        Ok(9..=12) => Level::Info,
        Ok(13..=16) => Level::Warn,
        Ok(17..=20) => Level::Error,
        Ok(21..=24) => Level::Fatal,
        Ok(_) => Level::Unknown,
    }
}

/// The level that a line tells.
pub(crate) fn of_line(line: &[u8]) -> Level {
    let start = line.iter().position(|b| *b > b' ').unwrap_or(line.len());
    let told = if line.get(start) == Some(&b'{') {
        in_json(&line[start + 1..])
    } else if memchr::memchr(b'=', line).is_some() {
        in_logfmt(line)
    } else {
        None
    };
    told.and_then(Level::named).or_else(|| word(line)).unwrap_or(Level::Unknown)
}

/// The first string in an object that has one of the names.
fn in_json(object: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    let mut depth = 1;
    loop {
        at += memchr::memchr3(b'"', b'{', b'}', object.get(at..)?)?;
        match object[at] {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {
                let end = string_end(object, at + 1)?;
                let key = &object[at + 1..end];
                at = end + 1;
                let colon = at + object.get(at..)?.iter().position(|b| !b.is_ascii_whitespace())?;
                if object[colon] != b':' {
                    continue;
                }
                at = colon + 1;
                let value = at + object.get(at..)?.iter().position(|b| !b.is_ascii_whitespace())?;
                if object[value] == b'[' {
                    at = block_end(object, value, b'[', b']')?;
                    continue;
                }
                if object[value] != b'"' {
                    continue;
                }
                let end = string_end(object, value + 1)?;
                at = end + 1;
                if depth <= MAX_JSON_DEPTH && NAMES.iter().any(|n| n.as_bytes() == key) {
                    return Some(&object[value + 1..end]);
                }
                continue;
            }
        }
        at += 1;
        if depth == 0 {
            return None;
        }
    }
}

/// The value of the earliest name in a logfmt line.
fn in_logfmt(line: &[u8]) -> Option<&[u8]> {
    let mut best = KEYS.len();
    let mut found = None;
    let mut at = 0;
    while let Some(next) = line.get(at..).and_then(|rest| memchr::memchr2(b'=', b'"', rest)) {
        let sign = at + next;
        if line[sign] == b'"' {
            // A quote where no value begins spoils the pair.
            at = word_end(line, sign + 1);
            continue;
        }
        let key = &line[at..sign];
        let key = &key[key.iter().rposition(|b| *b <= b' ').map_or(0, |i| i + 1)..];
        let value = if line.get(sign + 1) == Some(&b'"') {
            let end = string_end(line, sign + 2).unwrap_or(line.len());
            at = end + 1;
            &line[sign + 2..end]
        } else {
            at = word_end(line, sign + 1);
            &line[sign + 1..at]
        };
        if let Some(rank) = KEYS[..best].iter().position(|k| k.eq_ignore_ascii_case(key)) {
            found = Some(value);
            best = rank;
            if rank == 0 {
                break;
            }
        }
    }
    found
}

/// The end of the word that `from` is in.
fn word_end(line: &[u8], from: usize) -> usize {
    line.get(from..).and_then(|rest| rest.iter().position(|b| *b <= b' ')).map_or(line.len(), |i| from + i)
}

/// A level word may follow this: white space, or what opens a bracket, a quote or a value.
const BEFORE: u8 = 1;
/// A level word may begin with this.
const FIRST: u8 = 2;
/// A level word may end before this: white space and ASCII punctuation, but not `_`.
const AFTER: u8 = 4;

/// What each byte can be.
const CLASS: [u8; 256] = {
    let mut class = [0_u8; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        let space = matches!(c, b'\t'..=b'\r' | b' ');
        if space || matches!(c, b'[' | b'(' | b'{' | b'<' | b'"' | b'\'' | b'`' | b'=' | b'|' | b',' | b';') {
            class[b] |= BEFORE;
        }
        if space || (c.is_ascii_punctuation() && c != b'_') {
            class[b] |= AFTER;
        }
        if matches!(c.to_ascii_lowercase(), b't' | b'd' | b'f' | b'c' | b'e' | b'w' | b'i') {
            class[b] |= FIRST;
        }
        b += 1;
    }
    class
};

/// The first level word that stands by itself.
fn word(line: &[u8]) -> Option<Level> {
    let mut before = BEFORE;
    for (at, b) in line.iter().enumerate() {
        let class = CLASS[*b as usize];
        if before & BEFORE != 0
            && class & FIRST != 0
            && let Some(level) = word_at(&line[at..])
        {
            return Some(level);
        }
        before = class;
    }
    None
}

/// The level word that a text begins with.
fn word_at(text: &[u8]) -> Option<Level> {
    let second = text.get(1)?.to_ascii_lowercase();
    let words: &[(&str, Level)] = match (text[0].to_ascii_lowercase(), second) {
        (b't', b'r') => &[("trace", Level::Trace)],
        (b'd', b'e') => &[("debug", Level::Debug)],
        (b'f', b'a') => &[("fatal", Level::Fatal)],
        (b'c', b'r') => &[("critical", Level::Critical)],
        (b'e', b'r') => &[("error", Level::Error), ("err", Level::Error)],
        (b'w', b'a') => &[("warning", Level::Warn), ("warn", Level::Warn)],
        (b'i', b'n') => &[("info", Level::Info)],
        _ => return None,
    };
    let ends = |len: usize| text.get(len).is_none_or(|b| CLASS[*b as usize] & AFTER != 0);
    let fits = |word: &str| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word.as_bytes()));
    words.iter().find(|(w, _)| fits(w) && ends(w.len())).map(|(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> &'static str {
        of_line(text.as_bytes()).as_str()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
    }

    #[test]
    fn labels_come_before_metadata_and_metadata_before_the_line() {
        let none = labels(&[("app", "a")]);
        let stream = labels(&[("app", "a"), ("severity", "WRN"), ("lvl", "trace")]);
        let text = b"level=fatal";
        assert_eq!(detect(&stream, &[("level", "debug")], text), "warn");
        assert_eq!(detect(&none, &[("level", "debug")], text), "debug");
        assert_eq!(detect(&none, &[("level", "Odd")], text), "Odd");
        assert_eq!(detect(&none, &[("severity_number", "10"), ("Level", "err")], text), "error");
        assert_eq!(detect(&none, &[], text), "fatal");
        assert_eq!(detect(&stream, &[("detected_level", "ERR")], text), "error");
        assert_eq!(detect(&stream, &[("detected_level", "own")], text), "own");
    }

    #[test]
    fn numbers_are_opentelemetrys() {
        let of = |n: &str| of_number(n).as_str();
        assert_eq!(
            ["-1", "0", "1", "8", "9", "13", "20", "24", "25", "x"].map(of),
            ["unknown", "unknown", "trace", "debug", "info", "warn", "error", "fatal", "unknown", "info"]
        );
    }

    #[test]
    fn json_tells_by_its_first_string_of_a_known_name() {
        assert_eq!(line(r#"{"msg":"level","level":"warn"}"#), "warn");
        assert_eq!(line(r#" { "a" : {"lvl" : "dbg"} , "level":"error"}"#), "debug");
        assert_eq!(line(r#"{"a":{"b":{"level":"TRC"}}}"#), "unknown", "too deep, and TRC is no word");
        assert_eq!(line(r#"{"tags":["level",{"level":"debug"}],"level":"warn"}"#), "warn");
        assert_eq!(line(r#"{"level":50,"x":"y"}"#), "unknown");
        assert_eq!(line(r#"{"level":"odd","msg":"fatal crash"}"#), "fatal", "no level there, so the words count");
        assert_eq!(line(r#"{"m":"a \" level\":","level":"info"#), "info");
    }

    #[test]
    fn logfmt_tells_by_the_name_that_ranks_first() {
        assert_eq!(line("lvl=debug LEVEL=Warning"), "warn");
        assert_eq!(line("msg=\"level=debug\" severity=\"ERROR\""), "error");
        assert_eq!(line("a=b log.level=fatal"), "fatal");
        assert_eq!(line("mylevel=debug x=1"), "debug", "the word, not the key");
        assert_eq!(line("level=odd x=1"), "unknown");
    }

    #[test]
    fn words_count_if_they_stand_alone() {
        assert_eq!(line("first warn then error"), "warn");
        assert_eq!(line("[ERROR] (info)"), "error");
        assert_eq!(line("Critical! err"), "critical");
        assert_eq!(line("terror, errors, information, the_error, at:error"), "unknown");
        assert_eq!(line("ERR 42"), "error");
        assert_eq!(line(""), "unknown");
        assert_eq!(line("\x1b[31merror\x1b[0m"), "unknown", "an escape is no end");
    }
}
