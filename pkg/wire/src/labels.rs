//! The text of a stream's labels, `{a="b", c="d"}`, as the PromQL metric parser reads it (contract, Loki API §2.5).
//!
//! A lexer gives items with their places, a small machine takes them; the first fault ends both. Invariants:
//! * Accepted are `{…}`, `name`, `name{…}` (then `__name__` is a label) and nothing at all; values in double quotes, single quotes or
//!   backticks with Go's escapes; a comma may end the list.
//! * Unlike Prometheus, a quoted name must be a legal name too, and a value must be UTF-8 after its escapes are resolved: a
//!   stream that no query could name or show is not accepted.
//! * Fault texts and places are Prometheus's: `line:column: parse error: …`, columns in bytes.

use std::borrow::Cow;

use tailwater_logql::go::quote::{quote, quote_rune};

use crate::Error;

/// A label: its name and its value.
pub type Pair = (Box<str>, Box<str>);

/// Parses the text of a stream's labels. The pairs come in the order of the text, with repeats and empty values.
///
/// # Errors
/// [`Error::Labels`].
pub fn parse(text: &[u8]) -> Result<Vec<Pair>, Error> {
    let mut lexer = Lexer { text, pos: 0 };
    metric(&mut lexer).map_err(|fault| Error::Labels(place(text, &fault).into()))
}

/// Whether `name` may name a label.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|b| is_alpha(*b)) && name.iter().all(|b| is_alpha(*b) || b.is_ascii_digit())
}

/// Appends the text of labels, in the order given. Names go in as they are: judging them is the parser's business.
pub(crate) fn write<'a>(out: &mut Vec<u8>, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    out.push(b'{');
    for (i, (name, value)) in pairs.enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b"=\"");
        for &b in value {
            match b {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
                b'\n' => out.extend_from_slice(b"\\n"),
                _ => out.push(b),
            }
        }
        out.push(b'"');
    }
    out.push(b'}');
}

/// A name made legal as OTLP receivers do it: every run of what is neither letter nor digit becomes one `_`, a leading digit gets `key_`
/// in front, and the underscores around `__name__` stay.
#[must_use]
pub fn normalize(name: &[u8]) -> String {
    let inner = name.strip_prefix(b"__").and_then(|rest| rest.strip_suffix(b"__"));
    let mut out = String::with_capacity(name.len() + 4);
    if inner.is_none() && name.first().is_some_and(u8::is_ascii_digit) {
        out.push_str("key_");
    }
    out.push_str(inner.map_or("", |_| "__"));
    let mut run = false;
    for &b in inner.unwrap_or(name) {
        let plain = b.is_ascii_alphanumeric();
        if plain {
            out.push(char::from(b));
        } else if !run {
            out.push('_');
        }
        run = !plain;
    }
    out.push_str(inner.map_or("", |_| "__"));
    out
}

struct Fault {
    at: usize,
    why: String,
}

fn place(text: &[u8], fault: &Fault) -> String {
    let before = &text[..fault.at.min(text.len())];
    let line = 1 + memchr::memchr_iter(b'\n', before).count();
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |i| i + 1) + 1;
    format!("{line}:{column}: parse error: {}", fault.why)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Eof,
    LeftBrace,
    RightBrace,
    Comma,
    Equals,
    /// `!=`, `=~`, `!~`
    Operator,
    Identifier,
    MetricIdentifier,
    Number,
    String,
    /// Whatever else PromQL has outside of braces.
    Other,
}

#[derive(Clone, Copy)]
struct Item<'a> {
    kind: Kind,
    at: usize,
    text: &'a [u8],
}

