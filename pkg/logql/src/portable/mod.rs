//! Queries and partial aggregates as bytes, for another process of the cluster. The printed form will not do: it rounds sizes and ranges,
//! and not all that is printed parses again.
//!
//! Invariants:
//! * Exact: what is taken from the bytes is what was put into them, down to the bits of numbers.
//! * The first byte says which version of the format follows; others are refused.
//! * No bytes make it panic. What is taken takes memory within a constant of the length of the bytes.

mod query;
#[cfg(test)]
mod tests;

pub(crate) use query::Portable;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes: {0}")]
pub struct Malformed(pub(crate) &'static str);

impl From<Malformed> for crate::Error {
    fn from(malformed: Malformed) -> Self {
        Self::Invalid(malformed.to_string())
    }
}

/// Writes a number, small ones short.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes a number with a sign, those near zero short.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Writes the bits of a number.
pub(crate) fn put_float(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(&number.to_bits().to_le_bytes());
}

/// Writes bytes after their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left of some bytes, and what they may still hold.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    rest: &'a [u8],
    /// How deep the tree is here.
    pub(crate) depth: u32,
    /// How many regular expressions and templates there were.
    pub(crate) regexes: u32,
}

impl<'a> Source<'a> {
    /// Checks the version, which comes first.
    pub(crate) fn new(bytes: &'a [u8], version: u8) -> Result<Self, Malformed> {
        match bytes.split_first() {
            Some((found, rest)) if *found == version => Ok(Self { rest, depth: 0, regexes: 0 }),
            Some(_) => Err(Malformed("another version")),
            None => Err(Malformed("too short")),
        }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("too long")) }
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (slice, rest) = self.rest.split_at_checked(len).ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(slice)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.slice(1)?[0])
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither yes nor no")),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number is too large"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(crate) fn float(&mut self) -> Result<f64, Malformed> {
        let bytes = self.slice(8)?.try_into().map_err(|_| Malformed("too short"))?;
        Ok(f64::from_bits(u64::from_le_bytes(bytes)))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.slice(len)
    }

    /// How many things follow; each takes at least a byte.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).map_err(|_| Malformed("a number is too large"))?;
        if count > self.rest.len() { Err(Malformed("too short")) } else { Ok(count) }
    }
}
