//! The footer: which streams and pages there are and where everything is, and the trailer that says where the footer is.
//!
//! Invariants: the sections lie one after the other without holes, so every byte of the object belongs to exactly one checksum; pages of a
//! stream lie together; every page is of a stream and a log that the footer names. A footer that says anything else is refused, and
//! what is not checked yet is not believed: no memory is asked for but in proportion to the bytes at hand.

use std::ops::Range;
use std::sync::Arc;

use tailwater_model::{Labels, LogId};

use super::frame::{self, Sealer};
use super::grams::{BITS_MAX, BITS_MIN, stored_len};
use super::varint::{Broken, Input, put, put_bytes, put_signed};
use super::writer::Covered;
use crate::{Error, Stream};

/// How much of the end of an object to fetch at first, in bytes: more than most footers.
pub const TAIL_GUESS: u64 = 128 << 10;

/// Last bytes of a block.
const MAGIC: [u8; 8] = *b"TWBLK001";
/// What this code writes, and all that it reads.
pub const VERSION: u32 = 1;
/// Length of the footer, its length before compression, length of the object, version, CRC-32C, magic.
const TRAILER_LEN: usize = 4 + 4 + 8 + 4 + 4 + 8;
/// Largest footer, compressed and not, in bytes.
const FOOTER_MAX: u64 = 1 << 30;
/// What a footer is called in errors.
const WHAT: &str = "footer of a block";

/// What a block is made of.
#[derive(Debug)]
pub struct Footer {
    /// Of the format.
    pub version: u32,
    /// The streams, with their pages.
    pub streams: Vec<StreamEntry>,
    /// The pages. Those of a stream lie together, by log and then by time, and so they do in the object.
    pub pages: Vec<PageInfo>,
    /// Arrival logs that entries are from, and how far their sequence numbers reach; [`PageInfo::log`] is an index into it.
    pub logs: Vec<Covered>,
    /// Names of structured metadata in the order of bytes, and whether their values are in the index.
    pub names: Vec<(Box<str>, bool)>,
    /// Whether `names` are all names of structured metadata in the block.
    pub names_complete: bool,
    /// Where the index is; empty if nothing is indexed.
    pub index: Section,
    /// What the index holds.
    pub indexed: Indexed,
    /// Number of entries.
    pub lines: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    grams: Range<u64>,
}

/// A stream of a block.
#[derive(Debug)]
pub struct StreamEntry {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Its pages.
    pub pages: Range<u32>,
}

/// What the footer says of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageInfo {
    /// Index into [`Footer::streams`].
    pub stream: u32,
    /// Index into [`Footer::logs`].
    pub log: u16,
    /// Where it begins in the object.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// How many of its bytes are the small columns: times, lengths, places and structured metadata.
    pub columns_len: u64,
    /// Bytes of these before compression.
    pub columns_raw: u64,
    /// Number of entries, at least one.
    pub lines: u32,
    /// Bytes of their lines.
    pub bytes: u64,
    /// Earliest timestamp.
    pub min: i64,
    /// Latest timestamp.
    pub max: i64,
    /// Smallest sequence number.
    pub min_seq: u64,
    /// Largest sequence number.
    pub max_seq: u64,
    /// Where its grams begin in the object.
    pub grams_offset: u64,
    /// log2 of the bits of its grams; 0: it has none.
    pub grams_bits: u8,
    /// How many of these bits are set, in 255ths. A bitmap that is nearly full rules out little.
    pub grams_fill: u8,
    /// Whether an entry has structured metadata.
    pub has_metadata: bool,
}

/// A part of the object that is fetched as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Where it is, in bytes of the object.
    pub range: Range<u64>,
    /// Its length before compression.
    pub raw_len: u64,
}

/// What the index of a block holds: documents of three kinds, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexed {
    /// One document per page with its words.
    pub words: bool,
    /// One document per page with its structured metadata.
    pub metadata: bool,
    /// One document per stream with its labels.
    pub streams: bool,
}

/// What the end of an object tells.
#[derive(Debug)]
pub enum Located {
    /// All that is needed.
    Footer(Box<Footer>),
    /// That more is needed: these bytes, up to the end of the object.
    Need(Range<u64>),
}

impl PageInfo {
    /// Its bytes in the object.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.len)
    }

    /// Bytes of its lines with a line feed after each.
    #[must_use]
    pub fn raw_len(&self) -> u64 {
        self.bytes.saturating_add(self.lines.into())
    }

    /// Whether an entry may lie in `[start, end]`.
    #[must_use]
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min <= end && self.max >= start
    }

    /// What it is called in errors.
    pub(super) fn name(&self) -> String {
        format!("page at {}", self.offset)
    }
}

