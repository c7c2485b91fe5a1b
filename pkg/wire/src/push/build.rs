//! Pushes in the making: the protobuf form written straight from the pieces, with the spans noted on the way.

use bytes::Bytes;
use tailwater_model::Timestamp;

use super::decode::too_many_records;
use super::{EntrySpan, MAX_LABELS_BYTES, MAX_RECORDS, NO_TIMESTAMP, PairSpan, Push, StreamSpan};
use crate::Error;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Makes a [`Push`] stream by stream. Labels may be known last, so the entries of a stream are kept apart until it ends.
#[derive(Debug)]
pub(crate) struct Builder {
    body: Vec<u8>,
    pending: Vec<u8>,
    push: Push,
    entries_start: usize,
    metadata_start: usize,
    /// Most bytes of the push.
    limit: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self::bounded(u32::MAX as usize)
    }
}

impl Builder {
    /// A builder for a push of at most `limit` bytes (and at most 4 GiB).
    pub(crate) fn bounded(limit: usize) -> Self {
        Self {
            body: Vec::new(),
            pending: Vec::new(),
            push: Push::default(),
            entries_start: 0,
            metadata_start: 0,
            limit: limit.min(u32::MAX as usize),
        }
    }

    /// A builder for a push of about `bytes` bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { body: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Begins a stream; entries since the last [`Builder::end_stream`] are forgotten.
    pub(crate) fn begin_stream(&mut self) {
        self.pending.clear();
        self.push.entries.truncate(self.entries_start);
        self.push.metadata.truncate(self.metadata_start);
    }

    /// Adds an entry to the stream.
    pub(crate) fn entry<'a>(
        &mut self,
        timestamp: i64,
        line: &[u8],
        metadata: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<(), Error> {
        let time = (timestamp != NO_TIMESTAMP)
            .then(|| (timestamp.div_euclid(NANOS_PER_SECOND), timestamp.rem_euclid(NANOS_PER_SECOND)));
        let time_len = time.map_or(0, |(s, n)| number_len(s as u64) + number_len(n as u64));
        let pairs = metadata.clone().map(|(n, v)| bytes_len(bytes_len(n.len()) + bytes_len(v.len()))).sum::<usize>();
        let len = time.map_or(0, |_| bytes_len(time_len)) + bytes_len(line.len()) + pairs;
        self.check(len)?;
        if self.push.entries.len() >= MAX_RECORDS {
            return Err(too_many_records());
        }
        let out = &mut self.pending;
        head(out, 0x12, len);
        if let Some((seconds, nanos)) = time {
            head(out, 0x0a, time_len);
            number(out, 0x08, seconds as u64);
            number(out, 0x10, nanos as u64);
        }
        head(out, 0x12, line.len());
        let line_offset = out.len();
        out.extend_from_slice(line);
        let metadata_start = self.push.metadata.len();
        for (name, value) in metadata {
            if self.push.metadata.len() >= MAX_RECORDS {
                return Err(too_many_records());
            }
            head(out, 0x1a, bytes_len(name.len()) + bytes_len(value.len()));
            head(out, 0x0a, name.len());
            let name_offset = out.len();
            out.extend_from_slice(name);
            head(out, 0x12, value.len());
            let value_offset = out.len();
            out.extend_from_slice(value);
            self.push.metadata.push(PairSpan {
                name_offset: name_offset as u32,
                name_len: name.len() as u32,
                value_offset: value_offset as u32,
                value_len: value.len() as u32,
            });
        }
        self.push.entries.push(EntrySpan {
            timestamp,
            line_offset: line_offset as u32,
            line_len: line.len() as u32,
            metadata_start: metadata_start as u32,
            metadata_len: (self.push.metadata.len() - metadata_start) as u32,
        });
        Ok(())
    }

