//! How long lines are kept.
//!
//! A tenant has a period for all its lines and rules for streams. Of the rules whose selector matches a stream the one with the highest
//! priority holds, of those the shortest period; without one it is the tenant's period. Zero: for ever.
//!
//! Days expire as a whole, when their end is as old as the period: a line is kept for its period and up to a day more.

use std::sync::Arc;
use std::time::Duration;

use tailwater_logql::matchers::Matchers;
use tailwater_model::{Labels, Limits, StreamRetention, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::catalog::Day;

/// The period of some streams.
#[derive(Debug)]
pub struct StreamRule {
    /// Which.
    pub matchers: Matchers,
    /// Rules with a higher one come first.
    pub priority: i64,
    /// How long their lines are kept; zero: for ever.
    pub period: Duration,
}

/// How long the lines of a tenant are kept.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// Lines of streams without a rule; zero: for ever.
    pub period: Duration,
    /// Rules of streams.
    pub streams: Arc<[StreamRule]>,
    /// Differs where the rules do.
    fingerprint: u64,
}

/// What retention leaves of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Everything.
    Everything,
    /// It depends on the stream; so many periods have passed.
    SomeStreams(usize),
    /// Nothing.
    Nothing,
}

impl Retention {
    /// The periods among a tenant's limits.
    ///
    /// # Errors
    /// A selector cannot be understood.
    pub fn new(limits: &Limits) -> Result<Self, tailwater_logql::Error> {
        let rule = |rule: &StreamRetention| {
            let matchers = Matchers::new(&tailwater_logql::parse_selector(&rule.selector)?)?;
            Ok(StreamRule { matchers, priority: rule.priority, period: rule.period })
        };
        let streams = limits.retention_stream.iter().map(rule).collect::<Result<_, tailwater_logql::Error>>()?;
        let text = format!("{:?} {:?}", limits.retention_period, limits.retention_stream);
        Ok(Self { period: limits.retention_period, streams, fingerprint: xxh3_64(text.as_bytes()) })
    }

    /// Differs where the rules do.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// How long the lines of a stream are kept; zero: for ever.
    #[must_use]
    pub fn period_of(&self, labels: &Labels) -> Duration {
        let matching = self.streams.iter().filter(|rule| rule.matchers.matches(labels));
        let first = matching.min_by_key(|rule| (std::cmp::Reverse(rule.priority), rule.period));
        first.map_or(self.period, |rule| rule.period)
    }

    /// What is left of a day at `now`, as far as that can be said without looking at streams.
    pub(super) fn left_of(&self, day: Day, now: Timestamp) -> Left {
        let periods = std::iter::once(self.period).chain(self.streams.iter().map(|rule| rule.period));
        let (all, passed) =
            periods.fold((0, 0), |(all, passed), period| (all + 1, passed + usize::from(is_over(day, period, now))));
        match passed {
            0 => Left::Everything,
            passed if passed == all => Left::Nothing,
            passed => Left::SomeStreams(passed),
        }
    }

    /// Whether the lines of a stream are kept although they are of this day.
    pub(super) fn keeps(&self, labels: &Labels, day: Day, now: Timestamp) -> bool {
        !is_over(day, self.period_of(labels), now)
    }
}

fn is_over(day: Day, period: Duration, now: Timestamp) -> bool {
    !period.is_zero() && now > Timestamp(*day.range().end()).saturating_add(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn rule(selector: &str, priority: i64, days: u32) -> StreamRetention {
        StreamRetention { selector: selector.into(), priority, period: DAY * days }
    }

    fn retention(days: u32, streams: Vec<StreamRetention>) -> Retention {
        let limits = Limits { retention_period: DAY * days, retention_stream: streams, ..Limits::default() };
        Retention::new(&limits).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
    }

    #[test]
    fn the_highest_priority_holds_then_the_shortest_period() {
        let streams = vec![
            rule(r#"{env="dev"}"#, 1, 1),
            rule(r#"{app=~"a.*"}"#, 2, 9),
            rule(r#"{app="ab"}"#, 2, 5),
            rule(r#"{app="keep"}"#, 9, 0),
        ];
        let retention = retention(30, streams);
        let days = |pairs: &[(&str, &str)]| retention.period_of(&labels(pairs)).as_secs() / DAY.as_secs();
        assert_eq!(days(&[("app", "x")]), 30);
        assert_eq!(days(&[("env", "dev")]), 1);
        assert_eq!(days(&[("env", "dev"), ("app", "a")]), 9);
        assert_eq!(days(&[("env", "dev"), ("app", "ab")]), 5);
        assert_eq!(days(&[("env", "dev"), ("app", "keep")]), 0);
    }

    #[test]
    fn a_day_expires_when_its_end_is_as_old_as_the_period() {
        let retention = retention(3, vec![rule(r#"{env="dev"}"#, 1, 1)]);
        let day = Day::of(0);
        let at = |days: u32| Timestamp(0).saturating_add(DAY * days);
        assert_eq!(retention.left_of(day, at(1)), Left::Everything);
        assert_eq!(retention.left_of(day, at(2)), Left::SomeStreams(1));
        assert_eq!(retention.left_of(day, at(3)), Left::SomeStreams(1));
        assert_eq!(retention.left_of(day, at(4)), Left::Nothing);
        assert!(!retention.keeps(&labels(&[("env", "dev")]), day, at(2)));
        assert!(retention.keeps(&labels(&[("env", "live")]), day, at(2)));
        let forever = Retention::default();
        assert_eq!(forever.left_of(day, Timestamp::MAX), Left::Everything);
    }
}
