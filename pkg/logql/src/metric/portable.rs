//! Columns as bytes, for another process: every kind of cell, exactly.
//!
//! The format: its version; the kind; the number of the first pane; how many cells follow; the cells. A cell without samples is one byte.
//!
//! Invariants: the bits of numbers are kept, NaN and infinities included; no bytes make it panic, neither here nor when what they stand for
//! is merged: a column has at most [`MAX_SAMPLES`] samples.

use super::column::{Cell, Cells, Column, Count, First, Greatest, Kind, Last, Least, Moments, Place, Placed, Sum};
use super::quantile::Values;
use crate::portable::{Malformed, Source, put_float, put_number, put_signed};

/// The version of the format.
const VERSION: u8 = 1;

/// Most samples of a column that is taken from bytes, so that the sums of several do not overflow.
const MAX_SAMPLES: u64 = 1 << 56;

/// A cell that can be put into bytes and taken out again.
trait Portable: Cell {
    /// Only of cells that hold samples. What is written does not begin with 0.
    fn put(&self, out: &mut Vec<u8>);
    /// `first` is the number that the bytes begin with, not 0.
    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed>;
    /// How many samples it holds at least.
    fn samples(&self) -> u64 {
        1
    }
}

/// One and a value.
fn put_value(out: &mut Vec<u8>, value: f64) {
    out.push(1);
    put_float(out, value);
}

fn put_placed(out: &mut Vec<u8>, (place, value): &(Place, f64)) {
    put_signed(out, place.timestamp);
    out.extend_from_slice(&place.stream_hash.to_le_bytes());
    put_number(out, place.seq);
    put_number(out, place.index.into());
    put_float(out, *value);
}

fn take_placed(from: &mut Source<'_>) -> Result<(Place, f64), Malformed> {
    let timestamp = from.signed()?;
    let stream_hash = from.float()?.to_bits();
    let seq = from.number()?;
    let index = u32::try_from(from.number()?).map_err(|_| Malformed("a number is too large"))?;
    Ok((Place { timestamp, stream_hash, seq, index }, from.float()?))
}

/// The byte before a cell that is either empty or one value.
fn one(first: u64) -> Result<(), Malformed> {
    if first == 1 { Ok(()) } else { Err(Malformed("more than one value")) }
}

impl Portable for Count {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.0);
    }

    fn take(first: u64, _: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self(first))
    }

    fn samples(&self) -> u64 {
        self.0
    }
}

impl Portable for Sum {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.count);
        put_float(out, self.sum);
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { count: first, sum: from.float()? })
    }

    fn samples(&self) -> u64 {
        self.count
    }
}

impl Portable for Moments {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.count);
        put_float(out, self.mean);
        put_float(out, self.squares);
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { count: first, mean: from.float()?, squares: from.float()? })
    }

    fn samples(&self) -> u64 {
        self.count
    }
}

impl Portable for Least {
    fn put(&self, out: &mut Vec<u8>) {
        put_value(out, self.0.unwrap_or_default());
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        one(first)?;
        from.float().map(|value| Self(Some(value)))
    }
}

impl Portable for Greatest {
    fn put(&self, out: &mut Vec<u8>) {
        put_value(out, self.0.unwrap_or_default());
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        one(first)?;
        from.float().map(|value| Self(Some(value)))
    }
}

impl Portable for First {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_placed(out, &self.0.unwrap_or_default());
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        one(first)?;
        take_placed(from).map(|placed| Self(Some(placed)))
    }
}

impl Portable for Last {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_placed(out, &self.0.unwrap_or_default());
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        one(first)?;
        take_placed(from).map(|placed| Self(Some(placed)))
    }
}

impl Portable for Values {
    fn put(&self, out: &mut Vec<u8>) {
        let (runs, limit) = self.parts();
        put_number(out, runs.len() as u64);
        put_number(out, limit as u64);
        for (value, count) in runs {
            put_number(out, *count);
            put_float(out, *value);
        }
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        let limit = usize::try_from(from.number()?).unwrap_or(usize::MAX);
        let mut runs = Vec::new();
        // It ends with the bytes, if not before.
        for _ in 0..first {
            let count = from.number()?;
            runs.push((from.float()?, count));
        }
        Ok(Self::of_parts(runs, limit))
    }

    fn samples(&self) -> u64 {
        self.parts().0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

impl Portable for Placed {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.0.len() as u64);
        self.0.iter().for_each(|placed| put_placed(out, placed));
    }

    fn take(first: u64, from: &mut Source<'_>) -> Result<Self, Malformed> {
        let mut all = Vec::new();
        // As above.
        for _ in 0..first {
            all.push(take_placed(from)?);
        }
        Ok(Self(all))
    }

    fn samples(&self) -> u64 {
        self.0.len() as u64
    }
}

fn put_cells<T: Portable>(kind: u8, cells: &Cells<T>, out: &mut Vec<u8>) {
    out.push(kind);
    put_number(out, cells.base);
    put_number(out, cells.cells.len() as u64);
    for cell in &cells.cells {
        if cell.is_empty() {
            out.push(0);
        } else {
            cell.put(out);
        }
    }
}

