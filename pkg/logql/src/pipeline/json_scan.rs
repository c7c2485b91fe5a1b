//! Where things begin and end in JSON that need not be JSON: the lenient reading that Loki's parsers share.
//!
//! Invariants: nothing is validated that is not needed to find the next thing; numbers are whatever begins like one; a string
//! ends at the first quote with an even number of backslashes before it. Every function is one forward scan.

/// An object has no end, or what is there is no object.
pub(crate) const NO_OBJECT: &str = "Value looks like object, but can't find closing '}' symbol";
/// An array has no end, or the text ends within an object.
pub(crate) const NO_ARRAY: &str = "Value is array, but can't find closing ']' symbol";
/// A string has no end.
pub(crate) const NO_STRING: &str = "Value is string, but can't find closing '\"' symbol";
/// A key has no end or no colon.
pub(crate) const MALFORMED: &str = "Malformed JSON error";
/// A value begins like none.
pub(crate) const UNKNOWN: &str = "Unknown value type";
/// A string with a bad escape where that matters.
pub(crate) const BAD_ESCAPE: &str = "Encountered an invalid escape sequence in a string";
/// Our own: what is nested deeper is not read.
pub(crate) const TOO_DEEP: &str = "objects are nested too deeply";

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The span is what stands between the quotes.
    String,
    Number,
    Bool,
    Null,
    Object,
    Array,
}

/// A value and where the text goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) kind: Kind,
    pub(crate) raw: &'a [u8],
    pub(crate) end: usize,
}

/// The first byte at or after `from` that is no white space.
pub(crate) fn skip_space(text: &[u8], from: usize) -> Option<usize> {
    text.get(from..)?.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).map(|i| from + i)
}

/// Strings are mostly shorter than what it takes to start a vectorised search.
const SHORT: usize = 16;

/// Where the string that begins at `from`, its opening quote passed, has its closing quote.
pub(crate) fn string_end(text: &[u8], mut from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    match rest.iter().take(SHORT).position(|b| matches!(b, b'"' | b'\\')) {
        Some(at) if rest[at] == b'"' => return Some(from + at),
        Some(at) => from += at,
        None => from += rest.len().min(SHORT),
    }
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// Behind the bracket that closes the one at `from`, strings passed over.
pub(crate) fn block_end(text: &[u8], from: usize, open: u8, close: u8) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = from;
    loop {
        at += memchr::memchr3(b'"', open, close, text.get(at..)?)?;
        if text[at] == b'"' {
            at = string_end(text, at + 1)?;
        } else if text[at] == open {
            depth += 1;
        } else {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return Some(at + 1);
            }
        }
        at += 1;
    }
}

/// The value at `at`, which is its first byte.
pub(crate) fn value(text: &[u8], at: usize) -> Result<Value<'_>, &'static str> {
    let Some(first) = text.get(at) else { return Err(MALFORMED) };
    let (kind, end) = match first {
        b'"' => {
            let end = string_end(text, at + 1).ok_or(NO_STRING)?;
            return Ok(Value { kind: Kind::String, raw: &text[at + 1..end], end: end + 1 });
        }
        b'[' => (Kind::Array, block_end(text, at, b'[', b']').ok_or(NO_ARRAY)?),
        b'{' => (Kind::Object, block_end(text, at, b'{', b'}').ok_or(NO_OBJECT)?),
        first => {
            let ends = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'}' | b']');
            let end = text[at..].iter().position(ends).map_or(text.len(), |i| at + i);
            let kind = match &text[at..end] {
                b"true" | b"false" => Kind::Bool,
                b"null" => Kind::Null,
                _ if first.is_ascii_digit() || *first == b'-' => Kind::Number,
                _ => return Err(UNKNOWN),
            };
            (kind, end)
        }
    };
    Ok(Value { kind, raw: &text[at..end], end })
}

/// What comes next in an object.
pub(crate) enum Member<'a> {
    /// A key, as it stands between its quotes, and where its value begins.
    Key(&'a [u8], usize),
    /// The object ends here.
    End,
}

/// Reads up to the value of the next member. `at` is behind `{` (`first`) or behind a comma.
pub(crate) fn member(text: &[u8], at: usize, first: bool) -> Result<Member<'_>, &'static str> {
    let at = skip_space(text, at).ok_or(if first { MALFORMED } else { NO_ARRAY })?;
    match text[at] {
        b'}' => return Ok(Member::End),
        b'"' => {}
        _ => return Err(NO_OBJECT),
    }
    let end = string_end(text, at + 1).ok_or(MALFORMED)?;
    let colon = skip_space(text, end + 1).filter(|at| text[*at] == b':').ok_or(MALFORMED)?;
    let value = skip_space(text, colon + 1).ok_or(MALFORMED)?;
    Ok(Member::Key(&text[at + 1..end], value))
}

/// Reads what stands behind a value: behind the comma that follows it, or nothing if the object ends.
pub(crate) fn after_value(text: &[u8], at: usize) -> Result<Option<usize>, &'static str> {
    let at = skip_space(text, at).ok_or(NO_ARRAY)?;
    match text[at] {
        b',' => Ok(Some(at + 1)),
        b'}' => Ok(None),
        _ => Err(NO_OBJECT),
    }
}

/// Whether a string has to be unescaped.
pub(crate) fn has_escape(raw: &[u8]) -> bool {
    if raw.len() <= SHORT { raw.contains(&b'\\') } else { memchr::memchr(b'\\', raw).is_some() }
}

/// The text that a string spells: itself if it has no escapes, else what is put into `out`; nothing if an escape is bad.
pub(crate) fn unescape<'a>(raw: &'a [u8], out: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if !has_escape(raw) {
        return Some(raw);
    }
    out.clear();
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let plain = match rest.get(at + 1)? {
            b'"' => b'"',
            b'\\' => b'\\',
            b'/' => b'/',
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (c, len) = unicode_escape(&rest[at..])?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[at + len..];
                continue;
            }
            _ => return None,
        };
        out.push(plain);
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// `\uXXXX` or a pair of them, and how long that is.
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let high = hex4(text)?;
    if !(0xD800..0xE000).contains(&high) {
        return char::from_u32(high).map(|c| (c, 6));
    }
    let low = hex4(text.get(6..)?)?;
    let (0xD800..0xDC00, 0xDC00..0xE000) = (high, low) else { return None };
    char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).map(|c| (c, 12))
}

/// The number of a `\uXXXX` that a text begins with.
pub(crate) fn hex4(text: &[u8]) -> Option<u32> {
    let digits = text.get(2..6).filter(|_| text.starts_with(b"\\u"))?;
    digits.iter().try_fold(0, |n, b| Some(n << 4 | char::from(*b).to_digit(16)?))
}
