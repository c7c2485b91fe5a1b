//! The small columns of a page: times, lengths of lines, places.
//!
//! Invariants: entries are sorted by (timestamp, seq, index), so times never fall; stretches cover all entries; what is decoded adds up to
//! what the page table says of the page, or is refused.

use tailwater_model::Timestamp;

use super::PageInfo;
use super::varint::{Broken, Input, fold, len, put, put_signed};
use crate::entries::Place;

/// What is known of the entries of a page without their lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Nanoseconds since the epoch, never falling.
    pub times: Vec<i64>,
    /// Bytes of each line.
    pub lengths: Vec<u32>,
    /// The number of the entry with which each stretch of consecutive places begins, and its place; the first begins at 0.
    pub stretches: Vec<(u32, Place)>,
}

/// How differences of times are written: as they are.
const PLAIN: u8 = 1;
/// How differences of times are written: by how much each is larger than the one before it, signed; before the first lies 0.
const SECOND: u8 = 2;

impl Columns {
    pub(super) fn clear(&mut self) {
        self.times.clear();
        self.lengths.clear();
        self.stretches.clear();
    }

    /// Appends an entry that comes after all others.
    pub(super) fn push(&mut self, timestamp: i64, line_len: u32, place: Place) {
        let number = self.times.len() as u32;
        self.times.push(timestamp);
        self.lengths.push(line_len);
        let goes_on = self.stretches.last().is_some_and(|(first, begun)| {
            let index = begun.index.checked_add(number - first);
            (begun.seq, index, begun.accepted_at) == (place.seq, Some(place.index), place.accepted_at)
        });
        if !goes_on {
            self.stretches.push((number, place));
        }
    }

    /// Smallest and largest sequence number.
    pub(super) fn seqs(&self) -> (u64, u64) {
        let seqs = self.stretches.iter().map(|(_, place)| place.seq);
        (seqs.clone().min().unwrap_or_default(), seqs.max().unwrap_or_default())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_times(&self.times, out);
        self.lengths.iter().for_each(|len| put(out, (*len).into()));
        self.put_stretches(out);
    }

    fn put_stretches(&self, out: &mut Vec<u8>) {
        let stretches = &self.stretches;
        put(out, stretches.len() as u64);
        let ends = stretches.iter().skip(1).map(|(first, _)| *first).chain([self.times.len() as u32]);
        stretches.iter().zip(ends).for_each(|((first, _), end)| put(out, (end - first).into()));
        let mut before = 0;
        for (_, place) in stretches {
            put_signed(out, place.seq.wrapping_sub(before) as i64);
            before = place.seq;
        }
        stretches.iter().for_each(|(_, place)| put(out, place.index.into()));
        let mut before = 0_i64;
        for (_, place) in stretches {
            put_signed(out, place.accepted_at.nanos().wrapping_sub(before));
            before = place.accepted_at.nanos();
        }
    }

    /// Reads the columns of a page from the beginning of its small part.
    pub(super) fn decode(input: &mut Input<'_>, page: &PageInfo) -> Result<Self, Broken> {
        let lines = page.lines as usize;
        // Times and lengths take a byte each.
        if lines == 0 || lines > input.left() {
            return Err(Broken("it has another number of entries"));
        }
        let times = times(input, lines)?;
        let lengths = (0..lines).map(|_| input.small()).collect::<Result<Vec<_>, _>>()?;
        let columns = Self { times, lengths, stretches: stretches(input, page.lines)? };
        let bytes: u64 = columns.lengths.iter().map(|len| u64::from(*len)).sum();
        let ends = (columns.times.first().copied(), columns.times.last().copied());
        if bytes != page.bytes || ends != (Some(page.min), Some(page.max)) {
            return Err(Broken("it is another page than the table says"));
        }
        if columns.seqs() != (page.min_seq, page.max_seq) {
            return Err(Broken("it has other places than the table says"));
        }
        Ok(columns)
    }
}

