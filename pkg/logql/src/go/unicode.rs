//! Go's `unicode` package: classes by general category and *simple* (one rune to one rune) case mapping.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// A set of code points as sorted, disjoint, inclusive ranges.
struct Table(Vec<(char, char)>);

impl Table {
    /// The code points of a regex class such as `\p{Nd}`.
    fn of(class: &str) -> Self {
        let hir = regex_syntax::parse(class).expect("the classes named here exist in regex-syntax");
        match hir.kind() {
            HirKind::Class(Class::Unicode(set)) => Self(set.iter().map(|r| (r.start(), r.end())).collect()),
            _ => Self(Vec::new()),
        }
    }

    fn has(&self, c: char) -> bool {
        let at = self.0.partition_point(|&(_, end)| end < c);
        self.0.get(at).is_some_and(|&(start, _)| start <= c)
    }
}

static LETTER: LazyLock<Table> = LazyLock::new(|| Table::of(r"\p{L}"));
static DIGIT: LazyLock<Table> = LazyLock::new(|| Table::of(r"\p{Nd}"));
static NUMBER: LazyLock<Table> = LazyLock::new(|| Table::of(r"\p{N}"));
static PRINT: LazyLock<Table> = LazyLock::new(|| Table::of(r"[\p{L}\p{M}\p{N}\p{P}\p{S}]"));

/// `unicode.IsLetter`: category L.
#[must_use]
pub fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { LETTER.has(c) }
}

/// `unicode.IsDigit`: category Nd.
#[must_use]
pub fn is_digit(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { DIGIT.has(c) }
}

/// `unicode.IsNumber`: category N.
#[must_use]
pub fn is_number(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { NUMBER.has(c) }
}

/// `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
#[must_use]
pub fn is_print(c: char) -> bool {
    if c.is_ascii() { matches!(c, ' '..='~') } else { PRINT.has(c) }
}

/// `unicode.IsSpace`: the White_Space property.
#[must_use]
pub fn is_space(c: char) -> bool {
    c.is_whitespace()
}

/// `unicode.ToLower`: the simple mapping, so always one rune.
#[must_use]
pub fn to_lower(c: char) -> char {
    if c == '\u{130}' {
        return 'i';
    }
    single(c, c.to_lowercase())
}

/// `unicode.ToUpper`: the simple mapping, so always one rune.
#[must_use]
pub fn to_upper(c: char) -> char {
    let low = u32::from(c);
    // Greek letters with an iota below: the full mapping writes two letters, the simple one the titlecase letter.
    let greek = match low {
        0x1F80..=0x1F87 | 0x1F90..=0x1F97 | 0x1FA0..=0x1FA7 => low + 8,
        0x1FB3 | 0x1FC3 | 0x1FF3 => low + 9,
        _ => 0,
    };
    if greek != 0 {
        return char::from_u32(greek).unwrap_or(c);
    }
    single(c, c.to_uppercase())
}

/// `unicode.ToTitle`: as [`to_upper`] but for the digraphs that have a form of their own and for Georgian.
#[must_use]
pub fn to_title(c: char) -> char {
    match c {
        '\u{1C4}'..='\u{1C6}' => '\u{1C5}',
        '\u{1C7}'..='\u{1C9}' => '\u{1C8}',
        '\u{1CA}'..='\u{1CC}' => '\u{1CB}',
        '\u{1F1}'..='\u{1F3}' => '\u{1F2}',
        '\u{10D0}'..='\u{10FA}' | '\u{10FD}'..='\u{10FF}' => c,
        _ => to_upper(c),
    }
}

fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// `utf8.DecodeRune`: the first rune of `bytes` and its length; invalid bytes are U+FFFD of length 1, nothing is `None`.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((char::from(first), 1));
    }
    let len = match first {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return Some((char::REPLACEMENT_CHARACTER, 1)),
    };
    let decoded = bytes.get(..len).and_then(|b| std::str::from_utf8(b).ok()).and_then(|s| s.chars().next());
    Some(decoded.map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, len)))
}

