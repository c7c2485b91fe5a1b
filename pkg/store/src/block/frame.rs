//! Parts that are read alone: a zstd frame and the CRC-32C of its bytes, little-endian.
//!
//! Invariants: a part is decompressed only if its checksum is right; no more memory is asked for than the frame really brings, and never
//! more than the table that names the part says.

use std::io::{self, Read};

use zstd::bulk::Compressor;
use zstd::zstd_safe;

use crate::Error;

/// Bytes of a checksum.
pub(super) const CRC_LEN: usize = 4;

/// Output that is allocated at once. A frame that claims more is believed as it brings more.
const AT_ONCE_MAX: usize = 32 << 20;

/// Makes parts.
pub(super) struct Sealer {
    compressor: Compressor<'static>,
    frame: Vec<u8>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// # Errors
    /// [`Error::Io`]: no memory.
    pub(super) fn new(level: i32) -> Result<Self, Error> {
        Ok(Self { compressor: Compressor::new(level).map_err(compressing)?, frame: Vec::new() })
    }

    /// Appends `raw` as a part. Returns its length.
    pub(super) fn seal(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<u64, Error> {
        self.frame.clear();
        self.frame.reserve(zstd_safe::compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, &mut self.frame).map_err(compressing)?;
        Ok(put_checked(&self.frame, out))
    }
}

fn compressing(source: io::Error) -> Error {
    Error::Io { what: "compressing a part of a block".into(), source }
}

/// Appends bytes and their checksum. Returns the length of both.
pub(super) fn put_checked(bytes: &[u8], out: &mut Vec<u8>) -> u64 {
    out.extend_from_slice(bytes);
    out.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    (bytes.len() + CRC_LEN) as u64
}

/// The bytes before the checksum at the end of a part.
pub(super) fn checked<'a>(part: &'a [u8], what: &str) -> Result<&'a [u8], Error> {
    let (bytes, crc) = part.split_last_chunk::<CRC_LEN>().ok_or_else(|| Error::corrupt(what, "it ends early"))?;
    if crc32c::crc32c(bytes) != u32::from_le_bytes(*crc) {
        return Err(Error::corrupt(what, "its checksum is wrong"));
    }
    Ok(bytes)
}

/// What is in a part; `raw_len` bytes of it, to which `room` more can be appended without moving them.
pub(super) fn open(part: &[u8], raw_len: u64, room: usize, what: &str) -> Result<Vec<u8>, Error> {
    unpack(checked(part, what)?, raw_len, room, what)
}

/// What is in a frame whose bytes are known to be right.
pub(super) fn unpack(frame: &[u8], raw_len: u64, room: usize, what: &str) -> Result<Vec<u8>, Error> {
    let wrong = || Error::corrupt(what, "its zstd frame is broken");
    let claimed = zstd_safe::get_frame_content_size(frame).map_err(|_| wrong())?;
    let len = usize::try_from(raw_len).map_err(|_| wrong())?;
    if claimed != Some(raw_len) {
        return Err(wrong());
    }
    let mut out = Vec::new();
    if len <= AT_ONCE_MAX {
        out.reserve_exact(len.saturating_add(room));
        let mut decompressor = zstd::bulk::Decompressor::new().map_err(|_| wrong())?;
        decompressor.decompress_to_buffer(frame, &mut out).map_err(|_| wrong())?;
    } else {
        let decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(|_| wrong())?;
        decoder.take(raw_len.saturating_add(1)).read_to_end(&mut out).map_err(|_| wrong())?;
    }
    if out.len() == len { Ok(out) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_opened_only_as_what_they_are() {
        let raw = b"eat eat eat eat eat eat sleep".as_slice();
        let mut part = Vec::new();
        let len = Sealer::new(3).unwrap().seal(raw, &mut part).unwrap();
        assert_eq!(len, part.len() as u64);
        assert_eq!(open(&part, raw.len() as u64, 10, "it").unwrap(), raw);
        for wrong in [0, 28, 30, u64::MAX] {
            assert!(open(&part, wrong, 0, "it").is_err());
        }
        for cut in 0..part.len() {
            assert!(open(&part[..cut], 29, 0, "it").is_err());
        }
    }

    #[test]
    fn what_is_large_is_read_piece_by_piece() {
        let raw = vec![7; AT_ONCE_MAX + 1];
        let mut part = Vec::new();
        Sealer::new(1).unwrap().seal(&raw, &mut part).unwrap();
        assert_eq!(open(&part, raw.len() as u64, 0, "it").unwrap().len(), raw.len());
        assert!(open(&part, raw.len() as u64 + 1, 0, "it").is_err());
    }
}
