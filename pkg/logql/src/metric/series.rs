//! Series of numbers, and the times at which they have one.

use tailwater_model::{Labels, Timestamp};

/// The bits of a step without a value: a NaN that no arithmetic and no parser makes (signalling, with a payload).
const ABSENT_BITS: u64 = 0x7ff4_0000_ab5e_0000;

/// Most steps of a query: 11,000 is what requests may ask for (contract, LogQL §14), aligning the range adds at most two.
pub const MAX_STEPS: u32 = 11_002;

/// The times at which a query is evaluated: `start`, `start + step`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The first time.
    pub start: Timestamp,
    /// Nanoseconds between two times; 0 if there is only one.
    pub step: i64,
    /// How many there are, at least 1.
    pub count: u32,
}

impl Steps {
    /// One time: an instant query.
    #[must_use]
    pub fn instant(time: Timestamp) -> Self {
        Self { start: time, step: 0, count: 1 }
    }

    /// `start`, `start + step`, … up to `end`, at most [`MAX_STEPS`].
    #[must_use]
    pub fn range(start: Timestamp, end: Timestamp, step: i64) -> Self {
        let span = end.nanos().saturating_sub(start.nanos()).max(0);
        let more = span.checked_div(step.max(0)).unwrap_or(0);
        Self { start, step, count: u32::try_from(more.saturating_add(1)).unwrap_or(u32::MAX).min(MAX_STEPS) }
    }

    /// The time of a step.
    #[must_use]
    pub fn time(&self, step: u32) -> Timestamp {
        Timestamp(self.start.nanos().saturating_add(self.step.saturating_mul(i64::from(step))))
    }

    /// The last time.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.time(self.count.saturating_sub(1))
    }
}

/// A series: labels, and for every step a value or none.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its labels; empty values are kept where LogQL keeps them.
    pub labels: Labels,
    values: Box<[f64]>,
}

impl Series {
    /// A series without a value at any of `steps` steps.
    #[must_use]
    pub fn empty(labels: Labels, steps: u32) -> Self {
        Self { labels, values: vec![f64::from_bits(ABSENT_BITS); steps as usize].into() }
    }

    /// A series with the same value at every step.
    #[must_use]
    pub fn constant(labels: Labels, steps: u32, value: f64) -> Self {
        let mut series = Self::empty(labels, steps);
        (0..steps).for_each(|step| series.set(step, value));
        series
    }

    /// The value at a step.
    #[must_use]
    pub fn get(&self, step: u32) -> Option<f64> {
        self.values.get(step as usize).copied().filter(|value| value.to_bits() != ABSENT_BITS)
    }

    /// Sets the value at a step; beyond the last step nothing.
    pub fn set(&mut self, step: u32, value: f64) {
        // Whatever NaN arithmetic made, it is not the mark of an absent value.
        let value = if value.is_nan() { f64::NAN } else { value };
        if let Some(slot) = self.values.get_mut(step as usize) {
            *slot = value;
        }
    }

    /// The steps that have a value, with it, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        let with_step = |(step, value): (usize, &f64)| (step as u32, *value);
        self.values.iter().enumerate().filter(|(_, v)| v.to_bits() != ABSENT_BITS).map(with_step)
    }

    /// How many steps there are, with a value or without.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.values.len() as u32
    }

    /// Whether there is no value at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_at_or_before_the_end() {
        let steps = |start, end, step| {
            let steps = Steps::range(Timestamp(start), Timestamp(end), step);
            (0..steps.count).map(|i| steps.time(i).nanos()).collect::<Vec<_>>()
        };
        assert_eq!(steps(0, 10, 5), [0, 5, 10]);
        assert_eq!(steps(0, 9, 5), [0, 5]);
        assert_eq!(steps(7, 7, 5), [7]);
        assert_eq!(steps(7, 3, 5), [7]);
        assert_eq!(steps(7, 8, 0), [7]);
        assert_eq!(Steps::range(Timestamp::MIN, Timestamp::MAX, 1).count, MAX_STEPS);
        assert_eq!(Steps::instant(Timestamp(4)).end(), Timestamp(4));
    }

    #[test]
    fn nan_is_a_value() {
        let mut series = Series::empty(Labels::from_pairs(Vec::new()), 3);
        assert!(series.is_empty());
        series.set(1, f64::from_bits(ABSENT_BITS));
        series.set(2, -0.0);
        series.set(7, 1.0);
        assert!(series.get(1).is_some_and(f64::is_nan));
        assert_eq!(series.iter().map(|(step, _)| step).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((series.get(0), series.get(2), series.get(7)), (None, Some(0.0), None));
    }
}
