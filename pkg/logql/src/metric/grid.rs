//! Windows cut into panes, so that a line is counted once however many windows it lies in.
//!
//! The window of step *i* is `(e − range, e]` with `e = time(i) − offset` (contract, LogQL §12). Its two ends, for all steps, cut time
//! into *panes*: every window is a run of whole panes, and every timestamp lies in at most one pane. With a range of at most one
//! step there is a pane per window; with a whole multiple of the step a pane is one step long; else a step holds two panes.
//!
//! Invariants: panes are numbered by time, from 0; ends of windows grow with their step.

use std::ops::Range;

use super::series::Steps;

/// The windows of a range at the steps of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    steps: Steps,
    /// Length of a window in nanoseconds, not negative.
    range: i64,
    /// The end of the first window.
    end: i64,
    /// Nanoseconds between ends; of a single window its range, at least 1.
    step: i64,
    /// How many whole steps a window is longer than one pane of a window alone, and what is left over.
    whole: i64,
    rest: i64,
}

/// A pane and the timestamps in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pane {
    /// Its number.
    pub number: u64,
    /// The earliest timestamp in it.
    pub first: i64,
    /// The latest timestamp in it.
    pub last: i64,
}

impl Pane {
    /// Whether a timestamp lies in it.
    #[must_use]
    pub fn holds(&self, timestamp: i64) -> bool {
        self.first <= timestamp && timestamp <= self.last
    }
}

impl Grid {
    /// The windows `(t − offset − range, t − offset]`; range and offset in nanoseconds, a negative range is none.
    #[must_use]
    pub fn new(steps: Steps, range: i64, offset: i64) -> Self {
        let range = range.max(0);
        let step = if steps.count > 1 { steps.step.max(1) } else { range.max(1) };
        let (whole, rest) = if range <= step { (0, 0) } else { (range / step, range % step) };
        Self { steps, range, end: steps.start.nanos().saturating_sub(offset), step, whole, rest }
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> Steps {
        self.steps
    }

    /// The length of a window in nanoseconds.
    #[must_use]
    pub fn range(&self) -> i64 {
        self.range
    }

    /// How far the end of the first window is before the first step, in nanoseconds: a grid made of [`Grid::steps`], [`Grid::range`] and this
    /// is the same.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.steps.start.nanos().saturating_sub(self.end)
    }

    /// The earliest and the latest timestamp that lie in a window; none if windows are empty.
    #[must_use]
    pub fn bounds(&self) -> Option<(i64, i64)> {
        let last = self.end_of(i64::from(self.steps.count) - 1);
        (self.range > 0).then(|| (self.end.saturating_sub(self.range).saturating_add(1), last))
    }

