//! Pushes: from a request body to a [`Push`], whatever the body's form.
//!
//! Invariants:
//! * A `Push` owns one buffer, the push in its protobuf form (`proto/tailwater/v1/push.proto`); everything else is spans into it.
//! * Every span lies within the buffer, every range of entries and of metadata within its table: only this module makes them, and the
//!   accessors check again, so that spans of another push yield empty answers instead of a panic.
//! * Nothing of an entry is looked at beyond its place: lines and metadata are bytes as sent, not checked for UTF-8.

mod build;
mod decode;
mod json;
mod legacy;
mod read;

use bytes::Bytes;

pub(crate) use self::build::Builder;
pub use self::build::{Outgoing, encode, extract, pack};
pub use self::decode::decode;
pub use self::read::{Kind, is_packed, read, unpack};

/// Most streams, entries or pairs of metadata of one push, each. A push within the body caps that exceeds this is nothing but empty records.
pub const MAX_RECORDS: usize = 1 << 22;

/// Longest text of a stream's labels, in bytes.
pub const MAX_LABELS_BYTES: usize = 16 << 20;

/// The timestamp of an entry that brought none, and of one before the year 1678. Older than any limit accepts.
pub const NO_TIMESTAMP: i64 = i64::MIN;

/// A decoded push: streams in the order sent, entries in the order sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// The push in its protobuf form.
    pub body: Bytes,
    /// The streams.
    pub streams: Vec<StreamSpan>,
    /// The entries of all streams; those of a stream lie together.
    pub entries: Vec<EntrySpan>,
    /// The structured metadata of all entries; that of an entry lies together.
    pub metadata: Vec<PairSpan>,
}

/// A stream of a [`Push`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSpan {
    /// Where the text of its labels begins in [`Push::body`].
    pub labels_offset: u32,
    /// Length of that text in bytes.
    pub labels_len: u32,
    /// Its first entry in [`Push::entries`].
    pub entries_start: u32,
    /// How many entries it has, possibly none.
    pub entries_len: u32,
}

/// An entry of a [`Push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntrySpan {
    /// Nanoseconds since the epoch; see [`NO_TIMESTAMP`]. What lies after the year 2262 is `i64::MAX`.
    pub timestamp: i64,
    /// Where the line begins in [`Push::body`].
    pub line_offset: u32,
    /// Length of the line in bytes.
    pub line_len: u32,
    /// Its first pair in [`Push::metadata`].
    pub metadata_start: u32,
    /// How many pairs it has.
    pub metadata_len: u32,
}

/// A pair of structured metadata of a [`Push`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairSpan {
    /// Where the name begins in [`Push::body`].
    pub name_offset: u32,
    /// Length of the name in bytes.
    pub name_len: u32,
    /// Where the value begins in [`Push::body`].
    pub value_offset: u32,
    /// Length of the value in bytes.
    pub value_len: u32,
}

const _: () =
    assert!(size_of::<EntrySpan>() <= 24, "a push of a million lines is kept as spans for as long as the log holds it");

impl Push {
    /// The streams in the order sent, also those without entries.
    #[must_use]
    pub fn streams(&self) -> &[StreamSpan] {
        &self.streams
    }

    /// The text of a stream's labels, as sent.
    #[must_use]
    pub fn labels(&self, stream: &StreamSpan) -> &[u8] {
        cut(&self.body, stream.labels_offset, stream.labels_len)
    }

    /// The entries of a stream, in the order sent.
    #[must_use]
    pub fn entries(&self, stream: &StreamSpan) -> &[EntrySpan] {
        cut(&self.entries, stream.entries_start, stream.entries_len)
    }

    /// The line of an entry, as sent.
    #[must_use]
    pub fn line(&self, entry: &EntrySpan) -> &[u8] {
        cut(&self.body, entry.line_offset, entry.line_len)
    }

    /// Names and values of the structured metadata of an entry, as sent and in the order sent.
    pub fn metadata(&self, entry: &EntrySpan) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone + '_ {
        cut(&self.metadata, entry.metadata_start, entry.metadata_len).iter().map(|p| self.pair(p))
    }

    /// Name and value of one pair of structured metadata.
    #[must_use]
    pub fn pair(&self, pair: &PairSpan) -> (&[u8], &[u8]) {
        (cut(&self.body, pair.name_offset, pair.name_len), cut(&self.body, pair.value_offset, pair.value_len))
    }
}

fn cut<T>(all: &[T], start: u32, len: u32) -> &[T] {
    let start = start as usize;
    start.checked_add(len as usize).and_then(|end| all.get(start..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
