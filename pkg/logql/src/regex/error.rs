//! What Go says about a bad pattern: a code and the fragment it blames.

use crate::go::unicode::decode;

/// What is wrong with a pattern: Go's code and the fragment it blames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    code: &'static str,
    fragment: Vec<u8>,
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error parsing regexp: {}: `{}`", self.code, String::from_utf8_lossy(&self.fragment))
    }
}

pub(super) const INVALID_CLASS_RANGE: &str = "invalid character class range";
pub(super) const INVALID_ESCAPE: &str = "invalid escape sequence";
pub(super) const INVALID_NAMED_CAPTURE: &str = "invalid named capture";
pub(super) const INVALID_PERL: &str = "invalid or unsupported Perl syntax";
pub(super) const INVALID_REPEAT_OP: &str = "invalid nested repetition operator";
pub(super) const INVALID_REPEAT_SIZE: &str = "invalid repeat count";
pub(super) const INVALID_UTF8: &str = "invalid UTF-8";
pub(super) const MISSING_BRACKET: &str = "missing closing ]";
pub(super) const MISSING_PAREN: &str = "missing closing )";
pub(super) const MISSING_ARGUMENT: &str = "missing argument to repetition operator";
pub(super) const TRAILING_BACKSLASH: &str = "trailing backslash at end of expression";
pub(super) const UNEXPECTED_PAREN: &str = "unexpected )";
pub(super) const NESTS_TOO_DEEPLY: &str = "expression nests too deeply";
pub(super) const TOO_LARGE: &str = "expression too large";

pub(super) fn err<T>(code: &'static str, fragment: &[u8]) -> Result<T, SyntaxError> {
    Err(SyntaxError { code, fragment: fragment.to_vec() })
}

/// The error of a pattern that is valid but more than we are willing to compile.
pub(super) fn too_large(pattern: &[u8]) -> SyntaxError {
    SyntaxError { code: TOO_LARGE, fragment: pattern.to_vec() }
}

/// The first rune and the rest; the end of the text reads as U+FFFD, as in Go.
pub(super) fn next_rune(text: &[u8]) -> Result<(char, &[u8]), SyntaxError> {
    match decode(text) {
        None => Ok((char::REPLACEMENT_CHARACTER, text)),
        Some((char::REPLACEMENT_CHARACTER, 1)) => err(INVALID_UTF8, text),
        Some((c, len)) => Ok((c, &text[len..])),
    }
}

pub(super) fn check_utf8(text: &[u8]) -> Result<(), SyntaxError> {
    match std::str::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(e) => err(INVALID_UTF8, &text[e.valid_up_to()..]),
    }
}

/// What of `whole` comes before `rest`, its tail.
pub(super) fn before<'t>(whole: &'t [u8], rest: &[u8]) -> &'t [u8] {
    &whole[..whole.len().saturating_sub(rest.len())]
}