impl Footer {
    /// Reads the footer from the last bytes of an object of `object_len` bytes; [`TAIL_GUESS`] of them are mostly enough. After
    /// [`Located::Need`] it is called again with what is asked for.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: this is not a block, not all of it, or of another version.
    pub fn locate(tail: &[u8], object_len: u64) -> Result<Located, Error> {
        let corrupt = |reason: &str| Error::corrupt(WHAT, reason);
        if object_len < TRAILER_LEN as u64 || tail.len() as u64 > object_len {
            return Err(corrupt("the object is too short"));
        }
        let Some((before, trailer)) = tail.split_last_chunk::<TRAILER_LEN>() else {
            return Ok(Located::Need(object_len - TRAILER_LEN as u64..object_len));
        };
        let trailer = Trailer::read(trailer).map_err(|b| b.of(WHAT))?;
        if trailer.object_len != object_len {
            return Err(corrupt("the object has another length than was written"));
        }
        let end = object_len - TRAILER_LEN as u64;
        let len = u64::from(trailer.len);
        if len > end || len > FOOTER_MAX || u64::from(trailer.raw_len) > FOOTER_MAX {
            return Err(corrupt("its length is impossible"));
        }
        let Some(start) = before.len().checked_sub(trailer.len as usize) else {
            return Ok(Located::Need(end - len..object_len));
        };
        let bytes = before.get(start..).unwrap_or_default();
        if trailer.crc(bytes) != trailer.crc {
            return Err(corrupt("its checksum is wrong"));
        }
        let raw = frame::unpack(bytes, trailer.raw_len.into(), 0, WHAT)?;
        let footer = Self::decode(Input::new(&raw), end - len, trailer.version).map_err(|b| b.of(WHAT))?;
        Ok(Located::Footer(Box::new(footer)))
    }

    /// The range of the grams of consecutive pages, for [`super::decode_grams`].
    #[must_use]
    pub fn grams_of(&self, pages: Range<u32>) -> Range<u64> {
        let Some(of) = self.pages.get(pages.start as usize..pages.end as usize) else { return 0..0 };
        match (of.first(), of.last()) {
            (Some(first), Some(last)) => first.grams_offset..last.grams_offset + stored_len(last.grams_bits),
            _ => 0..0,
        }
    }

    /// The range of the grams of all pages.
    #[must_use]
    pub fn grams(&self) -> Range<u64> {
        self.grams.clone()
    }

    /// Bytes in memory, without what allocations cost.
    #[must_use]
    pub fn memory(&self) -> usize {
        let labels =
            |s: &StreamEntry| s.stream.labels.iter().map(|(n, v)| n.len() + v.len() + LABEL_BYTES).sum::<usize>();
        size_of::<Self>()
            + self.pages.len() * size_of::<PageInfo>()
            + self.logs.len() * size_of::<Covered>()
            + self.names.iter().map(|(name, _)| name.len() + size_of::<(Box<str>, bool)>()).sum::<usize>()
            + self.streams.iter().map(|s| size_of::<StreamEntry>() + size_of::<Stream>() + labels(s)).sum::<usize>()
    }

    /// Appends the footer and the trailer to a block of which `before` bytes come before.
    pub(super) fn encode(&self, before: u64, sealer: &mut Sealer, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut raw = Vec::new();
        self.put(&mut raw);
        let start = out.len();
        let len = sealer.seal(&raw, out)? - frame::CRC_LEN as u64;
        out.truncate(start + len as usize);
        if len.max(raw.len() as u64) > FOOTER_MAX {
            return Err(Error::Full { what: WHAT.into() });
        }
        let object_len = before + len + TRAILER_LEN as u64;
        let mut trailer = Trailer { len: len as u32, raw_len: raw.len() as u32, object_len, version: VERSION, crc: 0 };
        trailer.crc = trailer.crc(out.get(start..).unwrap_or_default());
        trailer.put(out);
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        let Indexed { words, metadata, streams } = self.indexed;
        let flags = [words, metadata, streams, self.names_complete];
        put(out, flags.iter().rev().fold(0, |bits, flag| (bits << 1) | u64::from(*flag)));
        put(out, self.index.range.end - self.index.range.start);
        put(out, self.index.raw_len);
        put(out, self.logs.len() as u64);
        for log in &self.logs {
            out.extend_from_slice(&log.log.as_u128().to_le_bytes());
            put(out, log.first);
            put(out, log.last);
        }
        put(out, self.names.len() as u64);
        for (name, indexed) in &self.names {
            put_bytes(out, name.as_bytes());
            out.push(u8::from(*indexed));
        }
        put(out, self.streams.len() as u64);
        for entry in &self.streams {
            let labels = &entry.stream.labels;
            put(out, labels.len() as u64);
            for (name, value) in labels.iter() {
                put_bytes(out, name.as_bytes());
                put_bytes(out, value.as_bytes());
            }
            put(out, entry.pages.len() as u64);
        }
        self.put_pages(out);
    }

