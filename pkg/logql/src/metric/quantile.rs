//! Exact quantiles of samples as they come: a multiset of values, each with how often it was met.
//!
//! Invariants:
//! * Nothing is rounded: the quantile is that of all samples. Memory grows with distinct values; where most values are distinct, with
//!   samples.
//! * Equal values are put together whenever twice as many have come as were left last time, so each sample is sorted a few times at
//!   most. A multiset that has hardly any equal values is left as it is.
//! * NaN comes before all numbers (contract, LogQL §12).

use std::cmp::Ordering;

use super::column::{Cell, Place};

/// Fewest entries that are looked through for equal values.
const FEWEST: usize = 1024;

/// Values and how often each was met, in no order; a value may stand in several places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Values {
    runs: Vec<(f64, u64)>,
    /// When there are so many, equal values are put together.
    limit: usize,
}

impl Default for Values {
    fn default() -> Self {
        Self { runs: Vec::new(), limit: FEWEST }
    }
}

fn order(a: f64, b: f64) -> Ordering {
    b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(&b))
}

impl Values {
    /// The values with how often each was met, and when equal ones are put together.
    pub(super) fn parts(&self) -> (&[(f64, u64)], usize) {
        (&self.runs, self.limit)
    }

    /// What has these [`Values::parts`].
    pub(super) fn of_parts(runs: Vec<(f64, u64)>, limit: usize) -> Self {
        Self { runs, limit: limit.max(FEWEST) }
    }

    /// The quantile of at least one sample, between neighbours in proportion.
    pub(super) fn quantile(mut self, q: f64) -> f64 {
        quantile(q, &mut self.runs)
    }

    /// How many values it holds, equal ones that have not been put together each for itself.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    fn put_together(&mut self) {
        let before = self.runs.len();
        self.runs.sort_unstable_by(|a, b| order(a.0, b.0));
        self.runs.dedup_by(|next, kept| {
            let equal = order(next.0, kept.0).is_eq();
            kept.1 += if equal { next.1 } else { 0 };
            equal
        });
        let distinct = self.runs.len();
        self.limit = if distinct > before / 2 { usize::MAX } else { FEWEST.max(2 * distinct) };
    }

    /// Puts equal values together if it is time; answers how much the allocation has grown since it had room for `capacity`.
    fn grown(&mut self, capacity: usize) -> usize {
        if self.runs.len() >= self.limit {
            self.put_together();
        }
        self.runs.capacity().saturating_sub(capacity) * size_of::<(f64, u64)>()
    }
}

impl Cell for Values {
    fn beyond(&self) -> usize {
        self.runs.capacity() * size_of::<(f64, u64)>()
    }

    fn add(&mut self, value: f64, _: Place) -> usize {
        let capacity = self.runs.capacity();
        // Neighbours are often equal.
        match self.runs.last_mut() {
            Some((last, count)) if last.to_bits() == value.to_bits() => *count += 1,
            _ => self.runs.push((value, 1)),
        }
        self.grown(capacity)
    }

    fn merge(&mut self, mut other: Self) -> usize {
        let capacity = self.runs.capacity();
        if self.runs.is_empty() {
            *self = other;
            return self.runs.capacity().saturating_sub(capacity) * size_of::<(f64, u64)>();
        }
        self.runs.append(&mut other.runs);
        self.grown(capacity)
    }

    fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// See [`Values::quantile`]. The values change their order.
fn quantile(q: f64, runs: &mut [(f64, u64)]) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = runs.iter().map(|(_, count)| count).sum::<u64>().saturating_sub(1);
    #[expect(clippy::cast_precision_loss, reason = "a window has less than 2^53 samples")]
    let rank = q * last as f64;
    #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
    let low = (rank.floor() as u64).min(last);
    let weight = rank - rank.floor();
    nth(runs, low) * (1.0 - weight) + nth(runs, (low + 1).min(last)) * weight
}

/// The sample of a rank, counted from 0: quickselect by weight.
fn nth(mut runs: &mut [(f64, u64)], mut rank: u64) -> f64 {
    while runs.len() > 1 {
        let middle = runs.len() / 2;
        let (below, (value, count), above) = runs.select_nth_unstable_by(middle, |a, b| order(a.0, b.0));
        let (value, count) = (*value, *count);
        let before: u64 = below.iter().map(|(_, count)| count).sum();
        if rank < before {
            runs = below;
        } else if rank < before + count || above.is_empty() {
            return value;
        } else {
            rank -= before + count;
            runs = above;
        }
    }
    runs.first().map_or(f64::NAN, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(q: f64, values: &[f64]) -> f64 {
        quantile(q, &mut values.iter().map(|v| (*v, 1)).collect::<Vec<_>>())
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(of(0.5, &[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(of(0.25, &[4.0, 0.0]), 1.0);
        assert_eq!((of(0.0, &[2.0, 1.0]), of(1.0, &[2.0, 1.0])), (1.0, 2.0));
        assert_eq!((of(-0.1, &[1.0]), of(1.1, &[1.0])), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(of(0.0, &[1.0, f64::NAN]).is_nan() && of(f64::NAN, &[1.0]).is_nan());
        assert_eq!(of(1.0, &[1.0, f64::NAN]), 1.0);
    }

    #[test]
    fn equal_values_take_the_room_of_one() {
        let mut values = Values::default();
        let mut bytes = 0;
        for i in 0..100_000 {
            bytes += values.add(f64::from(i * 7 % 100), Place::default());
        }
        assert!(values.runs.len() < 2 * FEWEST && bytes < 64 << 10, "{} {bytes}", values.runs.len());
        assert_eq!(values.quantile(0.5), 49.5);
        // Distinct ones are all kept, and not looked through again and again.
        let mut values = Values::default();
        (0..10_000).for_each(|i| {
            values.add(f64::from(i), Place::default());
        });
        assert_eq!((values.runs.len(), values.limit), (10_000, usize::MAX));
    }

    proptest! {
        /// However samples come together, the quantile is that of all of them in order.
        #[test]
        fn nothing_is_rounded(
            samples in prop::collection::vec((0..40_i32, prop::bool::weighted(0.02)), 1..4_000),
            parts in 1_usize..4, q in 0.0..=1.0_f64,
        ) {
            let samples: Vec<f64> =
                samples.into_iter().map(|(v, nan)| if nan { f64::NAN } else { f64::from(v) / 3.0 }).collect();
            let mut all = Values::default();
            for part in samples.chunks(samples.len().div_ceil(parts)) {
                let mut values = Values::default();
                part.iter().for_each(|v| { values.add(*v, Place::default()); });
                all.merge(values);
            }
            let mut sorted = samples;
            sorted.sort_by(|a, b| order(*a, *b));
            let rank = q * (sorted.len() - 1) as f64;
            let (low, weight) = (rank.floor() as usize, rank - rank.floor());
            let plain = sorted[low] * (1.0 - weight) + sorted[(low + 1).min(sorted.len() - 1)] * weight;
            let found = all.quantile(q);
            prop_assert!(found == plain || (found.is_nan() && plain.is_nan()), "{} {}", found, plain);
        }
    }
}
