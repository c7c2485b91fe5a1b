//! The functions of Go's own template package: comparisons, indexing, slicing, lengths and truth.

use std::cmp::Ordering;

use super::exec::Data;
use super::funcs::{Answer, Call};
use super::value::{Bytes, Held, IntKind, Value};

/// How Go decides `{{if}}`: zero, empty and nil are false, everything else is true.
pub(super) fn truth(value: &Value<'_>, data: &Data<'_>) -> bool {
    !is_empty(value, data)
}

/// sprig's notion of empty, which is the same.
pub(super) fn is_empty(value: &Value<'_>, data: &Data<'_>) -> bool {
    match value {
        Value::Nil => true,
        Value::Bool(b) => !b,
        Value::Int(_, n) => *n == 0,
        Value::Float(f) => *f == 0.0,
        Value::Text(text) => text.is_empty(),
        Value::Time(_) => false,
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Labels => data.labels_len() == 0,
    }
}

/// `fmt.Sprint` of all arguments, with `<no value>` for nil.
pub(super) fn joined(call: &Call<'_, '_>) -> Vec<u8> {
    let none = Value::borrowed(b"<no value>");
    let values = call.args.iter().map(|a| if matches!(a.value, Value::Nil) { &none } else { &a.value });
    let mut out = Vec::new();
    call.printer.print(values, &mut out);
    out
}

pub(super) fn call<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    match call.value(0) {
        Value::Nil => Err("call of nil".to_owned()),
        value => Err(format!("non-function {} of type {}", call.callee, value.type_name())),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Basic {
    Bool,
    Int,
    Uint,
    Float,
    Text,
}

fn basic(value: &Value<'_>) -> Option<Basic> {
    Some(match value {
        Value::Bool(_) => Basic::Bool,
        Value::Int(IntKind::Uint8, _) => Basic::Uint,
        Value::Int(..) => Basic::Int,
        Value::Float(_) => Basic::Float,
        Value::Text(_) => Basic::Text,
        _ => return None,
    })
}

fn incompatible<T>(a: &Value<'_>, b: &Value<'_>) -> Result<T, String> {
    Err(format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name()))
}

fn equal(a: &Value<'_>, b: &Value<'_>, call: &Call<'_, '_>) -> Result<bool, String> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Text(a), Value::Text(b)) => Ok(**a == **b),
        (Value::Int(_, a), Value::Int(_, b)) => Ok(a == b),
        (Value::Nil, _) | (_, Value::Nil) => Ok(matches!((a, b), (Value::Nil, Value::Nil))),
        (Value::Time(a), Value::Time(b)) => Ok(a.instant() == b.instant()),
        _ if basic(a) != basic(b) => incompatible(a, b),
        _ => {
            let shown = |value: &Value<'_>| {
                let mut out = Vec::new();
                call.printer.value(value, &mut out);
                String::from_utf8_lossy(&out).into_owned()
            };
            Err(format!("non-comparable types {}: {}, {}: {}", shown(a), a.type_name(), b.type_name(), shown(b)))
        }
    }
}

pub(super) fn eq<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    if call.args.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for arg in &call.args[1..] {
        if equal(call.value(0), &arg.value, call)? {
            return Ok(Held::plain(Value::Bool(true)));
        }
    }
    Ok(Held::plain(Value::Bool(false)))
}

pub(super) fn ne<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    Ok(Held::plain(Value::Bool(!equal(call.value(0), call.value(1), call)?)))
}

/// How the two arguments compare; `None` if one is NaN.
fn order(call: &Call<'_, '_>) -> Result<Option<Ordering>, String> {
    let (a, b) = (call.value(0), call.value(1));
    let invalid = || "invalid type for comparison".to_owned();
    let kinds = (basic(a).ok_or_else(invalid)?, basic(b).ok_or_else(invalid)?);
    match (a, b) {
        (Value::Int(_, a), Value::Int(_, b)) => Ok(Some(a.cmp(b))),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(Some((**a).cmp(&**b))),
        _ if kinds.0 == kinds.1 => Err(invalid()),
        _ => incompatible(a, b),
    }
}