impl Item<'_> {
    fn unexpected(&self, context: &str, expected: &str) -> Fault {
        let quoted = || {
            let text = String::from_utf8_lossy(self.text);
            match text.char_indices().nth(10) {
                Some((end, _)) => format!("{}...", quote(&text.as_bytes()[..end])),
                None => quote(text.as_bytes()),
            }
        };
        let what = match self.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Operator => format!("<op:{}>", String::from_utf8_lossy(self.text)),
            Kind::Identifier => format!("identifier {}", quote(self.text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quote(self.text)),
            Kind::Number => format!("number {}", quoted()),
            Kind::String => format!("string {}", quoted()),
            _ => quoted(),
        };
        let context = if context.is_empty() { String::new() } else { format!(" in {context}") };
        let expected = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        Fault { at: self.at, why: format!("unexpected {what}{context}{expected}") }
    }
}

fn metric(lexer: &mut Lexer<'_>) -> Result<Vec<Pair>, Fault> {
    let mut pairs = Vec::new();
    let mut item = lexer.outside()?;
    if matches!(item.kind, Kind::Identifier | Kind::MetricIdentifier) {
        pairs.push(("__name__".into(), text(item.at, item.text.into())?));
        item = lexer.outside()?;
    }
    if item.kind == Kind::LeftBrace {
        list(lexer, &mut pairs)?;
        item = lexer.outside()?;
    }
    if item.kind != Kind::Eof {
        return Err(item.unexpected("", ""));
    }
    Ok(pairs)
}

fn list(lexer: &mut Lexer<'_>, pairs: &mut Vec<Pair>) -> Result<(), Fault> {
    const SET: &str = "label set";
    loop {
        let item = lexer.inside()?;
        let name = match item.kind {
            Kind::RightBrace => return Ok(()),
            Kind::Identifier => text(item.at, item.text.into())?,
            Kind::String => {
                let name = text(item.at, unquote(item.text))?;
                if !is_name(name.as_bytes()) {
                    let why = format!("invalid label name {}", quote(name.as_bytes()));
                    return Err(Fault { at: item.at, why });
                }
                name
            }
            _ => return Err(item.unexpected(SET, "identifier or \"}\"")),
        };
        let item = lexer.inside()?;
        if item.kind != Kind::Equals {
            return Err(item.unexpected(SET, "\"=\""));
        }
        let item = lexer.inside()?;
        if item.kind != Kind::String {
            return Err(item.unexpected(SET, "string"));
        }
        pairs.push((name, text(item.at, unquote(item.text))?));
        let item = lexer.inside()?;
        match item.kind {
            Kind::Comma => {}
            Kind::RightBrace => return Ok(()),
            _ => return Err(item.unexpected(SET, "\",\" or \"}\"")),
        }
    }
}

fn text(at: usize, bytes: Cow<'_, [u8]>) -> Result<Box<str>, Fault> {
    match String::from_utf8(bytes.into_owned()) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err(Fault { at, why: "invalid UTF-8 rune".to_owned() }),
    }
}

struct Lexer<'a> {
    text: &'a [u8],
    pos: usize,
}

