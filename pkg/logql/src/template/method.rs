//! The methods that values of Go's package `time` have.

use super::value::{Held, IntKind, Type, Value};
use crate::go::duration::format_go;
use crate::go::layout;
use crate::go::time::{Time, Zone};

/// A method: its parameters and what it does.
pub(super) struct Method {
    name: &'static str,
    pub(super) params: &'static [Type],
    run: for<'a> fn(&Held<'a>, &[Held<'a>]) -> Value<'a>,
}

impl Method {
    /// Calls the method; the arguments were checked.
    pub(super) fn call<'a>(&self, receiver: &Held<'a>, args: &[Held<'a>]) -> Held<'a> {
        Held::plain((self.run)(receiver, args))
    }
}

/// The method of that name, if the value has it.
pub(super) fn find(value: &Value<'_>, name: &str) -> Option<&'static Method> {
    let table = match value {
        Value::Time(_) => TIME,
        Value::Int(IntKind::Duration, _) => DURATION,
        Value::Int(IntKind::Month | IntKind::Weekday, _) => NAMED,
        _ => return None,
    };
    table.iter().find(|m| m.name == name)
}

fn time(held: &Held<'_>) -> Time {
    match &held.value {
        Value::Time(time) => time.clone(),
        _ => Time::zero(),
    }
}

fn int(held: &Held<'_>) -> i64 {
    match &held.value {
        Value::Int(_, n) => *n,
        _ => 0,
    }
}

fn arg<'h, 'a>(args: &'h [Held<'a>], index: usize) -> &'h Held<'a> {
    args.get(index).unwrap_or(&Held::INVALID)
}

const fn method(
    name: &'static str,
    params: &'static [Type],
    run: for<'a> fn(&Held<'a>, &[Held<'a>]) -> Value<'a>,
) -> Method {
    Method { name, params, run }
}

fn shown(held: &Held<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    super::format::Printer::new(&|_| {}).value(&held.value, &mut out);
    out
}

/// `t` cut to a multiple of `unit` nanoseconds since Go's zero time; `round` to the nearest, halves up.
fn cut(t: &Time, unit: i64, round: bool) -> Time {
    if unit <= 0 {
        return t.clone();
    }
    let (seconds, nanos) = t.instant();
    let (zero, _) = Time::zero().instant();
    let since = i128::from(seconds - zero) * 1_000_000_000 + i128::from(nanos);
    let over = since.rem_euclid(i128::from(unit)) as i64;
    if round && over >= unit - over { t.add_nanos(unit - over) } else { t.add_nanos(-over) }
}

fn cut_duration(d: i64, unit: i64, round: bool) -> i64 {
    if unit <= 0 {
        return d;
    }
    let over = d % unit;
    let down = d - over;
    let far = over.unsigned_abs() >= unit.unsigned_abs() - over.unsigned_abs();
    if round && far { down.saturating_add(unit * d.signum()) } else { down }
}

static NAMED: &[Method] = &[method("String", &[], |v, _| Value::text(shown(v)))];

static DURATION: &[Method] = &[
    method("String", &[], |v, _| Value::text(format_go(int(v)).into_bytes())),
    method("Nanoseconds", &[], |v, _| Value::int64(int(v))),
    method("Microseconds", &[], |v, _| Value::int64(int(v) / 1000)),
    method("Milliseconds", &[], |v, _| Value::int64(int(v) / 1_000_000)),
    method("Seconds", &[], |v, _| Value::Float(whole_and_rest(int(v), 1_000_000_000))),
    method("Minutes", &[], |v, _| Value::Float(whole_and_rest(int(v), 60_000_000_000))),
    method("Hours", &[], |v, _| Value::Float(whole_and_rest(int(v), 3_600_000_000_000))),
    method("Abs", &[], |v, _| Value::Int(IntKind::Duration, int(v).saturating_abs())),
    method("Round", &[Type::Duration], |v, a| {
        Value::Int(IntKind::Duration, cut_duration(int(v), int(arg(a, 0)), true))
    }),
    method("Truncate", &[Type::Duration], |v, a| {
        Value::Int(IntKind::Duration, cut_duration(int(v), int(arg(a, 0)), false))
    }),
];

fn whole_and_rest(nanos: i64, unit: i64) -> f64 {
    (nanos / unit) as f64 + (nanos % unit) as f64 / unit as f64
}

static TIME: &[Method] = &[
    method("Add", &[Type::Duration], |t, a| Value::Time(time(t).add_nanos(int(arg(a, 0))))),
    method("AddDate", &[Type::Int, Type::Int, Type::Int], |t, a| {
        Value::Time(time(t).add_date(int(arg(a, 0)), int(arg(a, 1)), int(arg(a, 2))))
    }),
    method("After", &[Type::Time], |t, a| Value::Bool(time(t).instant() > time(arg(a, 0)).instant())),
    method("Before", &[Type::Time], |t, a| Value::Bool(time(t).instant() < time(arg(a, 0)).instant())),
    method("Compare", &[Type::Time], |t, a| Value::int(time(t).instant().cmp(&time(arg(a, 0)).instant()) as i64)),
    method("Day", &[], |t, _| Value::int(i64::from(time(t).civil().day))),
    method("Equal", &[Type::Time], |t, a| Value::Bool(time(t).instant() == time(arg(a, 0)).instant())),
    method("Format", &[Type::Text], |t, a| match &arg(a, 0).value {
        Value::Text(text) => Value::text(layout::format(&time(t), text)),
        _ => Value::Nil,
    }),
    method("Hour", &[], |t, _| Value::int(i64::from(time(t).civil().hour))),
    method("IsDST", &[], |_, _| Value::Bool(false)),
    method("IsZero", &[], |t, _| Value::Bool(time(t).is_zero())),
    method("Local", &[], |t, _| Value::Time(time(t).in_zone(Zone::Utc))),
    method("Minute", &[], |t, _| Value::int(i64::from(time(t).civil().minute))),
    method("Month", &[], |t, _| Value::Int(IntKind::Month, i64::from(time(t).civil().month))),
    method("Nanosecond", &[], |t, _| Value::int(i64::from(time(t).subsec_nanos()))),
    method("Round", &[Type::Duration], |t, a| Value::Time(cut(&time(t), int(arg(a, 0)), true))),
    method("Second", &[], |t, _| Value::int(i64::from(time(t).civil().second))),
    method("String", &[], |t, _| Value::text(shown(t))),
    method("Sub", &[Type::Time], |t, a| Value::Int(IntKind::Duration, time(t).since(&time(arg(a, 0))))),
    method("Truncate", &[Type::Duration], |t, a| Value::Time(cut(&time(t), int(arg(a, 0)), false))),
    method("UTC", &[], |t, _| Value::Time(time(t).in_zone(Zone::Utc))),
    method("Unix", &[], |t, _| Value::int64(time(t).unix())),
    method("UnixMicro", &[], |t, _| Value::int64(scaled(&time(t), 1_000_000))),
    method("UnixMilli", &[], |t, _| Value::int64(scaled(&time(t), 1000))),
    method("UnixNano", &[], |t, _| Value::int64(time(t).unix_nanos())),
    method("Weekday", &[], |t, _| Value::Int(IntKind::Weekday, i64::from(time(t).civil().weekday))),
    method("Year", &[], |t, _| Value::int(time(t).civil().year)),
    method("YearDay", &[], |t, _| Value::int(i64::from(time(t).civil().year_day))),
];

fn scaled(t: &Time, per_second: i64) -> i64 {
    let nanos = i64::from(t.subsec_nanos());
    t.unix().wrapping_mul(per_second).wrapping_add(nanos / (1_000_000_000 / per_second))
}
