//! What the parameters of read endpoints and tails mean (contract, Loki API §0.5, §3.1, §4.1). Errors are Loki's texts, answered
//! with 400.

use std::time::Duration;

use tailwater_logql::go::{duration, number, quote};
use tailwater_model::Timestamp;
use tailwater_wire::node::Direction;

use crate::form::Form;

/// The range of a request that names none.
const DEFAULT_SINCE: Duration = Duration::from_secs(3600);

/// The `limit` of a request that names none.
const DEFAULT_LIMIT: u32 = 100;

/// Most points of a series.
const MAX_POINTS: i64 = 11_000;

/// Time between the steps of a metric tail that names none, in nanoseconds.
const DEFAULT_STEP: i64 = 15 * NANOS;

/// Least time between the steps of a metric tail, in nanoseconds.
const MIN_STEP: i64 = NANOS;

/// What a request for more than [`MAX_POINTS`] is told.
const TOO_MANY_POINTS: &str =
    "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter";
/// The `limit` on fields, and on values of a field, of a request that names none.
const DEFAULT_FIELDS: u32 = 1000;

/// Longest `delay_for` of a tail, in seconds.
const MAX_DELAY_FOR: i64 = 5;

/// Numbers of at most this many characters are seconds, longer ones nanoseconds.
const MAX_SECONDS_CHARS: usize = 10;

const NANOS: i64 = 1_000_000_000;

/// What `query_range` asks, but for the query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RangeParams {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) limit: u32,
    pub(crate) direction: Direction,
    /// Nanoseconds, positive.
    pub(crate) step: i64,
    pub(crate) interval: Duration,
}

impl RangeParams {
    pub(crate) fn parse(form: &Form, now: Timestamp) -> Result<Self, String> {
        let (start, end) = ordered_bounds(form, now)?;
        let limit = limit(form)?;
        let direction = direction(form)?;
        let step = step(form, start, end)?;
        let interval = match form.get("interval") {
            "" => 0,
            text => seconds_or_duration(text)?,
        };
        let interval = u64::try_from(interval).map_err(|_| "interval must be >= 0".to_owned())?;
        Ok(Self { start, end, limit, direction, step, interval: Duration::from_nanos(interval) })
    }
}

/// What `query` asks, but for the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstantParams {
    pub(crate) time: Timestamp,
    pub(crate) limit: u32,
    pub(crate) direction: Direction,
}

impl InstantParams {
    pub(crate) fn parse(form: &Form, now: Timestamp) -> Result<Self, String> {
        let limit = limit(form)?;
        let time = timestamp(form.get("time"), now)?;
        Ok(Self { time, limit, direction: direction(form)? })
    }
}

/// What a tail asks, but for the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TailParams {
    pub(crate) limit: u32,
    pub(crate) delay_for: Duration,
    pub(crate) start: Timestamp,
}

impl TailParams {
    pub(crate) fn parse(form: &Form, now: Timestamp) -> Result<Self, String> {
        let limit = limit(form)?;
        let delay_for = match form.get("delay_for") {
            "" => 0,
            text => number::atoi(text)?,
        };
        if !(0..=i64::from(u32::MAX)).contains(&delay_for) {
            return Err(format!("delay_for value {delay_for} is out of range [0, {}]", u32::MAX));
        }
        if delay_for > MAX_DELAY_FOR {
            return Err(format!("delay_for can't be greater than {MAX_DELAY_FOR}"));
        }
        let (start, _end) = bounds(form, now)?;
        Ok(Self { limit, delay_for: Duration::from_secs(delay_for.unsigned_abs()), start })
    }
}

/// What a metric tail asks beside what every tail does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepParams {
    pub(crate) step: Duration,
    /// Now, unless history is asked for.
    pub(crate) start: Timestamp,
}

