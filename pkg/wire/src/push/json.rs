//! Pushes as JSON (contract, Loki API §2.4), read in one pass and without an allocation per line.
//!
//! Invariants: what is accepted is what Loki accepts. The frame (`{"streams":[…]}`) is strict JSON, keys in any case; what follows it
//! is not looked at. A stream's fault, be it of syntax or of value, is told as Loki tells it: a syntax fault anywhere in the stream
//! comes first.

use super::build::Builder;
use super::{NO_TIMESTAMP, Push};
use crate::Error;
use crate::json::{Fault, MALFORMED, NO_OBJECT, NO_SCALAR, NO_STRING, Reader, Text, found};

const ROOT: &str = "loghttp.PushRequest.";
const STREAMS: &str = "loghttp.PushRequest.Streams: []loghttp.LogProtoStream: ";

/// Reads a push in the form of `/loki/api/v1/push`.
pub(super) fn read(body: &[u8]) -> Result<Push, Error> {
    if body.is_empty() {
        return Err(Error::malformed("EOF"));
    }
    let mut reader = Reader::new(body);
    let mut streams = Streams { push: Builder::with_capacity(body.len()), ..Streams::default() };
    frame(&mut reader, ROOT, STREAMS, |reader| streams.element(reader))?;
    Ok(streams.push.finish())
}

