//! The functions of templates: a table of their names and types, and those about text, time and choice.

use super::exec::{Data, MAX_VALUE};
use super::format::Printer;
use super::math::{Decimal, round, to_float, to_int};
use super::value::{Held, Type, Value};
use super::{builtin, encode, json, text};
use crate::go::time::{Time, Zone};
use crate::go::{bytes, duration, layout, number};
use crate::regex::Captures;

/// What a function is called with.
pub(super) struct Call<'c, 'a> {
    pub(super) args: &'c [Held<'a>],
    pub(super) data: &'c Data<'a>,
    pub(super) printer: &'c Printer<'c>,
    /// The compiled first argument, if it is a regular expression.
    pub(super) regex: Option<&'c Result<Captures, String>>,
    /// How the first argument was written, for `call`.
    pub(super) callee: &'c str,
}

/// What a function answers: a value or the text of its error.
pub(super) type Answer<'a> = Result<Held<'a>, String>;

/// A function that templates can call.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) params: &'static [Type],
    pub(super) variadic: Option<Type>,
    pub(super) run: Run,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    /// Whether the first argument is a regular expression.
    pub(super) fn takes_regex(&self) -> bool {
        matches!(self.name, "regexReplaceAll" | "regexReplaceAllLiteral" | "count")
    }
}

/// How a function is evaluated.
pub(super) enum Run {
    /// Evaluates its arguments only until one decides: `and` (false), `or` (true).
    ShortCircuit(bool),
    /// Gets all arguments, checked.
    Plain(for<'c, 'a> fn(&Call<'c, 'a>) -> Answer<'a>),
}

impl<'a> Call<'_, 'a> {
    /// A text parameter; the types were checked.
    pub(super) fn text(&self, index: usize) -> &[u8] {
        match self.args.get(index).map(|a| &a.value) {
            Some(Value::Text(text)) => text,
            _ => b"",
        }
    }

    fn int(&self, index: usize) -> i64 {
        match self.value(index) {
            Value::Int(_, n) => *n,
            _ => 0,
        }
    }

    pub(super) fn value(&self, index: usize) -> &Value<'a> {
        self.args.get(index).map_or(&Value::Nil, |a| &a.value)
    }

    fn time(&self, index: usize) -> Time {
        match self.value(index) {
            Value::Time(time) => time.clone(),
            _ => Time::zero(),
        }
    }

    /// Runs with the regular expression of the first argument.
    fn with_regex(&self, run: impl FnOnce(&Captures) -> Answer<'a>) -> Answer<'a> {
        match self.regex {
            Some(Ok(regex)) => run(regex),
            Some(Err(message)) => Err(message.clone()),
            None => Err("regular expression missing".to_owned()),
        }
    }

    fn fold_int(&self, start: i64, from: usize, f: impl Fn(i64, i64) -> i64) -> Answer<'a> {
        let folded = self.args[from.min(self.args.len())..].iter().fold(start, |n, arg| f(n, to_int(&arg.value)));
        Ok(Held::plain(Value::int64(folded)))
    }

    fn fold_float(&self, f: impl Fn(f64, f64) -> f64) -> Answer<'a> {
        let rest = self.args.iter().skip(1);
        float(rest.fold(to_float(self.value(0)), |n, arg| f(n, to_float(&arg.value))))
    }

    fn fold_decimal(
        &self,
        start: f64,
        from: usize,
        f: impl Fn(&Decimal, &Decimal) -> Result<Decimal, String>,
    ) -> Answer<'a> {
        let mut folded = Decimal::new(start)?;
        for arg in &self.args[from.min(self.args.len())..] {
            folded = f(&folded, &Decimal::new(to_float(&arg.value))?)?;
        }
        float(folded.to_float())
    }

    fn divide(&self, f: impl Fn(i64, i64) -> i64) -> Answer<'a> {
        match to_int(self.value(1)) {
            0 => Err("runtime error: integer divide by zero".to_owned()),
            divisor => Ok(Held::plain(Value::int64(f(to_int(self.value(0)), divisor)))),
        }
    }
}

fn answer<'a>(text: impl Into<std::rc::Rc<[u8]>>) -> Answer<'a> {
    Ok(Held::plain(Value::text(text)))
}

fn bool<'a>(b: bool) -> Answer<'a> {
    Ok(Held::plain(Value::Bool(b)))
}

fn float<'a>(value: f64) -> Answer<'a> {
    Ok(Held::plain(Value::Float(value)))
}

fn time<'a>(time: Time) -> Answer<'a> {
    Ok(Held::plain(Value::Time(time)))
}

