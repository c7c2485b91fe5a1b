//! Which sequences of four bytes the lines of a page contain: a bitmap that proves that a literal is not in the page.
//!
//! A gram is four consecutive bytes of a line, ASCII letters in lower case; grams do not cross lines. Each gram sets one bit. A bitmap of
//! 2^n bits is one of 2^(n+1) bits whose halves are laid over each other, so it is built large and folded to a size that suits what turned
//! out to be in the page.
//!
//! Invariant: there are no false negatives. If a line of the page contains a literal, also if its ASCII letters are in another case,
//! [`Grams::may_contain`] is true for it.

use bytes::Bytes;

use super::PageInfo;
use super::frame::{CRC_LEN, checked};
use crate::Error;

/// Bytes of a gram.
pub const GRAM: usize = 4;

/// log2 of the bits of the largest bitmap, and of the one in which grams are collected.
pub(super) const BITS_MAX: u8 = 20;
/// log2 of the bits of the smallest bitmap: one word.
pub(super) const BITS_MIN: u8 = 6;

/// A bitmap is folded as long as no more than this part of its bits is set then, in 256ths.
const FILL: usize = 128;
/// As [`FILL`], of a bitmap that is more than [`SHARE`] of its page as stored. What fills a page with grams is random text; what is
/// looked for in it are identifiers, which are long and need no empty bitmap.
const FILL_OF_RANDOM: usize = 192;
/// See [`FILL_OF_RANDOM`]: one part in so many.
const SHARE: usize = 8;
/// A bitmap that is more than one part in so many of its page as stored is left out: to fetch the page costs the same.
const WORTH: usize = 2;

/// Most grams of a literal that are looked for; more would not rule out more pages.
const PROBES_MAX: usize = 64;

/// 2^64 divided by the golden ratio, made odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The bit of a gram in the largest bitmap. Its low bits depend on all bits of the gram: they are what is left after folding.
fn bit(gram: [u8; GRAM]) -> usize {
    (u64::from(u32::from_le_bytes(gram)).wrapping_mul(SPREAD) >> (64 - 20)) as usize
}

/// Collects the grams of one page after the other.
#[derive(Debug, Default)]
pub(super) struct Builder {
    words: Vec<u64>,
    lower: Vec<u8>,
}

/// What is known of a bitmap besides its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// log2 of its bits; 0: there is none.
    pub(super) bits: u8,
    /// How many of them are set, in 255ths, rounded up.
    pub(super) fill: u8,
}

impl Builder {
    /// Appends the grams of the lines, each of them with a length, that lie one after the other with a byte between them. `stored`: bytes
    /// of the page as stored.
    pub(super) fn append(&mut self, lines: &[u8], lengths: &[u32], stored: usize, out: &mut Vec<u8>) -> Shape {
        self.lower.clear();
        self.lower.extend_from_slice(lines);
        self.lower.make_ascii_lowercase();
        // Half of the bits stay empty even if no gram comes twice, so a larger bitmap would be folded to this one.
        let fit = lines.len().saturating_mul(2).max(1 << BITS_MIN).next_power_of_two().trailing_zeros() as u8;
        let mut bits = fit.min(BITS_MAX);
        self.words.clear();
        self.words.resize((1 << bits) / 64, 0);
        self.collect(lengths);
        while bits > BITS_MIN {
            let (low, high) = self.words.split_at(self.words.len() / 2);
            let set: usize = low.iter().zip(high).map(|(l, h)| (l | h).count_ones() as usize).sum();
            let large = self.words.len() * 8 > stored / SHARE;
            if set * 256 > (1 << (bits - 1)) * if large { FILL_OF_RANDOM } else { FILL } {
                break;
            }
            self.fold();
            bits -= 1;
        }
        let bytes = self.words.len() * 8;
        if bytes > stored / WORTH {
            return Shape::default();
        }
        let set: usize = self.words.iter().map(|w| w.count_ones() as usize).sum();
        let start = out.len();
        out.extend(self.words.iter().flat_map(|w| w.to_le_bytes()));
        let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
        Shape { bits, fill: (set * 255).div_ceil(bytes * 8) as u8 }
    }

    fn collect(&mut self, lengths: &[u32]) {
        let mask = self.words.len() - 1;
        let mut rest = self.lower.as_slice();
        for len in lengths {
            let (line, after) = rest.split_at(rest.len().min(*len as usize));
            rest = after.get(1..).unwrap_or_default();
            for gram in line.array_windows::<GRAM>() {
                let bit = bit(*gram);
                if let Some(word) = self.words.get_mut((bit >> 6) & mask) {
                    *word |= 1 << (bit & 63);
                }
            }
        }
    }

    fn fold(&mut self) {
        let half = self.words.len() / 2;
        let (low, high) = self.words.split_at_mut(half);
        for (l, h) in low.iter_mut().zip(high) {
            *l |= *h;
        }
        self.words.truncate(half);
    }
}

/// The grams of one page.
#[derive(Clone, Debug)]
pub struct Grams {
    words: Bytes,
}

/// A literal that is looked for in many pages.
#[derive(Clone, Debug)]
pub struct Probe {
    bits: Box<[usize]>,
}

