//! The bytes of segment headers and records; see [the module](super) for the layout.
//!
//! Invariants: whatever the bytes, decoding neither panics nor allocates more than a tenant id. The checksum of a record's header begins
//! with the log's id, so records of another log, or of a log that somebody shipped as a line, are not records here.

use tailwater_model::{LogId, TenantId, Timestamp};

use super::{Record, Why};

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: u64 = 64;

/// Bytes of the fixed part of a record's header.
pub(super) const RECORD_HEADER: usize = 28;

/// Most bytes that follow it before the payload: a tenant id of 150 bytes and the numbers take 197.
pub(super) const MAX_META: usize = 512;

/// Largest payload, in bytes. Larger than any push body that a server takes, small enough to be allocated when a header asks for it.
pub const MAX_PAYLOAD: usize = 1 << 30;

/// First bytes of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"TAILWAL\n";

/// First bytes of a record: not text, so that it is rare in payloads.
pub(super) const RECORD_MAGIC: [u8; 4] = [0xc5, b'T', b'W', 0xd2];

const VERSION: u16 = 1;

/// The kind of a record that holds a batch.
const KIND_BATCH: u8 = 1;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) log: LogId,
    /// Its first record's number.
    pub(super) first: u64,
    /// The first number that it speaks for. Those from here up to `first` are not in the log.
    pub(super) from: u64,
    /// Why they are not.
    pub(super) why: Why,
}

/// What is wrong with a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// It is not what was written.
    Corrupt,
    /// It was written by a version that this one does not know.
    Newer(u16),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = self.why.code();
        bytes[16..32].copy_from_slice(&self.log.as_u128().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.from.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let mut at = Reader(bytes);
        let mut decode = || {
            (at.array()? == SEGMENT_MAGIC).then_some(())?;
            let version = u16::from_le_bytes(at.array()?);
            let why = Why::from_code(at.array::<1>()?[0]);
            at.array::<5>()?;
            let log = LogId::from_u128(u128::from_le_bytes(at.array()?));
            let first = u64::from_le_bytes(at.array()?);
            let from = u64::from_le_bytes(at.array()?);
            at.array::<12>()?;
            let crc = u32::from_le_bytes(at.array()?);
            (crc == crc32c::crc32c(bytes.get(..60)?)).then_some(())?;
            Some((version, log, first, from, why))
        };
        let (version, log, first, from, why) = decode().ok_or(BadHeader::Corrupt)?;
        if version != VERSION {
            return Err(BadHeader::Newer(version));
        }
        match why {
            Some(why) if from >= 1 && from <= first => Ok(Self { log, first, from, why }),
            _ => Err(BadHeader::Corrupt),
        }
    }
}

/// The checksum that those of a log's record headers begin with.
pub(super) fn seed(log: LogId) -> u32 {
    crc32c::crc32c(&log.as_u128().to_le_bytes())
}

/// A record without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    /// Bytes from its start to its payload.
    pub(super) head_len: usize,
    pub(super) payload_len: usize,
    pub(super) payload_crc: u32,
    pub(super) tenant: TenantId,
    pub(super) accepted_at: Timestamp,
    pub(super) tenant_lines: u64,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) lines: u32,
}

/// What bytes are, taken as a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Head(Head),
    /// They end before the fixed header does, and are a beginning of one.
    Short,
    /// No record.
    Bad(&'static str),
}

