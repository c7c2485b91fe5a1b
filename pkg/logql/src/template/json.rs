//! `fromJson`: JSON as Go's `encoding/json` reads it into an `interface {}`.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::value::Value;
use crate::go::number::parse_float;
use crate::go::unicode::{decode, push};

/// How deep a document may nest. Go allows 10000, which nothing that is logged needs.
const MAX_DEPTH: u32 = 200;

/// Any JSON value; `Nil` for what is not JSON, and for a number that is too large.
pub(super) fn decode_json<'a>(text: &[u8]) -> Value<'a> {
    let mut reader = Reader { rest: text, depth: 0 };
    let value = reader.value();
    reader.spaces();
    match value {
        Some(value) if reader.rest.is_empty() => value,
        _ => Value::Nil,
    }
}

struct Reader<'t> {
    rest: &'t [u8],
    depth: u32,
}

impl Reader<'_> {
    fn spaces(&mut self) {
        let len = self.rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.rest = &self.rest[len..];
    }

    fn eat(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn value<'a>(&mut self) -> Option<Value<'a>> {
        self.spaces();
        match self.rest.first()? {
            b'n' => self.eat(b"null").map(|()| Value::Nil),
            b't' => self.eat(b"true").map(|()| Value::Bool(true)),
            b'f' => self.eat(b"false").map(|()| Value::Bool(false)),
            b'"' => self.text().map(Value::text),
            b'[' => self.nested(Self::list),
            b'{' => self.nested(Self::map),
            _ => self.number(),
        }
    }

    fn nested<'a>(&mut self, inner: impl FnOnce(&mut Self) -> Option<Value<'a>>) -> Option<Value<'a>> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        self.rest = &self.rest[1..];
        self.spaces();
        let value = inner(self);
        self.depth -= 1;
        value
    }

    /// Whether another element follows (`true`) or the end was reached.
    fn more(&mut self, close: &[u8]) -> Option<bool> {
        self.spaces();
        if self.eat(b",").is_some() {
            return Some(true);
        }
        self.eat(close).map(|()| false)
    }

    fn list<'a>(&mut self) -> Option<Value<'a>> {
        let mut items = Vec::new();
        if self.eat(b"]").is_none() {
            loop {
                items.push(self.value()?);
                if !self.more(b"]")? {
                    break;
                }
            }
        }
        Some(Value::List(items.into()))
    }

    fn map<'a>(&mut self) -> Option<Value<'a>> {
        let mut map = BTreeMap::new();
        if self.eat(b"}").is_none() {
            loop {
                self.spaces();
                let name = self.text()?;
                self.spaces();
                self.eat(b":")?;
                map.insert(name.into_boxed_slice(), self.value()?);
                if !self.more(b"}")? {
                    break;
                }
            }
        }
        Some(Value::Map(Rc::new(map)))
    }

    fn number<'a>(&mut self) -> Option<Value<'a>> {
        let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
        let mut len = usize::from(self.rest.first() == Some(&b'-'));
        len += match &self.rest[len..] {
            [b'0', ..] => 1,
            whole => match digits(whole) {
                0 => return None,
                n => n,
            },
        };
        if self.rest.get(len) == Some(&b'.') {
            let fraction = digits(&self.rest[len + 1..]);
            if fraction == 0 {
                return None;
            }
            len += 1 + fraction;
        }
        if matches!(self.rest.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.rest.get(len + 1), Some(b'+' | b'-')));
            let exponent = digits(&self.rest[len + 1 + sign..]);
            if exponent == 0 {
                return None;
            }
            len += 1 + sign + exponent;
        }
        let (number, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(parse_float(number).map_or(Value::Nil, Value::Float))
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        self.eat(b"\"")?;
        let mut out = Vec::new();
        loop {
            match *self.rest.first()? {
                b'"' => {
                    self.rest = &self.rest[1..];
                    return Some(out);
                }
                b'\\' => self.escape(&mut out)?,
                0..0x20 => return None,
                _ => {
                    let (c, len) = decode(self.rest)?;
                    push(&mut out, c);
                    self.rest = &self.rest[len..];
                }
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let c = match self.rest.get(1)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = hex(self.rest)?;
                self.rest = &self.rest[6..];
                let mut code = high;
                if (0xD800..0xDC00).contains(&high)
                    && let Some(low @ 0xDC00..=0xDFFF) = hex(self.rest)
                {
                    self.rest = &self.rest[6..];
                    code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                }
                push(out, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                return Some(());
            }
            _ => return None,
        };
        push(out, c);
        self.rest = &self.rest[2..];
        Some(())
    }
}

/// The code of `\uXXXX` at the start of the text.
fn hex(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |n, &b| Some(n * 16 + char::from(b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::format::Printer;

    fn shown(text: &str) -> String {
        let mut out = Vec::new();
        Printer::new(&|_| {}).value(&decode_json(text.as_bytes()), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn reads_what_is_json_and_nothing_else() {
        for (text, expected) in [
            (r#" {"b" : [1, -2.5e3, true, null], "a":{}} "#, "map[a:map[] b:[1 -2500 true <nil>]]"),
            (r#""\u00e9\ud83d\ude00\ud800x\/\n""#, "é😀\u{fffd}x/\n"),
            (r#"{"a":1,"a":2}"#, "map[a:2]"),
            ("1e999", "<nil>"),
            ("0", "0"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        for text in
            ["", "{", "[1,]", "{\"a\"}", "01", "1.", ".5", "+1", "nul", "\"a\nb\"", "\"\\x\"", "[1] x", "{a:1}", "1e"]
        {
            assert_eq!(shown(text), "<nil>", "{text}");
        }
        assert_eq!(shown(&"[".repeat(100_000)), "<nil>");
    }
}