/// `for _, r := range s`: the runes of bytes that need not be UTF-8, with where they start and how long they are.
pub fn runes(bytes: &[u8]) -> impl Iterator<Item = (usize, char, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (c, len) = decode(bytes.get(at..)?)?;
        let start = at;
        at += len;
        Some((start, c, len))
    })
}

/// `strings.Map` with a rune-to-rune function: invalid bytes become U+FFFD.
#[must_use]
pub fn map(bytes: &[u8], f: impl Fn(char) -> char) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (_, c, _) in runes(bytes) {
        push(&mut out, f(c));
    }
    out
}

/// `strings.TrimSpace`.
#[must_use]
pub fn trim_space(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes, is_space), is_space)
}

/// `strings.TrimLeftFunc`.
#[must_use]
pub fn trim_start(bytes: &[u8], cut: impl Fn(char) -> bool) -> &[u8] {
    let end = runes(bytes).find(|&(_, c, _)| !cut(c)).map_or(bytes.len(), |(at, _, _)| at);
    &bytes[end..]
}

/// `strings.TrimRightFunc`.
#[must_use]
pub fn trim_end(bytes: &[u8], cut: impl Fn(char) -> bool) -> &[u8] {
    let mut end = bytes.len();
    while let Some((c, len)) = decode_last(&bytes[..end]) {
        if !cut(c) {
            break;
        }
        end -= len;
    }
    &bytes[..end]
}

/// `utf8.DecodeLastRune`.
#[must_use]
pub fn decode_last(bytes: &[u8]) -> Option<(char, usize)> {
    let last = *bytes.last()?;
    if last < 0x80 {
        return Some((char::from(last), 1));
    }
    for len in 2..=bytes.len().min(4) {
        let tail = &bytes[bytes.len() - len..];
        if let Some((c, width)) = decode(tail)
            && width == len
        {
            return Some((c, len));
        }
    }
    Some((char::REPLACEMENT_CHARACTER, 1))
}

/// Appends the UTF-8 of `c`.
pub fn push(out: &mut Vec<u8>, c: char) {
    let mut buffer = [0; 4];
    out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_by_general_category() {
        assert!(is_letter('ß') && is_letter('日') && is_letter('ǅ'));
        assert!(!is_letter('Ⅷ'), "a letter number is not a letter");
        assert!(is_digit('٣') && !is_digit('²') && is_number('²'));
        assert!(is_print('é') && is_print(' ') && !is_print('\u{a0}') && !is_print('\u{200b}') && !is_print('\u{7f}'));
        assert!(is_space('\u{85}') && is_space('\u{a0}') && !is_space('\u{200b}'));
    }

    #[test]
    fn case_maps_rune_to_rune() {
        assert_eq!(to_upper('ß'), 'ß');
        assert_eq!(to_upper('ᾀ'), 'ᾈ');
        assert_eq!(to_lower('İ'), 'i');
        assert_eq!(to_lower('Σ'), 'σ');
        assert_eq!(to_title('ǆ'), 'ǅ');
        assert_eq!(to_title('ა'), 'ა');
        assert_eq!(to_upper('ა'), 'Ა');
    }

    #[test]
    fn invalid_bytes_are_single_replacement_runes() {
        let seen: Vec<_> = runes(b"a\xff\xe6\x97z").collect();
        let bad = char::REPLACEMENT_CHARACTER;
        assert_eq!(seen, [(0, 'a', 1), (1, bad, 1), (2, bad, 1), (3, bad, 1), (4, 'z', 1)]);
        assert_eq!(map(b"A\xff", to_lower), "a\u{fffd}".as_bytes());
        assert_eq!(decode_last("x日".as_bytes()), Some(('日', 3)));
        assert_eq!(decode_last(b"x\x97"), Some((bad, 1)));
        assert_eq!(trim_space("\u{a0} x y\n".as_bytes()), b"x y");
    }
}
