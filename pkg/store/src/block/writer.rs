//! Writing a block.
//!
//! Invariants: what is held is the compressed output, the tables, and one page. Nothing is allocated per line. Each page is sorted, also if
//! what comes is not: then it has more pages, which overlap in time.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_model::{Labels, LogId};

use super::footer::{Footer, PageInfo, StreamEntry};
use super::frame::Sealer;
use super::page::PAGE_BYTES_MAX;
use super::{grams, index, page};
use crate::entries::Place;
use crate::{Error, Stream};

/// Size at which a part of the output is done with, in bytes: what object stores like as parts of an upload.
const PART_BYTES: usize = 8 << 20;

/// How a block is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most bytes of lines of a page of several entries, at most [`PAGE_BYTES_MAX`].
    pub page_bytes: usize,
    /// zstd's compression level.
    pub level: i32,
    /// Whether the words of lines are indexed, by page.
    pub full_text: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { page_bytes: 256 << 10, level: 3, full_text: false }
    }
}

/// An entry to write.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Nanoseconds since the epoch.
    pub timestamp: i64,
    /// The line.
    pub line: &'a [u8],
    /// Structured metadata, names and values.
    pub metadata: &'a [(&'a str, &'a str)],
    /// Its place in the log of its stream.
    pub place: Place,
}

/// The places of a log that are in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The log.
    pub log: LogId,
    /// Smallest sequence number.
    pub first: u64,
    /// Largest sequence number.
    pub last: u64,
}

/// A finished block.
#[derive(Debug)]
pub struct Built {
    /// The object, in order.
    pub parts: Vec<Bytes>,
    /// What is in it.
    pub summary: Summary,
}

/// What is in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Earliest timestamp; `i64::MAX` if there is no entry.
    pub min: i64,
    /// Latest timestamp; `i64::MIN` if there is no entry.
    pub max: i64,
    /// Number of entries.
    pub lines: u64,
    /// Bytes of their lines.
    pub raw_bytes: u64,
    /// Bytes of the object.
    pub bytes: u64,
    /// Number of streams.
    pub streams: u32,
    /// Number of pages.
    pub pages: u32,
    /// Arrival logs that entries are from.
    pub logs: Vec<Covered>,
    /// Where the bytes of the object went.
    pub sizes: Sizes,
}

/// Bytes of an object, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Lines.
    pub lines: u64,
    /// Times, lengths, places and structured metadata.
    pub columns: u64,
    /// Grams.
    pub grams: u64,
    /// The index of labels, structured metadata and words.
    pub index: u64,
    /// The footer and the trailer.
    pub footer: u64,
}

/// Writes one block. Streams come sorted by their labels, all entries of a stream together, and a stream once per log; the entries of a
/// stream from one log come sorted by (timestamp, seq, index).
#[derive(Debug)]
pub struct Writer {
    options: Options,
    sealer: Result<Sealer, Error>,
    parts: Vec<Bytes>,
    part: Vec<u8>,
    /// Bytes in `parts`.
    before: u64,
    page: page::Builder,
    gram_builder: grams::Builder,
    grams: Vec<u8>,
    index: index::Builder,
    streams: Vec<StreamEntry>,
    pages: Vec<PageInfo>,
    logs: Vec<Covered>,
    current: Option<(Labels, LogId)>,
    sizes: Sizes,
}

