//! Pages: consecutive entries of one stream and one log.
//!
//! A page is two parts (see [`super::frame`]): the small columns, and the lines, each followed by a line feed. What needs only times and
//! lengths does not read the second.
//!
//! Invariants: entries are sorted by (timestamp, seq, index); a page with more than one entry has at most [`Options::page_bytes`] bytes of
//! lines and [`PAGE_ENTRIES_MAX`] entries; whatever bytes are decoded, there is no panic, and memory stays in proportion to what the
//! frames really hold.
//!
//! [`Options::page_bytes`]: super::Options::page_bytes

use std::sync::Arc;

use bytes::Bytes;
use tailwater_wire::push::{EntrySpan, PairSpan, Push};

use super::columns::Columns;
use super::frame::{self, Sealer};
use super::metadata::{self, Metadata};
use super::varint::{Broken, Input};
use super::{Entry, PageInfo};
use crate::entries::{Entries, Run};
use crate::{Error, Stream};

/// Most entries of a page.
pub const PAGE_ENTRIES_MAX: usize = 1 << 16;

/// Most bytes of lines of a page of several entries, whatever is asked for.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// What an entry takes besides its line, about, when it is decoded: so that pages of empty lines are not endless.
const ENTRY_BYTES: usize = 4;

/// Collects the entries of one page after the other.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// Lines, each followed by a line feed.
    pub(super) lines: Vec<u8>,
    pub(super) columns: Columns,
    pub(super) metadata: metadata::Builder,
    small: Vec<u8>,
    last: Option<(i64, u64, u32)>,
}

impl Builder {
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        // What a page of one very long line needed is not kept.
        self.lines.shrink_to(PAGE_BYTES_MAX);
        self.columns.clear();
        self.metadata.clear();
        self.small.clear();
        self.last = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Whether an entry can be appended: there is room, and it does not come before what is here.
    pub(super) fn takes(&self, entry: &Entry<'_>, page_bytes: usize) -> bool {
        let Some(last) = self.last else { return true };
        let entries = self.columns.times.len();
        let pairs: usize = entry.metadata.iter().map(|(n, v)| n.len() + v.len()).sum();
        key(entry) >= last
            && entries < PAGE_ENTRIES_MAX
            && self.lines.len() - entries + entry.line.len() <= page_bytes
            && self.metadata.size() + pairs + entries * ENTRY_BYTES <= page_bytes
    }

    pub(super) fn push(&mut self, entry: &Entry<'_>) {
        self.last = Some(key(entry));
        self.lines.extend_from_slice(entry.line);
        self.lines.push(b'\n');
        self.columns.push(entry.timestamp, entry.line.len() as u32, entry.place);
        self.metadata.push(entry.metadata);
    }

    /// Appends the page, and says what the table needs to know of it, but for whose it is and where.
    pub(super) fn seal(&mut self, sealer: &mut Sealer, out: &mut Vec<u8>) -> Result<PageInfo, Error> {
        self.columns.encode(&mut self.small);
        self.metadata.encode(&mut self.small);
        let columns_len = sealer.seal(&self.small, out)?;
        let lines_len = sealer.seal(&self.lines, out)?;
        let lines = self.columns.times.len();
        let (min_seq, max_seq) = self.columns.seqs();
        Ok(PageInfo {
            len: columns_len + lines_len,
            columns_len,
            columns_raw: self.small.len() as u64,
            lines: lines as u32,
            bytes: (self.lines.len() - lines) as u64,
            min: self.columns.times.first().copied().unwrap_or_default(),
            max: self.columns.times.last().copied().unwrap_or_default(),
            min_seq,
            max_seq,
            has_metadata: !self.metadata.is_empty(),
            ..PageInfo::default()
        })
    }
}

fn key(entry: &Entry<'_>) -> (i64, u64, u32) {
    (entry.timestamp, entry.place.seq, entry.place.index)
}

