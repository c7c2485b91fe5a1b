//! Going through the records of one segment, past what is corrupt.
//!
//! Invariants: records come in the order of their numbers, each at most once; memory is a window and one payload; what cannot be read is
//! told as a hole, never taken for the end while valid records follow. A record counts only if the checksum of its header is right, it
//! lies within the segment's bytes, and its number is greater than the one before and within the segment's own numbers.

use std::io;

use memchr::memmem;
use tailwater_model::TenantId;

use super::disk::{DiskFile, read_full};
use super::format::{Head, MAX_META, Parsed, RECORD_HEADER, RECORD_MAGIC, decode_head};

/// Bytes looked through at once for the next valid record.
const SEARCH_BYTES: usize = 256 << 10;

/// What can be read in one piece, or not at all, of a failing disk.
const SECTOR_BYTES: usize = 4096;

/// A part of a file in memory.
pub(super) struct Window<'a> {
    file: &'a dyn DiskFile,
    bytes: Vec<u8>,
    start: u64,
    /// Bytes to read at once at least.
    size: usize,
    /// Whether sectors that cannot be read are taken as zeros, which no checksum takes for a record.
    forgiving: bool,
    /// Sectors that were.
    pub(super) unreadable: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, size: usize, forgiving: bool) -> Self {
        Self { file, bytes: Vec::new(), start: 0, size, forgiving, unreadable: 0 }
    }

    /// The bytes from an offset on, at least `want` of them unless `end` comes first.
    fn at(&mut self, offset: u64, want: usize, end: u64) -> io::Result<&[u8]> {
        let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = want.min(left);
        let have = offset.checked_sub(self.start).and_then(|skip| self.bytes.get(usize::try_from(skip).ok()?..));
        if have.is_none_or(|have| have.len() < want) {
            self.bytes.resize(want.max(self.size).min(left), 0);
            self.start = offset;
            // Should it fail, nothing is taken for what is there.
            let mut bytes = std::mem::take(&mut self.bytes);
            let read = self.read(&mut bytes, offset)?;
            bytes.truncate(read);
            self.bytes = bytes;
        }
        let skip = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match read_full(self.file, buffer, offset) {
            Err(_) if self.forgiving => {}
            result => return result,
        }
        let mut read = 0;
        for sector in buffer.chunks_mut(SECTOR_BYTES) {
            match read_full(self.file, sector, offset + read as u64) {
                Ok(n) if n < sector.len() => return Ok(read + n),
                Ok(_) => {}
                Err(_) => {
                    sector.fill(0);
                    self.unreadable += 1;
                }
            }
            read += sector.len();
        }
        Ok(read)
    }
}

/// See the module's words.
pub(super) struct Cursor<'a> {
    pub(super) window: Window<'a>,
    seed: u32,
    /// Where the next record begins.
    pub(super) offset: u64,
    /// Where the segment ends.
    end: u64,
    /// The number of the record before.
    pub(super) last: u64,
    /// The last number that may be in the segment.
    upto: u64,
    /// The tenant of the record before.
    tenant: Option<TenantId>,
    /// A record that was found behind a hole.
    found: Option<(u64, Head)>,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A record, and where it begins.
    Record(u64, Head),
    /// Records up to this number are missing here.
    Hole {
        /// The last number missing.
        last: u64,
        /// Where the trouble begins.
        offset: u64,
        /// What it is.
        reason: &'static str,
    },
    /// No valid record follows, but bytes do.
    Garbage(Garbage),
    /// The segment ends.
    End,
}

/// Bytes at the end of a segment that hold no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage {
    /// Where they begin.
    pub(super) offset: u64,
    /// Whether they are what a process leaves that is killed while it appends: a beginning of a record and nothing else.
    pub(super) torn: bool,
    /// What is wrong with them.
    pub(super) reason: &'static str,
}

impl<'a> Cursor<'a> {
    /// From an offset at which a record begins, the one after `last`; up to `end` in bytes and `upto` in numbers.
    pub(super) fn new(window: Window<'a>, seed: u32, (offset, last): (u64, u64), (end, upto): (u64, u64)) -> Self {
        Self { window, seed, offset, end, last, upto, tenant: None, found: None }
    }

