//! The small tokens of the syntax: escapes that stand for one rune, runes of a bracket, and repetition counts.

use super::class::MAX_RUNE;
use super::error::{INVALID_ESCAPE, MISSING_BRACKET, SyntaxError, TRAILING_BACKSLASH, before, err, next_rune};
use super::parse::MAX_REPEAT;

/// A rune of a bracket, maybe escaped. `whole` starts at the bracket.
pub(super) fn class_rune<'t>(text: &'t [u8], whole: &[u8]) -> Result<(u32, &'t [u8]), SyntaxError> {
    match text.first() {
        None => err(MISSING_BRACKET, whole),
        Some(b'\\') => escape(text),
        Some(_) => next_rune(text).map(|(c, rest)| (u32::from(c), rest)),
    }
}

/// An escape that stands for one rune.
pub(super) fn escape(text: &[u8]) -> Result<(u32, &[u8]), SyntaxError> {
    let rest = text.get(1..).unwrap_or_default();
    if rest.is_empty() {
        return err(TRAILING_BACKSLASH, b"");
    }
    let (c, mut rest) = next_rune(rest)?;
    let octal = |b: Option<&u8>| b.is_some_and(|b| (b'0'..=b'7').contains(b));
    let rune = match c {
        'a' => 7,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        '1'..='7' if !octal(rest.first()) => return err(INVALID_ESCAPE, before(text, rest)),
        '0'..='7' => {
            let mut rune = u32::from(c) - u32::from('0');
            for _ in 0..2 {
                let Some((&digit @ b'0'..=b'7', after)) = rest.split_first() else { break };
                rune = rune * 8 + u32::from(digit - b'0');
                rest = after;
            }
            rune
        }
        'x' if !rest.is_empty() => {
            let (first, after) = next_rune(rest)?;
            rest = after;
            if first == '{' {
                return braced_hex(text, rest);
            }
            let (second, after) = next_rune(rest)?;
            rest = after;
            match (first.to_digit(16), second.to_digit(16)) {
                (Some(high), Some(low)) => high * 16 + low,
                _ => return err(INVALID_ESCAPE, before(text, rest)),
            }
        }
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
        _ => return err(INVALID_ESCAPE, before(text, rest)),
    };
    Ok((rune, rest))
}

/// The rest of `\x{…}`; `text` starts at the backslash.
fn braced_hex<'t>(text: &'t [u8], mut rest: &'t [u8]) -> Result<(u32, &'t [u8]), SyntaxError> {
    let mut rune = 0;
    let mut digits = 0;
    while !rest.is_empty() {
        let (c, after) = next_rune(rest)?;
        rest = after;
        if c == '}' {
            if digits == 0 {
                break;
            }
            return Ok((rune, rest));
        }
        let Some(digit) = c.to_digit(16) else { break };
        rune = rune * 16 + digit;
        digits = 1;
        if rune > MAX_RUNE {
            break;
        }
    }
    err(INVALID_ESCAPE, before(text, rest))
}

/// `{n}`, `{n,}` or `{n,m}`: the counts (`None` if they are too big or the wrong way round) and what follows. `None` if it is
/// not a repetition, and so a literal brace.
#[expect(clippy::type_complexity, reason = "used once, right above")]
pub(super) fn counts(text: &[u8]) -> Option<(Option<(u32, Option<u32>)>, &[u8])> {
    let (min, rest) = count(text.get(1..)?)?;
    let (max, rest) = match rest {
        [b',', b'}', ..] => (None, &rest[1..]),
        [b',', rest @ ..] => {
            let (max, rest) = count(rest)?;
            (Some(max), rest)
        }
        _ => (Some(min), rest),
    };
    let [b'}', after @ ..] = rest else { return None };
    let valid = min <= MAX_REPEAT && max.is_none_or(|max| max <= MAX_REPEAT && min <= max);
    Some((valid.then_some((min, max)), after))
}

/// A decimal without leading zeros; large ones saturate.
fn count(text: &[u8]) -> Option<(u32, &[u8])> {
    let len = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    Some((digits.iter().fold(0u32, |n, &b| n.saturating_mul(10).saturating_add(u32::from(b - b'0'))), rest))
}