/// The entries of a page. `bytes`: those that the table names, [`PageInfo::range`].
///
/// # Errors
/// [`Error::Corrupt`], also if the bytes are not the page's.
pub fn decode_page(bytes: &[u8], page: &PageInfo, stream: Arc<Stream>) -> Result<Entries, Error> {
    let what = page.name();
    let (small, lines) = parts(bytes, page).map_err(|b| b.of(&what))?;
    let small = frame::open(small, page.columns_raw, 0, &what)?;
    let mut input = Input::new(&small);
    let columns = Columns::decode(&mut input, page).map_err(|b| b.of(&what))?;
    let metadata = Metadata::decode(input, page.lines).map_err(|b| b.of(&what))?;
    let room = metadata.size();
    let raw_len = page.raw_len();
    if raw_len.saturating_add(room as u64) > u32::MAX.into() {
        return Err(Error::corrupt(what, "it is too large"));
    }
    let mut body = frame::open(lines, raw_len, room, &what)?;
    let entries = spans(&columns, &metadata);
    let metadata = append(&metadata, &mut body);
    let len = page.lines;
    let run = Run { stream, first: 0, len, min: page.min, max: page.max, bytes: page.bytes };
    let push = Push { body: Bytes::from(body), streams: Vec::new(), entries, metadata };
    Ok(Entries::of_page(run, push, columns.stretches))
}

/// Times, lengths and places of a page. `bytes`: the page's first [`PageInfo::columns_len`], or more of it.
///
/// # Errors
/// [`Error::Corrupt`], also if the bytes are not the page's.
pub fn decode_columns(bytes: &[u8], page: &PageInfo) -> Result<Columns, Error> {
    let what = page.name();
    let small = bytes.get(..page.columns_len as usize).ok_or_else(|| Error::corrupt(what.as_str(), "it ends early"))?;
    let small = frame::open(small, page.columns_raw, 0, &what)?;
    Columns::decode(&mut Input::new(&small), page).map_err(|b| b.of(&what))
}

fn parts<'a>(bytes: &'a [u8], page: &PageInfo) -> Result<(&'a [u8], &'a [u8]), Broken> {
    if bytes.len() as u64 != page.len {
        return Err(Broken("it has another length than the table says"));
    }
    bytes.split_at_checked(page.columns_len as usize).ok_or(Broken("it ends early"))
}

/// The spans of the lines and of their pairs. What is added up here was checked to fit.
fn spans(columns: &Columns, metadata: &Metadata<'_>) -> Vec<EntrySpan> {
    let mut line_offset = 0_u32;
    let mut metadata_start = 0_u32;
    let counts = metadata.counts.iter().copied().chain(std::iter::repeat(0));
    let lines = columns.times.iter().zip(&columns.lengths).zip(counts);
    let span = |((timestamp, line_len), metadata_len): ((&i64, &u32), u32)| {
        let span = EntrySpan { timestamp: *timestamp, line_offset, line_len: *line_len, metadata_start, metadata_len };
        line_offset = line_offset.wrapping_add(*line_len).wrapping_add(1);
        metadata_start = metadata_start.wrapping_add(metadata_len);
        span
    };
    lines.map(span).collect()
}

/// Appends the texts to the body. Returns the spans of the pairs.
fn append(metadata: &Metadata<'_>, body: &mut Vec<u8>) -> Vec<PairSpan> {
    let mut texts = Vec::with_capacity(metadata.texts.len());
    for text in &metadata.texts {
        texts.push((body.len() as u32, text.len() as u32));
        body.extend_from_slice(text.as_bytes());
    }
    let text = |id: u32| texts.get(id as usize).copied().unwrap_or_default();
    let pair = |(name, value): &(u32, u32)| {
        let ((name_offset, name_len), (value_offset, value_len)) = (text(*name), text(*value));
        PairSpan { name_offset, name_len, value_offset, value_len }
    };
    metadata.pairs.iter().map(pair).collect()
}
