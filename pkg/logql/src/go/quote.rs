//! `strconv.Quote`, `strconv.Unquote`'s escapes, and the quoting of the `time` package.

use std::fmt::Write as _;

use super::unicode::{self, is_print};

/// `strconv.Quote`: a Go string literal of the bytes; what is not printable or not UTF-8 is escaped.
#[must_use]
pub fn quote(bytes: &(impl AsRef<[u8]> + ?Sized)) -> String {
    let bytes = bytes.as_ref();
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for (at, c, len) in unicode::runes(bytes) {
        if c == char::REPLACEMENT_CHARACTER && len == 1 {
            hex(&mut out, bytes[at]);
        } else {
            escape_rune(&mut out, c, '"', false);
        }
    }
    out.push('"');
    out
}

/// `strconv.QuoteToASCII`: as [`quote`], with everything outside ASCII escaped.
#[must_use]
pub fn quote_ascii(bytes: &(impl AsRef<[u8]> + ?Sized)) -> String {
    let bytes = bytes.as_ref();
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for (at, c, len) in unicode::runes(bytes) {
        if c == char::REPLACEMENT_CHARACTER && len == 1 {
            hex(&mut out, bytes[at]);
        } else {
            escape_rune(&mut out, c, '"', true);
        }
    }
    out.push('"');
    out
}

/// `strconv.QuoteRune`: a Go character literal.
#[must_use]
pub fn quote_rune(c: char) -> String {
    let mut out = String::with_capacity(12);
    out.push('\'');
    escape_rune(&mut out, c, '\'', false);
    out.push('\'');
    out
}

/// The quoting of package `time` in its errors: bytes outside printable ASCII as `\xNN`.
#[must_use]
pub fn quote_time(bytes: &(impl AsRef<[u8]> + ?Sized)) -> String {
    let bytes = bytes.as_ref();
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for &b in bytes {
        match b {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(b));
            }
            b' '..=0x7f => out.push(char::from(b)),
            _ => hex(&mut out, b),
        }
    }
    out.push('"');
    out
}

fn hex(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02x}");
}

fn escape_rune(out: &mut String, c: char, quote: char, ascii: bool) {
    match c {
        _ if c == quote || c == '\\' => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        _ if is_print(c) && (!ascii || c.is_ascii()) => out.push(c),
        '\0'..=' ' | '\x7f' => hex(out, c as u8),
        '\u{80}'..='\u{ffff}' => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        _ => {
            let _ = write!(out, "\\U{:08x}", u32::from(c));
        }
    }
}

/// One character or byte of a Go literal, unescaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescaped {
    /// A code point: written plainly or as `\u`, `\U`.
    Rune(char),
    /// A byte: `\x` or octal.
    Byte(u8),
}

/// `strconv.UnquoteChar`: what stands first in `text` between quotes of kind `quote`, and how many bytes it takes. `None` for
/// a bad escape, an unescaped quote, or a raw line feed.
#[must_use]
pub fn unquote_char(text: &[u8], quote: u8) -> Option<(Unescaped, usize)> {
    let first = *text.first()?;
    if first == quote {
        return None;
    }
    if first != b'\\' {
        let (c, len) = unicode::decode(text)?;
        // A lone invalid byte is what Go reads as U+FFFD here.
        return Some((Unescaped::Rune(c), len));
    }
    let simple = |c: char| Some((Unescaped::Rune(c), 2));
    match *text.get(1)? {
        b'a' => simple('\x07'),
        b'b' => simple('\x08'),
        b'f' => simple('\x0c'),
        b'n' => simple('\n'),
        b'r' => simple('\r'),
        b't' => simple('\t'),
        b'v' => simple('\x0b'),
        b'\\' => simple('\\'),
        c @ (b'"' | b'\'') if c == quote => simple(char::from(c)),
        b'x' => Some((Unescaped::Byte(u8::try_from(digits(text.get(2..4)?, 16)?).ok()?), 4)),
        b'u' => Some((Unescaped::Rune(char::from_u32(digits(text.get(2..6)?, 16)?)?), 6)),
        b'U' => Some((Unescaped::Rune(char::from_u32(digits(text.get(2..10)?, 16)?)?), 10)),
        b'0'..=b'7' => Some((Unescaped::Byte(u8::try_from(digits(text.get(1..4)?, 8)?).ok()?), 4)),
        _ => None,
    }
}

fn digits(text: &[u8], base: u32) -> Option<u32> {
    text.iter().try_fold(0u32, |n, &b| n.checked_mul(base)?.checked_add(char::from(b).to_digit(base)?))
}

/// `strconv.Unquote` for `"…"` and `` `…` ``. `None` = invalid syntax.
#[must_use]
pub fn unquote(literal: &[u8]) -> Option<Vec<u8>> {
    let (&quote, rest) = literal.split_first()?;
    let (&last, body) = rest.split_last()?;
    if last != quote {
        return None;
    }
    match quote {
        b'`' => (!body.contains(&b'`')).then(|| body.iter().copied().filter(|&b| b != b'\r').collect()),
        b'"' => {
            let mut out = Vec::with_capacity(body.len());
            let mut at = 0;
            while at < body.len() {
                if body[at] == b'\n' {
                    return None;
                }
                let (what, len) = unquote_char(&body[at..], b'"')?;
                match what {
                    // Bytes that are no rune are kept as they are.
                    Unescaped::Rune(_) if body[at] != b'\\' => out.extend_from_slice(&body[at..at + len]),
                    Unescaped::Rune(c) => unicode::push(&mut out, c),
                    Unescaped::Byte(b) => out.push(b),
                }
                at += len;
            }
            Some(out)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (bytes, expected) in [
            (&b"plain"[..], r#""plain""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x07\x08\x0c\n\r\t\x0b\x00\x7f", r#""\a\b\f\n\r\t\v\x00\x7f""#),
            (b"\xff\xe6\x97", r#""\xff\xe6\x97""#),
            ("é日\u{200b}\u{a0}\u{e0001}".as_bytes(), r#""é日\u200b\u00a0\U000e0001""#),
            ("\u{fffd}".as_bytes(), "\"\u{fffd}\""),
        ] {
            assert_eq!(quote(bytes), expected);
        }
        assert_eq!(quote_ascii("é😀"), r#""\u00e9\U0001f600""#);
        assert_eq!(quote_rune('\''), r"'\''");
        assert_eq!(quote_time("5µ\"s"), r#""5\xc2\xb5\"s""#);
    }

    #[test]
    fn unquotes_what_it_quotes() {
        for bytes in [&b"a\"\\b\n\xff\x00"[..], "é\u{200b}😀".as_bytes(), b""] {
            assert_eq!(unquote(quote(bytes).as_bytes()).as_deref(), Some(bytes));
        }
        assert_eq!(unquote(br#""\377\x41\u00e9\U0001F600""#).as_deref(), Some(&b"\xffA\xc3\xa9\xf0\x9f\x98\x80"[..]));
        for bad in [r#""\400""#, r#""\'""#, r#""\x4""#, r#""\ud800""#, "\"a\nb\"", "\"", "", "x", "'a'", r#""\"#] {
            assert_eq!(unquote(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(unquote(b"`a\\n`").as_deref(), Some(&b"a\\n"[..]));
    }
}
