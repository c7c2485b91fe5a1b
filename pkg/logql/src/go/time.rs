//! Instants with a zone, as Go's `time.Time`: any year that fits, nanoseconds, and a zone that only matters for display.

use std::sync::Arc;

use jiff::tz::TimeZone;

/// Seconds of a day.
const DAY: i64 = 86_400;
/// The zero time of Go, 0001-01-01T00:00:00Z, in seconds since 1970.
const ZERO_SECONDS: i64 = -62_135_596_800;
/// Years beyond these are cut off, so that no arithmetic overflows.
const MAX_YEAR: i64 = 1_000_000;

/// Where a time is displayed.
#[derive(Clone, Debug)]
pub enum Zone {
    /// UTC, which is also the local zone of the service.
    Utc,
    /// A zone of the tz database.
    Named(TimeZone),
    /// An offset in seconds east of UTC, with the name that was written.
    Fixed(i32, Arc<str>),
}

impl Zone {
    /// `time.LoadLocation`, with UTC for what is unknown. Names are compared with case.
    #[must_use]
    pub fn load(name: &[u8]) -> Self {
        match std::str::from_utf8(name) {
            Ok("" | "UTC" | "Local") | Err(_) => Self::Utc,
            Ok(name) => match TimeZone::get(name) {
                Ok(zone) if zone.iana_name() == Some(name) => Self::Named(zone),
                _ => Self::Utc,
            },
        }
    }

    /// The offset east of UTC in seconds and the abbreviation, at an instant in seconds since 1970.
    fn at(&self, seconds: i64) -> (i32, String) {
        match self {
            Self::Utc => (0, "UTC".to_owned()),
            Self::Fixed(offset, name) => (*offset, name.to_string()),
            Self::Named(zone) => {
                let instant = jiff::Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
                    jiff::Timestamp::MIN
                } else {
                    jiff::Timestamp::MAX
                });
                let info = zone.to_offset_info(instant);
                (info.offset().seconds(), info.abbreviation().to_owned())
            }
        }
    }
}

/// An instant, to the nanosecond.
#[derive(Clone, Debug)]
pub struct Time {
    seconds: i64,
    nanos: u32,
    zone: Zone,
}

/// A time taken apart in its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of a date")]
pub struct Civil {
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub nanos: u32,
    /// 0 is Sunday.
    pub weekday: u8,
    /// 1 to 366.
    pub year_day: u16,
    /// Seconds east of UTC.
    pub offset: i32,
    /// The zone's abbreviation; empty if it has none.
    pub zone: String,
}

impl Time {
    /// Nanoseconds since 1970, UTC.
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Self {
        Self::new(nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000) as u32)
    }

    /// Seconds since 1970 and nanoseconds (below a billion), UTC.
    #[must_use]
    pub fn new(seconds: i64, nanos: u32) -> Self {
        let limit = MAX_YEAR * 366 * DAY;
        Self { seconds: seconds.clamp(-limit, limit), nanos: nanos.min(999_999_999), zone: Zone::Utc }
    }

    /// Go's zero time, the first instant of the year 1.
    #[must_use]
    pub fn zero() -> Self {
        Self::new(ZERO_SECONDS, 0)
    }

    /// `time.IsZero`.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }

    /// `time.Date`: the instant that shows as this in `zone`. Months and days beyond their range carry over.
    #[must_use]
    pub fn from_civil(year: i64, month: i64, day: i64, seconds_of_day: i64, nanos: u32, zone: Zone) -> Self {
        let months = month.saturating_sub(1).clamp(-12 * MAX_YEAR, 12 * MAX_YEAR);
        let year = year.clamp(-MAX_YEAR, MAX_YEAR) + months.div_euclid(12);
        let days = days_from_civil(year, months.rem_euclid(12) + 1, 1) + day.clamp(-366 * MAX_YEAR, 366 * MAX_YEAR) - 1;
        let local = days * DAY + seconds_of_day;
        let (offset, _) = zone.at(local);
        let mut seconds = local;
        if offset != 0 {
            let guess = local - i64::from(offset);
            seconds = local - i64::from(zone.at(guess).0);
        }
        Self { zone, ..Self::new(seconds, nanos) }
    }

    /// The same instant, shown in another zone.
    #[must_use]
    pub fn in_zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// Seconds since 1970, rounded down.
    #[must_use]
    pub fn unix(&self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    #[must_use]
    pub fn subsec_nanos(&self) -> u32 {
        self.nanos
    }

    /// Nanoseconds since 1970; wraps around outside of the years 1678 to 2262, as in Go.
    #[must_use]
    pub fn unix_nanos(&self) -> i64 {
        self.seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::from(self.nanos))
    }

    /// `t.Add`.
    #[must_use]
    pub fn add_nanos(&self, nanos: i64) -> Self {
        let sum = i64::from(self.nanos) + nanos.rem_euclid(1_000_000_000);
        let seconds = self.seconds + nanos.div_euclid(1_000_000_000) + sum / 1_000_000_000;
        Self { zone: self.zone.clone(), ..Self::new(seconds, (sum % 1_000_000_000) as u32) }
    }

    /// `t.Sub`: nanoseconds between, at most what fits.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> i64 {
        let seconds = i128::from(self.seconds - earlier.seconds);
        let nanos = seconds * 1_000_000_000 + i128::from(self.nanos) - i128::from(earlier.nanos);
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// `t.AddDate`.
    #[must_use]
    pub fn add_date(&self, years: i64, months: i64, days: i64) -> Self {
        let c = self.civil();
        let second = i64::from(c.hour) * 3600 + i64::from(c.minute) * 60 + i64::from(c.second);
        let limit = MAX_YEAR * 366;
        let (years, months, days) =
            (years.clamp(-limit, limit), months.clamp(-limit, limit), days.clamp(-limit, limit));
        let (year, month, day) = (c.year + years, i64::from(c.month) + months, i64::from(c.day) + days);
        Self::from_civil(year, month, day, second, c.nanos, self.zone.clone())
    }

    /// The instant as a pair that orders by time.
    #[must_use]
    pub fn instant(&self) -> (i64, u32) {
        (self.seconds, self.nanos)
    }

    /// The time taken apart in its zone.
    #[must_use]
    pub fn civil(&self) -> Civil {
        let (offset, zone) = self.zone.at(self.seconds);
        let local = self.seconds + i64::from(offset);
        let days = local.div_euclid(DAY);
        let second = local.rem_euclid(DAY);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
            nanos: self.nanos,
            weekday: (days + 4).rem_euclid(7) as u8,
            year_day: (days - days_from_civil(year, 1, 1) + 1) as u16,
            offset,
            zone,
        }
    }

    /// `t.String()`.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&super::layout::format(self, b"2006-01-02 15:04:05.999999999 -0700 MST")).into_owned()
    }
}