    fn end_of(&self, step: i64) -> i64 {
        let end = i128::from(self.end) + i128::from(step) * i128::from(self.step);
        end.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// The pane of a timestamp; none if it lies in no window.
    #[must_use]
    pub fn pane(&self, timestamp: i64) -> Option<Pane> {
        let (first, last) = self.bounds()?;
        if timestamp < first || timestamp > last {
            return None;
        }
        // The step at whose end, or before it, the timestamp lies.
        let after = i128::from(timestamp) - i128::from(self.end);
        let step = after.div_euclid(self.step.into()) + i128::from(after.rem_euclid(self.step.into()) != 0);
        // Within the bounds, steps are at most as many before the first as a window is long.
        let step = i64::try_from(step).ok()?;
        let (begin, end) = (self.end_of(step - 1), self.end_of(step));
        if self.range <= self.step {
            let begin = end.saturating_sub(self.range);
            let pane = Pane { number: u64::try_from(step).ok()?, first: begin.saturating_add(1), last: end };
            return pane.holds(timestamp).then_some(pane);
        }
        if self.rest == 0 {
            let number = u64::try_from(step.checked_add(self.whole - 1)?).ok()?;
            return Some(Pane { number, first: begin.saturating_add(1), last: end });
        }
        let number = u64::try_from(step.checked_add(self.whole)?).ok()?.checked_mul(2)?;
        let middle = end.saturating_sub(self.rest);
        Some(if timestamp <= middle {
            Pane { number, first: begin.saturating_add(1), last: middle }
        } else {
            Pane { number: number + 1, first: middle.saturating_add(1), last: end }
        })
    }

    /// The earliest and the latest timestamp of a step's window; none if windows are empty.
    #[must_use]
    pub fn span(&self, step: u32) -> Option<(i64, i64)> {
        let end = self.end_of(step.into());
        (self.range > 0).then(|| (end.saturating_sub(self.range).saturating_add(1), end))
    }

    /// The panes of a step's window.
    #[must_use]
    pub fn window(&self, step: u32) -> Range<u64> {
        let (step, whole) = (u64::from(step), self.whole.unsigned_abs());
        if self.range == 0 {
            0..0
        } else if self.range <= self.step {
            step..step + 1
        } else if self.rest == 0 {
            step..step.saturating_add(whole)
        } else {
            2 * step + 1..(2 * step + 2).saturating_add(whole.saturating_mul(2))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tailwater_model::Timestamp;

    use super::*;

    fn grid(start: i64, step: i64, count: u32, range: i64, offset: i64) -> Grid {
        Grid::new(Steps { start: Timestamp(start), step, count }, range, offset)
    }

    #[test]
    fn windows_are_open_at_their_beginning() {
        let grid = grid(100, 10, 3, 10, 0);
        assert_eq!(grid.bounds(), Some((91, 120)));
        assert_eq!(grid.pane(90), None);
        assert_eq!(grid.pane(91).map(|p| p.number), Some(0));
        assert_eq!(grid.pane(100).map(|p| p.number), Some(0));
        assert_eq!(grid.pane(101).map(|p| p.number), Some(1));
        assert_eq!(grid.pane(121), None);
    }

    #[test]
    fn an_empty_range_holds_nothing() {
        let grid = grid(100, 10, 3, 0, 0);
        assert_eq!((grid.bounds(), grid.pane(100), grid.window(1)), (None, None, 0..0));
    }

    proptest! {
        /// A timestamp lies in a window exactly if its pane is one of the window's, and a pane's timestamps all lie in it.
        #[test]
        fn panes_make_up_windows(
            start in -200_i64..200, step in 0_i64..30, count in 1_u32..12, range in 0_i64..100, offset in -40_i64..40,
            timestamp in -500_i64..700,
        ) {
            let grid = grid(start, step, if step == 0 { 1 } else { count }, range, offset);
            let pane = grid.pane(timestamp);
            if let Some(pane) = pane {
                prop_assert!(pane.holds(timestamp));
                prop_assert_eq!(grid.pane(pane.first), Some(pane));
                prop_assert_eq!(grid.pane(pane.last), Some(pane));
                prop_assert_ne!(grid.pane(pane.first - 1).map(|p| p.number), Some(pane.number));
            }
            let mut before = 0..0;
            for i in 0..grid.steps().count {
                let end = grid.steps().time(i).nanos() - offset;
                let inside = end - range < timestamp && timestamp <= end;
                let window = grid.window(i);
                prop_assert_eq!(pane.is_some_and(|p| window.contains(&p.number)), inside, "{:?} step {}", grid, i);
                prop_assert!(before.start <= window.start && before.end <= window.end);
                before = window;
                prop_assert_eq!(grid.span(i), (range > 0).then_some((end - range + 1, end)));
                if let Some((first, _)) = grid.span(i) {
                    prop_assert_eq!(grid.pane(first).map(|p| (p.number, p.first)), Some((before.start, first)), "a pane begins with it");
                }
            }
        }

        #[test]
        fn a_grid_is_made_again_of_its_parts(
            start in any::<i64>(), step in any::<i64>(), count in 1_u32..12_000, range in any::<i64>(),
            offset in prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX)],
        ) {
            let grid = grid(start, step, count, range, offset);
            prop_assert_eq!(Grid::new(grid.steps(), grid.range(), grid.offset()), grid);
        }

        #[test]
        fn extremes_do_not_panic(
            start in any::<i64>(), step in any::<i64>(), count in 1_u32..12_000, range in any::<i64>(), offset in any::<i64>(),
            timestamp in any::<i64>(),
        ) {
            let grid = grid(start, step, count, range, offset);
            if let Some(pane) = grid.pane(timestamp) {
                prop_assert!(pane.holds(timestamp));
            }
            let _window = grid.window(count - 1);
            let _span = grid.span(count - 1);
        }
    }
}
