//! Decompression, all of it: every compressed body of the product goes through here.
//!
//! Invariants: nothing larger than [`Caps::max_decompressed`] is ever produced or allocated, whatever a body claims; a claimed
//! length is checked before memory is asked for; what follows the end of a compressed stream is treated as Loki's readers treat it.

use std::io::Read;

use crate::Error;

/// How much a request may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Most bytes of a body as received (Loki: `max_recv_msg_size`).
    pub max_body: usize,
    /// Most bytes of a body after decompression (Loki: `max_decompressed_size`).
    pub max_decompressed: usize,
}

/// Loki's defaults. A server that has to stay within its memory sets a lower cap on what bodies become.
impl Default for Caps {
    fn default() -> Self {
        Self { max_body: 100 << 20, max_decompressed: 5000 << 20 }
    }
}

impl Caps {
    /// Refuses a body of `size` bytes that is over [`Caps::max_body`].
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_body(&self, size: usize) -> Result<(), Error> {
        if size > self.max_body {
            let text = format!("message size too large than max ({size} vs {})", self.max_body);
            return Err(Error::TooLarge(text.into()));
        }
        Ok(())
    }

    fn over(&self) -> Error {
        let max = self.max_decompressed;
        Error::TooLarge(format!("decompressed message size too large than max ({} vs {max})", max + 1).into())
    }

    fn check_decompressed(&self, size: u64) -> Result<(), Error> {
        if size > self.max_decompressed as u64 {
            let text = format!("decompressed message size too large than max ({size} vs {})", self.max_decompressed);
            return Err(Error::TooLarge(text.into()));
        }
        Ok(())
    }
}

/// Most bytes that a body can become, told from its coding and its first bytes alone; never more than
/// [`Caps::max_decompressed`] unless the body itself is longer. Bodies without a coding may be snappy's.
#[must_use]
pub fn expands_to(coding: &str, body: &[u8], caps: &Caps) -> usize {
    let most = match coding {
        "gzip" | "deflate" => body.len().saturating_mul(MAX_DEFLATE_RATIO),
        "zstd" => caps.max_decompressed,
        "lz4" => body.len().saturating_mul(MAX_LZ4_RATIO),
        // What is not snappy's may look like a claim, too; a claim is bounded by what snappy can do.
        _ => snap::raw::decompress_len(body).unwrap_or(0).min(body.len().saturating_mul(64)),
    };
    most.min(caps.max_decompressed).max(body.len())
}

/// A match of 258 bytes takes at least two bits of input.
const MAX_DEFLATE_RATIO: usize = 1032;

/// Each further byte of a match's length stands for 255 bytes.
const MAX_LZ4_RATIO: usize = 255;

/// Snappy's raw (block) format.
///
/// # Errors
/// [`Error::Malformed`] for corrupt input, [`Error::TooLarge`] for a claimed length over the cap.
pub fn snappy(body: &[u8], caps: &Caps) -> Result<Vec<u8>, Error> {
    let corrupt = |_| Error::malformed("snappy: corrupt input");
    let len = snap::raw::decompress_len(body).map_err(corrupt)?;
    // The format cannot express an empty body: an empty text is a length of 0, no bytes at all are not.
    if body.is_empty() {
        return Err(Error::malformed("snappy: corrupt input"));
    }
    caps.check_decompressed(len as u64)?;
    // One byte of input makes at most 64 bytes of output and a few: a claim far beyond that is a lie, and memory is not
    // asked for on the word of a liar.
    if len as u64 > (body.len() as u64).saturating_mul(MAX_SNAPPY_RATIO) {
        return Err(Error::malformed("snappy: corrupt input"));
    }
    let mut out = vec![0; len];
    let written = snap::raw::Decoder::new().decompress(body, &mut out).map_err(corrupt)?;
    out.truncate(written);
    Ok(out)
}

