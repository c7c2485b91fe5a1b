//! Where runs of a stream overlap in time: only there may an entry have an equal in another run.
//!
//! Streams go by their hash, since one that was forgotten and came back, or that was read from another block, is another; streams that share
//! a hash only cause more comparing.

use crate::ByStream;

/// Consecutive runs of the log that are no further apart are taken for one, in nanoseconds: one that lies in between is compared in vain.
const GAP: i64 = 60_000_000_000;

/// How many of the last runs of a stream another may go on from. A late one among those in order is one more.
const RECENT: usize = 4;

/// Stretches of time of a stream: inclusive, sorted, apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// Whether an instant lies in one.
    pub(super) fn hold(&self, timestamp: i64) -> bool {
        self.overlap(timestamp, timestamp)
    }

    /// Whether one reaches into `[first, last]`.
    pub(super) fn overlap(&self, first: i64, last: i64) -> bool {
        let next = self.0.partition_point(|(_, end)| *end < first);
        self.0.get(next).is_some_and(|(begin, _)| *begin <= last)
    }
}

/// The runs that were met, by stream.
#[derive(Debug, Default)]
pub(super) struct Runs(ByStream<Vec<(i64, i64)>>);

impl Runs {
    /// Adds a run of the log. Those of a stream come in the order of the log.
    pub(super) fn add_of_log(&mut self, hash: u64, min: i64, max: i64) {
        let known = self.0.entry(hash).or_default();
        let recent = known.len().saturating_sub(RECENT);
        let recent = known.get_mut(recent..).unwrap_or_default();
        let before = recent.iter().filter(|run| run.1 < min && min.saturating_sub(run.1) <= GAP).map(|run| run.1).max();
        // Not over others: that would be more comparing than one run more.
        let free = before.filter(|end| recent.iter().all(|run| run.1 <= *end || run.0 > min));
        match recent.iter_mut().find(|run| Some(run.1) == free) {
            Some(run) => run.1 = max,
            None => known.push((min, max)),
        }
    }

    /// Adds a page.
    pub(super) fn add_page(&mut self, hash: u64, min: i64, max: i64) {
        self.0.entry(hash).or_default().push((min, max));
    }

    /// Where there are two at least. Streams without such are left out.
    pub(super) fn spans(self) -> ByStream<Spans> {
        let spans = |(hash, mut runs): (u64, Vec<(i64, i64)>)| {
            runs.sort_unstable();
            let mut highest = None;
            let mut spans: Vec<(i64, i64)> = Vec::new();
            for (min, max) in runs {
                if let Some(highest) = highest.filter(|highest| min <= *highest) {
                    let end = max.min(highest);
                    match spans.last_mut() {
                        Some(last) if min <= last.1 => last.1 = last.1.max(end),
                        _ => spans.push((min, end)),
                    }
                }
                highest = highest.max(Some(max));
            }
            (!spans.is_empty()).then_some((hash, Spans(spans)))
        };
        self.0.into_iter().filter_map(spans).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_instant_of_two_runs_is_in_a_span(
            runs in prop::collection::vec((0_i64..200, 0_i64..20, any::<bool>()), 0..12),
        ) {
            let mut met = Runs::default();
            let scale = GAP / 7;
            for (min, len, page) in &runs {
                let (min, max) = (min * scale, (min + len) * scale);
                if *page { met.add_page(1, min, max) } else { met.add_of_log(1, min, max) }
            }
            let spans = met.spans().remove(&1).unwrap_or_default();
            prop_assert!(spans.0.is_sorted_by(|a, b| a.1 < b.0), "{spans:?}");
            for instant in 0..220 {
                let holding = runs.iter().filter(|(min, len, _)| (*min..=min + len).contains(&instant)).count();
                prop_assert!(holding < 2 || spans.hold(instant * scale), "{instant} {spans:?}");
            }
            // What is far from any other is not compared.
            let far = |a: &(i64, i64, bool), b: &(i64, i64, bool)| a.0 + a.1 + 8 < b.0 || b.0 + b.1 + 8 < a.0;
            for (i, run) in runs.iter().enumerate() {
                if runs.iter().enumerate().all(|(j, other)| i == j || far(run, other)) {
                    prop_assert!(!spans.overlap(run.0 * scale, (run.0 + run.1) * scale));
                }
            }
        }
    }

    #[test]
    fn runs_in_order_have_no_spans_and_touch_where_they_share_an_instant() {
        let spans = |runs: &[(i64, i64)]| {
            let mut met = Runs::default();
            runs.iter().for_each(|(min, max)| met.add_of_log(7, *min, *max));
            met.spans().remove(&7)
        };
        assert_eq!(spans(&[(0, 10), (11, 20), (21, 30)]), None);
        assert_eq!(spans(&[(0, 10), (10, 20), (20, 30)]), Some(Spans(vec![(10, 10), (20, 20)])));
        assert_eq!(spans(&[(100, 110), (5, 6), (111, 120), (7, 9), (115, 116)]), Some(Spans(vec![(115, 116)])));
        assert_eq!(spans(&[(i64::MIN, i64::MIN), (i64::MAX, i64::MAX)]), None);
    }
}
