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
use crate::protobuf::{BYTES, Cursor, MAX_DEPTH, VARINT, wrong_wire};

/// Seconds of 0001-01-01T00:00:00Z and of 10000-01-01T00:00:00Z.
const VALID_SECONDS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

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
    let mut at = Cursor::new(body);
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
        let nanos = i128::from(seconds) * i128::from(NANOS_PER_SECOND) + i128::from(nanos);
        Ok(nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
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