    /// Ends a stream and gives it its labels.
    pub(crate) fn end_stream(&mut self, labels: &[u8]) -> Result<(), Error> {
        if labels.len() > MAX_LABELS_BYTES {
            let text = format!("stream labels size too large than max ({} vs {MAX_LABELS_BYTES})", labels.len());
            return Err(Error::TooLarge(text.into()));
        }
        if self.push.streams.len() >= MAX_RECORDS {
            return Err(too_many_records());
        }
        self.check(labels.len())?;
        let out = &mut self.body;
        head(out, 0x0a, bytes_len(labels.len()) + self.pending.len());
        head(out, 0x0a, labels.len());
        let labels_offset = out.len() as u32;
        out.extend_from_slice(labels);
        let base = out.len() as u32;
        out.append(&mut self.pending);
        for entry in &mut self.push.entries[self.entries_start..] {
            entry.line_offset += base;
        }
        for pair in &mut self.push.metadata[self.metadata_start..] {
            pair.name_offset += base;
            pair.value_offset += base;
        }
        self.push.streams.push(StreamSpan {
            labels_offset,
            labels_len: labels.len() as u32,
            entries_start: self.entries_start as u32,
            entries_len: (self.push.entries.len() - self.entries_start) as u32,
        });
        self.entries_start = self.push.entries.len();
        self.metadata_start = self.push.metadata.len();
        Ok(())
    }

    fn check(&self, more: usize) -> Result<(), Error> {
        // Keys and lengths of what is written take a few bytes more.
        const HEADS: usize = 64;
        let total = self.body.len().saturating_add(self.pending.len()).saturating_add(more).saturating_add(HEADS);
        if total > self.limit {
            let text = format!("message size too large than max ({total} vs {})", self.limit);
            return Err(Error::TooLarge(text.into()));
        }
        Ok(())
    }

    /// The push. A stream that has not ended is not part of it.
    pub(crate) fn finish(mut self) -> Push {
        self.begin_stream();
        self.push.body = Bytes::from(self.body);
        self.push
    }
}

/// An entry to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// When it happened.
    pub timestamp: Timestamp,
    /// The line.
    pub line: &'a [u8],
    /// Structured metadata: names and values.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// A push body for `application/x-protobuf`, snappy-compressed, from streams of (label text, entries).
///
/// # Errors
/// [`Error::TooLarge`] for more than a push can hold (4 GiB, [`MAX_RECORDS`], [`MAX_LABELS_BYTES`]).
pub fn encode<'a, E>(streams: impl IntoIterator<Item = (&'a str, E)>) -> Result<Vec<u8>, Error>
where
    E: IntoIterator<Item = Outgoing<'a>>,
{
    let mut push = Builder::default();
    for (labels, entries) in streams {
        push.begin_stream();
        for entry in entries {
            let metadata = entry.metadata.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            push.entry(entry.timestamp.nanos(), entry.line, metadata)?;
        }
        push.end_stream(labels.as_bytes())?;
    }
    pack(&push.finish())
}

/// The push as a body for `application/x-protobuf`: its protobuf form, snappy-compressed.
///
/// # Errors
/// [`Error::TooLarge`] for more than a push can hold.
pub fn pack(push: &Push) -> Result<Vec<u8>, Error> {
    snap::raw::Encoder::new().compress_vec(&push.body).map_err(|e| Error::TooLarge(e.to_string().into()))
}

/// A push with some entries of another: streams of (label text, entries of `push`), encoded anew.
///
/// # Errors
/// [`Error::TooLarge`] for more than a push can hold.
pub fn extract<'a>(push: &Push, streams: impl IntoIterator<Item = (&'a [u8], &'a [EntrySpan])>) -> Result<Push, Error> {
    let mut some = Builder::with_capacity(push.body.len());
    for (labels, entries) in streams {
        some.begin_stream();
        for entry in entries {
            some.entry(entry.timestamp, push.line(entry), push.metadata(entry))?;
        }
        some.end_stream(labels)?;
    }
    Ok(some.finish())
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn head(out: &mut Vec<u8>, key: u8, len: usize) {
    out.push(key);
    varint(out, len as u64);
}

fn number(out: &mut Vec<u8>, key: u8, value: u64) {
    if value != 0 {
        out.push(key);
        varint(out, value);
    }
}

fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Size of a length-delimited field of `len` bytes, key included.
fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}
