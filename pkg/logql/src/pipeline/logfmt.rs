//! `| logfmt`: the pairs of `key=value key="quoted value" key`.
//!
//! Invariants: every byte up to the space separates; a pair that is broken is skipped, and with `--strict` it ends the line with
//! an error; what was found before stays.

use super::Work;
use super::json_expr::first_char;
use super::json_scan::{has_escape, hex4};
use super::labels::LineLabels;
use super::names::NameId;

/// What `__error__` says of a broken pair.
const ERROR: &str = "LogfmtParserErr";

/// How pairs are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    pub(crate) strict: bool,
    pub(crate) keep_empty: bool,
}

/// A label and the key that it is taken from.
#[derive(Debug)]
pub(crate) struct Extraction {
    pub(crate) label: NameId,
    /// The name that the sanitized key must have.
    pub(crate) source: NameId,
}

/// Sets a label for every pair.
pub(crate) fn run(flags: Flags, line: &[u8], labels: &mut LineLabels, work: &mut Work) {
    let direct = !flags.strict && !flags.keep_empty;
    if labels.is_satisfied() || (direct && find_wanted(line, labels, work)) {
        return;
    }
    read(flags, line, labels, work);
}

fn read(flags: Flags, line: &[u8], labels: &mut LineLabels, work: &mut Work) {
    let mut pairs = Pairs { line, at: 0 };
    while let Some(pair) = pairs.next(&mut work.text) {
        match pair {
            Ok((key, value)) => {
                if value.is_empty() && !flags.keep_empty {
                    continue;
                }
                let Some(name) = labels.wanted_key(key) else { continue };
                let Some(name) = labels.wanted_target(name) else { continue };
                if !labels.is_extracted(name) {
                    labels.set_spaced(name, value);
                    // Nothing that comes later can show but, if asked for, an error.
                    if labels.is_satisfied() || (!flags.strict && labels.is_settled()) {
                        return;
                    }
                }
            }
            Err(broken) if flags.strict => return labels.set_parser_error(ERROR, &broken.to_string()),
            Err(_) => {}
        }
    }
}

/// Goes right to the keys that are wanted. False if they can only be found by reading all keys before them; what was set until then
/// is as reading would have set it.
///
/// Where no quote and nothing but ASCII comes before it, a key begins exactly behind a separator or at the line's begin.
fn find_wanted(line: &[u8], labels: &mut LineLabels, work: &mut Work) -> bool {
    let Some(names) = labels.wanted_names() else { return false };
    // Up to here there is neither a quote nor anything but ASCII.
    let mut plain = 0;
    'names: for place in 0..names {
        let Some((id, Some(_))) = labels.wanted_name(place) else { return false };
        let Some(target) = labels.wanted_target(id) else { continue };
        if labels.is_extracted(target) {
            continue;
        }
        let mut from = 0;
        loop {
            let Some((_, Some(assignment))) = labels.wanted_name(place) else { return false };
            let Some(at) = line.get(from..).and_then(|rest| assignment.find(rest)).map(|at| from + at) else {
                if !line[plain..].is_ascii() {
                    return false;
                }
                continue 'names;
            };
            match at.checked_sub(1).map(|before| line[before]) {
                Some(b'"' | 0x80..) => return false,
                Some(before) if before > b' ' => {
                    from = at + 1;
                    continue;
                }
                _ => {}
            }
            if at > plain {
                let more = &line[plain..at];
                if !more.is_ascii() || memchr::memchr(b'"', more).is_some() {
                    return false;
                }
                plain = at;
            }
            let mut pairs = Pairs { line, at };
            if let Some(Ok((_, value))) = pairs.next(&mut work.text)
                && !value.is_empty()
            {
                labels.set_spaced(target, value);
                continue 'names;
            }
            from = pairs.at.max(at + 1);
        }
    }
    true
}

/// Sets the labels that are asked for.
pub(crate) fn run_expressions(
    flags: Flags,
    extractions: &[Extraction],
    line: &[u8],
    labels: &mut LineLabels,
    work: &mut Work,
) {
    for extraction in extractions {
        if !labels.is_taken(extraction.label) {
            labels.set(extraction.label, "");
        }
    }
    let mut pairs = Pairs { line, at: 0 };
    while let Some(pair) = pairs.next(&mut work.text) {
        let (key, value) = match pair {
            Ok(pair) => pair,
            Err(broken) if flags.strict => return labels.set_parser_error(ERROR, &broken.to_string()),
            Err(_) => continue,
        };
        let Some(key) = labels.names().intern_key(key) else { continue };
        let by_source = extractions.iter().find(|e| e.source == key);
        let Some(wanted) = by_source.or_else(|| extractions.iter().find(|e| e.label == key)) else { continue };
        let value = match std::str::from_utf8(value) {
            Ok(value) if !value.contains('\u{fffd}') => value,
            _ => "",
        };
        if labels.is_taken(wanted.label) {
            let target = labels.target(wanted.label);
            if labels.is_extracted(target) {
                return;
            }
            labels.set(target, value);
        } else {
            labels.set(wanted.label, value);
        }
    }
}