    /// By column: what is alike lies together.
    fn put_pages(&self, out: &mut Vec<u8>) {
        let mut column = |of: &dyn Fn(&PageInfo) -> u64| self.pages.iter().for_each(|page| put(out, of(page)));
        column(&|p| p.log.into());
        column(&|p| p.columns_len);
        column(&|p| p.columns_raw);
        column(&|p| p.len - p.columns_len);
        column(&|p| p.lines.into());
        column(&|p| p.bytes);
        column(&|p| p.max.wrapping_sub(p.min) as u64);
        column(&|p| p.max_seq - p.min_seq);
        column(&|p| p.grams_bits.into());
        column(&|p| p.grams_fill.into());
        column(&|p| p.has_metadata.into());
        let (mut min, mut seq) = (0, 0);
        for page in &self.pages {
            put_signed(out, page.min.wrapping_sub(std::mem::replace(&mut min, page.min)));
        }
        for page in &self.pages {
            put_signed(out, page.min_seq.wrapping_sub(std::mem::replace(&mut seq, page.min_seq)) as i64);
        }
    }

    /// `end`: where the footer begins, and the sections end.
    fn decode(mut input: Input<'_>, end: u64, version: u32) -> Result<Self, Broken> {
        let flags = input.number()?;
        if flags >= 16 {
            return Err(Broken("it has unknown flags"));
        }
        let index_len = input.number()?;
        let raw_len = input.number()?;
        let index = end.checked_sub(index_len).ok_or(Broken("its index is too long"))?..end;
        let logs = logs(&mut input)?;
        let names = names(&mut input)?;
        let (streams, total) = streams(&mut input)?;
        let mut pages = pages(&mut input, total, logs.len())?;
        input.end()?;
        for (number, entry) in streams.iter().enumerate() {
            let of = pages.get_mut(entry.pages.start as usize..entry.pages.end as usize).unwrap_or_default();
            of.iter_mut().for_each(|page| page.stream = number as u32);
        }
        let holes = Broken("its sections are not one after the other");
        let mut at = 0_u64;
        for page in &mut pages {
            page.offset = at;
            at = at.checked_add(page.len).ok_or(holes)?;
        }
        let grams = at;
        for page in &mut pages {
            page.grams_offset = at;
            at = at.checked_add(stored_len(page.grams_bits)).ok_or(holes)?;
        }
        if at != index.start {
            return Err(holes);
        }
        let sum = |of: fn(&PageInfo) -> u64| pages.iter().try_fold(0_u64, |sum, p| sum.checked_add(of(p)));
        let too_much = Broken("its totals are too large");
        Ok(Self {
            version,
            lines: sum(|p| p.lines.into()).ok_or(too_much)?,
            bytes: sum(|p| p.bytes).ok_or(too_much)?,
            streams,
            pages,
            logs,
            names,
            names_complete: flags & 8 != 0,
            index: Section { range: index.clone(), raw_len },
            indexed: Indexed { words: flags & 1 != 0, metadata: flags & 2 != 0, streams: flags & 4 != 0 },
            grams: grams..index.start,
        })
    }

    /// A footer in the making.
    pub(super) fn new(streams: Vec<StreamEntry>, pages: Vec<PageInfo>, logs: Vec<Covered>) -> Self {
        Self {
            version: VERSION,
            lines: pages.iter().map(|p| u64::from(p.lines)).sum(),
            bytes: pages.iter().map(|p| p.bytes).sum(),
            streams,
            pages,
            logs,
            names: Vec::new(),
            names_complete: true,
            index: Section::default(),
            indexed: Indexed::default(),
            grams: 0..0,
        }
    }
}

/// What a label takes besides its text.
const LABEL_BYTES: usize = size_of::<(Box<str>, Box<str>)>();

fn logs(input: &mut Input<'_>) -> Result<Vec<Covered>, Broken> {
    let count = input.count()?;
    let log = |_| {
        let log = LogId::from_u128(u128::from_le_bytes(input.array()?));
        Ok(Covered { log, first: input.number()?, last: input.number()? })
    };
    (0..count).map(log).collect()
}

fn names(input: &mut Input<'_>) -> Result<Vec<(Box<str>, bool)>, Broken> {
    let count = input.count()?;
    let names =
        (0..count).map(|_| Ok((Box::from(input.text()?), input.byte()? != 0))).collect::<Result<Vec<_>, _>>()?;
    if names.is_sorted_by(|a, b| a.0 < b.0) { Ok(names) } else { Err(Broken("its names are not sorted")) }
}

