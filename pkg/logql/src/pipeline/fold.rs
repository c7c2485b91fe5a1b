//! Texts without regard to case, for `|~ "(?i)text"`.
//!
//! Invariants: characters are compared by their lower case, one by one, as Loki does for such a pattern (so `ſ` is no `s`, as it
//! would be by the folding of regular expressions); a match that begins with an ASCII character begins with an ASCII byte.

use crate::go::unicode;
use crate::requirements::texts::{Facts, Texts};

/// A text in lower case.
#[derive(Debug)]
pub(crate) struct Folded {
    runes: Box<[char]>,
    bytes: usize,
}

impl Folded {
    /// The texts of a pattern that is `(?i)` and an alternation of plain texts; none for any other pattern.
    pub(crate) fn of_pattern(pattern: &[u8]) -> Option<Vec<Self>> {
        let pattern = std::str::from_utf8(pattern).ok()?.strip_prefix("(?i)")?;
        let mut texts = vec![String::new()];
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let c = match c {
                '|' => {
                    texts.push(String::new());
                    continue;
                }
                '\\' => chars.next().filter(char::is_ascii_punctuation)?,
                '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
                c => c,
            };
            texts.last_mut()?.push(c);
        }
        if texts.iter().any(String::is_empty) {
            return None;
        }
        let folded = |text: String| {
            let runes: Box<[char]> = text.chars().map(unicode::to_lower).collect();
            Self { bytes: runes.iter().map(|c| c.len_utf8()).sum(), runes }
        };
        Some(texts.into_iter().map(folded).collect())
    }

    /// Whether the text stands somewhere in a line.
    pub(crate) fn is_in(&self, line: &[u8]) -> bool {
        let Some(first) = self.runes.first() else { return true };
        if self.bytes > line.len() {
            return false;
        }
        if first.is_ascii() {
            let (lower, upper) = (*first as u8, first.to_ascii_uppercase() as u8);
            return memchr::memchr2_iter(lower, upper, line).any(|at| self.begins(&line[at..]));
        }
        unicode::runes(line).any(|(at, c, _)| unicode::to_lower(c) == *first && self.begins(&line[at..]))
    }

    /// Texts that every line with the text has, one of each.
    pub(crate) fn required(&self) -> Vec<Texts> {
        let text = self
            .runes
            .iter()
            .fold(Facts::empty(), |before, c| before.then(cases(*c).map_or_else(Facts::unknown, Facts::exact)));
        text.finish()
    }

    fn begins(&self, mut text: &[u8]) -> bool {
        for want in &self.runes {
            let Some(b) = text.first() else { return false };
            let (c, len) = if b.is_ascii() {
                (char::from(b.to_ascii_lowercase()), 1)
            } else {
                let Some((c, len)) = unicode::decode(text) else { return false };
                (unicode::to_lower(c), len)
            };
            if c != *want {
                return false;
            }
            text = &text[len..];
        }
        true
    }
}

/// Every character whose lower case is this ASCII character; of others that is too long a search.
fn cases(c: char) -> Option<Texts> {
    let upper = c.to_ascii_uppercase();
    match c {
        'i' => Texts::chars(&[c, upper, '\u{130}'], 2),
        'k' => Texts::chars(&[c, upper, '\u{212a}'], 2),
        _ if c.is_ascii() => Texts::chars(&[c, upper], 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, line: &str) -> bool {
        let texts = Folded::of_pattern(pattern.as_bytes()).expect(pattern);
        texts.iter().any(|t| t.is_in(line.as_bytes()))
    }

    #[test]
    fn case_makes_no_difference() {
        assert!(found("(?i)eRRor", "an ErrOR here") && !found("(?i)error", "an Erro"));
        assert!(found("(?i)warn|err", "ERR") && found(r"(?i)a\.b", "xA.B"));
        assert!(found("(?i)рус", "РУС") && found("(?i)ÄB", "xäb"));
        assert!(found("(?i)ok", "O\u{212a}"), "the Kelvin sign is a k in lower case");
        assert!(!found("(?i)kb", "\u{212a}b") && !found("(?i)s", "ſ"));
    }

    #[test]
    fn every_case_of_an_ascii_character_is_known() {
        for c in '\0'..=char::MAX {
            let lower = unicode::to_lower(c);
            let Some(cases) = cases(lower) else { continue };
            let (texts, any_case) = cases.into_parts();
            let text = if any_case { c.to_ascii_lowercase() } else { c }.to_string();
            assert!(texts.contains(&text.into_bytes()), "{c:?} is {lower:?} in lower case");
        }
    }

    #[test]
    fn other_patterns_are_none() {
        for pattern in ["error", "(?i)a.b", "(?i)a|", "(?i)\\d", "(?i)", "(?i)^a"] {
            assert!(Folded::of_pattern(pattern.as_bytes()).is_none(), "{pattern}");
        }
    }
}
