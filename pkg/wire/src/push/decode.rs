//! The protobuf form of a push, decoded without copying anything: one pass, spans into the body.
//!
//! What is accepted is exactly what a standard protobuf decoder accepts for `proto/tailwater/v1/push.proto` (the tests hold it
//! against prost's), plus the rule of `google.protobuf.Timestamp` about valid times. Invariants:
//! * A field may come in any order and several times: of scalars the last one counts, sub-messages of the same single field merge.
//! * Unknown fields are skipped, groups included (bounded nesting). `hash` and `parsed` are checked for form and dropped: what a
//!   stream's identity is and what a query finds in a line is not for the sender to say.
//! * The error texts are those of Go's generated decoders.

use bytes::Bytes;

use super::{EntrySpan, MAX_LABELS_BYTES, MAX_RECORDS, NO_TIMESTAMP, PairSpan, Push, StreamSpan};
use crate::Error;

/// How deeply messages and groups may nest.
const MAX_DEPTH: u32 = 100;

/// Seconds of 0001-01-01T00:00:00Z and of 10000-01-01T00:00:00Z.
const VALID_SECONDS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

/// Decodes a push in its protobuf form.
///
/// # Errors
/// [`Error::Malformed`] with Go's text where the body is not such a message; [`Error::TooLarge`] above 4 GiB, [`MAX_RECORDS`] or
/// [`MAX_LABELS_BYTES`].
pub fn decode(body: impl Into<Bytes>) -> Result<Push, Error> {
    let body = body.into();
    if u32::try_from(body.len()).is_err() {
        return Err(too_large("message size too large than max", body.len(), u32::MAX as usize));
    }
    let mut push = Push::default();
    decode_push(&body, &mut push)?;
    push.body = body;
    Ok(push)
}

fn decode_push(body: &[u8], push: &mut Push) -> Result<(), Error> {
    let mut at = Cursor { buf: body, pos: 0 };
    while !at.done() {
        match at.key("PushRequest")? {
            (1, BYTES) => {
                let stream = at.message()?;
                decode_stream(stream, push)?;
            }
            (2, BYTES) => {
                at.bytes()?;
            }
            (1, wire) => return Err(wrong_wire(wire, "Streams")),
            (2, wire) => return Err(wrong_wire(wire, "Format")),
            (tag, wire) => at.skip(tag, wire, MAX_DEPTH)?,
        }
    }
    Ok(())
}

fn decode_stream(mut at: Cursor<'_>, push: &mut Push) -> Result<(), Error> {
    let entries_start = push.entries.len();
    let (mut labels_offset, mut labels_len) = (0, 0);
    while !at.done() {
        match at.key("StreamAdapter")? {
            (2, BYTES) => {
                let entry = at.message()?;
                decode_entry(entry, push)?;
            }
            (1, BYTES) => (labels_offset, labels_len) = at.bytes()?,
            (3, VARINT) => {
                at.varint()?;
            }
            (1, wire) => return Err(wrong_wire(wire, "Labels")),
            (2, wire) => return Err(wrong_wire(wire, "Entries")),
            (3, wire) => return Err(wrong_wire(wire, "Hash")),
            (tag, wire) => at.skip(tag, wire, MAX_DEPTH - 1)?,
        }
    }
    if labels_len as usize > MAX_LABELS_BYTES {
        return Err(too_large("stream labels size too large than max", labels_len as usize, MAX_LABELS_BYTES));
    }
    full(push.streams.len())?;
    push.streams.push(StreamSpan {
        labels_offset,
        labels_len,
        entries_start: entries_start as u32,
        entries_len: (push.entries.len() - entries_start) as u32,
    });
    Ok(())
}

