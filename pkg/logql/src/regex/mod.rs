//! Regular expressions as users of LogQL write them: Go's syntax and meaning (RE2), on the engines of `regex-automata`.
//!
//! Invariants: a pattern is accepted or refused, with the same text, as Go does; matching is real regex semantics, so the
//! simplifications below never change an answer. Matching is linear in the line; compiled size, classes and nesting are
//! bounded, and what exceeds them is refused as `expression too large` or `expression nests too deeply`.
//!
//! Lines need not be UTF-8. Go reads every byte that is not part of a valid rune as one U+FFFD, so that `.` and `[^a]` match
//! it. The engines here see valid runes only; where a pattern can see U+FFFD and a text is not UTF-8, the text is rewritten
//! the way Go reads it.

mod class;
mod error;
mod escape;
mod matcher;
mod parse;
mod required;
mod search;

pub use matcher::Matcher;
pub use search::{Captures, Groups};

/// Why `pattern` is not a regular expression, as Go words it: ``error parsing regexp: missing closing ]: `[` ``.
pub fn validate(pattern: &(impl AsRef<[u8]> + ?Sized)) -> Result<(), String> {
    parse::parse(pattern.as_ref(), parse::Options::default()).map(|_| ()).map_err(|e| e.to_string())
}

/// The names of the groups that have one, in the order of the pattern; they may repeat. Nothing is compiled. The error is Go's
/// text.
pub fn group_names(pattern: &(impl AsRef<[u8]> + ?Sized)) -> Result<Vec<Box<str>>, String> {
    let parsed = parse::parse(pattern.as_ref(), parse::Options::default()).map_err(|e| e.to_string())?;
    Ok(parsed.names.into_iter().flatten().collect())
}

/// The pattern in the syntax of the `regex` crate (`regex::bytes`). Groups keep their numbers and lose their names, which may
/// repeat in Go. The error is Go's text.
pub fn translate(pattern: &(impl AsRef<[u8]> + ?Sized)) -> Result<String, String> {
    let options = parse::Options { captures: true, ..Default::default() };
    parse::parse(pattern.as_ref(), options).map(|p| p.hir.to_string()).map_err(|e| e.to_string())
}

/// Tells whether `pattern` matches the whole of a text; with `dot_all`, `.` also matches line feeds (as in selectors).
pub fn anchored(pattern: &(impl AsRef<[u8]> + ?Sized), dot_all: bool) -> Result<Matcher, String> {
    Matcher::anchored(pattern.as_ref(), dot_all)
}

/// Tells whether `pattern` matches anywhere in a text.
pub fn unanchored(pattern: &(impl AsRef<[u8]> + ?Sized)) -> Result<Matcher, String> {
    Matcher::unanchored(pattern.as_ref())
}

/// Finds `pattern` and what its groups match, leftmost-first.
pub fn captures(pattern: &(impl AsRef<[u8]> + ?Sized)) -> Result<Captures, String> {
    Captures::new(pattern.as_ref())
}

#[cfg(test)]
mod tests;