/// What is wrong with a pair, and the byte where that shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken {
    at: usize,
    what: &'static str,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "logfmt syntax error at pos {} : {}", self.at + 1, self.what)
    }
}

const QUOTE: &str = "unexpected '\"'";
const EQUALS: &str = "unexpected '='";
const BAD_KEY: &str = "invalid key";
const BAD_VALUE: &str = "invalid quoted value";
const NO_END: &str = "unterminated quoted value";

/// How many bytes there are before the first separator, `=` or `"`. Eight at a time: words are mostly short.
fn word_len(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // The lowest top bit that is set marks the first byte that is zero, or less; those above it may be wrong.
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & TOPS;
    let mut at = 0;
    while let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let x = u64::from_le_bytes(*word);
        let separators = x.wrapping_sub(ONES * 0x21) & !x & TOPS;
        let found = separators | zero(x ^ (ONES * u64::from(b'='))) | zero(x ^ (ONES * u64::from(b'"')));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| *b <= b' ' || matches!(b, b'=' | b'"')).unwrap_or(rest.len())
}

/// Key and value.
type Pair<'a> = Result<(&'a [u8], &'a [u8]), Broken>;

/// The pairs of a line, one after the other.
struct Pairs<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Pairs<'a> {
    /// The next pair. `unquoted` holds a value that had escapes.
    fn next<'b>(&mut self, unquoted: &'b mut Vec<u8>) -> Option<Pair<'b>>
    where
        'a: 'b,
    {
        let line = self.line;
        let from = self.at + line.get(self.at..)?.iter().position(|b| *b > b' ')?;
        let to = from + word_len(&line[from..]);
        let key = &line[from..to];
        self.at = to;
        match line.get(to) {
            Some(b'"') => return Some(Err(self.skip(to, QUOTE))),
            Some(b'=') if key.is_empty() => return Some(Err(self.skip(to, EQUALS))),
            _ => {}
        }
        if !key.is_ascii() && std::str::from_utf8(key).map_or(true, |k| k.contains('\u{fffd}')) {
            return Some(Err(self.skip(to, BAD_KEY)));
        }
        if line.get(to) != Some(&b'=') {
            return Some(Ok((key, b"")));
        }
        let from = to + 1;
        if line.get(from) == Some(&b'"') {
            return Some(self.quoted(from + 1, unquoted).map(|value| (key, value)));
        }
        let to = from + word_len(&line[from..]);
        self.at = to;
        match line.get(to) {
            Some(b'=') => Some(Err(self.skip(to, EQUALS))),
            Some(b'"') => Some(Err(self.skip(to, QUOTE))),
            _ => Some(Ok((key, &line[from..to]))),
        }
    }

    /// Goes to the next separator.
    fn skip(&mut self, at: usize, what: &'static str) -> Broken {
        let rest = &self.line[at..];
        self.at = at + rest.iter().position(|b| *b <= b' ').unwrap_or(rest.len());
        Broken { at, what }
    }

    fn quoted<'b>(&mut self, from: usize, unquoted: &'b mut Vec<u8>) -> Result<&'b [u8], Broken>
    where
        'a: 'b,
    {
        let Some(to) = super::json_scan::string_end(self.line, from) else {
            self.at = self.line.len();
            return Err(Broken { at: self.line.len(), what: NO_END });
        };
        self.at = to + 1;
        let raw = &self.line[from..to];
        if !has_escape(raw) {
            return Ok(raw);
        }
        if unquote(raw, unquoted) { Ok(unquoted) } else { Err(Broken { at: to + 1, what: BAD_VALUE }) }
    }
}

/// Puts what a quoted text spells into `out`; false if an escape is bad.
fn unquote(raw: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let plain = match rest.get(at + 1) {
            Some(b @ (b'"' | b'\\' | b'/' | b'\'')) => *b,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let Some(high) = hex4(&rest[at..]) else { return false };
                let low = rest.get(at + 6..).and_then(hex4).unwrap_or(0);
                let (code, len) = match (high, low) {
                    (0xD800..0xDC00, 0xDC00..0xE000) => (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), 12),
                    _ => (high, 6),
                };
                let c = char::from_u32(code).unwrap_or('\u{fffd}');
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[at + len..];
                continue;
            }
            _ => return false,
        };
        out.push(plain);
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    true
}

