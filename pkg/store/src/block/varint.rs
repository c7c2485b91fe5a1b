//! Numbers and texts in the bytes of a block, and reading them back without trusting them.
//!
//! A number is little-endian base 128: seven bits to a byte, the high bit set on all but the last, at most ten bytes. A signed number is
//! folded first so that small magnitudes are short: 0, -1, 1, -2, … become 0, 1, 2, 3, …

use crate::Error;

/// Why bytes cannot be read. The caller knows what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

impl Broken {
    /// The error, of what is broken.
    pub(super) fn of(self, what: &str) -> Error {
        Error::corrupt(what, self.0)
    }
}

const SHORT: Broken = Broken("it ends early");
const LONG: Broken = Broken("bytes are left over");
const WIDE: Broken = Broken("a number is too large");

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, fold(value));
}

/// Appends a length and that many bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes that a number takes.
pub(super) fn len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Small magnitudes to small numbers.
pub(super) fn fold(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`fold`].
fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// What is left to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn number(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for (i, byte) in self.0.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and there is no eleventh.
            if i > 9 || (i == 9 && bits > 1) {
                return Err(WIDE);
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(i + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(SHORT)
    }

    pub(super) fn signed(&mut self) -> Result<i64, Broken> {
        self.number().map(unfold)
    }

    pub(super) fn small(&mut self) -> Result<u32, Broken> {
        u32::try_from(self.number()?).map_err(|_| WIDE)
    }

    /// A number of things that follow, of which each takes a byte at least: so a table for them is no larger, by a constant factor, than
    /// the bytes at hand.
    pub(super) fn count(&mut self) -> Result<usize, Broken> {
        let count = usize::try_from(self.number()?).map_err(|_| WIDE)?;
        if count > self.0.len() { Err(SHORT) } else { Ok(count) }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Broken> {
        self.take(1).map(|b| b.first().copied().unwrap_or_default())
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A length and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let len = self.count()?;
        self.take(len)
    }

    /// A length and that many bytes of text.
    pub(super) fn text(&mut self) -> Result<&'a str, Broken> {
        text(self.bytes()?)
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Broken> {
        if self.0.is_empty() { Ok(()) } else { Err(LONG) }
    }
}

/// Bytes that must be text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(bytes).map_err(|_| Broken("a text is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out.len(), len(value));
            let mut input = Input::new(&out);
            assert_eq!((input.number(), input.end()), (Ok(value), Ok(())));
            for cut in 0..out.len() {
                assert_eq!(Input::new(&out[..cut]).number(), Err(SHORT));
            }
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unfold(fold(value)), value);
        }
    }

    #[test]
    fn numbers_that_are_too_large_are_refused() {
        let mut eleven = [0x80; 11];
        eleven[10] = 1;
        assert_eq!(Input::new(&eleven).number(), Err(WIDE));
        let mut out = [0xff; 10];
        out[9] = 2;
        assert_eq!(Input::new(&out).number(), Err(WIDE));
        assert_eq!(Input::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).small(), Err(WIDE));
        assert_eq!(Input::new(&[5, 1, 2, 3, 4]).count(), Err(SHORT));
    }
}
