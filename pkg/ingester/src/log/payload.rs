//! What a record of the write-ahead log holds of a batch: the bytes of its payload.
//!
//! ```text
//! version   1 byte    1
//! streams   varint    how many streams of the push have entries
//! per stream, in the order of the push:
//!   service varint    0: its labels are what its text says; else 1 + length of the value of `service_name`, which follows
//! push                to the end: the push in its protobuf form, in a snappy block
//! ```
//!
//! Invariants:
//! * The push holds the accepted entries and no others, in the order of the batch, so that the index of an entry is its number in the
//!   push. Streams without entries may stand between others; they count for nothing.
//! * What labels a text leads to depends on the limits only in `service_name`. It is kept, so that a batch has the same labels for ever.
//! * A body that was accepted just as it came is kept as it came.

use std::sync::Arc;

use tailwater_model::Labels;
use tailwater_store::Stream;
use tailwater_store::entries::Run;
use tailwater_wire::compress::Caps;
use tailwater_wire::push::{EntrySpan, Push, unpack};

use crate::validate::SERVICE_NAME;

const VERSION: u8 = 1;

/// Most streams of a push; see [`tailwater_wire::push::MAX_RECORDS`].
const MAX_STREAMS: u64 = tailwater_wire::push::MAX_RECORDS as u64;

/// A payload cannot become more than what a push can be.
const CAPS: Caps = Caps { max_body: u32::MAX as usize, max_decompressed: u32::MAX as usize };

/// Appends what comes before the push. `streams`: the labels of its streams that have entries.
pub(crate) fn encode_head<'a>(into: &mut Vec<u8>, streams: impl ExactSizeIterator<Item = &'a Labels>) {
    into.push(VERSION);
    varint(into, streams.len());
    for labels in streams {
        match labels.get(SERVICE_NAME) {
            None => into.push(0),
            Some(service) => {
                varint(into, service.len() + 1);
                into.extend_from_slice(service.as_bytes());
            }
        }
    }
}

/// Reads a payload. `stream`: the stream of a text and of what is known of its `service_name`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(
    payload: &[u8],
    mut stream: impl FnMut(&[u8], Option<&str>) -> Result<Arc<Stream>, tailwater_wire::Error>,
) -> Result<(Vec<Run>, Push), String> {
    let mut at = Reader(payload);
    let head = || "the head of a payload is broken".to_owned();
    let version = at.byte().ok_or_else(head)?;
    if version != VERSION {
        return Err(format!("a payload is of version {version}"));
    }
    let count = at.varint().filter(|n| *n <= MAX_STREAMS).ok_or_else(head)?;
    let mut services = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(payload.len()));
    for _ in 0..count {
        services.push(at.service().ok_or_else(head)?);
    }
    let push = unpack(at.0, &CAPS).map_err(|e| e.to_string())?;
    let spans = push.streams().iter().filter(|span| span.entries_len > 0);
    if spans.clone().count() != services.len() {
        return Err("a payload speaks of other streams than it holds".to_owned());
    }
    let mut runs = Vec::with_capacity(services.len());
    for (span, service) in spans.zip(services) {
        let stream = stream(push.labels(span), service).map_err(|e| e.to_string())?;
        runs.push(run(stream, span.entries_start, push.entries(span)));
    }
    if runs.is_empty() {
        return Err("a payload holds no entries".to_owned());
    }
    Ok((runs, push))
}

fn run(stream: Arc<Stream>, first: u32, entries: &[EntrySpan]) -> Run {
    let (mut min, mut max, mut bytes) = (i64::MAX, i64::MIN, 0);
    for entry in entries {
        min = min.min(entry.timestamp);
        max = max.max(entry.timestamp);
        bytes += u64::from(entry.line_len);
    }
    Run { stream, first, len: u32::try_from(entries.len()).unwrap_or(u32::MAX), min, max, bytes }
}

fn varint(into: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Takes bytes off the front, as long as there are any.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[expect(clippy::option_option, reason = "whether it can be read, and whether there is one")]
    fn service(&mut self) -> Option<Option<&'a str>> {
        let Some(len) = self.varint()?.checked_sub(1) else { return Some(None) };
        let (service, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        std::str::from_utf8(service).ok().map(Some)
    }
}
