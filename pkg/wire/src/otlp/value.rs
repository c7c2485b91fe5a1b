//! Values of attributes and bodies as text: scalars plain, arrays and maps as JSON the way Go's encoder writes it (keys sorted, `<`, `>`
//! and `&` escaped), bytes in base64.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tailwater_logql::go::number::format_f;

use crate::proto::opentelemetry::proto::common::v1::AnyValue;
use crate::proto::opentelemetry::proto::common::v1::any_value::Value;

/// The text of a value; empty for none.
pub(super) fn text(value: Option<&AnyValue>) -> Cow<'_, [u8]> {
    let Some(value) = value.and_then(|v| v.value.as_ref()) else { return Cow::default() };
    match value {
        Value::StringValue(text) => Cow::Borrowed(text),
        Value::BoolValue(b) => Cow::Owned(b.to_string().into_bytes()),
        Value::IntValue(n) => Cow::Owned(n.to_string().into_bytes()),
        Value::DoubleValue(n) => Cow::Owned(match number(*n) {
            Some(text) => text.into_bytes(),
            None => format!("json: unsupported value: {}", format_f(*n)).into_bytes(),
        }),
        Value::BytesValue(bytes) => Cow::Owned(STANDARD.encode(bytes).into_bytes()),
        Value::ArrayValue(_) | Value::KvlistValue(_) => {
            let mut out = Vec::new();
            // What has no JSON form has no text at all.
            Cow::Owned(json(Some(value), &mut out).map(|()| out).unwrap_or_default())
        }
    }
}

/// The depth of values is bounded by the decoders, prost's and serde_json's.
fn json(value: Option<&Value>, out: &mut Vec<u8>) -> Option<()> {
    match value {
        None => out.extend_from_slice(b"null"),
        Some(Value::StringValue(text)) => string(text, out),
        Some(Value::BoolValue(b)) => out.extend_from_slice(b.to_string().as_bytes()),
        Some(Value::IntValue(n)) => out.extend_from_slice(n.to_string().as_bytes()),
        Some(Value::DoubleValue(n)) => out.extend_from_slice(number(*n)?.as_bytes()),
        Some(Value::BytesValue(bytes)) => string(STANDARD.encode(bytes).as_bytes(), out),
        Some(Value::ArrayValue(array)) => {
            out.push(b'[');
            for (i, element) in array.values.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json(element.value.as_ref(), out)?;
            }
            out.push(b']');
        }
        Some(Value::KvlistValue(map)) => {
            let members = map.values.iter().map(|m| (&m.key, m.value.as_ref().and_then(|v| v.value.as_ref())));
            out.push(b'{');
            for (i, (name, value)) in members.collect::<BTreeMap<_, _>>().into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                string(name, out);
                out.push(b':');
                json(value, out)?;
            }
            out.push(b'}');
        }
    }
    Some(())
}

/// A number as JavaScript writes it; infinities and NaN have no such form.
fn number(n: f64) -> Option<String> {
    let size = n.abs();
    if !n.is_finite() {
        return None;
    }
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{n:e}");
        return Some(if size < 1.0 { text } else { text.replace('e', "e+") });
    }
    Some(format_f(n))
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\x08' => out.extend_from_slice(b"\\b"),
                '\x0c' => out.extend_from_slice(b"\\f"),
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::opentelemetry::proto::common::v1::{ArrayValue, KeyValue, KeyValueList};

    fn show(value: Value) -> String {
        String::from_utf8(text(Some(&AnyValue { value: Some(value) })).into_owned()).unwrap()
    }

    #[test]
    fn scalars_are_plain() {
        assert_eq!(show(Value::StringValue("<a> \"b\"".into())), "<a> \"b\"");
        assert_eq!(show(Value::IntValue(-5)), "-5");
        assert_eq!(show(Value::BoolValue(false)), "false");
        assert_eq!(show(Value::BytesValue(vec![1, 2, 3].into())), "AQID");
        let doubles = [1.25, 0.0, 1e21, 1.5e-7, 123456789.0, 1e-6, f64::NAN, f64::NEG_INFINITY];
        let texts = doubles.map(|n| show(Value::DoubleValue(n)));
        let unsupported = ["json: unsupported value: NaN", "json: unsupported value: -Inf"];
        assert_eq!(texts[..6], ["1.25", "0", "1e+21", "1.5e-7", "123456789", "0.000001"]);
        assert_eq!(texts[6..], unsupported);
        assert!(text(None).is_empty() && text(Some(&AnyValue { value: None })).is_empty());
    }

    #[test]
    fn arrays_and_maps_are_json() {
        let any = |value| AnyValue { value: Some(value) };
        let member = |key: &str, value| KeyValue { key: key.as_bytes().to_vec().into(), value: Some(any(value)) };
        let list = ArrayValue { values: vec![any(Value::StringValue("<\u{1}\n".into())), AnyValue { value: None }] };
        let map = KeyValueList {
            values: vec![
                member("z", Value::ArrayValue(list)),
                member("a", Value::DoubleValue(0.5)),
                member("z", Value::BytesValue(vec![255].into())),
                member(
                    "b\u{ff}",
                    Value::ArrayValue(ArrayValue { values: vec![any(Value::StringValue("<\u{1}\n".into()))] }),
                ),
            ],
        };
        assert_eq!(show(Value::KvlistValue(map)), r#"{"a":0.5,"bÿ":["\u003c\u0001\n"],"z":"/w=="}"#);
        let nan = ArrayValue { values: vec![any(Value::DoubleValue(f64::NAN))] };
        assert_eq!(show(Value::ArrayValue(nan)), "");
    }
}
