//! The language of `| pattern "<ip> - <_> [<time>]"` and of the pattern line filter `|> "<_> error <_>"`.
//!
//! Invariants of a [`PatternExpr`]:
//! * it is a sequence of literals and captures, and no two literals stand next to each other: everything between two
//!   captures is one literal;
//! * no two captures stand next to each other (there would be no way to tell where the first one ends);
//! * a capture is `<name>` with `name` = `[A-Za-z_][A-Za-z0-9_]*`; `<_>` captures without a name. All else is literal, also
//!   `<1>` and `< a>`;
//! * literals are bytes, as string literals of LogQL are.

use std::collections::HashSet;

/// One part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternPart {
    /// Text that must occur.
    Literal(Vec<u8>),
    /// `<name>`; `None` for `<_>`.
    Capture(Option<String>),
}

/// A valid pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternExpr {
    /// The parts, alternating as the module says.
    pub parts: Vec<PatternPart>,
}

impl PatternExpr {
    /// The pattern of the stage `| pattern`.
    ///
    /// # Errors
    /// Loki's text when the pattern is empty, names no capture, has two captures in a row, or names a capture twice.
    pub fn parser(pattern: &[u8]) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("parse error at line 1, col 1: syntax error: unexpected $end, expecting IDENTIFIER or LITERAL"
                .to_owned());
        }
        let parts = split(pattern);
        if !parts.iter().any(|part| matches!(part, PatternPart::Capture(Some(_)))) {
            return Err("at least one capture is required".to_owned());
        }
        refuse_neighbours(&parts)?;
        let mut seen = HashSet::new();
        for part in &parts {
            if let PatternPart::Capture(Some(name)) = part
                && !seen.insert(name.as_str())
            {
                return Err(format!("duplicate capture name ({name}): invalid expression"));
            }
        }
        Ok(Self { parts })
    }

    /// The pattern of the line filters `|>` and `!>`. The empty pattern is valid (it has no parts).
    ///
    /// # Errors
    /// Loki's text when two captures stand in a row or a capture has a name.
    pub fn line_filter(pattern: &[u8]) -> Result<Self, String> {
        let parts = split(pattern);
        refuse_neighbours(&parts)?;
        for part in &parts {
            if let PatternPart::Capture(Some(name)) = part {
                return Err(format!("named captures are not allowed: found '<{name}>'"));
            }
        }
        Ok(Self { parts })
    }
}

fn refuse_neighbours(parts: &[PatternPart]) -> Result<(), String> {
    for pair in parts.windows(2) {
        if let [PatternPart::Capture(a), PatternPart::Capture(b)] = pair {
            let name = |c: &Option<String>| c.clone().unwrap_or_else(|| "_".to_owned());
            return Err(format!("found consecutive capture '<{}><{}>': invalid expression", name(a), name(b)));
        }
    }
    Ok(())
}

fn split(pattern: &[u8]) -> Vec<PatternPart> {
    let mut parts = Vec::new();
    let mut literal_from = 0;
    let mut at = 0;
    while at < pattern.len() {
        let Some(name) = capture_at(&pattern[at..]) else {
            at += 1;
            continue;
        };
        if literal_from < at {
            parts.push(PatternPart::Literal(pattern[literal_from..at].to_vec()));
        }
        at += name.len() + 2;
        literal_from = at;
        parts.push(PatternPart::Capture((name != "_").then(|| name.to_owned())));
    }
    if literal_from < pattern.len() {
        parts.push(PatternPart::Literal(pattern[literal_from..].to_vec()));
    }
    parts
}

/// The name of the capture that `rest` begins with.
pub(crate) fn capture_at(rest: &[u8]) -> Option<&str> {
    let inner = rest.strip_prefix(b"<")?;
    let len = inner.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let valid = len > 0 && !inner[0].is_ascii_digit() && inner.get(len) == Some(&b'>');
    valid.then(|| std::str::from_utf8(&inner[..len]).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::PatternPart::{Capture, Literal};
    use super::*;

    fn literal(text: &str) -> PatternPart {
        Literal(text.as_bytes().to_vec())
    }

    fn named(name: &str) -> PatternPart {
        Capture(Some(name.to_owned()))
    }

    #[test]
    fn literals_and_captures_alternate() {
        let parts = PatternExpr::parser(b"<ip> - <_> [<time_1>]").map(|e| e.parts);
        assert_eq!(
            parts,
            Ok(vec![named("ip"), literal(" - "), Capture(None), literal(" ["), named("time_1"), literal("]")])
        );
    }

    #[test]
    fn what_only_looks_like_a_capture_is_literal() {
        let parts = PatternExpr::parser(b"<1>< a><a-b><><<x><").map(|e| e.parts);
        assert_eq!(parts, Ok(vec![literal("<1>< a><a-b><><"), named("x"), literal("<")]));
    }

    #[test]
    fn literals_are_bytes() {
        let parts = PatternExpr::parser(b"\xff<x>\xfe").map(|e| e.parts);
        assert_eq!(parts, Ok(vec![Literal(vec![0xff]), named("x"), Literal(vec![0xfe])]));
    }

    #[test]
    fn refusals_of_the_parser() {
        let err = |p: &str| PatternExpr::parser(p.as_bytes()).expect_err(p);
        assert!(err("").ends_with("unexpected $end, expecting IDENTIFIER or LITERAL"));
        assert_eq!(err("text"), "at least one capture is required");
        assert_eq!(err("<_> <_>"), "at least one capture is required");
        assert_eq!(err("<a><_>"), "found consecutive capture '<a><_>': invalid expression");
        assert_eq!(err("<a> <b> <a>"), "duplicate capture name (a): invalid expression");
    }

    #[test]
    fn line_filters_take_no_names_but_need_no_capture() {
        assert_eq!(PatternExpr::line_filter(b"").map(|e| e.parts), Ok(vec![]));
        assert_eq!(PatternExpr::line_filter(b"x").map(|e| e.parts), Ok(vec![literal("x")]));
        let err = |p: &str| PatternExpr::line_filter(p.as_bytes()).expect_err(p);
        assert_eq!(err("<_> <x>"), "named captures are not allowed: found '<x>'");
        assert_eq!(err("<_><_>"), "found consecutive capture '<_><_>': invalid expression");
    }
}
