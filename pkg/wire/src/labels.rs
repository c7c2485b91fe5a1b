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