/// Days since 1970 of a date of the Gregorian calendar; `month` from 1 to 12.
pub(super) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Counted in years that start in March, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month as u8, day as u8)
}

/// Days of a month, 1 to 12.
pub(super) fn days_in(month: i64, year: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The English names of the months.
pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The English names of the days of the week, Sunday first.
pub const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_times_apart_and_puts_them_together() {
        let t = Time::from_nanos(1_793_534_400_123_456_789);
        let c = t.civil();
        assert_eq!((c.year, c.month, c.day, c.hour, c.minute, c.second, c.nanos), (2026, 11, 1, 12, 0, 0, 123_456_789));
        assert_eq!((c.weekday, c.year_day), (0, 305));
        assert_eq!(t.text(), "2026-11-01 12:00:00.123456789 +0000 UTC");
        assert_eq!(Time::zero().text(), "0001-01-01 00:00:00 +0000 UTC");
        assert_eq!(Time::zero().unix_nanos(), -6_795_364_578_871_345_152);
        assert_eq!(Time::from_nanos(-1).text(), "1969-12-31 23:59:59.999999999 +0000 UTC");
        assert_eq!(t.add_date(0, 3, 30).text(), "2027-03-03 12:00:00.123456789 +0000 UTC");
    }

    #[test]
    fn zones_shift_what_is_shown() {
        let berlin = Zone::load(b"Europe/Berlin");
        let summer = Time::from_civil(2026, 7, 1, 12 * 3600, 0, berlin.clone());
        assert_eq!(summer.text(), "2026-07-01 12:00:00 +0200 CEST");
        assert_eq!(summer.in_zone(Zone::Utc).text(), "2026-07-01 10:00:00 +0000 UTC");
        assert_eq!(Time::from_nanos(0).in_zone(berlin).text(), "1970-01-01 01:00:00 +0100 CET");
        assert!(matches!(Zone::load(b"No/Where"), Zone::Utc));
        assert!(matches!(Zone::load(b"europe/berlin"), Zone::Utc));
    }

    proptest::proptest! {
        #[test]
        fn civil_dates_round_trip(nanos: i64) {
            let t = Time::from_nanos(nanos);
            let c = t.civil();
            let second = i64::from(c.hour) * 3600 + i64::from(c.minute) * 60 + i64::from(c.second);
            let back = Time::from_civil(c.year, i64::from(c.month), i64::from(c.day), second, c.nanos, Zone::Utc);
            proptest::prop_assert_eq!(back.unix_nanos(), nanos);
        }

        #[test]
        fn any_arithmetic_is_answered(seconds: i64, nanos: u32, y: i64, m: i64, d: i64, add: i64) {
            let t = Time::new(seconds, nanos).add_date(y, m, d).add_nanos(add);
            let _ = (t.text(), t.since(&Time::zero()), t.unix_nanos());
        }
    }
}