fn put_times(times: &[i64], out: &mut Vec<u8>) {
    put_signed(out, times.first().copied().unwrap_or_default());
    let deltas = times.array_windows().map(|[a, b]| b.wrapping_sub(*a) as u64);
    let mut exponent = 9;
    for delta in deltas.clone() {
        while delta % 10_u64.pow(exponent) != 0 {
            exponent -= 3;
        }
    }
    let scale = 10_u64.pow(exponent);
    let deltas = deltas.map(|d| d / scale);
    let seconds =
        deltas.clone().scan(0_u64, |before, d| Some(fold(d.wrapping_sub(std::mem::replace(before, d)) as i64)));
    let size = |numbers: &mut dyn Iterator<Item = u64>| numbers.map(len).sum::<usize>();
    let order = if size(&mut seconds.clone()) < size(&mut deltas.clone()) { SECOND } else { PLAIN };
    out.extend([exponent as u8, order]);
    match order {
        SECOND => seconds.for_each(|d| put(out, d)),
        _ => deltas.for_each(|d| put(out, d)),
    }
}

fn times(input: &mut Input<'_>, lines: usize) -> Result<Vec<i64>, Broken> {
    let mut time = input.signed()?;
    let [exponent, order] = input.array()?;
    if ![0, 3, 6, 9].contains(&exponent) || ![PLAIN, SECOND].contains(&order) {
        return Err(Broken("its times are of an unknown kind"));
    }
    let scale = 10_u64.pow(exponent.into());
    let mut times = Vec::with_capacity(lines);
    times.push(time);
    let mut delta = 0_u64;
    for _ in 1..lines {
        delta = if order == SECOND { delta.wrapping_add_signed(input.signed()?) } else { input.number()? };
        let later = delta.checked_mul(scale).and_then(|d| time.checked_add_unsigned(d));
        time = later.ok_or(Broken("a time is out of range"))?;
        times.push(time);
    }
    Ok(times)
}

fn stretches(input: &mut Input<'_>, lines: u32) -> Result<Vec<(u32, Place)>, Broken> {
    let count = input.count()?;
    let mut stretches = Vec::with_capacity(count);
    let mut first = 0_u32;
    for _ in 0..count {
        stretches.push((first, Place { seq: 0, index: 0, accepted_at: Timestamp(0) }));
        let len = input.small()?;
        let end = first.checked_add(len).filter(|_| len > 0);
        first = end.ok_or(Broken("its places are of another number of entries"))?;
    }
    if first != lines {
        return Err(Broken("its places are of another number of entries"));
    }
    let mut seq = 0_u64;
    for (_, place) in &mut stretches {
        seq = seq.wrapping_add_signed(input.signed()?);
        place.seq = seq;
    }
    for (_, place) in &mut stretches {
        place.index = input.small()?;
    }
    let mut accepted_at = 0_i64;
    for (_, place) in &mut stretches {
        accepted_at = accepted_at.wrapping_add(input.signed()?);
        place.accepted_at = Timestamp(accepted_at);
    }
    Ok(stretches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(times: &[i64]) -> usize {
        let mut out = Vec::new();
        put_times(times, &mut out);
        let mut input = Input::new(&out);
        assert_eq!(super::times(&mut input, times.len()).unwrap(), times);
        assert_eq!(input.left(), 0);
        out.len()
    }

    #[test]
    fn times_are_scaled_and_regular_ones_are_small() {
        let regular: Vec<_> = (0..100).map(|i| 1_700_000_000_000_000_123 + i * 5_000_000).collect();
        assert_eq!(round_trip(&regular), 9 + 2 + 99);
        let spread: Vec<_> = (0..100).map(|i| i * i * 1_000_000_000).collect();
        assert!(round_trip(&spread) < 2 + 2 + 99 * 2);
    }

    #[test]
    fn times_may_be_extreme() {
        round_trip(&[i64::MIN]);
        round_trip(&[i64::MIN, i64::MAX]);
        round_trip(&[i64::MIN, i64::MIN, -1, 0, 0, 1, i64::MAX, i64::MAX]);
        round_trip(&[0, 0, i64::MAX, i64::MAX]);
    }
}