/// A copy of at most 64 bytes takes at least two bytes of input; literals make less.
const MAX_SNAPPY_RATIO: u64 = 64;

/// Gzip.
///
/// # Errors
/// [`Error::Malformed`] for corrupt input, [`Error::TooLarge`] for output over the cap.
pub fn gzip(body: &[u8], caps: &Caps) -> Result<Vec<u8>, Error> {
    let decoder = flate2::read::MultiGzDecoder::new(body);
    if decoder.header().is_none() {
        return Err(Error::malformed(if body.is_empty() { "EOF" } else { "gzip: invalid header" }));
    }
    read_capped(decoder, body.len(), caps, "flate: corrupt input")
}

/// Raw deflate, without zlib's envelope.
///
/// # Errors
/// [`Error::Malformed`] for corrupt input, [`Error::TooLarge`] for output over the cap.
pub fn deflate(body: &[u8], caps: &Caps) -> Result<Vec<u8>, Error> {
    read_capped(flate2::read::DeflateDecoder::new(body), body.len(), caps, "flate: corrupt input")
}

/// Zstandard, one frame or several.
///
/// # Errors
/// [`Error::Malformed`] for corrupt input, [`Error::TooLarge`] for output over the cap.
pub fn zstd(body: &[u8], caps: &Caps) -> Result<Vec<u8>, Error> {
    let corrupt = |_| Error::malformed("zstd: corrupt input");
    let (mut rest, mut out) = (body, Vec::new());
    while !rest.is_empty() {
        let frame = ruzstd::decoding::StreamingDecoder::new(&mut rest).map_err(corrupt)?;
        let left = Caps { max_decompressed: caps.max_decompressed - out.len(), ..*caps };
        let part = read_capped(frame, body.len(), &left, "zstd: corrupt input").map_err(|e| match e {
            Error::TooLarge(_) => caps.over(),
            other => other,
        })?;
        out.extend_from_slice(&part);
    }
    Ok(out)
}

/// LZ4's frame format.
///
/// # Errors
/// [`Error::Malformed`] for corrupt input, [`Error::TooLarge`] for output over the cap.
pub fn lz4(body: &[u8], caps: &Caps) -> Result<Vec<u8>, Error> {
    let out = read_capped(lz4_flex::frame::FrameDecoder::new(body), body.len(), caps, "lz4: corrupt input")?;
    // The decoder takes the end of the input for the end of the frame, also where blocks are missing. A frame ends with a block of
    // length 0, then perhaps a checksum of four bytes (bit 2 of the flags).
    let checksum = if body.get(4).is_some_and(|flags| flags & 4 != 0) { 4 } else { 0 };
    let end = body.len().saturating_sub(checksum);
    if !body[..end].ends_with(&[0; 4]) {
        return Err(Error::malformed("unexpected EOF"));
    }
    Ok(out)
}