/// Reads an expression: the name of a key, or the same in quotes.
pub(crate) fn parse(expression: &[u8]) -> Result<Box<[u8]>, String> {
    let refuse = |msg: &str| Err(format!("cannot parse expression [{}]: {msg}", String::from_utf8_lossy(expression)));
    let mut found: Option<Box<[u8]>> = None;
    let mut at = 0;
    while let Some(b) = expression.get(at) {
        let rest = &expression[at..];
        let (kind, text, len): (_, &[u8], _) = match b {
            b' ' | b'\t' | b'\n' => {
                at += 1;
                continue;
            }
            b'"' => {
                let len = rest[1..].iter().position(|b| matches!(b, b'"' | b']')).unwrap_or(rest.len() - 1);
                ("STRING", &rest[1..=len], (len + 2).min(rest.len()))
            }
            b if b.is_ascii_alphabetic() || *b == b'_' => {
                let ends = |b: &u8| !b.is_ascii_alphanumeric() && *b != b'_';
                let len = rest.iter().position(ends).unwrap_or(rest.len());
                ("KEY", &rest[..len], len)
            }
            _ if found.is_some() => return refuse(&format!("unexpected char {}", first_char(rest))),
            _ => break,
        };
        if found.is_some() {
            return refuse(&format!("syntax error: unexpected {kind}"));
        }
        found = Some(text.into());
        at += len;
    }
    match found {
        Some(key) => Ok(key),
        None => refuse("syntax error: unexpected $end, expecting STRING or KEY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(line: &str) -> Vec<Result<(String, String), Broken>> {
        let mut pairs = Pairs { line: line.as_bytes(), at: 0 };
        let mut text = Vec::new();
        let mut all = Vec::new();
        while let Some(pair) = pairs.next(&mut text) {
            let owned = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            all.push(pair.map(|(k, v)| (owned(k), owned(v))));
        }
        all
    }

    fn ok(key: &str, value: &str) -> Result<(String, String), Broken> {
        Ok((key.to_owned(), value.to_owned()))
    }

    proptest::proptest! {
        #[test]
        fn words_end_at_the_first_stop(text in "[ -~\\x00-\\x7fé=\" ]{0,30}") {
            let plain = text.bytes().position(|b| b <= b' ' || matches!(b, b'=' | b'"')).unwrap_or(text.len());
            proptest::prop_assert_eq!(word_len(text.as_bytes()), plain);
        }

        /// Going right to the keys finds what reading all of them finds.
        #[test]
        fn wanted_keys_are_found_where_they_stand(
            line in proptest::collection::vec(
                proptest::sample::select(vec![
                    "level", "lev", "a", "s_c", "s.c", "=", "=", "\"", " ", " ", "\t", "x", "é", "\u{a0}", "1", "\\", "level=x", " a=5",
                ]),
                0..14,
            ),
            wanted in proptest::sample::subsequence(vec!["a", "level", "level_extracted", "s_c", "app"], 1..4),
            stream in proptest::sample::subsequence(vec!["app", "level"], 0..2),
        ) {
            let line = line.concat();
            let mut names = super::super::names::Names::new();
            let ids = wanted.iter().map(|name| names.intern(name)).collect();
            let wanting = super::super::Wanted { names: ids, preserve_error: false };
            let fixed = names.into_added();
            let stream = tailwater_model::Labels::from_pairs(stream.iter().map(|n| ((*n).into(), "s".into())).collect());
            let flags = Flags { strict: false, keep_empty: false };
            let of = |all: fn(Flags, &[u8], &mut LineLabels, &mut Work)| {
                let mut labels = LineLabels::new(&fixed, Some(&wanting));
                labels.enter(&stream);
                labels.begin(&[], None);
                all(flags, line.as_bytes(), &mut labels, &mut Work::default());
                labels.finish().to_string()
            };
            proptest::prop_assert_eq!(of(run), of(read), "{}", line);
        }
    }

    #[test]
    fn pairs_are_read() {
        assert_eq!(
            pairs("a=1\tbare  c= d=\"x y\"e=f"),
            [ok("a", "1"), ok("bare", ""), ok("c", ""), ok("d", "x y"), ok("e", "f")]
        );
        assert_eq!(pairs(r#"a="q\"\\\/\'\n\u0041\ud83d\ude00\ud800." b=""#), {
            let broken = Broken { at: 44, what: NO_END };
            [ok("a", "q\"\\/'\nA😀\u{fffd}."), Err(broken)]
        });
    }

    #[test]
    fn broken_pairs_are_passed_over() {
        let broken = |at, what| Err(Broken { at, what });
        assert_eq!(pairs("a==b c=1"), [broken(2, EQUALS), ok("c", "1")]);
        assert_eq!(
            pairs("a=b\"c\" =x \"k\"=1 d"),
            [broken(3, QUOTE), broken(7, EQUALS), broken(10, QUOTE), ok("d", "")]
        );
        assert_eq!(pairs(r#"a="\x" b=1"#), [broken(6, BAD_VALUE), ok("b", "1")]);
        assert_eq!(Broken { at: 2, what: EQUALS }.to_string(), "logfmt syntax error at pos 3 : unexpected '='");
    }

    #[test]
    fn expressions_are_names_or_quoted() {
        assert_eq!(parse(b" a_1 ").as_deref(), Ok(&b"a_1"[..]));
        assert_eq!(parse(b"\"a b\"").as_deref(), Ok(&b"a b"[..]));
        let refusal = |e: &str| parse(e.as_bytes()).expect_err(e);
        assert_eq!(refusal(""), "cannot parse expression []: syntax error: unexpected $end, expecting STRING or KEY");
        assert!(refusal("9a").ends_with(": syntax error: unexpected $end, expecting STRING or KEY"));
        assert!(refusal("q w").ends_with("]: syntax error: unexpected KEY"));
        assert!(refusal("q\"w\"").ends_with("]: syntax error: unexpected STRING"));
        assert!(refusal("q.w").ends_with("]: unexpected char ."));
    }
}
