//! Days, in UTC.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS: i64 = 86_400_000_000_000;

/// Days of 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;

/// A day of UTC, counted from 1970-01-01. As text it is an ISO date. Every timestamp has one, from 1677 to 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// The first day that a timestamp can lie in.
    pub const MIN: Self = Self::of(i64::MIN);
    /// The last day that a timestamp can lie in.
    pub const MAX: Self = Self::of(i64::MAX);

    /// The day of a timestamp, in nanoseconds since 1970.
    #[must_use]
    pub const fn of(nanos: i64) -> Self {
        Self(nanos.div_euclid(NANOS) as i32)
    }

    /// The timestamps of the day, those there are.
    #[must_use]
    pub fn range(self) -> RangeInclusive<i64> {
        let first = i64::from(self.0).saturating_mul(NANOS);
        let after = i64::from(self.0).saturating_add(1).checked_mul(NANOS);
        first..=after.map_or(i64::MAX, |after| after - 1)
    }

    /// Days since 1970-01-01; negative before.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Year, month and day of the month (Gregorian, also before there was such a calendar). Years are counted from March here, so that a
    /// leap day ends its year.
    fn civil(self) -> (i64, i64, i64) {
        let days = i64::from(self.0) + 719_468;
        let era = days.div_euclid(ERA);
        let day_of_era = days.rem_euclid(ERA);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
        (year_of_era + era * 400 + year, month, day)
    }

    fn of_civil(year: i64, month: i64, day: i64) -> i64 {
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * ERA + day_of_era - 719_468
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A text that is no day of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no date such as 2024-02-29, of the years 1677 to 2262")]
pub struct DayError;

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        let mut parts = text.split('-').map(|part| part.parse::<u16>().map_err(|_| DayError));
        let mut next = || parts.next().unwrap_or(Err(DayError));
        let (year, month, day) = (next()?, next()?, next()?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(DayError);
        }
        let number = Self::of_civil(year.into(), month.into(), day.into());
        let found = i32::try_from(number).map(Self).map_err(|_| DayError)?;
        // One text per day, and no 30th of February.
        if !(Self::MIN..=Self::MAX).contains(&found) || found.to_string() != text {
            return Err(DayError);
        }
        Ok(found)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn days_are_dates() {
        let cases = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (i64::MIN, "1677-09-21"),
            (i64::MAX, "2262-04-11"),
            (1_709_164_800_000_000_000, "2024-02-29"),
            (1_709_164_800_000_000_000 - 1, "2024-02-28"),
            (951_782_400_000_000_000, "2000-02-29"),
            (-2_203_891_200_000_000_000, "1900-03-01"),
        ];
        for (nanos, date) in cases {
            assert_eq!(Day::of(nanos).to_string(), date);
            assert_eq!(date.parse(), Ok(Day::of(nanos)));
        }
        for text in [
            "",
            "2023-02-29",
            "1900-02-29",
            "2024-2-9",
            "02024-02-09",
            "2024-13-01",
            "2024-01-01-01",
            "1677-09-20",
            "9999-01-01",
            "+2024-01-01",
            "-001-01-01",
        ] {
            assert_eq!(text.parse::<Day>(), Err(DayError), "{text}");
        }
    }

    #[test]
    fn days_follow_each_other_without_holes() {
        let mut before = Day::MIN;
        assert_eq!(*before.range().start(), i64::MIN);
        for number in Day::MIN.number() + 1..=Day::MAX.number() {
            let day = Day(number);
            assert_eq!(day.to_string().parse(), Ok(day));
            assert!(day.to_string() > before.to_string());
            assert_eq!(*before.range().end() + 1, *day.range().start());
            before = day;
        }
        assert_eq!(*before.range().end(), i64::MAX);
    }

    proptest! {
        #[test]
        fn a_timestamp_lies_in_its_day(nanos: i64) {
            prop_assert!(Day::of(nanos).range().contains(&nanos));
        }
    }
}
