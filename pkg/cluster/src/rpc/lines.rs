//! Lines as bytes, without their text: what follows send all day.
//!
//! The format: how many lines; then of each line a code for its labels, and its timestamp, when it was accepted, its batch and its place
//! there, where its text begins and how long it is, as the varints of differences from what the line before lets expect. The code is the
//! number of an entry of a dictionary and 2, or 0 for a new entry that follows, or 1 for a new entry before which the dictionary is
//! forgotten. An entry is the hash of a stream (8 bytes) and the number of a label set and 1, or 0 and the set: how many pairs, and each
//! pair's category, name and value.
//!
//! Invariants:
//! * What is sent of a label set while the dictionary knows it is its number. Equal sets have one number however often they were made, and
//!   are one [`LabelSet`] to who reads, until the dictionary is forgotten.
//! * The dictionary has at most [`MAX_ENTRIES`] entries and [`MAX_DICTIONARY_BYTES`] of text, on both sides.
//! * No bytes make the reader panic, and it takes memory within a constant of their length.

use std::mem::size_of;

use hashbrown::HashMap;
use tailwater_model::{Category, LabelPair, LabelSet, Timestamp};
use tailwater_wire::node::MatchedLine;

use super::Garbled;

/// Most entries of a dictionary.
pub(super) const MAX_ENTRIES: usize = if cfg!(test) { 16 } else { 8192 };

/// Most memory of the label sets of a dictionary, in bytes, apart from the last that was added.
pub(super) const MAX_DICTIONARY_BYTES: usize = if cfg!(test) { 2048 } else { 1 << 20 };

/// Fewest bytes that a line takes.
const LINE_BYTES: usize = 7;

/// The code of a new entry.
const NEW: u64 = 0;

/// The code of a new entry of a new dictionary.
const ANEW: u64 = 1;

/// The code of the first entry.
const FIRST: u64 = 2;

/// Writes lines; one for each stream of them.
#[derive(Default)]
pub(super) struct LineWriter {
    /// By the address of a set and the hash of a stream.
    entries: HashMap<(usize, u64), u32>,
    /// So that addresses stay true.
    held: Vec<LabelSet>,
    /// By value: equal sets may stand at several addresses.
    sets: HashMap<LabelSet, u32>,
    count: u32,
    bytes: usize,
}

/// Reads what a [`LineWriter`] wrote.
#[derive(Default)]
pub(super) struct LineReader {
    entries: Vec<(LabelSet, u64)>,
    sets: Vec<LabelSet>,
    bytes: usize,
}

/// What the line before lets expect of the next.
#[derive(Clone, Copy, Default)]
struct Expected {
    timestamp: i64,
    accepted_at: i64,
    seq: u64,
    index: i64,
    offset: i64,
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

impl LineWriter {
    /// The lines as bytes.
    pub(super) fn write<'l>(&mut self, lines: impl ExactSizeIterator<Item = &'l MatchedLine>) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + lines.len() * 16);
        put(&mut out, lines.len() as u64);
        let mut expected = Expected::default();
        let mut last: Option<(&MatchedLine, u32)> = None;
        for line in lines {
            let entry = match last {
                Some((before, entry))
                    if before.labels.ptr_eq(&line.labels) && before.stream_hash == line.stream_hash =>
                {
                    put(&mut out, u64::from(entry) + FIRST);
                    entry
                }
                _ => self.entry(line, &mut out),
            };
            last = Some((line, entry));
            put_signed(&mut out, line.timestamp.0.wrapping_sub(expected.timestamp));
            put_signed(&mut out, line.accepted_at.0.wrapping_sub(expected.accepted_at));
            put_signed(&mut out, line.seq.wrapping_sub(expected.seq).cast_signed());
            put_signed(&mut out, i64::from(line.index) - expected.index);
            put_signed(&mut out, i64::from(line.offset) - expected.offset);
            put(&mut out, line.len.into());
            expected = Expected::after(line);
        }
        out
    }

    /// Writes the code of a line's labels, and what that takes.
    fn entry(&mut self, line: &MatchedLine, out: &mut Vec<u8>) -> u32 {
        let key = (line.labels.address(), line.stream_hash);
        if let Some(entry) = self.entries.get(&key) {
            put(out, u64::from(*entry) + FIRST);
            return *entry;
        }
        if self.count as usize >= MAX_ENTRIES || self.bytes > MAX_DICTIONARY_BYTES {
            *self = Self::default();
            put(out, ANEW);
        } else {
            put(out, NEW);
        }
        out.extend_from_slice(&line.stream_hash.to_le_bytes());
        self.bytes += cost(&line.labels);
        match self.sets.get(&line.labels) {
            Some(set) => put(out, u64::from(*set) + 1),
            None => {
                put(out, 0);
                let pairs = line.labels.pairs();
                put(out, pairs.len() as u64);
                for pair in pairs {
                    out.push(match pair.category {
                        Category::Stream => 0,
                        Category::Metadata => 1,
                        Category::Parsed => 2,
                    });
                    put_text(out, &pair.name);
                    put_text(out, &pair.value);
                }
                let number = self.sets.len() as u32;
                self.sets.insert(line.labels.clone(), number);
            }
        }
        let entry = self.count;
        self.count += 1;
        self.entries.insert(key, entry);
        self.held.push(line.labels.clone());
        entry
    }
}

/// What an entry adds to [`MAX_DICTIONARY_BYTES`].
pub(super) fn cost(set: &LabelSet) -> usize {
    size_of::<LabelSet>() + set.heap_bytes()
}

impl Expected {
    fn after(line: &MatchedLine) -> Self {
        Self {
            timestamp: line.timestamp.0,
            accepted_at: line.accepted_at.0,
            seq: line.seq,
            index: i64::from(line.index) + 1,
            offset: i64::from(line.offset) + i64::from(line.len),
        }
    }
}