/// Everything that `from` yields, one byte over the cap at most.
fn read_capped(from: impl Read, compressed: usize, caps: &Caps, corrupt: &'static str) -> Result<Vec<u8>, Error> {
    let cap = caps.max_decompressed as u64;
    let guess = compressed.saturating_mul(4).min(caps.max_decompressed);
    let mut out = Vec::with_capacity(guess);
    if let Err(e) = from.take(cap.saturating_add(1)).read_to_end(&mut out) {
        return Err(Error::malformed(match e.kind() {
            _ if out.is_empty() => "EOF",
            std::io::ErrorKind::UnexpectedEof => "unexpected EOF",
            _ => corrupt,
        }));
    }
    caps.check_decompressed(out.len() as u64)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::Kind;

    const CAPS: Caps = Caps { max_body: 1 << 20, max_decompressed: 1 << 20 };

    fn gz(body: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    }

    fn raw_deflate(body: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    }

    fn zst(body: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn lz(body: &[u8]) -> Vec<u8> {
        let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    }

    fn snap(body: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(body).unwrap()
    }

    type Coding = (&'static str, fn(&[u8]) -> Vec<u8>, fn(&[u8], &Caps) -> Result<Vec<u8>, Error>);

    const ALL: [Coding; 5] = [
        ("snappy", snap, snappy),
        ("gzip", gz, gzip),
        ("deflate", raw_deflate, deflate),
        ("zstd", zst, zstd),
        ("lz4", lz, lz4),
    ];

    #[test]
    fn every_coding_reads_back_up_to_the_cap() {
        for (name, encode, decode) in ALL {
            for len in [0, 1, 1000, CAPS.max_decompressed] {
                let body: Vec<u8> = (0..len).map(|i| ((i * i) >> 5) as u8).collect();
                assert_eq!(decode(&encode(&body), &CAPS).unwrap(), body, "{name} {len}");
            }
        }
    }

    #[test]
    fn bombs_are_refused_with_lokis_words() {
        let zeros = vec![0; 8 << 20];
        for (name, encode, decode) in ALL {
            let bomb = encode(&zeros);
            let error = decode(&bomb, &CAPS).unwrap_err();
            assert_eq!(error.kind(), Kind::TooLarge, "{name}");
            let text = error.to_string();
            assert!(
                text.starts_with("request body too large: decompressed message size too large than max ("),
                "{text}"
            );
            assert!(text.ends_with(" vs 1048576)"), "{text}");
        }
        let several: Vec<u8> = [zst(&zeros[..600 << 10]), zst(&zeros[..600 << 10])].concat();
        assert_eq!(zstd(&several, &CAPS).unwrap_err().kind(), Kind::TooLarge);
    }

    #[test]
    fn what_a_body_can_become_is_known_before_it_is_read() {
        let wide = Caps { max_body: usize::MAX, max_decompressed: usize::MAX };
        for (name, encode, _) in ALL {
            let bomb = encode(&vec![0; 8 << 20]);
            let most = expands_to(name, &bomb, &wide);
            assert!(most >= 8 << 20, "{name} {most}");
            assert_eq!(expands_to(name, &bomb, &CAPS), CAPS.max_decompressed.max(bomb.len()), "{name}");
        }
        assert_eq!(expands_to("", br#"{"streams":[]}"#, &CAPS), 123);
        assert_eq!(expands_to("", &snap(&[7; 1000]), &CAPS), 1000);
        assert_eq!(expands_to("", &[0xff; 20], &CAPS), 20);
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        // 4 GiB - 1 claimed by nine bytes.
        let claim = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], b"abcd"].concat();
        let wide = Caps { max_body: usize::MAX, max_decompressed: usize::MAX };
        assert_eq!(snappy(&claim, &wide).unwrap_err().to_string(), "snappy: corrupt input");
        assert_eq!(snappy(&claim, &CAPS).unwrap_err().kind(), Kind::TooLarge);
    }

    #[test]
    fn broken_input_is_the_senders_fault() {
        for (name, encode, decode) in ALL {
            let whole =
                encode(&(1..9000u32).flat_map(|i| i.wrapping_mul(0x0101_0101).to_le_bytes()).collect::<Vec<_>>());
            for cut in [1, 5, whole.len() / 2, whole.len() - 1] {
                let error = decode(&whole[..cut], &CAPS).expect_err(name);
                assert_eq!(error.kind(), Kind::BadRequest, "{name} {cut}: {error}");
            }
            assert!(decode(b"\xffgarbage\xff\xff", &CAPS).is_err(), "{name}");
        }
        assert_eq!(gzip(b"{}", &CAPS).unwrap_err().to_string(), "gzip: invalid header");
    }

    #[test]
    fn bodies_over_the_cap_are_refused_unread() {
        assert!(CAPS.check_body(1 << 20).is_ok());
        let text = CAPS.check_body((1 << 20) + 1).unwrap_err().to_string();
        assert_eq!(text, "request body too large: message size too large than max (1048577 vs 1048576)");
    }
}
