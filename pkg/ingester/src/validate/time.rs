//! Instants and sizes as Go prints them.

use std::fmt::Write as _;

use tailwater_model::Timestamp;

const NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// `2006-01-02T15:04:05Z`.
pub(crate) fn rfc3339(t: Timestamp) -> String {
    let (date, second) = date(t);
    format!("{date}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// `2006-01-02 15:04:05.999999999 +0000 UTC`, as Go's `Time.String` prints an instant in UTC.
pub(crate) fn go_time(t: Timestamp) -> String {
    let (date, second) = date(t);
    let mut out = format!("{date} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    let nanos = t.nanos().rem_euclid(NANOS);
    if nanos != 0 {
        let digits = format!("{nanos:09}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
    out.push_str(" +0000 UTC");
    out
}

/// The day, and the second in it. Gregorian, from days since 1970-01-01 (the years are those of an i64 of nanoseconds).
fn date(t: Timestamp) -> (String, i64) {
    let seconds = t.nanos().div_euclid(NANOS);
    let (days, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    // Years that begin in March end with the leap day; 400 of them are 146,097 days.
    let from_march_0000 = days + 719_468;
    let (era, day) = (from_march_0000.div_euclid(146_097), from_march_0000.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (format!("{:04}-{month:02}-{day:02}", era * 400 + year + carry), second)
}

/// A number of bytes in the largest unit that divides it: `3MB`, `1000B`.
pub(crate) fn byte_size(bytes: u64) -> String {
    let mut out = String::new();
    let (unit, value) = ["EB", "PB", "TB", "GB", "MB", "KB"]
        .iter()
        .zip([60, 50, 40, 30, 20, 10])
        .find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift))
        .map_or(("B", bytes), |(unit, shift)| (unit, bytes >> shift));
    // Writing to a string does not fail.
    let _ = write!(out, "{value}{unit}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_printed_as_go_prints_them() {
        for (nanos, rfc, go) in [
            (0, "1970-01-01T00:00:00Z", "1970-01-01 00:00:00 +0000 UTC"),
            (1_000_000_000_000_000_000, "2001-09-09T01:46:40Z", "2001-09-09 01:46:40 +0000 UTC"),
            (7_258_118_400_000_000_000, "2200-01-01T00:00:00Z", "2200-01-01 00:00:00 +0000 UTC"),
            (1_709_210_096_481_129_524, "2024-02-29T12:34:56Z", "2024-02-29 12:34:56.481129524 +0000 UTC"),
            (1_709_210_096_500_000_000, "2024-02-29T12:34:56Z", "2024-02-29 12:34:56.5 +0000 UTC"),
            (-1, "1969-12-31T23:59:59Z", "1969-12-31 23:59:59.999999999 +0000 UTC"),
            (i64::MIN, "1677-09-21T00:12:43Z", "1677-09-21 00:12:43.145224192 +0000 UTC"),
            (i64::MAX, "2262-04-11T23:47:16Z", "2262-04-11 23:47:16.854775807 +0000 UTC"),
        ] {
            assert_eq!(rfc3339(Timestamp(nanos)), rfc);
            assert_eq!(go_time(Timestamp(nanos)), go);
        }
    }

    #[test]
    fn sizes_take_the_largest_unit_that_divides_them() {
        for (bytes, text) in [(0, "0B"), (1000, "1000B"), (1024, "1KB"), (3 << 20, "3MB"), ((3 << 20) + 1, "3145729B")]
        {
            assert_eq!(byte_size(bytes), text);
        }
    }
}
