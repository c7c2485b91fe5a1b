//! The structured metadata of a page: its names and values once each, and references to them per entry.
//!
//! Invariants: names and values are valid UTF-8; pairs keep their order. A page in which no entry has metadata stores nothing.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use xxhash_rust::xxh3::xxh3_64;

use super::varint::{Broken, Input, put, text};
use crate::ByStream;
use crate::stream::Spread;

/// Texts that repeat.
#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Of hashes. A text whose hash another has already is stored each time it comes.
    ids: ByStream<u32>,
}

impl Texts {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.ids.clear();
    }

    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = id.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.ends.get(id).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }

    /// The text's id, and whether it is new.
    fn intern(&mut self, text: &[u8]) -> (u32, bool) {
        let next = self.ends.len() as u32;
        let id = *self.ids.entry(xxh3_64(text)).or_insert(next);
        if id < next && self.get(id) == text {
            return (id, false);
        }
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
        (next, true)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.ends.len() as u64);
        (0..self.ends.len()).for_each(|id| put(out, self.get(id as u32).len() as u64));
        out.extend_from_slice(&self.bytes);
    }
}

/// Collects the metadata of one page after the other.
#[derive(Debug, Default)]
pub(super) struct Builder {
    names: Texts,
    values: Texts,
    /// Pairs of each entry.
    counts: Vec<u32>,
    /// The name of each pair.
    of_name: Vec<u32>,
    /// The value of each pair: 0 stands for the next one that did not come before, n for the one before number n.
    of_value: Vec<u32>,
    /// Distinct pairs: ids of name and value.
    pairs: HashSet<u64, BuildHasherDefault<Spread>>,
}

impl Builder {
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.values.clear();
        self.counts.clear();
        self.of_name.clear();
        self.of_value.clear();
        self.pairs.clear();
    }

    /// Whether no entry has any.
    pub(super) fn is_empty(&self) -> bool {
        self.of_name.is_empty()
    }

    pub(super) fn push(&mut self, pairs: &[(&str, &str)]) {
        self.counts.push(pairs.len() as u32);
        for (name, value) in pairs {
            let (name, _) = self.names.intern(name.as_bytes());
            let (value, new) = self.values.intern(value.as_bytes());
            self.of_name.push(name);
            self.of_value.push(if new { 0 } else { value + 1 });
            self.pairs.insert((u64::from(name) << 32) | u64::from(value));
        }
    }

    /// Bytes of the distinct names and values, and of the references to them.
    pub(super) fn size(&self) -> usize {
        self.names.bytes.len() + self.values.bytes.len() + self.of_name.len() * 4
    }

    /// The distinct pairs, in no order. (A pair comes twice only if hashes met.)
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        self.pairs
            .iter()
            .map(move |pair| (text(self.names.get((pair >> 32) as u32)), text(self.values.get(*pair as u32))))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        self.names.encode(out);
        self.values.encode(out);
        for column in [&self.counts, &self.of_name, &self.of_value] {
            column.iter().for_each(|number| put(out, (*number).into()));
        }
    }
}

/// The metadata of a page as stored.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    /// Names and values, each of them in the small part of the page.
    pub(super) texts: Vec<&'a str>,
    /// Of each entry, how many pairs. Empty if no entry has any.
    pub(super) counts: Vec<u32>,
    /// Name and value of each pair: indexes into `texts`.
    pub(super) pairs: Vec<(u32, u32)>,
}

impl<'a> Metadata<'a> {
    /// Reads what is left of the small part of a page with so many entries.
    pub(super) fn decode(mut input: Input<'a>, lines: u32) -> Result<Self, Broken> {
        if input.left() == 0 {
            return Ok(Self::default());
        }
        let wrong = Broken("its metadata refers to nothing");
        let mut texts = Vec::new();
        let names = read_texts(&mut input, &mut texts)? as u32;
        let values = read_texts(&mut input, &mut texts)? as u32;
        if lines as usize > input.left() {
            return Err(wrong);
        }
        let counts = (0..lines).map(|_| input.small()).collect::<Result<Vec<_>, _>>()?;
        let total = counts.iter().map(|c| u64::from(*c)).sum::<u64>();
        // Each pair takes two bytes.
        if total > input.left() as u64 {
            return Err(wrong);
        }
        let mut pairs = (0..total).map(|_| Ok((input.small()?, 0))).collect::<Result<Vec<_>, _>>()?;
        let mut next = 0;
        for (name, value) in &mut pairs {
            let reference = input.small()?;
            let id = reference.checked_sub(1).unwrap_or(next);
            next += u32::from(reference == 0);
            if *name >= names || id >= values {
                return Err(wrong);
            }
            *value = names + id;
        }
        input.end()?;
        Ok(Self { texts, counts, pairs })
    }

    /// Bytes of all texts.
    pub(super) fn size(&self) -> usize {
        self.texts.iter().map(|t| t.len()).sum()
    }
}

/// Returns how many.
fn read_texts<'a>(input: &mut Input<'a>, out: &mut Vec<&'a str>) -> Result<usize, Broken> {
    let count = input.count()?;
    let lengths = (0..count).map(|_| input.small()).collect::<Result<Vec<_>, _>>()?;
    out.reserve_exact(count);
    for len in lengths {
        out.push(text(input.take(len as usize)?)?);
    }
    Ok(count)
}