    /// The last number that may be in the segment.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    /// What comes next. After [`Step::Garbage`] comes [`Step::End`].
    pub(super) fn step(&mut self) -> io::Result<Step> {
        if let Some((offset, head)) = self.found.take() {
            return Ok(self.take(offset, head));
        }
        let offset = self.offset;
        if offset >= self.end || self.last >= self.upto {
            return Ok(Step::End);
        }
        let bytes = self.window.at(offset, RECORD_HEADER + MAX_META, self.end)?;
        let (torn, reason) = match decode_head(bytes, self.seed, self.tenant.as_ref()) {
            Parsed::Head(head) if head.seq <= self.last => {
                (false, "a record's number is not greater than the one before")
            }
            Parsed::Head(head) if head.seq > self.upto => {
                // The next segment speaks for it: a later one took its place there.
                self.offset = self.end;
                return Ok(Step::End);
            }
            Parsed::Head(head) if self.end_of(offset, &head).is_none() => (true, "the last record is not all there"),
            Parsed::Head(head) if head.seq == self.last + 1 => return Ok(self.take(offset, head)),
            Parsed::Head(head) => {
                let last = head.seq - 1;
                self.found = Some((offset, head));
                return Ok(Step::Hole { last, offset, reason: "records are missing between two others" });
            }
            Parsed::Short => (true, "the last record is not all there"),
            Parsed::Bad(reason) => (false, reason),
        };
        if let Some((at, head)) = self.search(offset + 1)? {
            let last = head.seq - 1;
            self.found = Some((at, head));
            // Something between two records that follow each other is no record lost; it is stepped over.
            return if last > self.last { Ok(Step::Hole { last, offset, reason }) } else { self.step() };
        }
        self.offset = self.end;
        Ok(Step::Garbage(Garbage { offset, torn, reason }))
    }

    fn take(&mut self, offset: u64, head: Head) -> Step {
        self.offset = self.end_of(offset, &head).unwrap_or(self.end);
        self.last = head.seq;
        if self.tenant.as_ref() != Some(&head.tenant) {
            self.tenant = Some(head.tenant.clone());
        }
        Step::Record(offset, head)
    }

    /// Where a record ends that lies within the segment.
    fn end_of(&self, offset: u64, head: &Head) -> Option<u64> {
        let end = offset.checked_add(head.head_len as u64 + head.payload_len as u64)?;
        (end <= self.end).then_some(end)
    }

    /// The next record from an offset on that is valid in all its parts.
    fn search(&mut self, from: u64) -> io::Result<Option<(u64, Head)>> {
        let size = self.window.size;
        self.window.size = size.max(SEARCH_BYTES);
        let found = self.search_from(from);
        self.window.size = size;
        found
    }

    fn search_from(&mut self, mut from: u64) -> io::Result<Option<(u64, Head)>> {
        let magic = memmem::Finder::new(&RECORD_MAGIC);
        while from + RECORD_HEADER as u64 <= self.end {
            let bytes = self.window.at(from, RECORD_HEADER, self.end)?;
            let Some(at) = magic.find(bytes) else {
                // The magic may lie across the end of what was looked through.
                let passed = bytes.len().saturating_sub(RECORD_MAGIC.len() - 1);
                if passed == 0 {
                    return Ok(None);
                }
                from += passed as u64;
                continue;
            };
            let offset = from + at as u64;
            let bytes = self.window.at(offset, RECORD_HEADER + MAX_META, self.end)?;
            if let Parsed::Head(head) = decode_head(bytes, self.seed, None)
                && head.seq > self.last
                && head.seq <= self.upto
                && self.end_of(offset, &head).is_some()
                && self.verify(offset, &head)?
            {
                return Ok(Some((offset, head)));
            }
            from = offset + 1;
        }
        Ok(None)
    }

    /// Whether a record's payload is what was written.
    pub(super) fn verify(&mut self, offset: u64, head: &Head) -> io::Result<bool> {
        let (mut at, mut left, mut crc) = (offset + head.head_len as u64, head.payload_len, 0);
        while left > 0 {
            let bytes = self.window.at(at, left.min(SEARCH_BYTES), self.end)?;
            let n = bytes.len().min(left);
            if n == 0 {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, &bytes[..n]);
            at += n as u64;
            left -= n;
        }
        Ok(crc == head.payload_crc)
    }

    /// A record's payload, if it is what was written.
    pub(super) fn payload(&mut self, offset: u64, head: &Head) -> io::Result<Option<Vec<u8>>> {
        let at = offset + head.head_len as u64;
        let mut payload = Vec::with_capacity(head.payload_len);
        let bytes = self.window.at(at, 1, self.end)?;
        payload.extend_from_slice(&bytes[..bytes.len().min(head.payload_len)]);
        let have = payload.len();
        if have < head.payload_len {
            // The rest goes where it belongs without a detour.
            payload.resize(head.payload_len, 0);
            let read = self.window.read(&mut payload[have..], at + have as u64)?;
            payload.truncate(have + read);
        }
        let whole = payload.len() == head.payload_len && crc32c::crc32c(&payload) == head.payload_crc;
        Ok(whole.then_some(payload))
    }
}