/// What is left of some bytes.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn slice(&mut self, len: usize) -> Result<&'a [u8], Garbled> {
        let (slice, rest) = self.0.split_at_checked(len).ok_or(Garbled("lines are cut short"))?;
        self.0 = rest;
        Ok(slice)
    }

    fn number(&mut self) -> Result<u64, Garbled> {
        // Most are one byte.
        if let Some((byte @ 0..0x80, rest)) = self.0.split_first() {
            self.0 = rest;
            return Ok((*byte).into());
        }
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.slice(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Garbled("a number is too long"))
    }

    fn signed(&mut self) -> Result<i64, Garbled> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A difference from a number of 32 bits.
    fn near(&mut self, expected: i64) -> Result<u32, Garbled> {
        let number = expected.checked_add(self.signed()?).and_then(|number| u32::try_from(number).ok());
        number.ok_or(Garbled("a number is too large"))
    }

    fn text(&mut self) -> Result<&'a str, Garbled> {
        let len = usize::try_from(self.number()?).map_err(|_| Garbled("a number is too large"))?;
        std::str::from_utf8(self.slice(len)?).map_err(|_| Garbled("a label is not UTF-8"))
    }
}

impl LineReader {
    /// The lines. With `text`, all lie within a text of so many bytes.
    ///
    /// # Errors
    /// They do not, or the bytes are no lines; the reader is of no use any more.
    pub(super) fn read(&mut self, bytes: &[u8], text: Option<usize>) -> Result<Vec<MatchedLine>, Garbled> {
        let mut rest = Rest(bytes);
        let count = usize::try_from(rest.number()?).map_err(|_| Garbled("a number is too large"))?;
        if count > rest.0.len() / LINE_BYTES {
            return Err(Garbled("lines are cut short"));
        }
        let mut lines = Vec::with_capacity(count);
        let mut expected = Expected::default();
        for _ in 0..count {
            let (labels, stream_hash) = self.labels(&mut rest)?;
            let line = MatchedLine {
                timestamp: Timestamp(expected.timestamp.wrapping_add(rest.signed()?)),
                accepted_at: Timestamp(expected.accepted_at.wrapping_add(rest.signed()?)),
                seq: expected.seq.wrapping_add(rest.signed()?.cast_unsigned()),
                index: rest.near(expected.index)?,
                offset: rest.near(expected.offset)?,
                len: u32::try_from(rest.number()?).map_err(|_| Garbled("a number is too large"))?,
                labels,
                stream_hash,
            };
            let end = line.offset.checked_add(line.len);
            if text.is_some_and(|text| end.is_none_or(|end| end as usize > text)) {
                return Err(Garbled("a line lies outside its text"));
            }
            expected = Expected::after(&line);
            lines.push(line);
        }
        if rest.0.is_empty() { Ok(lines) } else { Err(Garbled("more lines than were said")) }
    }

    fn labels(&mut self, rest: &mut Rest<'_>) -> Result<(LabelSet, u64), Garbled> {
        match rest.number()? {
            code @ (NEW | ANEW) => {
                if code == ANEW {
                    *self = Self::default();
                }
                if self.entries.len() >= MAX_ENTRIES || self.bytes > MAX_DICTIONARY_BYTES {
                    return Err(Garbled("too many labels"));
                }
                let hash = rest.slice(8)?.try_into().map_err(|_| Garbled("lines are cut short"))?;
                let set = match rest.number()? {
                    0 => self.set(rest)?,
                    number => {
                        let set = usize::try_from(number - 1).ok().and_then(|number| self.sets.get(number));
                        set.ok_or(Garbled("no such labels"))?.clone()
                    }
                };
                self.bytes += cost(&set);
                let entry = (set, u64::from_le_bytes(hash));
                self.entries.push(entry.clone());
                Ok(entry)
            }
            code => {
                let entry = usize::try_from(code - FIRST).ok().and_then(|entry| self.entries.get(entry));
                entry.cloned().ok_or(Garbled("no such labels"))
            }
        }
    }

    fn set(&mut self, rest: &mut Rest<'_>) -> Result<LabelSet, Garbled> {
        let count = usize::try_from(rest.number()?).map_err(|_| Garbled("a number is too large"))?;
        if count > rest.0.len() / 3 {
            return Err(Garbled("lines are cut short"));
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            let category = match rest.slice(1)? {
                [0] => Category::Stream,
                [1] => Category::Metadata,
                [2] => Category::Parsed,
                _ => return Err(Garbled("no such category")),
            };
            pairs.push(LabelPair { category, name: rest.text()?.into(), value: rest.text()?.into() });
        }
        let set = LabelSet::from_pairs(pairs);
        self.sets.push(set.clone());
        Ok(set)
    }
}

/// The lengths of texts, as varints.
pub(super) fn lengths(texts: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut out = Vec::new();
    texts.for_each(|len| put(&mut out, len as u64));
    out
}

/// The texts that make up a text, by their [`lengths`].
pub(super) fn texts(lengths: &[u8], text: &bytes::Bytes, count: usize) -> Result<Vec<bytes::Bytes>, Garbled> {
    let (mut rest, mut at) = (Rest(lengths), 0_usize);
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::try_from(rest.number()?).ok();
        let end = len.and_then(|len| at.checked_add(len)).filter(|end| *end <= text.len());
        let end = end.ok_or(Garbled("a line lies outside its text"))?;
        all.push(text.slice(at..end));
        at = end;
    }
    if rest.0.is_empty() && at == text.len() { Ok(all) } else { Err(Garbled("more text than lines")) }
}