/// The streams, and how many pages they have together.
fn streams(input: &mut Input<'_>) -> Result<(Vec<StreamEntry>, u32), Broken> {
    let count = input.count()?;
    let mut streams = Vec::with_capacity(count);
    let mut first = 0_u32;
    for _ in 0..count {
        let labels = input.count()?;
        let label = |_| Ok((Box::from(input.text()?), Box::from(input.text()?)));
        let pairs = (0..labels).map(label).collect::<Result<Vec<(Box<str>, Box<str>)>, Broken>>()?;
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) || pairs.iter().any(|(_, value)| value.is_empty()) {
            return Err(Broken("its labels are not those of a stream"));
        }
        let end = first.checked_add(input.small()?).ok_or(Broken("it has too many pages"))?;
        streams.push(StreamEntry { stream: Arc::new(Stream::new(Labels::from_pairs(pairs))), pages: first..end });
        first = end;
    }
    Ok((streams, first))
}

/// Columns of the page table that are plain numbers; two more are differences.
const PLAIN_COLUMNS: usize = 11;

fn pages(input: &mut Input<'_>, count: u32, logs: usize) -> Result<Vec<PageInfo>, Broken> {
    let count = count as usize;
    // A page has a byte at least in each column.
    if count > input.left() / (PLAIN_COLUMNS + 2) {
        return Err(Broken("it has fewer pages than it says"));
    }
    let mut rows = vec![[0; PLAIN_COLUMNS]; count];
    for column in 0..PLAIN_COLUMNS {
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            *cell = input.number()?;
        }
    }
    let wrong = Broken("a page in its table is impossible");
    let mut pages = rows.into_iter().map(|row| page(row, logs).ok_or(wrong)).collect::<Result<Vec<_>, _>>()?;
    let mut min = 0_i64;
    for page in &mut pages {
        min = min.wrapping_add(input.signed()?);
        page.min = min;
        page.max = min.checked_add_unsigned(page.max as u64).ok_or(wrong)?;
    }
    let mut seq = 0_u64;
    for page in &mut pages {
        seq = seq.wrapping_add_signed(input.signed()?);
        page.min_seq = seq;
        page.max_seq = seq.checked_add(page.max_seq).ok_or(wrong)?;
    }
    Ok(pages)
}

/// A page, whose `max` and `max_seq` are still relative.
fn page(row: [u64; PLAIN_COLUMNS], logs: usize) -> Option<PageInfo> {
    let [log, columns_len, columns_raw, lines_len, lines, bytes, duration, seqs, bits, fill, metadata] = row;
    let grams_bits = u8::try_from(bits).ok()?;
    let possible = (log as usize) < logs
        && columns_raw.max(bytes) <= u32::MAX.into()
        && lines > 0
        && (grams_bits == 0 || (BITS_MIN..=BITS_MAX).contains(&grams_bits));
    possible.then_some(())?;
    Some(PageInfo {
        log: u16::try_from(log).ok()?,
        columns_len,
        columns_raw,
        len: columns_len.checked_add(lines_len)?,
        lines: u32::try_from(lines).ok()?,
        bytes,
        max: duration as i64,
        max_seq: seqs,
        grams_bits,
        grams_fill: u8::try_from(fill).ok()?,
        has_metadata: metadata != 0,
        ..PageInfo::default()
    })
}

/// The last bytes of a block.
struct Trailer {
    len: u32,
    raw_len: u32,
    object_len: u64,
    version: u32,
    crc: u32,
}

impl Trailer {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&MAGIC);
    }

    /// What the checksum is of, besides the footer.
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(TRAILER_LEN);
        head.extend_from_slice(&self.len.to_le_bytes());
        head.extend_from_slice(&self.raw_len.to_le_bytes());
        head.extend_from_slice(&self.object_len.to_le_bytes());
        head.extend_from_slice(&self.version.to_le_bytes());
        head
    }

    fn crc(&self, footer: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(footer), &self.head())
    }

    fn read(bytes: &[u8; TRAILER_LEN]) -> Result<Self, Broken> {
        let mut input = Input::new(bytes);
        let len = u32::from_le_bytes(input.array()?);
        let raw_len = u32::from_le_bytes(input.array()?);
        let object_len = u64::from_le_bytes(input.array()?);
        let version = u32::from_le_bytes(input.array()?);
        let crc = u32::from_le_bytes(input.array()?);
        if input.array()? != MAGIC {
            return Err(Broken("it does not end as a block does"));
        }
        if version != VERSION {
            return Err(Broken("its version is not known here"));
        }
        Ok(Self { len, raw_len, object_len, version, crc })
    }
}