fn decimal_text<'a>(n: i64) -> Answer<'a> {
    answer(n.to_string().into_bytes())
}

/// The function of that name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

const TEXT: &[Type] = &[Type::Text];
const TEXTS: &[Type] = &[Type::Text, Type::Text];
const TEXTS3: &[Type] = &[Type::Text, Type::Text, Type::Text];
const INT_TEXT: &[Type] = &[Type::Int, Type::Text];
const ANY: &[Type] = &[Type::Any];
const ANYS: &[Type] = &[Type::Any, Type::Any];
const REFLECT: &[Type] = &[Type::Reflect];
const REFLECTS: &[Type] = &[Type::Reflect, Type::Reflect];
const TIME: &[Type] = &[Type::Time];

const fn fixed(
    name: &'static str,
    params: &'static [Type],
    run: for<'c, 'a> fn(&Call<'c, 'a>) -> Answer<'a>,
) -> Function {
    Function { name, params, variadic: None, run: Run::Plain(run) }
}

const fn variadic(
    name: &'static str,
    params: &'static [Type],
    rest: Type,
    run: for<'c, 'a> fn(&Call<'c, 'a>) -> Answer<'a>,
) -> Function {
    Function { name, params, variadic: Some(rest), run: Run::Plain(run) }
}

const fn short_circuit(name: &'static str, on: bool) -> Function {
    Function { name, params: REFLECT, variadic: Some(Type::Reflect), run: Run::ShortCircuit(on) }
}