impl StepParams {
    pub(crate) fn parse(form: &Form, tail: &TailParams, now: Timestamp) -> Result<Self, String> {
        let step = match form.get("step") {
            "" => DEFAULT_STEP,
            text => seconds_or_duration(text)?,
        };
        if step < MIN_STEP {
            return Err(format!("step must be at least 1s, not {}", quote::quote(form.get("step"))));
        }
        let history = !form.get("start").is_empty() || !form.get("since").is_empty();
        let start = if history { tail.start } else { now };
        if now.nanos().saturating_sub(start.nanos()) / step > MAX_POINTS {
            return Err(TOO_MANY_POINTS.to_owned());
        }
        Ok(Self { step: Duration::from_nanos(step.unsigned_abs()), start })
    }
}

/// What `detected_fields` and `detected_field/{name}/values` ask, but for the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldsParams {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// Lines to look at.
    pub(crate) line_limit: u32,
    /// Fields or values to answer.
    pub(crate) limit: u32,
}

impl FieldsParams {
    pub(crate) fn parse(form: &Form, now: Timestamp) -> Result<Self, String> {
        let (start, end) = ordered_bounds(form, now)?;
        let line_limit = positive(form.get("line_limit"), DEFAULT_LIMIT)?;
        let limit = match form.get("limit") {
            "" => form.get("field_limit"),
            text => text,
        };
        let limit = positive(limit, DEFAULT_FIELDS)?;
        // Without a meaning here, and checked as Loki checks it.
        step(form, start, end)?;
        Ok(Self { start, end, line_limit, limit })
    }
}

/// What `index/volume` and `index/volume_range` ask, but for the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeParams {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// Nanoseconds, positive; none for `index/volume`.
    pub(crate) step: Option<i64>,
    pub(crate) limit: u32,
    pub(crate) target_labels: Vec<String>,
    /// Sum up by label instead of by series.
    pub(crate) by_labels: bool,
}

impl VolumeParams {
    pub(crate) fn parse(form: &Form, now: Timestamp, in_steps: bool) -> Result<Self, String> {
        let limit = match number::atoi(form.get("limit")) {
            Ok(0) => DEFAULT_LIMIT,
            _ => limit(form)?,
        };
        let (start, end) = ordered_bounds(form, now)?;
        let step = if in_steps { Some(step(form, start, end)?) } else { None };
        let by_labels = match form.get("aggregateBy") {
            "" | "series" => false,
            "labels" => true,
            _ => return Err("invalid aggregation option".to_owned()),
        };
        let targets = form.get("targetLabels").split(',').filter(|name| !name.is_empty());
        Ok(Self { start, end, step, limit, target_labels: targets.map(str::to_owned).collect(), by_labels })
    }
}

/// `start` and `end`, whichever comes first.
pub(crate) fn bounds(form: &Form, now: Timestamp) -> Result<(Timestamp, Timestamp), String> {
    let bad = |name: &'static str| move |why: String| format!("could not parse '{name}' parameter: {why}");
    let since = match form.get("since") {
        "" => DEFAULT_SINCE,
        text => duration::parse_prometheus(text).map_err(bad("since"))?,
    };
    let end = timestamp(form.get("end"), now).map_err(bad("end"))?;
    let start = timestamp(form.get("start"), end.min(now).saturating_sub(since)).map_err(bad("start"))?;
    Ok((start, end))
}

/// `start` and `end`; the end may not come first.
pub(crate) fn ordered_bounds(form: &Form, now: Timestamp) -> Result<(Timestamp, Timestamp), String> {
    let (start, end) = bounds(form, now)?;
    if end < start {
        return Err("end timestamp must not be before or equal to start time".to_owned());
    }
    Ok((start, end))
}