/// Writes all of a record but its payload. The payload is at most [`MAX_PAYLOAD`] bytes.
pub(super) fn encode_head(into: &mut Vec<u8>, seed: u32, record: &Record<'_>, payload: &[&[u8]]) {
    let payload_len: usize = payload.iter().map(|part| part.len()).sum();
    let payload_crc = payload.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    into.clear();
    into.resize(RECORD_HEADER, 0);
    let tenant = record.tenant.as_str().as_bytes();
    let accepted = record.accepted_at.nanos();
    varint(into, tenant.len() as u64);
    into.extend_from_slice(tenant);
    varint(into, zigzag(accepted));
    varint(into, record.tenant_lines);
    varint(into, zigzag(record.min.wrapping_sub(accepted)));
    varint(into, record.max.wrapping_sub(record.min) as u64);
    varint(into, u64::from(record.lines));
    let meta_len = (into.len() - RECORD_HEADER) as u16;
    into[..4].copy_from_slice(&RECORD_MAGIC);
    into[8..12].copy_from_slice(&(payload_len as u32).to_le_bytes());
    into[12..16].copy_from_slice(&payload_crc.to_le_bytes());
    into[16..24].copy_from_slice(&record.seq.to_le_bytes());
    into[24..26].copy_from_slice(&meta_len.to_le_bytes());
    into[26] = KIND_BATCH;
    let crc = crc32c::crc32c_append(seed, &into[8..]);
    into[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads all of a record but its payload. `known`: a tenant that it may well be of, to save making its id again.
pub(super) fn decode_head(bytes: &[u8], seed: u32, known: Option<&TenantId>) -> Parsed {
    if bytes.len() < RECORD_HEADER {
        let begin = bytes.len().min(RECORD_MAGIC.len());
        return if bytes[..begin] == RECORD_MAGIC[..begin] {
            Parsed::Short
        } else {
            Parsed::Bad("no record begins here")
        };
    }
    let mut at = Reader(bytes);
    let mut fixed = || {
        (at.array()? == RECORD_MAGIC).then_some(())?;
        let crc = u32::from_le_bytes(at.array()?);
        let payload_len = u32::from_le_bytes(at.array()?) as usize;
        let payload_crc = u32::from_le_bytes(at.array()?);
        let seq = u64::from_le_bytes(at.array()?);
        let meta_len = usize::from(u16::from_le_bytes(at.array()?));
        let [kind, _] = at.array()?;
        Some((crc, payload_len, payload_crc, seq, meta_len, kind))
    };
    let Some((crc, payload_len, payload_crc, seq, meta_len, kind)) = fixed() else {
        return Parsed::Bad("no record begins here");
    };
    let head_len = RECORD_HEADER + meta_len;
    let checked = bytes.get(8..head_len).filter(|_| meta_len <= MAX_META && payload_len <= MAX_PAYLOAD);
    if checked.is_none_or(|checked| crc32c::crc32c_append(seed, checked) != crc) {
        return Parsed::Bad("the checksum of a record's header is wrong");
    }
    if kind != KIND_BATCH {
        return Parsed::Bad("a record is of an unknown kind");
    }
    let mut meta = || {
        let tenant_len = usize::try_from(at.varint()?).ok()?;
        let tenant = std::str::from_utf8(at.take(tenant_len)?).ok()?;
        let tenant = match known {
            Some(known) if known.as_str() == tenant => known.clone(),
            _ => TenantId::parse(tenant).ok()?,
        };
        let accepted = unzigzag(at.varint()?);
        let tenant_lines = at.varint()?;
        let min = accepted.wrapping_add(unzigzag(at.varint()?));
        let max = min.wrapping_add(at.varint()? as i64);
        let lines = u32::try_from(at.varint()?).ok()?;
        let accepted_at = Timestamp(accepted);
        Some(Head { seq, head_len, payload_len, payload_crc, tenant, accepted_at, tenant_lines, min, max, lines })
    };
    meta().map_or(Parsed::Bad("what a record says about itself is impossible"), Parsed::Head)
}

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

fn varint(into: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        into.push(v as u8 | 0x80);
        v >>= 7;
    }
    into.push(v as u8);
}

/// Takes bytes off the front, as long as there are any.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut v = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            v |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(v);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: LogId = LogId::from_u128(7);

    fn head_of(bytes: &[u8]) -> Parsed {
        decode_head(bytes, seed(LOG), None)
    }

    proptest! {
        #[test]
        fn a_record_reads_back(
            seq in 1..=u64::MAX, tenant in "[a-z]{1,150}", accepted in any::<i64>(), tenant_lines in any::<u64>(),
            min in any::<i64>(), max in any::<i64>(), lines in any::<u32>(), payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let tenant = TenantId::parse(&tenant).unwrap();
            let accepted_at = Timestamp(accepted);
            let record = Record { seq, accepted_at, tenant: &tenant, tenant_lines, min, max, lines };
            let mut bytes = Vec::new();
            let (left, right) = payload.split_at(payload.len() / 2);
            encode_head(&mut bytes, seed(LOG), &record, &[left, right]);
            let head_len = bytes.len();
            let payload_crc = crc32c::crc32c(&payload);
            let payload_len = payload.len();
            bytes.extend_from_slice(&payload);
            let head = Head { seq, head_len, payload_len, payload_crc, tenant: tenant.clone(), accepted_at, tenant_lines, min, max, lines };
            prop_assert!(head_len <= RECORD_HEADER + MAX_META);
            prop_assert_eq!(head_of(&bytes), Parsed::Head(head.clone()));
            prop_assert_eq!(decode_head(&bytes, seed(LOG), Some(&tenant)), Parsed::Head(head));
            prop_assert!(matches!(decode_head(&bytes, seed(LogId::from_u128(8)), None), Parsed::Bad(_)));
            for len in 0..head_len {
                let expect_short = len < RECORD_HEADER;
                prop_assert_eq!(matches!(head_of(&bytes[..len]), Parsed::Short), expect_short);
                prop_assert!(!matches!(head_of(&bytes[..len]), Parsed::Head(_)));
            }
            for at in 0..head_len {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x40;
                prop_assert!(matches!(head_of(&wrong), Parsed::Bad(_)));
            }
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), sealed in any::<bool>()) {
            let mut bytes = bytes;
            if sealed && bytes.len() > RECORD_HEADER {
                // As if written by somebody who knows the checksum.
                bytes[..4].copy_from_slice(&RECORD_MAGIC);
                bytes[11] = 0;
                bytes[26] = KIND_BATCH;
                let meta_len = bytes.len() - RECORD_HEADER;
                bytes[24..26].copy_from_slice(&(meta_len as u16).to_le_bytes());
                let crc = crc32c::crc32c_append(seed(LOG), &bytes[8..]);
                bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            }
            head_of(&bytes);
            let _ = SegmentHeader::decode(&bytes);
        }

        #[test]
        fn a_segment_header_reads_back(first in 1..=u64::MAX, skipped in any::<u64>(), log in any::<u128>()) {
            let header =
                SegmentHeader { log: LogId::from_u128(log), first, from: first.saturating_sub(skipped).max(1), why: Why::Crash };
            let bytes = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
            for at in 0..bytes.len() {
                let mut wrong = bytes;
                wrong[at] ^= 1;
                prop_assert_eq!(SegmentHeader::decode(&wrong), Err(BadHeader::Corrupt));
                prop_assert_eq!(SegmentHeader::decode(&bytes[..at]), Err(BadHeader::Corrupt));
            }
        }
    }

    #[test]
    fn a_segment_of_a_newer_version_is_told_apart() {
        let mut bytes = SegmentHeader { log: LOG, first: 1, from: 1, why: Why::Trimmed }.encode();
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Newer(9)));
    }
}