static FUNCTIONS: &[Function] = &[
    // The line at hand.
    fixed("__line__", &[], |c| Ok(Held::plain(Value::borrowed(c.data.line)))),
    fixed("__timestamp__", &[], |c| time(Time::from_nanos(c.data.timestamp.nanos()))),
    fixed("now", &[], |c| time(Time::from_nanos(c.data.now.nanos()))),
    // Go's own.
    short_circuit("and", false),
    short_circuit("or", true),
    variadic("call", REFLECT, Type::Reflect, builtin::call),
    variadic("eq", REFLECT, Type::Reflect, builtin::eq),
    fixed("ge", REFLECTS, builtin::ge),
    fixed("gt", REFLECTS, builtin::gt),
    variadic("html", &[], Type::Any, |c| answer(encode::html(&builtin::joined(c)))),
    variadic("index", REFLECT, Type::Reflect, builtin::index),
    variadic("js", &[], Type::Any, |c| answer(encode::js(&builtin::joined(c)))),
    fixed("le", REFLECTS, builtin::le),
    fixed("len", REFLECT, builtin::len),
    fixed("lt", REFLECTS, builtin::lt),
    fixed("ne", REFLECTS, builtin::ne),
    fixed("not", REFLECT, |c| bool(!builtin::truth(c.value(0), c.data))),
    variadic("print", &[], Type::Any, |c| {
        let mut out = Vec::new();
        c.printer.print(c.args.iter().map(|a| &a.value), &mut out);
        answer(out)
    }),
    variadic("printf", TEXT, Type::Any, |c| {
        let args: Vec<_> = c.args.iter().skip(1).map(|a| &a.value).collect();
        let mut out = Vec::new();
        c.printer.printf(c.text(0), &args, MAX_VALUE, &mut out);
        answer(out)
    }),
    variadic("println", &[], Type::Any, |c| {
        let mut out = Vec::new();
        for (i, arg) in c.args.iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            c.printer.value(&arg.value, &mut out);
        }
        out.push(b'\n');
        answer(out)
    }),
    variadic("slice", REFLECT, Type::Reflect, builtin::slice),
    variadic("urlquery", &[], Type::Any, |c| answer(encode::query_escape(&builtin::joined(c)))),
    // Text.
    fixed("ToLower", TEXT, |c| answer(text::lower(c.text(0)))),
    fixed("ToUpper", TEXT, |c| answer(text::upper(c.text(0)))),
    fixed("lower", TEXT, |c| answer(text::lower(c.text(0)))),
    fixed("upper", TEXT, |c| answer(text::upper(c.text(0)))),
    fixed("title", TEXT, |c| answer(text::title(c.text(0)))),
    fixed("Replace", &[Type::Text, Type::Text, Type::Text, Type::Int], |c| {
        let count = usize::try_from(c.int(3)).unwrap_or(usize::MAX);
        text::replace(c.text(0), c.text(1), c.text(2), count).and_then(answer)
    }),
    fixed("replace", TEXTS3, |c| text::replace(c.text(2), c.text(0), c.text(1), usize::MAX).and_then(answer)),
    fixed("Trim", TEXTS, |c| answer(text::trim(c.text(0), c.text(1), true, true))),
    fixed("TrimLeft", TEXTS, |c| answer(text::trim(c.text(0), c.text(1), true, false))),
    fixed("TrimRight", TEXTS, |c| answer(text::trim(c.text(0), c.text(1), false, true))),
    fixed("trimAll", TEXTS, |c| answer(text::trim(c.text(1), c.text(0), true, true))),
    fixed("TrimPrefix", TEXTS, |c| answer(c.text(0).strip_prefix(c.text(1)).unwrap_or(c.text(0)))),
    fixed("trimPrefix", TEXTS, |c| answer(c.text(1).strip_prefix(c.text(0)).unwrap_or(c.text(1)))),
    fixed("TrimSuffix", TEXTS, |c| answer(c.text(0).strip_suffix(c.text(1)).unwrap_or(c.text(0)))),
    fixed("trimSuffix", TEXTS, |c| answer(c.text(1).strip_suffix(c.text(0)).unwrap_or(c.text(1)))),
    fixed("TrimSpace", TEXT, |c| answer(crate::go::unicode::trim_space(c.text(0)))),
    fixed("trim", TEXT, |c| answer(crate::go::unicode::trim_space(c.text(0)))),
    fixed("trunc", INT_TEXT, |c| answer(text::trunc(c.int(0), c.text(1)))),
    fixed("substr", &[Type::Int, Type::Int, Type::Text], |c| {
        text::substr(c.int(0), c.int(1), c.text(2)).and_then(answer)
    }),
    fixed("alignLeft", INT_TEXT, |c| text::align(c.int(0), c.text(1), true).and_then(answer)),
    fixed("alignRight", INT_TEXT, |c| text::align(c.int(0), c.text(1), false).and_then(answer)),
    fixed("repeat", INT_TEXT, |c| text::repeat(c.text(1), c.int(0)).and_then(answer)),
    fixed("contains", TEXTS, |c| bool(memchr::memmem::find(c.text(1), c.text(0)).is_some())),
    fixed("hasPrefix", TEXTS, |c| bool(c.text(1).starts_with(c.text(0)))),
    fixed("hasSuffix", TEXTS, |c| bool(c.text(1).ends_with(c.text(0)))),
    fixed("indent", INT_TEXT, |c| text::indent(c.int(0), c.text(1), b"").and_then(answer)),
    fixed("nindent", INT_TEXT, |c| text::indent(c.int(0), c.text(1), b"\n").and_then(answer)),
    fixed("regexReplaceAll", TEXTS3, |c| {
        c.with_regex(|regex| {
            let mut out = Vec::new();
            text::bounded(regex.replace_all(c.text(1), c.text(2), MAX_VALUE, &mut out), out).and_then(answer)
        })
    }),
    fixed("regexReplaceAllLiteral", TEXTS3, |c| {
        c.with_regex(|regex| {
            let mut out = Vec::new();
            text::bounded(regex.replace_all_literal(c.text(1), c.text(2), MAX_VALUE, &mut out), out).and_then(answer)
        })
    }),
    fixed("count", TEXTS, |c| c.with_regex(|regex| Ok(Held::plain(Value::int(regex.count(c.text(1)) as i64))))),
    // Encodings.
    fixed("urlencode", TEXT, |c| answer(encode::query_escape(c.text(0)))),
    fixed("urldecode", TEXT, |c| encode::query_unescape(c.text(0)).and_then(answer)),
    fixed("b64enc", TEXT, |c| answer(encode::base64_encode(c.text(0)))),
    fixed("b64dec", TEXT, |c| {
        let text = text::padded(c.text(0));
        match encode::base64_decode(&text) {
            Ok(bytes) => answer(bytes),
            Err(at) => answer(format!("illegal base64 data at input byte {at}").into_bytes()),
        }
    }),
    fixed("fromJson", TEXT, |c| Ok(Held::in_interface(json::decode_json(c.text(0))))),
    // Numbers.
    fixed("bytes", TEXT, |c| float(bytes::parse_humanize(c.text(0))? as f64)),
    fixed("duration", TEXT, |c| seconds(c.text(0))),
    fixed("duration_seconds", TEXT, |c| seconds(c.text(0))),
    fixed("int", ANY, |c| Ok(Held::plain(Value::int(to_int(c.value(0)))))),
    fixed("float64", ANY, |c| float(to_float(c.value(0)))),
    variadic("add", &[], Type::Any, |c| c.fold_int(0, 0, i64::wrapping_add)),
    fixed("sub", ANYS, |c| c.fold_int(to_int(c.value(0)), 1, i64::wrapping_sub)),
    variadic("mul", ANY, Type::Any, |c| c.fold_int(to_int(c.value(0)), 1, i64::wrapping_mul)),
    fixed("div", ANYS, |c| c.divide(i64::wrapping_div)),
    fixed("mod", ANYS, |c| c.divide(i64::wrapping_rem)),
    variadic("max", ANY, Type::Any, |c| c.fold_int(to_int(c.value(0)), 1, i64::max)),
    variadic("min", ANY, Type::Any, |c| c.fold_int(to_int(c.value(0)), 1, i64::min)),
    variadic("addf", &[], Type::Any, |c| c.fold_decimal(0.0, 0, Decimal::add)),
    variadic("subf", ANY, Type::Any, |c| c.fold_decimal(to_float(c.value(0)), 1, Decimal::sub)),
    variadic("mulf", ANY, Type::Any, |c| c.fold_decimal(to_float(c.value(0)), 1, Decimal::mul)),
    variadic("divf", ANY, Type::Any, |c| c.fold_decimal(to_float(c.value(0)), 1, Decimal::div)),
    variadic("maxf", ANY, Type::Any, |c| {
        c.fold_float(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
    }),
    variadic("minf", ANY, Type::Any, |c| {
        c.fold_float(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) })
    }),
    fixed("ceil", ANY, |c| float(to_float(c.value(0)).ceil())),
    fixed("floor", ANY, |c| float(to_float(c.value(0)).floor())),
    variadic("round", &[Type::Any, Type::Int], Type::Float, |c| {
        let on = match c.args.get(2).map(|a| &a.value) {
            Some(Value::Float(on)) => *on,
            _ => 0.5,
        };
        float(round(to_float(c.value(0)), c.int(1), on))
    }),
    // Choice.
    variadic("default", ANY, Type::Any, |c| {
        let given = c.args.get(1).filter(|given| !builtin::is_empty(&given.value, c.data));
        Ok(given.or(c.args.first()).cloned().unwrap_or(Held::NIL))
    }),
    // Time.
    fixed("date", &[Type::Text, Type::Any], |c| {
        let time = match c.value(1) {
            Value::Time(time) => time.clone(),
            Value::Int(super::value::IntKind::Int | super::value::IntKind::Int64, n) => Time::new(*n, 0),
            _ => Time::from_nanos(c.data.now.nanos()),
        };
        answer(layout::format(&time.in_zone(Zone::Utc), c.text(0)))
    }),
    fixed("toDate", TEXTS, |c| time(layout::parse(c.text(0), c.text(1), Zone::Utc).unwrap_or_else(Time::zero))),
    fixed("toDateInZone", TEXTS3, |c| {
        time(layout::parse(c.text(0), c.text(2), Zone::load(c.text(1))).unwrap_or_else(Time::zero))
    }),
    fixed("unixToTime", TEXT, |c| unix_to_time(c.text(0)).and_then(time)),
    fixed("unixEpoch", TIME, |c| decimal_text(c.time(0).unix())),
    fixed("unixEpochMillis", TIME, |c| {
        let time = c.time(0);
        decimal_text(time.unix().wrapping_mul(1000).wrapping_add(i64::from(time.subsec_nanos()) / 1_000_000))
    }),
    fixed("unixEpochNanos", TIME, |c| decimal_text(c.time(0).unix_nanos())),
];

fn seconds<'a>(text: &[u8]) -> Answer<'a> {
    let nanos = duration::parse_go(text)?;
    float((nanos / 1_000_000_000) as f64 + (nanos % 1_000_000_000) as f64 / 1e9)
}

/// Days, seconds, milliseconds, microseconds or nanoseconds, told apart by the number of characters.
fn unix_to_time(text: &[u8]) -> Result<Time, String> {
    let shown = String::from_utf8_lossy(text);
    let n = number::parse_int(text).map_err(|e| format!("unable to parse time '{shown}': {e}"))?;
    let split = |per_second: i64| {
        let nanos = n.rem_euclid(per_second) * (1_000_000_000 / per_second);
        Time::new(n.div_euclid(per_second), nanos as u32)
    };
    match text.len() {
        5 => Ok(Time::new(n * 86_400, 0)),
        10 => Ok(split(1)),
        13 => Ok(split(1000)),
        16 => Ok(split(1_000_000)),
        19 => Ok(split(1_000_000_000)),
        // The original formats an error that is not there.
        _ => Err(format!("unable to parse time '{shown}': %!w(<nil>)")),
    }
}