impl Probe {
    /// A probe for a literal, whatever the case of its ASCII letters.
    #[must_use]
    pub fn new(literal: &[u8]) -> Self {
        let grams = literal.array_windows::<GRAM>().take(PROBES_MAX);
        Self { bits: grams.map(|gram| bit(gram.map(|b| b.to_ascii_lowercase()))).collect() }
    }

    /// Whether it can rule out anything: literals shorter than [`GRAM`] bytes cannot.
    #[must_use]
    pub fn is_of_use(&self) -> bool {
        !self.bits.is_empty()
    }
}

impl Grams {
    /// Whether a line of the page may contain the literal. `false` is a proof; literals shorter than [`GRAM`] bytes prove nothing.
    #[must_use]
    pub fn may_contain(&self, literal: &[u8]) -> bool {
        self.pass(&Probe::new(literal))
    }

    /// As [`Grams::may_contain`].
    #[must_use]
    pub fn pass(&self, probe: &Probe) -> bool {
        let mask = (self.words.len() * 8).wrapping_sub(1);
        probe.bits.iter().all(|bit| {
            let bit = bit & mask;
            self.words.get(bit >> 3).is_none_or(|byte| byte & (1 << (bit & 7)) != 0)
        })
    }

    /// Bytes in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.words.len()
    }
}

/// Bytes that a bitmap takes in a block.
pub(super) fn stored_len(bits: u8) -> u64 {
    if bits == 0 { 0 } else { (1 << bits) / 8 + CRC_LEN as u64 }
}

/// The grams of consecutive pages, from the bytes that [`super::Footer::grams_of`] names. `None`: the page has none, anything may be in it.
///
/// # Errors
/// [`Error::Corrupt`], also if the bytes are others.
pub fn decode_grams(bytes: &Bytes, pages: &[PageInfo]) -> Result<Vec<Option<Grams>>, Error> {
    let mut at = 0;
    let mut grams = Vec::with_capacity(pages.len());
    for page in pages {
        let what = || format!("grams of the page at {}", page.offset);
        let len = stored_len(page.grams_bits) as usize;
        if len == 0 {
            grams.push(None);
            continue;
        }
        let part = bytes.get(at..at + len).ok_or_else(|| Error::corrupt(what(), "they end early"))?;
        let words = checked(part, &what())?;
        grams.push(Some(Grams { words: bytes.slice_ref(words) }));
        at += len;
    }
    Ok(grams)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(lines: &[&str], stored: usize) -> (Shape, Bytes) {
        let lengths: Vec<_> = lines.iter().map(|l| l.len() as u32).collect();
        let mut out = Vec::new();
        let body: String = lines.iter().map(|l| format!("{l}\n")).collect();
        let shape = Builder::default().append(body.as_bytes(), &lengths, stored, &mut out);
        assert_eq!(out.len() as u64, stored_len(shape.bits));
        (shape, out.into())
    }

    fn grams(lines: &[&str]) -> Grams {
        let (shape, bytes) = build(lines, 1 << 20);
        let page = PageInfo { grams_bits: shape.bits, ..PageInfo::default() };
        decode_grams(&bytes, &[page]).unwrap().remove(0).unwrap()
    }

    fn random(seed: u64, len: usize) -> String {
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(char::from(b'a' + ((*state >> 33) % 26) as u8))
        };
        let mut state = seed;
        std::iter::from_fn(move || next(&mut state)).take(len).collect()
    }

    #[test]
    fn literals_are_found_whatever_their_case() {
        let grams = grams(&["GET /Orders", "", "xyz", "status=500"]);
        for literal in [&b"get /orders"[..], b"GET /", b"Orders", b"tatus=50", b"abc", b"", b"\xff"] {
            assert!(grams.may_contain(literal));
        }
        assert!(!grams.may_contain(b"/orders/17"));
        // Grams do not cross lines.
        assert!(!grams.may_contain(b"ers\nxyz\nstat"));
    }

    #[test]
    fn bitmaps_adapt_to_what_is_in_the_page() {
        let text = random(1, 100_000);
        let (full, _) = build(&[&text], 1 << 20);
        assert!(full.bits == 17 && (64..=128).contains(&full.fill), "{full:?}");
        let (less, _) = build(&[&text[..20_000]], 1 << 20);
        assert_eq!(less.bits, 15);
        let repeated = text[..100].repeat(1000);
        let (few, _) = build(&[&repeated], 1 << 20);
        assert_eq!(few.bits, 8);
        assert_eq!(build(&[], 1 << 20).0, Shape { bits: BITS_MIN, fill: 0 });
    }

    #[test]
    fn bitmaps_that_are_large_for_their_page_are_fuller_or_left_out() {
        let text = random(1, 80_000);
        let (fuller, _) = build(&[&text], 60_000);
        assert!(fuller.bits == 16 && fuller.fill <= 192, "{fuller:?}");
        let (none, bytes) = build(&[&text], 1000);
        assert_eq!((none, bytes.len()), (Shape::default(), 0));
        assert!(decode_grams(&bytes, &[PageInfo::default()]).unwrap().remove(0).is_none());
    }

    #[test]
    fn what_is_not_in_the_page_is_mostly_ruled_out() {
        let text = random(1, 200_000);
        let grams = grams(&[&text]);
        let kept = (0..1000).filter(|seed| grams.may_contain(random(seed + 7, 10).as_bytes())).count();
        assert!(kept < 100, "{kept} of 1000");
    }
}