impl Writer {
    /// A writer of an empty block.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let options = Options { page_bytes: options.page_bytes.clamp(1, PAGE_BYTES_MAX), ..options };
        Self {
            options,
            sealer: Sealer::new(options.level),
            parts: Vec::new(),
            part: Vec::new(),
            before: 0,
            page: page::Builder::default(),
            gram_builder: grams::Builder::default(),
            grams: Vec::new(),
            index: index::Builder::default(),
            streams: Vec::new(),
            pages: Vec::new(),
            logs: Vec::new(),
            current: None,
            sizes: Sizes::default(),
        }
    }

    /// The entries that come now are of this stream and this log.
    pub fn stream(&mut self, labels: &Labels, log: LogId) {
        self.seal_page();
        self.current = Some((labels.clone(), log));
    }

    /// Adds an entry of the current stream; without one it is an error that [`Writer::finish`] reports.
    pub fn entry(&mut self, entry: &Entry<'_>) {
        if !self.page.takes(entry, self.options.page_bytes) {
            self.seal_page();
        }
        if u32::try_from(entry.line.len()).is_ok() {
            self.page.push(entry);
        } else {
            self.fail(Error::Full { what: "page of a block".into() });
        }
    }

    /// Bytes of the block so far, without what is not sealed yet.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.before + (self.part.len() + self.grams.len()) as u64
    }

    fn fail(&mut self, error: Error) {
        // The first one tells most.
        if self.sealer.is_ok() {
            self.sealer = Err(error);
        }
    }

    fn seal_page(&mut self) {
        if !self.page.is_empty()
            && let Err(error) = self.try_seal_page()
        {
            self.fail(error);
        }
        self.page.clear();
    }

    fn try_seal_page(&mut self) -> Result<(), Error> {
        let Ok(sealer) = &mut self.sealer else { return Ok(()) };
        let full = |what: &str| Error::Full { what: what.into() };
        let Some((labels, log)) = &self.current else {
            return Err(Error::corrupt("input of a block", "an entry without a stream"));
        };
        let number = u32::try_from(self.pages.len()).map_err(|_| full("table of pages of a block"))?;
        let mut info = self.page.seal(sealer, &mut self.part)?;
        // A push holds less than this, so only what never came in one does not fit.
        if info.columns_raw.max(info.raw_len()) > u32::MAX.into() {
            return Err(full("page of a block"));
        }
        let found = self.logs.iter().position(|covered| covered.log == *log);
        let log_number = found.unwrap_or_else(|| {
            self.logs.push(Covered { log: *log, first: info.min_seq, last: info.max_seq });
            self.logs.len() - 1
        });
        info.log = u16::try_from(log_number).map_err(|_| full("table of logs of a block"))?;
        if let Some(covered) = self.logs.get_mut(log_number) {
            covered.first = covered.first.min(info.min_seq);
            covered.last = covered.last.max(info.max_seq);
        }
        match self.streams.last_mut() {
            Some(last) if last.stream.labels == *labels => last.pages.end = number + 1,
            _ => {
                let stream = Arc::new(Stream::new(labels.clone()));
                self.streams.push(StreamEntry { stream, pages: number..number + 1 });
            }
        }
        info.stream = (self.streams.len() - 1) as u32;
        let lines = &self.page.lines;
        let shape = self.gram_builder.append(lines, &self.page.columns.lengths, info.len as usize, &mut self.grams);
        (info.grams_bits, info.grams_fill) = (shape.bits, shape.fill);
        self.index.page(self.options.full_text, lines, self.page.metadata.pairs())?;
        self.sizes.columns += info.columns_len;
        self.sizes.lines += info.len - info.columns_len;
        self.pages.push(info);
        self.end_part(PART_BYTES);
        Ok(())
    }

    /// Is done with the current part if it has that many bytes.
    fn end_part(&mut self, least: usize) {
        if self.part.len() >= least && !self.part.is_empty() {
            self.before += self.part.len() as u64;
            self.parts.push(Bytes::from(std::mem::take(&mut self.part)));
        }
    }

    /// Ends the block.
    ///
    /// # Errors
    /// [`Error::Full`]: more than a block can hold. [`Error::Io`]: no memory. Also the first error that came up before.
    pub fn finish(mut self) -> Result<Built, Error> {
        self.seal_page();
        self.end_part(1);
        let Self { sealer, mut parts, mut before, grams, index, streams, pages, logs, mut sizes, .. } = self;
        let mut sealer = sealer?;
        let mut footer = Footer::new(streams, pages, logs);
        let mut add = |part: Vec<u8>| {
            let start = before;
            before += part.len() as u64;
            if !part.is_empty() {
                parts.push(Bytes::from(part));
            }
            start..before
        };
        sizes.grams = grams.len() as u64;
        add(grams);
        let made = index.finish(&footer.streams, &footer.pages)?;
        let mut section = Vec::new();
        if !made.section.is_empty() {
            sizes.index = sealer.seal(&made.section, &mut section)?;
        }
        footer.index.range = add(section);
        footer.index.raw_len = made.section.len() as u64;
        (footer.indexed, footer.names, footer.names_complete) = (made.indexed, made.names, made.names_complete);
        let mut end = Vec::new();
        footer.encode(footer.index.range.end, &mut sealer, &mut end)?;
        sizes.footer = end.len() as u64;
        add(end);
        let summary = Summary {
            min: footer.pages.iter().map(|p| p.min).min().unwrap_or(i64::MAX),
            max: footer.pages.iter().map(|p| p.max).max().unwrap_or(i64::MIN),
            lines: footer.lines,
            raw_bytes: footer.bytes,
            bytes: before,
            streams: footer.streams.len() as u32,
            pages: footer.pages.len() as u32,
            logs: footer.logs,
            sizes,
        };
        Ok(Built { parts, summary })
    }
}
