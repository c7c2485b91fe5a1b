//! Partial aggregates: what the samples of one series are worth together, pane by pane.
//!
//! Invariants:
//! * Adding and merging may happen in any order and in any grouping: the result is the same but for the rounding of floating-point sums.
//!   So workers and ingesters each collect their own columns.
//! * A pane without samples is told apart from one whose aggregate is zero.
//! * A column covers the panes between its first and its last sample and says how much memory it takes as it grows.

use std::collections::VecDeque;

use super::quantile::Values;
use crate::ast::RangeOp;

/// Where a sample stands among the others of its series: by time, then by stream, then by place in the log (contract, LogQL §14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its timestamp.
    pub timestamp: i64,
    /// [`tailwater_model::Labels::loki_hash`] of its stream.
    pub stream_hash: u64,
    /// Its batch.
    pub seq: u64,
    /// Its place in the batch.
    pub index: u32,
}

/// What a pane holds.
pub(super) trait Cell: Clone + Default {
    /// Takes a sample in; answers how much more memory is used beyond the cell itself.
    fn add(&mut self, value: f64, place: Place) -> usize;
    /// Takes another cell's samples in; answers the same.
    fn merge(&mut self, other: Self) -> usize;
    fn is_empty(&self) -> bool;
    /// Memory that is used beyond the cell itself.
    fn beyond(&self) -> usize {
        0
    }
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl Cell for Count {
    fn add(&mut self, _: f64, _: Place) -> usize {
        self.0 += 1;
        0
    }

    fn merge(&mut self, other: Self) -> usize {
        self.0 += other.0;
        0
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

/// Their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) sum: f64,
}

impl Cell for Sum {
    fn add(&mut self, value: f64, _: Place) -> usize {
        self.count += 1;
        self.sum += value;
        0
    }

    fn merge(&mut self, other: Self) -> usize {
        self.count += other.count;
        self.sum += other.sum;
        0
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Their mean and the sum of squared distances from it (Welford; merged as Chan, Golub and LeVeque do, 1979).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

impl Cell for Moments {
    fn add(&mut self, value: f64, _: Place) -> usize {
        self.count += 1;
        if self.count == 1 {
            self.mean = value;
            // A value that is not finite has no distance, not even from itself.
            self.squares = if value.is_finite() { 0.0 } else { f64::NAN };
            return 0;
        }
        if self.mean.is_infinite() && (value.is_finite() || value == self.mean) {
            // An infinite mean stays; its distances have no meaning.
            self.squares = f64::NAN;
            return 0;
        }
        let delta = value - self.mean;
        let count = self.count as f64;
        // Divided before they meet, so that large values do not overflow.
        self.mean += value / count - self.mean / count;
        self.squares += delta * (value - self.mean);
        0
    }

    fn merge(&mut self, other: Self) -> usize {
        if self.count == 0 || other.count == 0 {
            *self = if self.count == 0 { other } else { *self };
            return 0;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let (left, right) = (self.mean, other.mean);
        self.count += other.count;
        if left.is_infinite() && (right.is_finite() || left == right) {
            self.squares = f64::NAN;
            return 0;
        }
        if right.is_infinite() && left.is_finite() {
            (self.mean, self.squares) = (right, f64::NAN);
            return 0;
        }
        let delta = right - left;
        // Equal means stay as they are. What is too large for that is weighed.
        let weighed = || left * (a / (a + b)) + right * (b / (a + b));
        self.mean = if delta.is_infinite() { weighed() } else { left + delta * (b / (a + b)) };
        self.squares += other.squares + delta * delta * (a / (a + b)) * b;
        0
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The least of them; NaN only if all are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Least(pub(super) Option<f64>);

/// The greatest of them; NaN only if all are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Greatest(pub(super) Option<f64>);

impl Cell for Least {
    fn add(&mut self, value: f64, _: Place) -> usize {
        self.0 = Some(self.0.filter(|known| !known.is_nan() && (value.is_nan() || *known <= value)).unwrap_or(value));
        0
    }

    fn merge(&mut self, other: Self) -> usize {
        other.0.map_or(0, |value| self.add(value, Place::default()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Cell for Greatest {
    fn add(&mut self, value: f64, _: Place) -> usize {
        self.0 = Some(self.0.filter(|known| !known.is_nan() && (value.is_nan() || *known >= value)).unwrap_or(value));
        0
    }

    fn merge(&mut self, other: Self) -> usize {
        other.0.map_or(0, |value| self.add(value, Place::default()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// The first of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct First(pub(super) Option<(Place, f64)>);

/// The last of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Last(pub(super) Option<(Place, f64)>);

impl Cell for First {
    fn add(&mut self, value: f64, place: Place) -> usize {
        if self.0.is_none_or(|(known, _)| place < known) {
            self.0 = Some((place, value));
        }
        0
    }

    fn merge(&mut self, other: Self) -> usize {
        other.0.map_or(0, |(place, value)| self.add(value, place))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Cell for Last {
    fn add(&mut self, value: f64, place: Place) -> usize {
        if self.0.is_none_or(|(known, _)| place >= known) {
            self.0 = Some((place, value));
        }
        0
    }

    fn merge(&mut self, other: Self) -> usize {
        other.0.map_or(0, |(place, value)| self.add(value, place))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// All of them with their places: a counter's resets show only in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Placed(pub(super) Vec<(Place, f64)>);

/// Pushes and answers how much the allocation grew.
fn push<T>(all: &mut Vec<T>, one: T) -> usize {
    let before = all.capacity();
    all.push(one);
    (all.capacity() - before) * size_of::<T>()
}

/// Appends and answers how much the allocation grew.
fn append<T>(all: &mut Vec<T>, mut more: Vec<T>) -> usize {
    let before = all.capacity();
    if all.is_empty() {
        *all = more;
    } else {
        all.append(&mut more);
    }
    all.capacity().saturating_sub(before) * size_of::<T>()
}

impl Cell for Placed {
    fn beyond(&self) -> usize {
        self.0.capacity() * size_of::<(Place, f64)>()
    }

    fn add(&mut self, value: f64, place: Place) -> usize {
        push(&mut self.0, (place, value))
    }

    fn merge(&mut self, other: Self) -> usize {
        append(&mut self.0, other.0)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The cells of the panes from the first that holds a sample to the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cells<T> {
    pub(super) base: u64,
    pub(super) cells: VecDeque<T>,
}

impl<T: Cell> Cells<T> {
    /// How many more bytes it takes to reach a pane.
    fn growth(&self, pane: u64) -> u64 {
        let len = self.cells.len() as u64;
        let more = if len == 0 {
            1
        } else if pane < self.base {
            self.base - pane
        } else {
            (pane - self.base).saturating_add(1).saturating_sub(len)
        };
        more.saturating_mul(size_of::<T>() as u64)
    }

    /// The cell of a pane. The caller has made sure that there is room up to there.
    fn reach(&mut self, pane: u64) -> &mut T {
        if self.cells.is_empty() {
            self.base = pane;
        }
        while pane < self.base {
            self.cells.push_front(T::default());
            self.base -= 1;
        }
        let index = (pane - self.base) as usize;
        if index >= self.cells.len() {
            self.cells.resize(index + 1, T::default());
        }
        &mut self.cells[index]
    }

    /// The first pane and the one behind the last.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.base..self.base + self.cells.len() as u64
    }

    /// The cell of a pane, if it holds a sample.
    pub(super) fn get(&self, pane: u64) -> Option<&T> {
        let index = usize::try_from(pane.checked_sub(self.base)?).ok()?;
        self.cells.get(index).filter(|cell| !cell.is_empty())
    }

    /// The same panes with other cells.
    pub(super) fn map<U>(self, make: impl FnMut(T) -> U) -> Cells<U> {
        Cells { base: self.base, cells: self.cells.into_iter().map(make).collect() }
    }

    fn memory(&self) -> usize {
        self.cells.capacity() * size_of::<T>() + self.cells.iter().map(Cell::beyond).sum::<usize>()
    }

    fn forget_before(&mut self, pane: u64) {
        while self.base < pane && self.cells.pop_front().is_some() {
            self.base += 1;
        }
    }
}

/// The partial aggregates of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Column(pub(super) Kind);

/// What a column's cells hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Count(Cells<Count>),
    Sum(Cells<Sum>),
    Moments(Cells<Moments>),
    Least(Cells<Least>),
    Greatest(Cells<Greatest>),
    First(Cells<First>),
    Last(Cells<Last>),
    Values(Cells<Values>),
    Placed(Cells<Placed>),
}

/// A column would take more memory than there is. It is unchanged; with more room the same may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// How many bytes are needed, at least 1.
    pub needed: usize,
}

/// Calls the same for whatever cells there are.
macro_rules! each {
    ($kind:expr, $cells:ident => $body:expr) => {
        match $kind {
            Kind::Count($cells) => $body,
            Kind::Sum($cells) => $body,
            Kind::Moments($cells) => $body,
            Kind::Least($cells) => $body,
            Kind::Greatest($cells) => $body,
            Kind::First($cells) => $body,
            Kind::Last($cells) => $body,
            Kind::Values($cells) => $body,
            Kind::Placed($cells) => $body,
        }
    };
}

impl Column {
    /// An empty column for an operation. `unwrapped`: samples are worth what they say, not one each.
    pub(super) fn new(op: RangeOp, unwrapped: bool) -> Self {
        Self(match op {
            RangeOp::CountOverTime | RangeOp::AbsentOverTime => Kind::Count(Cells::default()),
            RangeOp::Rate if !unwrapped => Kind::Count(Cells::default()),
            RangeOp::Rate | RangeOp::BytesRate | RangeOp::BytesOverTime | RangeOp::SumOverTime => {
                Kind::Sum(Cells::default())
            }
            RangeOp::AvgOverTime | RangeOp::StddevOverTime | RangeOp::StdvarOverTime => Kind::Moments(Cells::default()),
            RangeOp::MinOverTime => Kind::Least(Cells::default()),
            RangeOp::MaxOverTime => Kind::Greatest(Cells::default()),
            RangeOp::FirstOverTime => Kind::First(Cells::default()),
            RangeOp::LastOverTime => Kind::Last(Cells::default()),
            RangeOp::QuantileOverTime => Kind::Values(Cells::default()),
            RangeOp::RateCounter => Kind::Placed(Cells::default()),
        })
    }

    /// Takes a sample of a pane in. `room` is how much memory may still be taken, in bytes.
    ///
    /// # Errors
    /// It takes more.
    pub fn add(&mut self, pane: u64, value: f64, place: Place, room: &mut usize) -> Result<(), Full> {
        each!(&mut self.0, cells => {
            take(room, cells.growth(pane))?;
            let more = cells.reach(pane).add(value, place);
            *room = room.saturating_sub(more);
        });
        Ok(())
    }

    /// Takes samples of one pane in, of which only the number and the sum are known; only for columns that count or add up.
    ///
    /// # Errors
    /// As [`Column::add`].
    pub fn add_many(&mut self, pane: u64, count: u64, sum: f64, room: &mut usize) -> Result<(), Full> {
        match &mut self.0 {
            Kind::Count(cells) => {
                take(room, cells.growth(pane))?;
                cells.reach(pane).merge(Count(count));
            }
            Kind::Sum(cells) => {
                take(room, cells.growth(pane))?;
                cells.reach(pane).merge(Sum { count, sum });
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes another column's samples in. Columns of different kinds do not meet: they are of one query.
    ///
    /// # Errors
    /// As [`Column::add`].
    pub fn merge(&mut self, other: Self, room: &mut usize) -> Result<(), Full> {
        fn merge<T: Cell>(into: &mut Cells<T>, from: Cells<T>, room: &mut usize) -> Result<(), Full> {
            for (pane, cell) in (from.base..).zip(from.cells) {
                if !cell.is_empty() {
                    take(room, into.growth(pane))?;
                    let more = into.reach(pane).merge(cell);
                    *room = room.saturating_sub(more);
                }
            }
            Ok(())
        }
        match (&mut self.0, other.0) {
            (Kind::Count(a), Kind::Count(b)) => merge(a, b, room),
            (Kind::Sum(a), Kind::Sum(b)) => merge(a, b, room),
            (Kind::Moments(a), Kind::Moments(b)) => merge(a, b, room),
            (Kind::Least(a), Kind::Least(b)) => merge(a, b, room),
            (Kind::Greatest(a), Kind::Greatest(b)) => merge(a, b, room),
            (Kind::First(a), Kind::First(b)) => merge(a, b, room),
            (Kind::Last(a), Kind::Last(b)) => merge(a, b, room),
            (Kind::Values(a), Kind::Values(b)) => merge(a, b, room),
            (Kind::Placed(a), Kind::Placed(b)) => merge(a, b, room),
            _ => Ok(()),
        }
    }

    /// Forgets the panes before one; what moves on through time needs them no more.
    pub fn forget_before(&mut self, pane: u64) {
        each!(&mut self.0, cells => cells.forget_before(pane));
    }

    /// How much memory it takes now beyond itself, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        each!(&self.0, cells => cells.memory())
    }

    /// Whether it holds no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        each!(&self.0, cells => cells.cells.iter().all(Cell::is_empty))
    }
}

/// Takes room for a column to grow. What cells hold beyond themselves is taken when it is there; when nothing is left, nothing grows.
fn take(room: &mut usize, bytes: u64) -> Result<(), Full> {
    let needed = usize::try_from(bytes).unwrap_or(usize::MAX).max(1);
    if needed > *room {
        return Err(Full { needed });
    }
    if bytes > 0 {
        *room -= needed;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(timestamp: i64, stream_hash: u64, seq: u64) -> Place {
        Place { timestamp, stream_hash, seq, index: 0 }
    }

    /// One pane of these samples.
    fn cell<T: Cell>(values: &[f64]) -> T {
        let mut cell = T::default();
        values.iter().for_each(|value| {
            cell.add(*value, Place::default());
        });
        cell
    }

    #[test]
    fn a_column_reaches_from_its_first_sample_to_its_last() {
        let mut column = Column::new(RangeOp::CountOverTime, false);
        assert!(column.is_empty());
        let mut room = 1000;
        for pane in [5, 3, 3] {
            column.add(pane, 0.0, Place::default(), &mut room).unwrap();
        }
        let Kind::Count(cells) = &column.0 else { panic!("{column:?}") };
        assert_eq!(
            (cells.range(), cells.get(3), cells.get(4), cells.get(5)),
            (3..6, Some(&Count(2)), None, Some(&Count(1)))
        );
        assert_eq!((cells.get(2), cells.get(6), cells.get(u64::MAX)), (None, None, None));
        assert_eq!(room, 1000 - 3 * size_of::<Count>());

        column.forget_before(4);
        assert!(!column.is_empty());
        column.forget_before(6);
        assert!(column.is_empty());
    }

    #[test]
    fn what_has_no_room_changes_nothing() {
        let mut column = Column::new(RangeOp::SumOverTime, true);
        let mut room = 100;
        column.add(7, 1.0, Place::default(), &mut room).unwrap();
        let (before, left) = (column.clone(), room);
        let far = 1_000_000;
        let full = column.add(far, 1.0, Place::default(), &mut room).unwrap_err();
        assert_eq!(full.needed, (far as usize - 7) * size_of::<Sum>());
        assert_eq!(column.add_many(far, 2, 1.0, &mut room), Err(full));
        let mut other = Column::new(RangeOp::SumOverTime, true);
        other.add(far, 1.0, Place::default(), &mut 100).unwrap();
        assert_eq!(column.merge(other, &mut room), Err(full));
        assert_eq!(
            column.add(u64::MAX, 1.0, Place::default(), &mut room).map_err(|f| f.needed > full.needed),
            Err(true)
        );
        assert_eq!((&column, room), (&before, left));

        column.add(far, 1.0, Place::default(), &mut full.needed.clone()).unwrap();
        assert_ne!(column, before);
        // Samples that are kept take room even within a cell.
        let mut values = Column::new(RangeOp::QuantileOverTime, true);
        let mut room = 200;
        let refused = (0..1000).find(|i| values.add(0, f64::from(*i), Place::default(), &mut room).is_err());
        assert!(refused.is_some());
        let Kind::Values(cells) = &values.0 else { panic!("{values:?}") };
        assert!(cells.get(0).is_some_and(|v| v.len() < 100), "{values:?}");
    }

    #[test]
    fn many_samples_are_worth_what_each_is() {
        let (mut one, mut many) = (Column::new(RangeOp::BytesRate, false), Column::new(RangeOp::BytesRate, false));
        let mut room = 1000;
        for value in [1.0, 2.0, 3.0] {
            one.add(4, value, Place::default(), &mut room).unwrap();
        }
        many.add_many(4, 3, 6.0, &mut room).unwrap();
        assert_eq!(one, many);
    }

    #[test]
    fn means_and_distances_come_together() {
        let moments = |values: &[f64]| cell::<Moments>(values);
        let merged = |left: &[f64], right: &[f64]| {
            let mut all = moments(left);
            all.merge(moments(right));
            (all.count, all.mean, all.squares)
        };
        assert_eq!(merged(&[1.0, 3.0], &[5.0, 7.0]), (4, 4.0, 20.0));
        assert_eq!(merged(&[], &[5.0, 7.0]), (2, 6.0, 2.0));
        assert_eq!(merged(&[0.1; 3], &[0.1; 7]), (10, 0.1, 0.0), "what is equal is not spread");
        assert_eq!(merged(&[f64::MAX], &[-f64::MAX]).1, 0.0);
        let infinity = f64::INFINITY;
        for (left, right) in [(&[infinity][..], &[1.0][..]), (&[1.0], &[infinity]), (&[infinity], &[infinity])] {
            let (_, mean, squares) = merged(left, right);
            assert!(mean == infinity && squares.is_nan(), "{left:?} {right:?}");
        }
        assert!(merged(&[infinity], &[-infinity]).1.is_nan());
        assert!(merged(&[1.0], &[f64::NAN]).1.is_nan());
    }

    #[test]
    fn nan_is_less_and_greater_than_nothing() {
        let nan = f64::NAN;
        assert_eq!(
            (cell::<Least>(&[nan, 2.0, 1.0, nan]).0, cell::<Greatest>(&[nan, 1.0, 2.0, nan]).0),
            (Some(1.0), Some(2.0))
        );
        assert!(cell::<Least>(&[nan, nan]).0.is_some_and(f64::is_nan));
        assert_eq!(cell::<Least>(&[]).0, None);
    }

    #[test]
    fn the_first_and_the_last_are_those_by_place() {
        let samples = [(place(5, 2, 1), 1.0), (place(5, 1, 9), 2.0), (place(5, 2, 2), 3.0)];
        let (mut first, mut last) = (First::default(), Last::default());
        for (place, value) in samples {
            first.merge(First(Some((place, value))));
            last.add(value, place);
        }
        first.merge(First::default());
        assert_eq!((first.0.map(|f| f.1), last.0.map(|l| l.1)), (Some(2.0), Some(3.0)));
    }
}
