//! A JSON reader over bytes, for push bodies: no tree, no copy, strict syntax, UTF-8 not checked.
//!
//! Invariants: nesting costs a byte per level and is bounded by [`MAX_DEPTH`]; a string is handed out as a [`Text`], a span of the
//! body or, if it had escapes, of the caller's scratch buffer. Faults carry the texts of the JSON library behind Loki.

use std::borrow::Cow;

use memchr::memchr2;

use crate::Error;

/// How deeply arrays and objects may nest.
const MAX_DEPTH: usize = 10_000;

/// What is wrong; where is the reader's place at that time.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The bytes are not JSON: the reader's operation, and what it met.
    Syntax(&'static str, Cow<'static, str>),
    /// The JSON is not what is wanted here.
    Value(&'static str),
    /// A limit of the product, not of the format.
    Other(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

pub(crate) const NO_STRING: Fault = Fault::Value("Value is string, but can't find closing '\"' symbol");
pub(crate) const NO_OBJECT: Fault = Fault::Value("Value looks like object, but can't find closing '}' symbol");
pub(crate) const NO_SCALAR: Fault =
    Fault::Value("Value looks like Number/Boolean/None, but can't find its end: ',' or '}' symbol");
pub(crate) const MALFORMED: Fault = Fault::Value("Malformed JSON error");

/// The content of a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    start: u32,
    end: u32,
    unescaped: bool,
}

impl Text {
    /// A part of the body.
    pub(crate) fn span(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32, unescaped: false }
    }

    /// The bytes, from the body or from the scratch buffer that the string was read with.
    pub(crate) fn of<'a>(&self, body: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        let from = if self.unescaped { scratch } else { body };
        from.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// A place in a JSON text of at most 4 GiB.
pub(crate) struct Reader<'a> {
    pub(crate) buf: &'a [u8],
    pub(crate) pos: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(buf: &'a [u8]) -> Self {
        Self { buf, pos: 0 }
    }

    /// The next byte that is not white space, consumed; 0 at the end.
    #[inline]
    pub(crate) fn token(&mut self) -> u8 {
        while let Some(&b) = self.buf.get(self.pos) {
            self.pos += 1;
            if !matches!(b, b' ' | b'\n' | b'\t' | b'\r') {
                return b;
            }
        }
        0
    }

    /// The next byte that is not white space, left in place; 0 at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        while let Some(&b) = self.buf.get(self.pos) {
            if !matches!(b, b' ' | b'\n' | b'\t' | b'\r') {
                return b;
            }
            self.pos += 1;
        }
        0
    }

    /// The rest of a literal whose first byte is consumed.
    pub(crate) fn literal(&mut self, rest: &'static str) -> Result<(), Fault> {
        let end = (self.pos + rest.len()).min(self.buf.len());
        if &self.buf[self.pos..end] != rest.as_bytes() {
            self.pos = end;
            let name = if rest.len() == 3 { "skipThreeBytes" } else { "skipFourBytes" };
            return Err(Fault::Syntax(name, format!("expect {rest}").into()));
        }
        self.pos = end;
        Ok(())
    }

    /// The end of a string whose opening quote is consumed, and whether it has escapes. Moves behind the closing quote.
    fn string_end(&mut self) -> Result<(usize, bool), Fault> {
        let mut escaped = false;
        loop {
            let rest = &self.buf[self.pos..];
            let Some(len) = memchr2(b'"', b'\\', rest) else {
                self.pos = self.buf.len();
                return Err(Fault::Syntax("ReadString", "unexpected end of input".into()));
            };
            // Written as a fold so that it becomes vector code; a control character is rare enough to be looked for again.
            if rest[..len].iter().fold(false, |found, b| found | (*b < 0x20)) {
                let at = rest.iter().position(|b| *b < 0x20).unwrap_or_default();
                self.pos += at + 1;
                let text = format!("invalid control character found: {}", rest[at]);
                return Err(Fault::Syntax("ReadString", text.into()));
            }
            self.pos += len + 1;
            if rest[len] == b'"' {
                return Ok((self.pos - 1, escaped));
            }
            escaped = true;
            let code = self.buf.get(self.pos).copied().unwrap_or_default();
            self.pos = (self.pos + 1).min(self.buf.len());
            match code {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    for _ in 0..4 {
                        let digit = self.buf.get(self.pos).copied().unwrap_or_default();
                        self.pos = (self.pos + 1).min(self.buf.len());
                        if !digit.is_ascii_hexdigit() {
                            let text = format!("expects 0~9 or a~f, but found {}", char::from(digit));
                            return Err(Fault::Syntax("readU4", text.into()));
                        }
                    }
                }
                _ => return Err(Fault::Syntax("readEscapedChar", "invalid escape char after \\".into())),
            }
        }
    }

    /// A string whose opening quote is consumed. Escapes are resolved into `scratch`; half of a surrogate pair is no text.
    #[inline]
    pub(crate) fn string(&mut self, scratch: &mut Vec<u8>) -> Result<Text, Fault> {
        let start = self.pos;
        let (end, escaped) = self.string_end()?;
        if !escaped {
            return Ok(Text { start: start as u32, end: end as u32, unescaped: false });
        }
        let from = scratch.len();
        unescape(&self.buf[start..end], scratch).ok_or(NO_SCALAR)?;
        Ok(Text { start: from as u32, end: scratch.len() as u32, unescaped: true })
    }

    /// The key of an object's member whose opening quote is consumed, and the colon behind it.
    #[inline]
    pub(crate) fn key(&mut self, scratch: &mut Vec<u8>) -> Result<Text, Fault> {
        let key = self.string(scratch)?;
        self.colon()?;
        Ok(key)
    }

    #[inline]
    fn colon(&mut self) -> Result<(), Fault> {
        match self.token() {
            b':' => Ok(()),
            c => Err(found("ReadObject", "expect : after object field, but found ", c)),
        }
    }

    /// Whether an object whose opening brace is consumed has a first member; its quote is consumed then, else the closing brace is.
    #[inline]
    pub(crate) fn first_member(&mut self) -> Result<bool, Fault> {
        match self.token() {
            b'"' => Ok(true),
            b'}' => Ok(false),
            c => Err(found("ReadObjectCB", "expect \" after {, but found ", c)),
        }
    }

    /// Whether an object goes on after a member; the quote of the next key is consumed then, else the closing brace is.
    #[inline]
    pub(crate) fn next_member(&mut self) -> Result<bool, Fault> {
        match self.token() {
            b',' => match self.token() {
                b'"' => Ok(true),
                c => Err(found("ReadString", "expects \" or n, but found ", c)),
            },
            b'}' => Ok(false),
            _ => Err(Fault::Syntax("ReadObjectCB", "object not ended with }".into())),
        }
    }

    /// Whether an array whose opening bracket is consumed has a first element; the closing bracket is consumed if not.
    #[inline]
    pub(crate) fn first_element(&mut self) -> bool {
        if self.peek() == b']' {
            self.pos += 1;
            return false;
        }
        true
    }

    /// Whether an array goes on after an element.
    #[inline]
    pub(crate) fn next_element(&mut self) -> Result<bool, Fault> {
        match self.token() {
            b',' => Ok(true),
            b']' => Ok(false),
            c => Err(found("ReadArrayCB", "expect ] in the end, but found ", c)),
        }
    }

    /// Moves behind the value at this place, checking its syntax.
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        let mut open = Vec::new();
        'value: loop {
            match self.token() {
                b'"' => {
                    self.string_end()?;
                }
                b'n' => self.literal("ull")?,
                b't' => self.literal("rue")?,
                b'f' => self.literal("alse")?,
                c @ (b'-' | b'0'..=b'9') => self.number(c)?,
                c @ (b'[' | b'{') => {
                    if open.len() >= MAX_DEPTH {
                        return Err(Fault::Syntax("Skip", "exceeded max depth".into()));
                    }
                    let empty = if c == b'[' { !self.first_element() } else { !self.first_member()? };
                    if !empty {
                        open.push(c);
                        if c == b'{' {
                            self.string_end()?;
                            self.colon()?;
                        }
                        continue 'value;
                    }
                }
                c => return Err(Fault::Syntax("Skip", format!("do not know how to skip: {c}").into())),
            }
            loop {
                match open.last() {
                    None => return Ok(()),
                    Some(b'[') => {
                        if self.next_element()? {
                            continue 'value;
                        }
                    }
                    Some(_) => {
                        if self.next_member()? {
                            self.string_end()?;
                            self.colon()?;
                            continue 'value;
                        }
                    }
                }
                open.pop();
            }
        }
    }

    /// The rest of a number whose first byte is consumed.
    fn number(&mut self, first: u8) -> Result<(), Fault> {
        let digits = |r: &mut Self| {
            let from = r.pos;
            while r.buf.get(r.pos).is_some_and(u8::is_ascii_digit) {
                r.pos += 1;
            }
            r.pos > from
        };
        let bad = || Fault::Syntax("skipNumber", "invalid number".into());
        let leading = if first == b'-' { self.pos } else { self.pos - 1 };
        self.pos = leading;
        if !digits(self) || (self.buf[leading] == b'0' && self.pos > leading + 1) {
            return Err(bad());
        }
        if self.buf.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            if !digits(self) {
                return Err(bad());
            }
        }
        if matches!(self.buf.get(self.pos), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.buf.get(self.pos), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            if !digits(self) {
                return Err(bad());
            }
        }
        Ok(())
    }

    /// The error that a fault at this place is: what and where, with a piece of the body.
    #[cold]
    pub(crate) fn error(&self, path: &str, fault: Fault) -> Error {
        let (operation, message) = match fault {
            Fault::Other(error) => return error,
            Fault::Syntax(operation, message) => (operation, message),
            Fault::Value(message) => ("unmarshalerDecoder", Cow::Borrowed(message)),
        };
        let around = |n: usize| {
            let piece = &self.buf[self.pos.saturating_sub(n)..(self.pos + n).min(self.buf.len())];
            String::from_utf8_lossy(piece)
        };
        let (near, far, at) = (around(10), around(50), self.pos.min(10));
        Error::malformed(format!(
            "{path}{operation}: {message}, error found in #{at} byte of ...|{near}|..., bigger context ...|{far}|..."
        ))
    }
}

#[cold]
pub(crate) fn found(operation: &'static str, message: &'static str, byte: u8) -> Fault {
    Fault::Syntax(operation, format!("{message}{}", char::from(byte)).into())
}

/// Appends the text of a JSON string's inside whose syntax has been checked. `None` for half of a surrogate pair.
pub(crate) fn unescape(mut from: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.reserve(from.len());
    while let Some(at) = memchr::memchr(b'\\', from) {
        out.extend_from_slice(&from[..at]);
        let code = *from.get(at + 1)?;
        from = &from[at + 2..];
        let plain = match code {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = hex4(from)?;
                from = &from[4..];
                if (0xd800..0xdc00).contains(&unit) {
                    let low = from.strip_prefix(b"\\u").and_then(hex4).filter(|u| (0xdc00..0xe000).contains(u))?;
                    from = &from[6..];
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                let c = char::from_u32(unit)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            other => other,
        };
        out.push(plain);
    }
    out.extend_from_slice(from);
    Some(())
}

fn hex4(from: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(from.get(..4)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}