impl<'a> Lexer<'a> {
    fn item(&self, kind: Kind, at: usize) -> Item<'a> {
        Item { kind, at, text: &self.text[at..self.pos] }
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.text.get(self.pos).is_some_and(|b| wanted(*b)) {
            self.pos += 1;
        }
    }

    /// White space and `#` comments.
    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
            if self.text.get(self.pos) != Some(&b'#') {
                return;
            }
            self.take_while(|b| b != b'\n');
        }
    }

    fn outside(&mut self) -> Result<Item<'a>, Fault> {
        self.skip_blanks();
        let at = self.pos;
        let Some(&b) = self.text.get(at) else { return Ok(self.item(Kind::Eof, at)) };
        self.pos += 1;
        let kind = match b {
            b'{' => Kind::LeftBrace,
            b'}' => return Err(self.unexpected("right brace", at)),
            b',' => Kind::Comma,
            b'=' => Kind::Equals,
            b'"' | b'\'' | b'`' => {
                self.string(b, at)?;
                Kind::String
            }
            b if is_alpha(b) || b == b':' => {
                self.take_while(|b| is_alpha(b) || b.is_ascii_digit() || b == b':');
                let colon = self.text[at..self.pos].contains(&b':');
                if colon { Kind::MetricIdentifier } else { Kind::Identifier }
            }
            b if b.is_ascii_digit() => {
                self.take_while(|b| b.is_ascii_alphanumeric() || b == b'.');
                Kind::Number
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'(' | b')' | b'[' | b']' | b'@' | b'<' | b'>' | b'!' => {
                Kind::Other
            }
            _ => return Err(self.unexpected("character:", at)),
        };
        Ok(self.item(kind, at))
    }

    fn inside(&mut self) -> Result<Item<'a>, Fault> {
        self.skip_blanks();
        let at = self.pos;
        let fault = |why: String| Err(Fault { at, why });
        let Some(&b) = self.text.get(at) else { return fault("unexpected end of input inside braces".to_owned()) };
        self.pos += 1;
        let next = self.text.get(self.pos).copied();
        let kind = match b {
            b',' => Kind::Comma,
            b'}' => Kind::RightBrace,
            b'{' => return Err(self.unexpected("left brace", at)),
            b'=' if next == Some(b'~') => Kind::Operator,
            b'=' => Kind::Equals,
            b'!' if matches!(next, Some(b'~' | b'=')) => Kind::Operator,
            b'!' => {
                let next = next.map_or_else(|| "-1".to_owned(), |_| self.rune(self.pos));
                return fault(format!("unexpected character after '!' inside braces: {next}"));
            }
            b'"' | b'\'' | b'`' => {
                self.string(b, at)?;
                Kind::String
            }
            b if is_alpha(b) => {
                self.take_while(|b| is_alpha(b) || b.is_ascii_digit());
                Kind::Identifier
            }
            _ => return Err(self.unexpected("character inside braces:", at)),
        };
        self.pos += usize::from(kind == Kind::Operator);
        Ok(self.item(kind, at))
    }

    fn unexpected(&self, what: &str, at: usize) -> Fault {
        Fault { at, why: format!("unexpected {what} {}", self.rune(at)) }
    }

    /// The character at a place, as Go's `%q` shows it.
    fn rune(&self, at: usize) -> String {
        quote_rune(char_at(&self.text[at..]).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// The rest of a string whose opening quote is consumed.
    fn string(&mut self, quote: u8, at: usize) -> Result<(), Fault> {
        let raw = quote == b'`';
        let fault = |why: String| Err(Fault { at, why });
        loop {
            match self.text.get(self.pos) {
                None if raw => return fault("unterminated raw string".to_owned()),
                None | Some(b'\n') if !raw => return fault("unterminated quoted string".to_owned()),
                Some(b) if *b == quote => {
                    self.pos += 1;
                    return Ok(());
                }
                Some(b'\\') if !raw => {
                    self.pos += 1;
                    self.escape(quote).map_err(|why| Fault { at, why })?;
                }
                _ => match char_at(&self.text[self.pos..]) {
                    Some(c) => self.pos += c.len_utf8(),
                    None => return fault("invalid UTF-8 rune".to_owned()),
                },
            }
        }
    }

    /// An escape whose backslash is consumed.
    fn escape(&mut self, quote: u8) -> Result<(), String> {
        let code = char_at(&self.text[self.pos..]);
        let (digits, radix, max) = match code {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => (0, 0, 0),
            Some(c) if c == char::from(quote) => (0, 0, 0),
            Some('0'..='7') => (3, 8, 255),
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, u32::from(char::MAX)),
            Some('U') => (8, 16, u32::from(char::MAX)),
            Some(c) => return Err(format!("unknown escape sequence {}", code_point(c))),
            None if self.pos >= self.text.len() => return Err("escape sequence not terminated".to_owned()),
            None => return Err(format!("unknown escape sequence {}", code_point('\u{fffd}'))),
        };
        self.pos += usize::from(radix != 8);
        let mut value = 0u32;
        for _ in 0..digits {
            let Some(c) = char_at(&self.text[self.pos..]) else {
                return Err("escape sequence not terminated".to_owned());
            };
            let Some(digit) = c.to_digit(radix) else {
                return Err(format!("illegal character {} in escape sequence", code_point(c)));
            };
            value = value.saturating_mul(radix).saturating_add(digit);
            self.pos += 1;
        }
        if value > max || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }
}