#[inline]
fn decode_entry(mut at: Cursor<'_>, push: &mut Push) -> Result<(), Error> {
    let metadata_start = push.metadata.len();
    let (mut line_offset, mut line_len) = (0, 0);
    let mut time = None;
    while !at.done() {
        match at.key("EntryAdapter")? {
            (1, BYTES) => {
                let timestamp = at.message()?;
                decode_timestamp(timestamp, time.get_or_insert_default())?;
            }
            (2, BYTES) => (line_offset, line_len) = at.bytes()?,
            (3, BYTES) => {
                let pair = at.message()?;
                full(push.metadata.len())?;
                push.metadata.push(decode_pair(pair)?);
            }
            (4, BYTES) => {
                let parsed = at.message()?;
                decode_pair(parsed)?;
            }
            (1, wire) => return Err(wrong_wire(wire, "Timestamp")),
            (2, wire) => return Err(wrong_wire(wire, "Line")),
            (3, wire) => return Err(wrong_wire(wire, "StructuredMetadata")),
            (4, wire) => return Err(wrong_wire(wire, "Parsed")),
            (tag, wire) => at.skip(tag, wire, MAX_DEPTH - 2)?,
        }
    }
    full(push.entries.len())?;
    push.entries.push(EntrySpan {
        timestamp: time.map_or(Ok(NO_TIMESTAMP), Time::nanos)?,
        line_offset,
        line_len,
        metadata_start: metadata_start as u32,
        metadata_len: (push.metadata.len() - metadata_start) as u32,
    });
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Time {
    seconds: i64,
    nanos: i32,
}

impl Time {
    fn nanos(self) -> Result<i64, Error> {
        let Self { seconds, nanos } = self;
        if !VALID_SECONDS.contains(&seconds) {
            let bound = if seconds < 0 { "before 0001-01-01" } else { "after 10000-01-01" };
            return Err(Error::malformed(format!("timestamp: seconds:{seconds} nanos:{nanos}: {bound}")));
        }
        if !(0..NANOS_PER_SECOND).contains(&i64::from(nanos)) {
            let text = format!("timestamp: seconds:{seconds} nanos:{nanos}: nanos not in range [0, 1e9)");
            return Err(Error::malformed(text));
        }
        Ok(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(i64::from(nanos)))
    }
}

fn decode_timestamp(mut at: Cursor<'_>, time: &mut Time) -> Result<(), Error> {
    while !at.done() {
        match at.key("Timestamp")? {
            (1, VARINT) => time.seconds = at.varint()? as i64,
            (2, VARINT) => time.nanos = at.varint()? as i32,
            (1, wire) => return Err(wrong_wire(wire, "Seconds")),
            (2, wire) => return Err(wrong_wire(wire, "Nanos")),
            (tag, wire) => at.skip(tag, wire, MAX_DEPTH - 3)?,
        }
    }
    Ok(())
}

fn decode_pair(mut at: Cursor<'_>) -> Result<PairSpan, Error> {
    let mut pair = PairSpan::default();
    while !at.done() {
        match at.key("LabelPairAdapter")? {
            (1, BYTES) => (pair.name_offset, pair.name_len) = at.bytes()?,
            (2, BYTES) => (pair.value_offset, pair.value_len) = at.bytes()?,
            (1, wire) => return Err(wrong_wire(wire, "Name")),
            (2, wire) => return Err(wrong_wire(wire, "Value")),
            (tag, wire) => at.skip(tag, wire, MAX_DEPTH - 3)?,
        }
    }
    Ok(pair)
}

/// A place in the body, and the end of the message it lies in (the end of `buf`).
#[derive(Clone, Copy)]
struct Cursor<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn done(&self) -> bool {
        self.pos >= self.buf.len()
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Error> {
        match self.buf.get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.buf.get(self.pos).ok_or_else(unexpected_eof)?;
            self.pos += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::malformed("proto: integer overflow"))
    }

    /// The number of the next field and how it is written.
    #[inline]
    fn key(&mut self, message: &'static str) -> Result<(u32, u32), Error> {
        let key = self.varint()?;
        let (tag, wire) = (key >> 3, key as u32 & 7);
        // An end of group outside of a group, field 0, a number of more than 29 bits or a way of writing that does not exist.
        if tag == 0 || key > u64::from(u32::MAX) || wire == GROUP_END || wire > FIXED32 {
            return Err(bad_key(message, tag, wire));
        }
        Ok((tag as u32, wire))
    }

    /// Where the length-delimited field at this place begins, and its length; moves behind it.
    #[inline]
    fn bytes(&mut self) -> Result<(u32, u32), Error> {
        let len = self.varint()?;
        if len > (self.buf.len() - self.pos) as u64 {
            return Err(past_end(len));
        }
        let start = self.pos;
        self.pos += len as usize;
        Ok((start as u32, len as u32))
    }

    /// The message at this place; moves behind it.
    #[inline]
    fn message(&mut self) -> Result<Cursor<'a>, Error> {
        let (start, _) = self.bytes()?;
        Ok(Cursor { buf: &self.buf[..self.pos], pos: start as usize })
    }

    /// Moves behind the value of an unknown field.
    #[cold]
    fn skip(&mut self, tag: u32, wire: u32, depth: u32) -> Result<(), Error> {
        if depth == 0 {
            return Err(Error::malformed("proto: recursion limit reached"));
        }
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.advance(8),
            FIXED32 => self.advance(4),
            BYTES => self.bytes().map(drop),
            GROUP_START => loop {
                let key = self.varint()?;
                let (inner, wire) = (key >> 3, key as u32 & 7);
                if inner == 0 || key > u64::from(u32::MAX) || wire > FIXED32 {
                    return Err(bad_key("group", inner, wire));
                }
                if wire == GROUP_END {
                    return if inner == u64::from(tag) { Ok(()) } else { Err(bad_key("group", inner, wire)) };
                }
                self.skip(inner as u32, wire, depth - 1)?;
            },
            _ => Err(bad_key("", u64::from(tag), wire)),
        }
    }

    fn advance(&mut self, by: usize) -> Result<(), Error> {
        if by > self.buf.len() - self.pos {
            return Err(unexpected_eof());
        }
        self.pos += by;
        Ok(())
    }
}

#[inline]
fn full(records: usize) -> Result<(), Error> {
    if records >= MAX_RECORDS { Err(too_many_records()) } else { Ok(()) }
}

#[cold]
pub(super) fn too_many_records() -> Error {
    Error::TooLarge(format!("more than {MAX_RECORDS} records").into())
}

#[cold]
fn too_large(what: &str, size: usize, max: usize) -> Error {
    Error::TooLarge(format!("{what} ({size} vs {max})").into())
}

#[cold]
fn unexpected_eof() -> Error {
    Error::malformed("unexpected EOF")
}

#[cold]
fn past_end(len: u64) -> Error {
    if i64::try_from(len).is_err() {
        Error::malformed("proto: negative length found during unmarshaling")
    } else {
        unexpected_eof()
    }
}

#[cold]
fn wrong_wire(wire: u32, field: &'static str) -> Error {
    Error::malformed(format!("proto: wrong wireType = {wire} for field {field}"))
}

#[cold]
fn bad_key(message: &'static str, tag: u64, wire: u32) -> Error {
    Error::malformed(match wire {
        _ if wire > FIXED32 => format!("proto: illegal wireType {wire}"),
        GROUP_END => format!("proto: {message}: wiretype end group for non-group"),
        _ => format!("proto: {message}: illegal tag {tag} (wire type {wire})"),
    })
}
