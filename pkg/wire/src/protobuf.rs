//! The protobuf wire format, read in place.
//!
//! Invariants: a cursor never leaves its message; groups nest at most [`MAX_DEPTH`] deep; the fault texts are those of Go's generated decoders.

use crate::Error;

/// How deeply messages and groups may nest.
pub(crate) const MAX_DEPTH: u32 = 100;

/// A number in 7-bit groups.
pub(crate) const VARINT: u32 = 0;
const FIXED64: u32 = 1;
/// Length-delimited: bytes, a text or a message.
pub(crate) const BYTES: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

/// A place in the body, and the end of the message it lies in (the end of `buf`).
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// The beginning of a message.
    pub(crate) fn new(buf: &'a [u8]) -> Self {
        Self { buf, pos: 0 }
    }

    /// Whether the message ends here.
    #[inline]
    pub(crate) fn done(&self) -> bool {
        self.pos >= self.buf.len()
    }

    /// The number at this place; moves behind it.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Error> {
        match self.buf.get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.buf.get(self.pos).ok_or_else(unexpected_eof)?;
            self.pos += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::malformed("proto: integer overflow"))
    }

    /// The number of the next field and how it is written.
    #[inline]
    pub(crate) fn key(&mut self, message: &'static str) -> Result<(u32, u32), Error> {
        let key = self.varint()?;
        let (tag, wire) = (key >> 3, key as u32 & 7);
        // An end of group outside of a group, field 0, a number of more than 29 bits or a way of writing that does not exist.
        if tag == 0 || key > u64::from(u32::MAX) || wire == GROUP_END || wire > FIXED32 {
            return Err(bad_key(message, tag, wire));
        }
        Ok((tag as u32, wire))
    }

    /// Where the length-delimited field at this place begins, and its length; moves behind it.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<(u32, u32), Error> {
        let len = self.varint()?;
        if len > (self.buf.len() - self.pos) as u64 {
            return Err(past_end(len));
        }
        let start = self.pos;
        self.pos += len as usize;
        Ok((start as u32, len as u32))
    }

    /// The message at this place; moves behind it.
    #[inline]
    pub(crate) fn message(&mut self) -> Result<Cursor<'a>, Error> {
        let (start, _) = self.bytes()?;
        Ok(Cursor { buf: &self.buf[..self.pos], pos: start as usize })
    }

    /// Moves behind the value of an unknown field.
    #[cold]
    pub(crate) fn skip(&mut self, tag: u32, wire: u32, depth: u32) -> Result<(), Error> {
        if depth == 0 {
            return Err(Error::malformed("proto: recursion limit reached"));
        }
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.advance(8),
            FIXED32 => self.advance(4),
            BYTES => self.bytes().map(drop),
            GROUP_START => loop {
                let key = self.varint()?;
                let (inner, wire) = (key >> 3, key as u32 & 7);
                if inner == 0 || key > u64::from(u32::MAX) || wire > FIXED32 {
                    return Err(bad_key("group", inner, wire));
                }
                if wire == GROUP_END {
                    return if inner == u64::from(tag) { Ok(()) } else { Err(bad_key("group", inner, wire)) };
                }
                self.skip(inner as u32, wire, depth - 1)?;
            },
            _ => Err(bad_key("", u64::from(tag), wire)),
        }
    }

    fn advance(&mut self, by: usize) -> Result<(), Error> {
        if by > self.buf.len() - self.pos {
            return Err(unexpected_eof());
        }
        self.pos += by;
        Ok(())
    }
}

#[cold]
fn unexpected_eof() -> Error {
    Error::malformed("unexpected EOF")
}

#[cold]
fn past_end(len: u64) -> Error {
    if i64::try_from(len).is_err() {
        Error::malformed("proto: negative length found during unmarshaling")
    } else {
        unexpected_eof()
    }
}

#[cold]
pub(crate) fn wrong_wire(wire: u32, field: &'static str) -> Error {
    Error::malformed(format!("proto: wrong wireType = {wire} for field {field}"))
}

#[cold]
fn bad_key(message: &'static str, tag: u64, wire: u32) -> Error {
    Error::malformed(match wire {
        _ if wire > FIXED32 => format!("proto: illegal wireType {wire}"),
        GROUP_END => format!("proto: {message}: wiretype end group for non-group"),
        _ => format!("proto: {message}: illegal tag {tag} (wire type {wire})"),
    })
}