/// The `step` of a range, in nanoseconds and positive: by default a second, or a 250th of the range. A range has at most
/// [`MAX_POINTS`] of them.
pub(crate) fn step(form: &Form, start: Timestamp, end: Timestamp) -> Result<i64, String> {
    let length = end.nanos().saturating_sub(start.nanos());
    let step = match form.get("step") {
        "" => (length / NANOS / 250).max(1).saturating_mul(NANOS),
        text => seconds_or_duration(text)?,
    };
    if step <= 0 {
        return Err("zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned());
    }
    if length / step > MAX_POINTS {
        return Err(TOO_MANY_POINTS.to_owned());
    }
    Ok(step)
}

fn limit(form: &Form) -> Result<u32, String> {
    positive(form.get("limit"), DEFAULT_LIMIT)
}

/// A number that is at least 1.
fn positive(text: &str, default: u32) -> Result<u32, String> {
    let limit = match text {
        "" => return Ok(default),
        text => number::atoi(text)?,
    };
    if limit <= 0 {
        return Err("limit must be a positive value".to_owned());
    }
    u32::try_from(limit).map_err(|_| format!("limit value {limit} is out of range [0, {}]", u32::MAX))
}

fn direction(form: &Form) -> Result<Direction, String> {
    match form.get("direction") {
        "" => Ok(Direction::Backward),
        text if text.eq_ignore_ascii_case("backward") => Ok(Direction::Backward),
        text if text.eq_ignore_ascii_case("forward") => Ok(Direction::Forward),
        text => Err(format!("invalid direction '{text}'")),
    }
}

/// Seconds as a decimal number, or a Prometheus duration; in nanoseconds.
fn seconds_or_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("cannot parse {} to a valid duration", quote::quote(text));
    if let Ok(seconds) = number::parse_float(text) {
        let nanos = seconds * NANOS as f64;
        if nanos.is_nan() || nanos >= i64::MAX as f64 || nanos < i64::MIN as f64 {
            return Err(format!("{}. It overflows int64", bad()));
        }
        return Ok(nanos as i64);
    }
    let parsed = duration::parse_prometheus(text).map_err(|_| bad())?;
    i64::try_from(parsed.as_nanos()).map_err(|_| bad())
}

/// Unix seconds, with a fraction or of at most ten characters; Unix nanoseconds; or RFC 3339. Instants out of range are the
/// first or last there is.
fn timestamp(text: &str, default: Timestamp) -> Result<Timestamp, String> {
    if text.is_empty() {
        return Ok(default);
    }
    if text.contains('.')
        && let Ok(seconds) = number::parse_float(text)
    {
        let whole = seconds.trunc();
        let millis = ((seconds - whole) * 1000.0).round();
        let nanos = whole * NANOS as f64;
        // Whole seconds and fraction are added as integers: a float has too few digits for both.
        let base = if nanos.is_nan() { 0 } else { (whole as i64).saturating_mul(NANOS) };
        return Ok(Timestamp(base.saturating_add(millis as i64 * (NANOS / 1000))));
    }
    match number::parse_int(text) {
        Ok(n) if text.len() <= MAX_SECONDS_CHARS => Ok(Timestamp(n.saturating_mul(NANOS))),
        Ok(n) => Ok(Timestamp(n)),
        Err(why) => rfc3339(text).ok_or(why),
    }
}