fn bool<'a>(b: bool) -> Answer<'a> {
    Ok(Held::plain(Value::Bool(b)))
}

pub(super) fn lt<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    bool(order(call)? == Some(Ordering::Less))
}

pub(super) fn le<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    bool(matches!(order(call)?, Some(Ordering::Less | Ordering::Equal)))
}

// Go computes these as negations, which shows with NaN.
pub(super) fn gt<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    bool(!matches!(order(call)?, Some(Ordering::Less | Ordering::Equal)))
}

pub(super) fn ge<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    bool(order(call)? != Some(Ordering::Less))
}

pub(super) fn len<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    let len = match (call.args.first(), call.value(0)) {
        (_, Value::Text(text)) => text.len(),
        (_, Value::List(items)) => items.len(),
        (_, Value::Map(map)) => map.len(),
        (_, Value::Labels) => call.data.labels_len(),
        (Some(Held { interface: true, .. }), Value::Nil) => return Err("len of nil pointer".to_owned()),
        (_, Value::Nil) => return Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        (_, value) => return Err(format!("len of type {}", value.type_name())),
    };
    Ok(Held::plain(Value::int(len as i64)))
}

/// An index into something of that length (the length itself is accepted).
fn index_arg(index: &Value<'_>, len: usize) -> Result<usize, String> {
    match index {
        Value::Int(_, n) => match usize::try_from(*n) {
            Ok(i) if i <= len => Ok(i),
            _ => Err(format!("index out of range: {n}")),
        },
        Value::Nil => Err("cannot index slice/array with nil".to_owned()),
        _ => Err(format!("cannot index slice/array with type {}", index.type_name())),
    }
}

pub(super) fn index<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    let mut item = match call.args.first() {
        Some(item) if !matches!(item.value, Value::Nil) => item.clone(),
        _ => return Err("index of untyped nil".to_owned()),
    };
    for index in &call.args[1..] {
        let index = &index.value;
        item = match &item.value {
            Value::Nil => return Err("index of nil pointer".to_owned()),
            Value::List(items) => match items.get(index_arg(index, items.len())?) {
                Some(element) => Held::in_interface(element.clone()),
                None => return Err("reflect: slice index out of range".to_owned()),
            },
            Value::Text(text) => match text.get(index_arg(index, text.len())?) {
                Some(byte) => Held::plain(Value::Int(IntKind::Uint8, i64::from(*byte))),
                None => return Err("reflect: string index out of range".to_owned()),
            },
            Value::Map(map) => match map.get(key(index)?) {
                Some(element) => Held::in_interface(element.clone()),
                None => Held::NIL,
            },
            Value::Labels => Held::plain(call.data.field(key(index)?)),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

fn key<'v>(index: &'v Value<'_>) -> Result<&'v [u8], String> {
    match index {
        Value::Text(text) => Ok(text),
        Value::Nil => Err("value is nil; should be of type string".to_owned()),
        _ => Err(format!("value has type {}; should be string", index.type_name())),
    }
}

pub(super) fn slice<'a>(call: &Call<'_, 'a>) -> Answer<'a> {
    let (item, indexes) = match call.args {
        [item, indexes @ ..] if !matches!(item.value, Value::Nil) => (&item.value, indexes),
        _ => return Err("slice of untyped nil".to_owned()),
    };
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let len = match item {
        Value::Text(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        _ => return Err(format!("can't slice item of type {}", item.type_name())),
    };
    let mut bounds = [0, len, len];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = index_arg(&index.value, len)?;
    }
    let [from, to, cap] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    if indexes.len() == 3 && to > cap {
        return Err(format!("invalid slice index: {to} > {cap}"));
    }
    Ok(Held::plain(match item {
        Value::Text(Bytes::Borrowed(text)) => Value::borrowed(&text[from..to]),
        Value::Text(text) => Value::text(&text[from..to]),
        Value::List(items) => Value::List(items[from..to].into()),
        _ => Value::Nil,
    }))
}
