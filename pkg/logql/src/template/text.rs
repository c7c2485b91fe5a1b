//! Functions from text to text: those of Go's package `strings` and what sprig and Loki add.

use std::borrow::Cow;

use super::exec::MAX_VALUE;
use crate::go::unicode::{self, is_digit, is_letter, is_space, map, push, runes};

const NEGATIVE_REPEAT: &str = "strings: negative Repeat count";
const TOO_LONG: &str = "text too long";

/// The text, unless it was cut off because it grew too long.
pub(super) fn bounded(complete: bool, text: Vec<u8>) -> Result<Vec<u8>, String> {
    if complete && text.len() <= MAX_VALUE { Ok(text) } else { Err(TOO_LONG.to_owned()) }
}

pub(super) fn lower(text: &[u8]) -> Vec<u8> {
    if text.is_ascii() { text.to_ascii_lowercase() } else { map(text, unicode::to_lower) }
}

pub(super) fn upper(text: &[u8]) -> Vec<u8> {
    if text.is_ascii() { text.to_ascii_uppercase() } else { map(text, unicode::to_upper) }
}

/// `strings.Title`
pub(super) fn title(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut word = false;
    for (_, c, _) in runes(text) {
        push(&mut out, if word { c } else { unicode::to_title(c) });
        word = c == '_' || is_letter(c) || is_digit(c) || !(c.is_ascii() || is_space(c));
    }
    out
}

/// `strings.Replace`; an empty `old` stands before every rune and at the end.
pub(super) fn replace(text: &[u8], old: &[u8], new: &[u8], count: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    for i in 0..count {
        let at = if old.is_empty() {
            let skipped = if i == 0 { Some(0) } else { unicode::decode(rest).map(|(_, len)| len) };
            match skipped {
                Some(at) => at,
                None => break,
            }
        } else {
            match memchr::memmem::find(rest, old) {
                Some(at) => at,
                None => break,
            }
        };
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(new);
        rest = &rest[at + old.len()..];
        if out.len() > MAX_VALUE {
            return Err(TOO_LONG.to_owned());
        }
    }
    out.extend_from_slice(rest);
    bounded(true, out)
}

/// `strings.Trim` and its one-sided forms; `cut` is a set of runes.
pub(super) fn trim<'t>(text: &'t [u8], cut: &[u8], start: bool, end: bool) -> &'t [u8] {
    let inside = |c: char| runes(cut).any(|(_, other, _)| other == c);
    let text = if start { unicode::trim_start(text, inside) } else { text };
    if end { unicode::trim_end(text, inside) } else { text }
}

/// sprig's `trunc`: the first `n` bytes, or the last `-n`.
pub(super) fn trunc(n: i64, text: &[u8]) -> &[u8] {
    match usize::try_from(n.unsigned_abs()) {
        Ok(len) if len < text.len() => {
            if n < 0 {
                &text[text.len() - len..]
            } else {
                &text[..len]
            }
        }
        _ => text,
    }
}

/// sprig's `substr`, in bytes; what is out of range fails as slicing does in Go.
pub(super) fn substr(start: i64, end: i64, text: &[u8]) -> Result<&[u8], String> {
    let len = text.len() as i64;
    let out_of_range = |range: String| Err(format!("runtime error: slice bounds out of range {range}"));
    let (from, to) = match (start, end) {
        (..0, ..0) => return out_of_range(format!("[:{end}]")),
        (..0, _) if end > len => return out_of_range(format!("[:{end}] with length {len}")),
        (..0, _) => (0, end),
        _ if end < 0 || end > len => (start, len),
        _ => (start, end),
    };
    if from > to {
        return out_of_range(format!("[{from}:{to}]"));
    }
    Ok(&text[from as usize..to as usize])
}

/// Pads with spaces to `n` runes or cuts to them; `left` keeps the text on the left.
pub(super) fn align(n: i64, text: &[u8], left: bool) -> Result<Vec<u8>, String> {
    let Ok(width) = usize::try_from(n) else { return Ok(text.to_vec()) };
    let len = runes(text).count();
    if width == len {
        return Ok(text.to_vec());
    }
    if width > len {
        let padding = width - len;
        if padding > MAX_VALUE {
            return Err(TOO_LONG.to_owned());
        }
        let mut out = Vec::with_capacity(text.len() + padding);
        if left {
            out.extend_from_slice(text);
        }
        out.resize(out.len() + padding, b' ');
        if !left {
            out.extend_from_slice(text);
        }
        return Ok(out);
    }
    let (skip, take) = if left { (0, width) } else { (len - width, width) };
    let mut out = Vec::with_capacity(text.len());
    runes(text).skip(skip).take(take).for_each(|(_, c, _)| push(&mut out, c));
    Ok(out)
}

/// `strings.Repeat`
pub(super) fn repeat(text: &[u8], count: i64) -> Result<Vec<u8>, String> {
    let count = usize::try_from(count).map_err(|_| NEGATIVE_REPEAT.to_owned())?;
    match text.len().checked_mul(count) {
        Some(len) if len <= MAX_VALUE => Ok(text.repeat(count)),
        _ => Err(TOO_LONG.to_owned()),
    }
}

/// sprig's `indent`: `before`, and `n` spaces before every line.
pub(super) fn indent(n: i64, text: &[u8], before: &[u8]) -> Result<Vec<u8>, String> {
    let pad = repeat(b" ", n)?;
    let lines = memchr::memchr_iter(b'\n', text).count();
    match pad.len().checked_mul(lines + 1) {
        Some(added) if added <= MAX_VALUE => {}
        _ => return Err(TOO_LONG.to_owned()),
    }
    let mut out = before.to_vec();
    out.extend_from_slice(&pad);
    for &b in text {
        out.push(b);
        if b == b'\n' {
            out.extend_from_slice(&pad);
        }
    }
    bounded(true, out)
}

/// Base64 with the padding that is missing, where adding some can help.
pub(super) fn padded(text: &[u8]) -> Cow<'_, [u8]> {
    match text.len() % 4 {
        2 => Cow::Owned([text, b"=="].concat()),
        3 => Cow::Owned([text, b"="].concat()),
        _ => Cow::Borrowed(text),
    }
}
