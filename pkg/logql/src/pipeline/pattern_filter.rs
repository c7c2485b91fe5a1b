//! `|> "<_> error <_>"`: fixed texts in order with something between them.
//!
//! Invariants: every text is looked for once, from left to right, at its first place; a capture is never empty; the first text
//! may stand anywhere; the empty pattern fits the empty line and nothing else does.

use memchr::memmem::Finder;

use crate::syntax::pattern_expr::{PatternExpr, PatternPart};

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct PatternFilter {
    texts: Box<[Finder<'static>]>,
    starts_open: bool,
    ends_open: bool,
}

impl PatternFilter {
    /// Compiles a pattern.
    pub(crate) fn new(pattern: &[u8]) -> Result<Self, String> {
        let expr = PatternExpr::line_filter(pattern)?;
        let texts = expr.parts.iter().filter_map(|part| match part {
            PatternPart::Literal(text) => Some(Finder::new(text).into_owned()),
            PatternPart::Capture(_) => None,
        });
        Ok(Self {
            texts: texts.collect(),
            starts_open: matches!(expr.parts.first(), Some(PatternPart::Capture(_))),
            ends_open: matches!(expr.parts.last(), Some(PatternPart::Capture(_))),
        })
    }

    /// Whether a line fits.
    pub(crate) fn fits(&self, line: &[u8]) -> bool {
        if line.is_empty() || (self.texts.is_empty() && !self.ends_open) {
            return line.is_empty() && self.texts.is_empty() && !self.ends_open;
        }
        let mut rest = line;
        for (index, text) in self.texts.iter().enumerate() {
            let Some(at) = text.find(rest) else { return false };
            if at == 0 && (index > 0 || self.starts_open) {
                return false;
            }
            rest = &rest[at + text.needle().len()..];
        }
        rest.is_empty() != self.ends_open
    }

    /// The texts that every fitting line has.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter().map(|text| text.needle())
    }

    /// The longest text that every fitting line has.
    pub(crate) fn longest(&self) -> Option<&Finder<'static>> {
        self.texts.iter().max_by_key(|text| text.needle().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, line: &str) -> bool {
        PatternFilter::new(pattern.as_bytes()).expect(pattern).fits(line.as_bytes())
    }

    #[test]
    fn texts_must_come_in_order_with_something_between() {
        assert!(fits("<_>x<_>y", "1x2y") && !fits("<_>x<_>y", "x2y") && !fits("<_>x<_>y", "1xy"));
        assert!(fits("a<_>", "ab") && !fits("a<_>", "a"));
        assert!(fits("<_>", "q") && !fits("<_>", ""));
    }

    #[test]
    fn the_first_text_may_stand_anywhere_and_the_last_must_end_the_line() {
        assert!(fits("foo", "foo") && fits("foo", "a foo") && !fits("foo", "foo b"));
        assert!(!fits("<_>b", "abab"), "the first place counts, there is no second try");
    }

    #[test]
    fn the_empty_pattern_is_the_empty_line() {
        assert!(fits("", "") && !fits("", " "));
    }
}