fn take_cells<T: Portable>(from: &mut Source<'_>) -> Result<Cells<T>, Malformed> {
    let (base, len) = (from.number()?, from.count()?);
    // Whoever counts panes may go one beyond the last.
    if base.checked_add(len as u64).is_none_or(|end| end == u64::MAX) {
        return Err(Malformed("a number is too large"));
    }
    let mut cells = Cells { base, ..Cells::default() };
    let mut samples = 0_u64;
    for _ in 0..len {
        let cell = match from.number()? {
            0 => T::default(),
            first => {
                let cell = T::take(first, from)?;
                samples = samples.saturating_add(cell.samples());
                cell
            }
        };
        cells.cells.push_back(cell);
    }
    if samples > MAX_SAMPLES { Err(Malformed("too many samples")) } else { Ok(cells) }
}

impl Column {
    /// Writes the column as bytes, exactly, for another process.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match &self.0 {
            Kind::Count(cells) => put_cells(0, cells, out),
            Kind::Sum(cells) => put_cells(1, cells, out),
            Kind::Moments(cells) => put_cells(2, cells, out),
            Kind::Least(cells) => put_cells(3, cells, out),
            Kind::Greatest(cells) => put_cells(4, cells, out),
            Kind::First(cells) => put_cells(5, cells, out),
            Kind::Last(cells) => put_cells(6, cells, out),
            Kind::Values(cells) => put_cells(7, cells, out),
            Kind::Placed(cells) => put_cells(8, cells, out),
        }
    }

    /// The column that [`Column::put`] wrote. It takes memory within a constant of the length of the bytes.
    ///
    /// # Errors
    /// The bytes are not such.
    pub fn take(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Source::new(bytes, VERSION)?;
        let kind = match from.byte()? {
            0 => Kind::Count(take_cells(&mut from)?),
            1 => Kind::Sum(take_cells(&mut from)?),
            2 => Kind::Moments(take_cells(&mut from)?),
            3 => Kind::Least(take_cells(&mut from)?),
            4 => Kind::Greatest(take_cells(&mut from)?),
            5 => Kind::First(take_cells(&mut from)?),
            6 => Kind::Last(take_cells(&mut from)?),
            7 => Kind::Values(take_cells(&mut from)?),
            8 => Kind::Placed(take_cells(&mut from)?),
            _ => return Err(Malformed("no such kind of column")),
        };
        from.end()?;
        Ok(Self(kind))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ast::RangeOp;

    const OPS: [(RangeOp, bool); 9] = [
        (RangeOp::CountOverTime, false),
        (RangeOp::BytesRate, false),
        (RangeOp::AvgOverTime, true),
        (RangeOp::MinOverTime, true),
        (RangeOp::MaxOverTime, true),
        (RangeOp::FirstOverTime, true),
        (RangeOp::LastOverTime, true),
        (RangeOp::QuantileOverTime, true),
        (RangeOp::RateCounter, true),
    ];

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            Just(f64::NAN),
            Just(-0.0),
            Just(f64::NEG_INFINITY),
            0.0..9.0
        ]
    }

    prop_compose! {
        fn column()(
            of in prop::sample::select(&OPS[..]), base in prop_oneof![0..50_u64, Just(u64::MAX - 21)],
            samples in prop::collection::vec((0..20_u64, value(), any::<(i64, u64, u64, u32)>()), 0..60),
        ) -> Column {
            let mut column = Column::new(of.0, of.1);
            for (pane, value, (timestamp, stream_hash, seq, index)) in samples {
                let place = Place { timestamp, stream_hash, seq, index };
                column.add(base + pane, value, place, &mut { usize::MAX }).unwrap();
            }
            column
        }
    }

    fn bytes(column: &Column) -> Vec<u8> {
        let mut out = Vec::new();
        column.put(&mut out);
        out
    }

    proptest! {
        #[test]
        fn a_column_survives_to_the_bit(column in column()) {
            let first = bytes(&column);
            let again = Column::take(&first).unwrap();
            // NaN is not equal to itself: what is shown and what is written are.
            prop_assert_eq!(format!("{:?}", again), format!("{:?}", column));
            prop_assert_eq!(bytes(&again), first);
        }

        #[test]
        fn corrupt_bytes_are_an_error_or_a_column_that_can_be_used(
            column in column(), other in column(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut corrupt = bytes(&column);
            let cut = cut.index(corrupt.len());
            prop_assert!(Column::take(&corrupt[..cut]).is_err(), "shorter than it says");
            let at = at.index(corrupt.len());
            corrupt[at] = with;
            if let Ok(mut column) = Column::take(&corrupt) {
                prop_assert!(column.memory() <= 4096 + 160 * corrupt.len(), "{}", column.memory());
                let mut room = 1 << 20;
                let _full = column.merge(column.clone(), &mut room);
                let _full = column.merge(other, &mut room);
                column.forget_before(30);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(kind in 0..10_u8, rest in prop::collection::vec(any::<u8>(), 0..60)) {
            let _any = Column::take(&[&[VERSION, kind][..], &rest].concat());
            let _any = Column::take(&rest);
        }
    }
}
