//! Durations: Go's `time.ParseDuration` and `Duration.String`, and Prometheus' `model.Duration`.

use std::time::Duration;

use super::quote::{quote, quote_time};

const NANOS: [(&[u8], u64); 8] = [
    (b"ns", 1),
    (b"us", 1_000),
    ("µs".as_bytes(), 1_000),
    ("μs".as_bytes(), 1_000),
    (b"ms", 1_000_000),
    (b"s", SECOND),
    (b"m", MINUTE),
    (b"h", HOUR),
];
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// The magnitude of the most negative duration, 2^63 ns.
const LIMIT: u64 = 1 << 63;

/// Prometheus' units, largest first, with their length in milliseconds.
const PROMETHEUS: [(&str, u64); 7] =
    [("y", 365 * DAY_MS), ("w", 7 * DAY_MS), ("d", DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const DAY_MS: u64 = 86_400_000;

/// `time.ParseDuration`, in nanoseconds: `-1.5h`, `1h0.0m0s`, `.5s`, `0`. The error is Go's text.
pub fn parse_go(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<i64, String> {
    let text = text.as_ref();
    let invalid = || format!("time: invalid duration {}", quote_time(text));
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if rest == b"0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole_len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (whole, after) = rest.split_at(whole_len);
        let value = whole
            .iter()
            .try_fold(0u64, |n, &b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')).filter(|&n| n <= LIMIT))
            .ok_or_else(invalid)?;
        let (fraction, after) = match after {
            [b'.', after @ ..] => after.split_at(after.iter().take_while(|b| b.is_ascii_digit()).count()),
            _ => (&b""[..], after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = after.iter().take_while(|&&b| b != b'.' && !b.is_ascii_digit()).count();
        let (unit, after) = after.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote_time(text)));
        }
        let Some(&(_, nanos)) = NANOS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {} in duration {}", quote_time(unit), quote_time(text)));
        };
        let mut value = value.checked_mul(nanos).filter(|&n| n <= LIMIT).ok_or_else(invalid)?;
        let (part, scale) = leading_fraction(fraction);
        if part > 0 {
            // The arithmetic of the original, so that the last nanosecond is the same.
            value = value.saturating_add((part as f64 * (nanos as f64 / scale)) as u64);
        }
        total = total.checked_add(value).filter(|&n| n <= LIMIT).ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        return Ok(0_i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

/// The digits after the dot as an integer and the power of ten it is to be divided by; digits that no longer fit are ignored.
fn leading_fraction(digits: &[u8]) -> (u64, f64) {
    let mut value: u64 = 0;
    let mut scale = 1.0;
    for &b in digits {
        match value.checked_mul(10).and_then(|n| n.checked_add(u64::from(b - b'0'))).filter(|&n| n <= LIMIT) {
            Some(next) => value = next,
            None => break,
        }
        scale *= 10.0;
    }
    (value, scale)
}

/// `Duration.String`: `0s`, `1ns`, `1.5µs`, `100ms`, `1h0m0.5s`.
#[must_use]
pub fn format_go(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    if magnitude == 0 {
        return "0s".to_owned();
    }
    if magnitude < SECOND {
        let (unit, scale, width) = match magnitude {
            0..1_000 => ("ns", 1, 0),
            1_000..1_000_000 => ("µs", 1_000, 3),
            _ => ("ms", 1_000_000, 6),
        };
        return format!("{sign}{}{}{unit}", magnitude / scale, fraction(magnitude % scale, width));
    }
    let seconds = format!("{}{}s", magnitude / SECOND % 60, fraction(magnitude % SECOND, 9));
    match (magnitude / HOUR, magnitude / MINUTE % 60) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
    }
}

/// `.5` for 500 of width 3; nothing for 0.
fn fraction(value: u64, width: usize) -> String {
    if value == 0 {
        return String::new();
    }
    let digits = format!("{value:0width$}");
    format!(".{}", digits.trim_end_matches('0'))
}

/// Prometheus' `model.ParseDuration`: `1d12h`, `1500ms`, `0`; units from years to milliseconds, each once, largest first. The
/// error is Prometheus' text.
pub fn parse_prometheus(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<Duration, String> {
    let text = text.as_ref();
    match text {
        b"" => return Err("empty duration string".to_owned()),
        b"0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let out_of_range = || "duration out of range".to_owned();
    let mut rest = text;
    let mut next_unit = 0;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.iter().take_while(|b| b.is_ascii_digit()).count());
        if digits.is_empty() {
            return Err(invalid());
        }
        let value = digits
            .iter()
            .try_fold(0u64, |n, &b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))
            .ok_or_else(invalid)?;
        let (unit, after) = after.split_at(after.iter().take_while(|b| !b.is_ascii_digit()).count());
        if unit.is_empty() {
            return Err(invalid());
        }
        let Some(position) = PROMETHEUS.iter().position(|(name, _)| name.as_bytes() == unit) else {
            return Err(format!("unknown unit {} in duration {}", quote(unit), quote(text)));
        };
        if position < next_unit {
            return Err(invalid());
        }
        next_unit = position + 1;
        let part = value.checked_mul(PROMETHEUS[position].1 * 1_000_000).ok_or_else(out_of_range)?;
        nanos = nanos.checked_add(part).filter(|&n| i64::try_from(n).is_ok()).ok_or_else(out_of_range)?;
        rest = after;
    }
    Ok(Duration::from_nanos(nanos))
}

/// `model.Duration.String`: `1d12h30m15s100ms`, `0s`; years and weeks only when nothing remains. Cut to milliseconds.
#[must_use]
pub fn format_prometheus(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, length) in PROMETHEUS {
        if (unit == "y" || unit == "w") && left % length != 0 {
            continue;
        }
        let count = left / length;
        if count > 0 {
            out.push_str(&count.to_string());
            out.push_str(unit);
            left -= count * length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_go_durations() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            ("1h0.0m0s", 3_600_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("+3us", 3_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("1s1s", 2_000_000_000),
            ("2562047h47m16.854775807s", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.3333333333333333333h", 1_200_000_000_000),
        ] {
            assert_eq!(parse_go(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_go_durations() {
        for (text, expected) in [
            ("", r#"time: invalid duration """#),
            ("x", r#"time: invalid duration "x""#),
            ("-", r#"time: invalid duration "-""#),
            (".s", r#"time: invalid duration ".s""#),
            ("90", r#"time: missing unit in duration "90""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("1é", r#"time: unknown unit "\xc3\xa9" in duration "1\xc3\xa9""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("2562048h", r#"time: invalid duration "2562048h""#),
            ("1 s", r#"time: unknown unit " s" in duration "1 s""#),
        ] {
            assert_eq!(parse_go(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn formats_go_durations() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (65_000_000_001, "1m5.000000001s"),
            (-90_000_000_000, "-1m30s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(format_go(nanos), expected);
        }
    }

    #[test]
    fn prometheus_durations() {
        for (text, ms) in
            [("0", 0), ("5m", 300_000), ("1d12h", 129_600_000), ("1500ms", 1500), ("1y2w", 32_745_600_000)]
        {
            assert_eq!(parse_prometheus(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, expected) in [
            ("", "empty duration string"),
            ("5", r#"not a valid duration string: "5""#),
            ("s", r#"not a valid duration string: "s""#),
            ("1s1m", r#"not a valid duration string: "1s1m""#),
            ("1s1s", r#"not a valid duration string: "1s1s""#),
            ("1.5h", r#"unknown unit "." in duration "1.5h""#),
            ("5min", r#"unknown unit "min" in duration "5min""#),
            ("300y", "duration out of range"),
            ("99999999999999999999s", r#"not a valid duration string: "99999999999999999999s""#),
        ] {
            assert_eq!(parse_prometheus(text), Err(expected.to_owned()), "{text}");
        }
        for (ms, expected) in [
            (0, "0s"),
            (131_415_100, "1d12h30m15s100ms"),
            (604_800_000, "1w"),
            (691_200_000, "8d"),
            (31_536_000_000, "1y"),
            (90_000, "1m30s"),
        ] {
            assert_eq!(format_prometheus(Duration::from_millis(ms)), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn go_durations_round_trip(nanos: i64) {
            proptest::prop_assert_eq!(parse_go(&format_go(nanos)), Ok(nanos));
        }

        #[test]
        fn prometheus_durations_round_trip(ms in 0u64..9_000_000_000_000) {
            let d = Duration::from_millis(ms);
            proptest::prop_assert_eq!(parse_prometheus(&format_prometheus(d)), Ok(d));
        }

        #[test]
        fn any_text_is_answered(text: Vec<u8>) {
            let _ = (parse_go(&text), parse_prometheus(&text));
        }
    }
}