/// The text in a string item, escapes resolved. The lexer has checked them.
fn unquote(item: &[u8]) -> Cow<'_, [u8]> {
    let inner = &item[1..item.len() - 1];
    if item[0] == b'`' || !inner.contains(&b'\\') {
        return inner.into();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let code = rest.get(at + 1).copied().unwrap_or_default();
        rest = rest.get(at + 2..).unwrap_or_default();
        let mut number = |digits: usize, radix: u32, first: u32| {
            let (text, after) = rest.split_at(digits.min(rest.len()));
            rest = after;
            text.iter().fold(first, |n, b| n.wrapping_mul(radix) + char::from(*b).to_digit(radix).unwrap_or_default())
        };
        match code {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => out.push(number(2, 8, u32::from(code - b'0')) as u8),
            b'x' => out.push(number(2, 16, 0) as u8),
            b'u' | b'U' => {
                let value = number(if code == b'u' { 4 } else { 8 }, 16, 0);
                let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
    out.into()
}

fn is_alpha(b: u8) -> bool {
    b == b'_' || b.is_ascii_alphabetic()
}

/// The first character; `None` at the end and where there is no valid UTF-8.
fn char_at(text: &[u8]) -> Option<char> {
    let head = &text[..text.len().min(4)];
    match std::str::from_utf8(head) {
        Ok(valid) => valid.chars().next(),
        Err(e) => std::str::from_utf8(&head[..e.valid_up_to()]).ok()?.chars().next(),
    }
}

/// Go's `%#U`.
fn code_point(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(text: &str) -> Vec<(String, String)> {
        let pairs = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_form_of_a_metric_is_read() {
        for (text, want) in [
            ("", &[][..]),
            ("{}", &[]),
            (" { } ", &[]),
            (r#"{a="b", c="d"}"#, &[("a", "b"), ("c", "d")]),
            ("{z=\"1\"\n,\t_a9 = '2' , }", &[("z", "1"), ("_a9", "2")]),
            (r#"{a="1",a="2",b=""}"#, &[("a", "1"), ("a", "2"), ("b", "")]),
            ("foo", &[("__name__", "foo")]),
            ("foo:bar{a=`b\\n`}", &[("__name__", "foo:bar"), ("a", "b\\n")]),
            ("sum{by='x'} # why", &[("__name__", "sum"), ("by", "x")]),
            (r#"{"a"="b", 'c'="d"}"#, &[("a", "b"), ("c", "d")]),
            (r#"{a="\a\b\f\n\r\t\v\\\"\101\x41\u00e4\U0001f600'"}"#, &[("a", "\x07\x08\x0c\n\r\t\x0b\\\"AAä😀'")]),
            (r#"{a='\'"'}"#, &[("a", "'\"")]),
            (r#"{a="\xc3\xa4 ü"}"#, &[("a", "ä ü")]),
        ] {
            assert_eq!(ok(text), pairs(want), "{text}");
        }
    }

    #[test]
    fn faults_have_prometheus_words_and_places() {
        for (text, why) in [
            ("{", "1:2: parse error: unexpected end of input inside braces"),
            ("{a", "1:3: parse error: unexpected end of input inside braces"),
            ("{a=\"b\"", "1:7: parse error: unexpected end of input inside braces"),
            ("{a=\"b", "1:4: parse error: unterminated quoted string"),
            ("{a=\"b\n\"}", "1:4: parse error: unterminated quoted string"),
            ("{a=`b", "1:4: parse error: unterminated raw string"),
            ("{a=b}", r#"1:4: parse error: unexpected identifier "b" in label set, expected string"#),
            ("{a}", r#"1:3: parse error: unexpected "}" in label set, expected "=""#),
            ("{a!=\"b\"}", r#"1:3: parse error: unexpected <op:!=> in label set, expected "=""#),
            ("{a!b}", "1:3: parse error: unexpected character after '!' inside braces: 'b'"),
            ("{a=\"b\" c=\"d\"}", r#"1:8: parse error: unexpected identifier "c" in label set, expected "," or "}""#),
            ("{,}", r#"1:2: parse error: unexpected "," in label set, expected identifier or "}""#),
            ("{{", "1:2: parse error: unexpected left brace '{'"),
            ("{\na-b=\"c\"}", "2:2: parse error: unexpected character inside braces: '-'"),
            ("{ü=\"c\"}", "1:2: parse error: unexpected character inside braces: 'ü'"),
            ("{a=\"b\"}}", "1:8: parse error: unexpected right brace '}'"),
            ("{a=\"b\"} x", r#"1:9: parse error: unexpected identifier "x""#),
            ("5", r#"1:1: parse error: unexpected number "5""#),
            ("a{b=\"\\q\"}", "1:5: parse error: unknown escape sequence U+0071 'q'"),
            ("a{b=\"\\xg0\"}", "1:5: parse error: illegal character U+0067 'g' in escape sequence"),
            ("a{b=\"\\ud800\"}", "1:5: parse error: escape sequence is an invalid Unicode code point"),
            ("a{b=\"\\400\"}", "1:5: parse error: escape sequence is an invalid Unicode code point"),
            ("a{b=\"\\", "1:5: parse error: escape sequence not terminated"),
            ("{\"a.b\"=\"c\"}", r#"1:2: parse error: invalid label name "a.b""#),
            ("{a=\"\\xff\"}", "1:4: parse error: invalid UTF-8 rune"),
            (
                "{abcdefghijklmno 'pqrstuvwxyz'",
                r#"1:18: parse error: unexpected string "'pqrstuvwx"... in label set, expected "=""#,
            ),
        ] {
            let text_of = parse(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(text_of, format!("couldn't parse labels: {why}"), "{text}");
        }
        let bad = parse(b"{app=\"\xff\"}").unwrap_err().to_string();
        assert_eq!(bad, "couldn't parse labels: 1:6: parse error: invalid UTF-8 rune");
        assert!(parse(b"\xff").is_err() && parse(b"{\xff}").is_err() && parse(b"{a=`\xff`}").is_err());
    }

    #[test]
    fn names_are_made_legal() {
        for (name, want) in [
            ("service.name", "service_name"),
            ("a--b", "a_b"),
            ("1abc", "key_1abc"),
            ("__x__", "__x__"),
            ("_x", "_x"),
            ("ünïcode", "_n_code"),
            ("http.status code", "http_status_code"),
            ("__a.b__", "__a_b__"),
        ] {
            assert_eq!(normalize(name.as_bytes()), want);
            assert!(is_name(want.as_bytes()), "{want}");
        }
        assert!(!is_name(b"") && !is_name(b"1a") && !is_name("ü".as_bytes()));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(all in proptest::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,9}", "(.|\n|\"|\\\\){0,20}"), 0..5)) {
            let mut text = Vec::new();
            write(&mut text, all.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
            prop_assert_eq!(ok(std::str::from_utf8(&text).unwrap()), all.clone());
            // And what the model prints, with its quoting.
            let labels = tailwater_model::Labels::from_pairs(parse(&text).unwrap());
            prop_assert_eq!(tailwater_model::Labels::from_pairs(parse(labels.to_string().as_bytes()).unwrap()), labels);
        }

        #[test]
        fn no_text_panics(text in "[{}a=\"'`,!~\\\\xu0-9 \nü#]{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            drop(parse(text.as_bytes()));
            drop(parse(&bytes));
            drop(normalize(&bytes));
        }
    }
}