/// RFC 3339 as strictly as Go reads it: capital T and Z, two digits everywhere, seconds below 60.
pub(crate) fn rfc3339(text: &str) -> Option<Timestamp> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let (head, mut rest) = bytes.split_at_checked(SHAPE.len())?;
    let fits = head.iter().zip(SHAPE).all(|(b, s)| if *s == b'0' { b.is_ascii_digit() } else { b == s });
    if !fits || &head[17..] > b"59".as_slice() {
        return None;
    }
    let mut normal = String::from_utf8(head.to_vec()).ok()?;
    if let [b'.' | b',', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        normal.push('.');
        normal.extend(fraction[..digits.min(9)].iter().map(|&b| char::from(b)));
        rest = &fraction[digits..];
    }
    match rest {
        b"Z" => normal.push('Z'),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) => {
            normal.extend([*sign, *h1, *h2, b':', *m1, *m2].map(char::from));
        }
        _ => return None,
    }
    let instant: jiff::Timestamp = normal.parse().ok()?;
    let nanos = instant.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(nanos).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000 * NANOS);

    fn form(query: &str) -> Form {
        Form::parse(b"", query).unwrap()
    }

    #[test]
    fn timestamps_come_in_four_forms() {
        for (text, nanos) in [
            ("", NOW.0),
            ("0", 0),
            ("1700000000", 1_700_000_000 * NANOS),
            ("-100000000", -100_000_000 * NANOS),
            ("17000000000", 17_000_000_000),
            ("1700000000000000001", 1_700_000_000_000_000_001),
            ("1700000000.25", 1_700_000_000_250_000_000),
            ("1700000000.0004", 1_700_000_000_000_000_000),
            ("1700000000.0006", 1_700_000_000_001_000_000),
            ("1.7e9", 1_700_000_000 * NANOS),
            ("-1.5", -1_500_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000 * NANOS),
            ("2023-11-14T22:13:20.000000001Z", 1_700_000_000_000_000_001),
            ("2023-11-14T22:13:20.0000000019999Z", 1_700_000_000_000_000_001),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000 * NANOS),
            ("9999999999", i64::MAX),
        ] {
            assert_eq!(timestamp(text, NOW), Ok(Timestamp(nanos)), "{text}");
        }
        for bad in [
            "foo",
            "2023-11-14",
            "2023-11-14t22:13:20Z",
            "2023-11-14 22:13:20Z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:60Z",
            "2023-11-14T22:13:20.Z",
            "2023-13-14T22:13:20Z",
            "1e9",
            "１",
        ] {
            let wanted = format!("strconv.ParseInt: parsing \"{bad}\": invalid syntax");
            assert_eq!(timestamp(bad, NOW), Err(wanted), "{bad}");
        }
        assert_eq!(
            timestamp("99999999999999999999", NOW),
            Err("strconv.ParseInt: parsing \"99999999999999999999\": value out of range".to_owned())
        );
    }

    #[test]
    fn bounds_default_to_the_last_hour_before_end_or_now() {
        let hour = 3600 * NANOS;
        assert_eq!(bounds(&form(""), NOW), Ok((Timestamp(NOW.0 - hour), NOW)));
        assert_eq!(bounds(&form("since=2h"), NOW), Ok((Timestamp(NOW.0 - 2 * hour), NOW)));
        assert_eq!(bounds(&form("end=1000"), NOW), Ok((Timestamp(1000 * NANOS - hour), Timestamp(1000 * NANOS))));
        assert_eq!(bounds(&form("end=1900000000"), NOW).unwrap().0, Timestamp(NOW.0 - hour));
        for (query, wanted) in [
            ("start=foo", "could not parse 'start' parameter: strconv.ParseInt: parsing \"foo\": invalid syntax"),
            ("end=foo", "could not parse 'end' parameter: strconv.ParseInt: parsing \"foo\": invalid syntax"),
            ("since=xx", "could not parse 'since' parameter: not a valid duration string: \"xx\""),
            ("since=-5m", "could not parse 'since' parameter: not a valid duration string: \"-5m\""),
        ] {
            assert_eq!(bounds(&form(query), NOW), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn range_parameters_are_checked_in_lokis_words() {
        let ok = RangeParams::parse(&form("start=1000&end=2000&limit=5&direction=FORWARD&step=90s&interval=0.5"), NOW);
        let wanted = RangeParams {
            start: Timestamp(1000 * NANOS),
            end: Timestamp(2000 * NANOS),
            limit: 5,
            direction: Direction::Forward,
            step: 90 * NANOS,
            interval: Duration::from_millis(500),
        };
        assert_eq!(ok, Ok(wanted));
        let step = |query| RangeParams::parse(&form(query), NOW).unwrap().step;
        assert_eq!(step("start=1000&end=1100"), NANOS);
        assert_eq!(step("start=1000&end=2000"), 4 * NANOS);
        assert_eq!(step("start=1000&end=1000"), NANOS);
        assert!(RangeParams::parse(&form("start=0&end=11000&step=1"), NOW).is_ok());
        for (query, wanted) in [
            ("start=2&end=1", "end timestamp must not be before or equal to start time"),
            ("limit=0", "limit must be a positive value"),
            ("limit=-5", "limit must be a positive value"),
            ("limit=ten", "strconv.Atoi: parsing \"ten\": invalid syntax"),
            ("limit=99999999999", "limit value 99999999999 is out of range [0, 4294967295]"),
            ("direction=up", "invalid direction 'up'"),
            ("direction=+forward", "invalid direction ' forward'"),
            ("step=0", "zero or negative query resolution step widths are not accepted. Try a positive integer"),
            ("step=-1", "zero or negative query resolution step widths are not accepted. Try a positive integer"),
            ("step=abc", "cannot parse \"abc\" to a valid duration"),
            ("step=1e300", "cannot parse \"1e300\" to a valid duration. It overflows int64"),
            (
                "start=0&end=11001&step=1",
                "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter",
            ),
            ("interval=-1", "interval must be >= 0"),
            ("interval=x", "cannot parse \"x\" to a valid duration"),
        ] {
            assert_eq!(RangeParams::parse(&form(query), NOW), Err(wanted.to_owned()), "{query}");
        }
    }

    #[test]
    fn instant_parameters() {
        let params = InstantParams::parse(&form("time=4000000000"), NOW).unwrap();
        assert_eq!((params.time, params.limit), (Timestamp(4_000_000_000 * NANOS), 100));
        let error = InstantParams::parse(&form("time=x"), NOW).unwrap_err();
        assert_eq!(error, "strconv.ParseInt: parsing \"x\": invalid syntax");
    }

    #[test]
    fn tail_parameters_are_checked_in_order() {
        let params = TailParams::parse(&form("limit=7&delay_for=5&start=1000"), NOW).unwrap();
        assert_eq!(params, TailParams { limit: 7, delay_for: Duration::from_secs(5), start: Timestamp(1000 * NANOS) });
        assert_eq!(TailParams::parse(&form("since=10m"), NOW).unwrap().start, Timestamp(NOW.0 - 600 * NANOS));
        for (query, wanted) in [
            ("limit=0&delay_for=9", "limit must be a positive value"),
            ("delay_for=6&start=x", "delay_for can't be greater than 5"),
            ("delay_for=-1", "delay_for value -1 is out of range [0, 4294967295]"),
            ("delay_for=1s", "strconv.Atoi: parsing \"1s\": invalid syntax"),
            (
                "start=yesterday",
                "could not parse 'start' parameter: strconv.ParseInt: parsing \"yesterday\": invalid syntax",
            ),
            ("end=x", "could not parse 'end' parameter: strconv.ParseInt: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(TailParams::parse(&form(query), NOW), Err(wanted.to_owned()), "{query}");
        }
    }

    #[test]
    fn metric_tails_begin_now_and_have_steps_of_a_second_at_least() {
        let params = |query: &str| {
            let form = form(query);
            StepParams::parse(&form, &TailParams::parse(&form, NOW).unwrap(), NOW)
        };
        let steps = |seconds, ago: i64| {
            Ok(StepParams { step: Duration::from_secs(seconds), start: Timestamp(NOW.0 - ago * NANOS) })
        };
        assert_eq!(params(""), steps(15, 0));
        assert_eq!(params("step=1s&since=10m"), steps(1, 600));
        assert_eq!(params("step=90&start=1799999990"), steps(90, 10));
        assert_eq!(params("step=1&since=11000s"), steps(1, 11_000));
        assert_eq!(params("step=1&since=11001s"), Err(TOO_MANY_POINTS.to_owned()));
        assert_eq!(params("step=0.5"), Err("step must be at least 1s, not \"0.5\"".to_owned()));
        assert_eq!(params("step=-15s"), Err("cannot parse \"-15s\" to a valid duration".to_owned()));
        assert_eq!(params("step=x"), Err("cannot parse \"x\" to a valid duration".to_owned()));
    }

    proptest::proptest! {
        /// Any text is a time, a duration or a refusal that quotes it; never a panic.
        #[test]
        fn any_text_is_answered(text in "[-+0-9.eE:TZhmsdwyµ \\PC]{0,40}") {
            let _time = timestamp(&text, NOW);
            let _step = seconds_or_duration(&text);
            for name in ["start", "end", "since", "step", "interval", "limit", "delay_for", "time"] {
                let form = Form::default().with(name, &text);
                let _range = RangeParams::parse(&form, NOW);
                let _instant = InstantParams::parse(&form, NOW);
                let tail = TailParams::parse(&form, NOW);
                let _steps = tail.map(|tail| StepParams::parse(&form, &tail, NOW));
            }
        }
    }
}
