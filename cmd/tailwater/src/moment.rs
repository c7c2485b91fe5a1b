//! Durations and points in time as people write them on a command line.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo};
use std::time::Duration;
use tailwater_model::Timestamp;

/// `90s`, `1h30m`, `2d`, `1w`, `500ms`. Days are 24 hours.
///
/// # Errors
/// What a duration looks like, if `text` is none or is negative.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write for example 30s, 15m, 1h30m, 2d or 1w");
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(wrong());
    }
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(length).map_err(|_| wrong())
}

/// A point in time: RFC 3339 (`2026-11-20T10:00:00Z`), a local date and time (`2026-11-20 10:00`), Unix seconds or
/// nanoseconds (told apart by length, as Loki does), `now`, or a time before now (`-30m`).
///
/// # Errors
/// What a time looks like, if `text` is none.
pub(crate) fn parse_instant(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "{text:?} is not a point in time; write for example 2026-11-20T10:00:00Z, \"2026-11-20 10:00\" (local), \
             -30m (before now), now, or Unix seconds or nanoseconds"
        )
    };
    if text == "now" {
        return Ok(now);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text.parse().map_err(|_| wrong())?;
        let nanos = if text.len() <= 10 { number.checked_mul(1_000_000_000).ok_or_else(wrong)? } else { number };
        return Ok(Timestamp(nanos));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return Ok(now.saturating_sub(parse_duration(ago).map_err(|_| wrong())?));
    }
    let instant = match text.parse::<jiff::Timestamp>() {
        Ok(instant) => instant,
        Err(_) => {
            let civil: DateTime = text.parse().map_err(|_| wrong())?;
            zone.to_timestamp(civil).map_err(|_| wrong())?
        }
    };
    i64::try_from(instant.as_nanosecond()).map(Timestamp).map_err(|_| wrong())
}

/// `1.2 s`, `350 ms`, `2m 5s`: a duration for a person, three significant digits.
pub(crate) fn human_duration(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{}m {}s", s as u64 / 60, s as u64 % 60),
        s => format!("{}h {}m", s as u64 / 3600, s as u64 / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_every_unit_add_up() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("2d").unwrap(), Duration::from_secs(2 * 86_400));
        assert_eq!(parse_duration("1w").unwrap(), Duration::from_secs(7 * 86_400));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
        for bad in ["", "x", "5", "-5m", "1mo", "1e3s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_are_read_in_every_form() {
        let now = Timestamp(1_700_000_000_000_000_000);
        let at = |text: &str| parse_instant(text, now, &TimeZone::UTC).map(Timestamp::nanos);
        assert_eq!(at("now"), Ok(now.0));
        assert_eq!(at("-1s"), Ok(1_699_999_999_000_000_000));
        assert_eq!(at("1700000000"), Ok(1_700_000_000_000_000_000));
        assert_eq!(at("1700000000000000001"), Ok(1_700_000_000_000_000_001));
        assert_eq!(at("1970-01-01T00:00:01.5Z"), Ok(1_500_000_000));
        assert_eq!(at("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(at("1970-01-01 00:01"), Ok(60_000_000_000));
        for bad in ["", "yesterday", "99999999999999999999", "-", "12:00"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_read_three_digits() {
        assert_eq!(human_duration(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(human_duration(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(human_duration(Duration::from_secs(125)), "2m 5s");
        assert_eq!(human_duration(Duration::from_secs(7265)), "2h 1m");
    }
}