/// The frame that both JSON forms share: `{"streams":[element, …]}`. `element` reads one, or says what was wrong; it may then be anywhere.
pub(super) fn frame(
    reader: &mut Reader<'_>,
    root: &str,
    path: &str,
    mut element: impl FnMut(&mut Reader<'_>) -> Result<(), Fault>,
) -> Result<(), Error> {
    match reader.token() {
        b'{' => {}
        b'n' => return reader.literal("ull").map_err(|fault| reader.error("", fault)),
        c => return Err(reader.error("", found("readObjectStart", "expect { or n, but found ", c))),
    }
    if reader.peek() == b'}' {
        return Ok(());
    }
    let mut scratch = Vec::new();
    loop {
        match reader.token() {
            b'"' => {}
            c => return Err(reader.error(root, found("readFieldHash", "expect \", but found ", c))),
        }
        scratch.clear();
        let key = reader.key(&mut scratch).map_err(|fault| reader.error(root, fault))?;
        if key.of(reader.buf, &scratch).eq_ignore_ascii_case(b"streams") {
            array(reader, path, &mut element)?;
        } else {
            reader.skip().map_err(|fault| reader.error(root, fault))?;
        }
        match reader.token() {
            b',' => {}
            b'}' => return Ok(()),
            c => {
                let fault = found("isObjectEnd", "object ended prematurely, unexpected char ", c);
                return Err(reader.error(root, fault));
            }
        }
    }
}

fn array(
    reader: &mut Reader<'_>,
    path: &str,
    element: &mut impl FnMut(&mut Reader<'_>) -> Result<(), Fault>,
) -> Result<(), Error> {
    match reader.token() {
        b'[' => {}
        b'n' => return reader.literal("ull").map_err(|fault| reader.error(path, fault)),
        c => return Err(reader.error(path, found("decode slice", "expect [ or n, but found ", c))),
    }
    if !reader.first_element() {
        return Ok(());
    }
    loop {
        let start = reader.pos;
        if let Err(fault) = element(reader) {
            let fault = if let Fault::Other(error) = fault {
                return Err(error);
            } else {
                reader.pos = start;
                match (reader.skip(), fault) {
                    (Err(syntax), _) => syntax,
                    (Ok(()), fault @ Fault::Value(_)) => fault,
                    (Ok(()), _) => MALFORMED,
                }
            };
            return Err(reader.error(path, fault));
        }
        match reader.token() {
            b',' => {}
            b']' => return Ok(()),
            c => return Err(reader.error(path, found("decode slice", "expect ], but found ", c))),
        }
    }
}

/// The streams read so far, and buffers used over and over.
#[derive(Default)]
struct Streams {
    push: Builder,
    /// Texts that had escapes.
    scratch: Vec<u8>,
    pairs: Vec<(Text, Text)>,
    labels: Vec<u8>,
}

impl Streams {
    fn element(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.token() != b'{' {
            return Err(NO_OBJECT);
        }
        self.push.begin_stream();
        self.labels.clear();
        self.labels.extend_from_slice(b"{}");
        let mut more = reader.first_member()?;
        while more {
            self.scratch.clear();
            let key = reader.key(&mut self.scratch)?;
            match key.of(reader.buf, &self.scratch) {
                b"stream" => self.labels(reader)?,
                b"values" => self.values(reader)?,
                _ => reader.skip()?,
            }
            more = reader.next_member()?;
        }
        Ok(self.push.end_stream(&self.labels)?)
    }

    /// A stream's labels, as text: sorted, of repeated names the last, names as they are (the parser of labels judges them).
    fn labels(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.token() != b'{' {
            return Err(NO_OBJECT);
        }
        self.scratch.clear();
        self.pairs.clear();
        let mut more = reader.first_member()?;
        while more {
            let name = reader.key(&mut self.scratch)?;
            let value = label_value(reader, &mut self.scratch)?;
            self.pairs.push((name, value));
            more = reader.next_member()?;
        }
        let of = |text: &Text| text.of(reader.buf, &self.scratch);
        self.pairs.sort_by(|a, b| of(&a.0).cmp(of(&b.0)));
        let unique = self.pairs.iter().enumerate().filter(|(i, (name, _))| {
            let next = self.pairs.get(i + 1);
            next.is_none_or(|next| of(&next.0) != of(name))
        });
        self.labels.clear();
        crate::labels::write(&mut self.labels, unique.map(|(_, (name, value))| (of(name), of(value))));
        Ok(())
    }

    fn values(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        self.push.begin_stream();
        match reader.token() {
            b'[' => {}
            b'n' => return reader.literal("ull"),
            _ => return Err(MALFORMED),
        }
        let mut more = reader.first_element();
        while more {
            self.entry(reader)?;
            more = reader.next_element()?;
        }
        Ok(())
    }

    #[inline]
    fn entry(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.token() != b'[' {
            return Err(MALFORMED);
        }
        self.scratch.clear();
        self.pairs.clear();
        let (mut timestamp, mut line) = (NO_TIMESTAMP, None);
        let mut more = reader.first_element();
        let mut index = 0;
        while more {
            match index {
                0 => timestamp = nanoseconds(reader)?,
                1 if reader.token() == b'"' => line = Some(reader.string(&mut self.scratch)?),
                1 => return Err(NO_STRING),
                2 => metadata(reader, &mut self.scratch, &mut self.pairs)?,
                _ => reader.skip()?,
            }
            index += 1;
            more = reader.next_element()?;
        }
        let of = |text: &Text| text.of(reader.buf, &self.scratch);
        let line = line.as_ref().map_or(&[][..], of);
        Ok(self.push.entry(timestamp, line, self.pairs.iter().map(|(n, v)| (of(n), of(v))))?)
    }
}

/// An object of strings.
pub(super) fn metadata(
    reader: &mut Reader<'_>,
    scratch: &mut Vec<u8>,
    pairs: &mut Vec<(Text, Text)>,
) -> Result<(), Fault> {
    if reader.token() != b'{' {
        return Err(NO_OBJECT);
    }
    let mut more = reader.first_member()?;
    while more {
        let name = reader.key(scratch)?;
        if reader.token() != b'"' {
            return Err(NO_STRING);
        }
        pairs.push((name, reader.string(scratch)?));
        more = reader.next_member()?;
    }
    Ok(())
}

/// A string of digits: nanoseconds since the epoch.
#[inline]
fn nanoseconds(reader: &mut Reader<'_>) -> Result<i64, Fault> {
    if reader.token() != b'"' {
        return Err(NO_STRING);
    }
    let mut escaped = Vec::new();
    let text = reader.string(&mut escaped)?;
    let digits = if escaped.is_empty() { text.of(reader.buf, &[]) } else { &[] };
    let (negative, digits) = digits.strip_prefix(b"-").map_or((false, digits), |rest| (true, rest));
    if digits.is_empty() {
        return Err(NO_SCALAR);
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(NO_SCALAR);
        }
        let digit = i64::from(digit);
        value = value
            .checked_mul(10)
            .and_then(|v| if negative { v.checked_sub(digit) } else { v.checked_add(digit) })
            .ok_or(NO_SCALAR)?;
    }
    Ok(value)
}

/// A label's value: a string, or whatever else as the text that it is.
fn label_value(reader: &mut Reader<'_>, scratch: &mut Vec<u8>) -> Result<Text, Fault> {
    if reader.peek() == b'"' {
        reader.pos += 1;
        return reader.string(scratch);
    }
    let start = reader.pos;
    reader.skip()?;
    Ok(Text::span(start, reader.pos))
}
