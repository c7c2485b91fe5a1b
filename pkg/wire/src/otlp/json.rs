//! OTLP as JSON: lowerCamelCase or snake_case keys, 64-bit numbers as numbers or texts, ids in hex, unknown keys ignored.
//!
//! Lists of resources, scopes and records are kept as pieces of the text, so that only one record is taken apart at a time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Records, check_record};
use crate::Error;
use crate::proto::opentelemetry::proto::common::v1 as common;
use crate::proto::opentelemetry::proto::logs::v1 as logs;
use crate::push::MAX_RECORDS;

/// Reads a request body.
pub(super) fn read(body: &[u8], records: &mut Records<'_>) -> Result<(), Error> {
    let body = String::from_utf8_lossy(body);
    for resource_logs in few(parse::<LogsData<'_>>(&body)?.resource_logs)? {
        let ResourceLogs { resource, scope_logs } = parse(resource_logs.get())?;
        let resource: Resource = part(resource)?;
        let attributes: Vec<_> = resource.attributes.into_iter().flatten().map(common::KeyValue::from).collect();
        records.begin_resource(&attributes)?;
        for scope_logs in few(scope_logs)? {
            let ScopeLogs { scope, log_records } = parse(scope_logs.get())?;
            let scope: Scope = part(scope)?;
            records.begin_scope(&scope.into())?;
            for record in few(log_records)? {
                let record: LogRecord = part(Some(record))?;
                records.record(&record.into())?;
            }
        }
        records.end_resource()?;
    }
    Ok(())
}

/// A list that is not too long.
fn few(list: Option<Vec<&RawValue>>) -> Result<Vec<&RawValue>, Error> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_RECORDS {
        return Err(Error::TooLarge(format!("more than {MAX_RECORDS} records").into()));
    }
    Ok(list)
}

/// Reads an object. (A list would do for its fields in order, as far as serde is concerned.)
fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    if text.trim_ascii_start().starts_with('[') {
        return Err(Error::malformed("expected an object, found a list"));
    }
    serde_json::from_str(text).map_err(|e| Error::malformed(e.to_string()))
}

/// What is small: a resource, a scope or a record.
fn part<T: DeserializeOwned + Default>(text: Option<&RawValue>) -> Result<T, Error> {
    let Some(text) = text else { return Ok(T::default()) };
    check_record(text.get().len())?;
    parse(text.get())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogsData<'a> {
    #[serde(borrow, default, alias = "resource_logs", deserialize_with = "pieces")]
    resource_logs: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs<'a> {
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "scope_logs", deserialize_with = "pieces")]
    scope_logs: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs<'a> {
    #[serde(borrow)]
    scope: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "log_records", deserialize_with = "pieces")]
    log_records: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    attributes: Option<Vec<KeyValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Scope {
    name: Option<String>,
    version: Option<String>,
    attributes: Option<Vec<KeyValue>>,
    #[serde(alias = "dropped_attributes_count", deserialize_with = "number")]
    dropped_attributes_count: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LogRecord {
    #[serde(alias = "time_unix_nano", deserialize_with = "number")]
    time_unix_nano: u64,
    #[serde(alias = "observed_time_unix_nano", deserialize_with = "number")]
    observed_time_unix_nano: u64,
    #[serde(alias = "severity_number", deserialize_with = "severity")]
    severity_number: i32,
    #[serde(alias = "severity_text")]
    severity_text: Option<String>,
    body: Option<AnyValue>,
    attributes: Option<Vec<KeyValue>>,
    #[serde(alias = "dropped_attributes_count", deserialize_with = "number")]
    dropped_attributes_count: u64,
    #[serde(deserialize_with = "number")]
    flags: u64,
    #[serde(alias = "trace_id", deserialize_with = "hex")]
    trace_id: Vec<u8>,
    #[serde(alias = "span_id", deserialize_with = "hex")]
    span_id: Vec<u8>,
    #[serde(alias = "event_name")]
    event_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: Option<String>,
    value: Option<AnyValue>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AnyValue {
    #[serde(alias = "string_value")]
    string_value: Option<String>,
    #[serde(alias = "bool_value")]
    bool_value: Option<bool>,
    #[serde(alias = "int_value", deserialize_with = "integer")]
    int_value: Option<i64>,
    #[serde(alias = "double_value", deserialize_with = "double")]
    double_value: Option<f64>,
    #[serde(alias = "array_value")]
    array_value: Option<ArrayValue>,
    #[serde(alias = "kvlist_value")]
    kvlist_value: Option<KeyValueList>,
    #[serde(alias = "bytes_value", deserialize_with = "base64")]
    bytes_value: Option<Vec<u8>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ArrayValue {
    values: Option<Vec<AnyValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValueList {
    values: Option<Vec<KeyValue>>,
}

/// The elements of a list, as pieces of the text: of a list that is too long only so many that this
/// shows. A body of commas would otherwise take many times its size.
fn pieces<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<&'a RawValue>>, D::Error> {
    struct Pieces;
    impl<'de> Visitor<'de> for Pieces {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut pieces = Vec::new();
            while pieces.len() <= MAX_RECORDS
                && let Some(piece) = list.next_element()?
            {
                pieces.push(piece);
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(pieces)
        }
    }
    struct Present;
    impl<'de> Visitor<'de> for Present {
        type Value = Option<Vec<&'de RawValue>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_seq(Pieces).map(Some)
        }
    }
    from.deserialize_option(Present)
}

/// A number, or a text that holds one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(#[serde(borrow)] std::borrow::Cow<'a, str>),
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Option::<Number<'_>>::deserialize(from)? {
        None => Ok(0),
        Some(Number::Unsigned(n)) => Ok(n),
        Some(Number::Text(text)) => text.parse().map_err(serde::de::Error::custom),
        Some(_) => Err(serde::de::Error::custom("expected an unsigned integer")),
    }
}

fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    match Option::<Number<'_>>::deserialize(from)? {
        None => Ok(None),
        Some(Number::Signed(n)) => Ok(Some(n)),
        Some(Number::Unsigned(n)) => i64::try_from(n).map(Some).map_err(serde::de::Error::custom),
        Some(Number::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
        Some(Number::Float(_)) => Err(serde::de::Error::custom("expected an integer")),
    }
}

fn double<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    match Option::<Number<'_>>::deserialize(from)? {
        None => Ok(None),
        Some(Number::Signed(n)) => Ok(Some(n as f64)),
        Some(Number::Unsigned(n)) => Ok(Some(n as f64)),
        Some(Number::Float(n)) => Ok(Some(n)),
        Some(Number::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// A severity by number or by name (`SEVERITY_NUMBER_INFO2`).
fn severity<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    const NAMES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let by_name = |text: &str| {
        let name = text.strip_prefix("SEVERITY_NUMBER_")?;
        if name == "UNSPECIFIED" {
            return Some(0);
        }
        let (group, rest) = NAMES.iter().enumerate().find_map(|(i, n)| Some((i as i32, name.strip_prefix(n)?)))?;
        let step = ["", "2", "3", "4"].iter().position(|s| *s == rest)? as i32;
        Some(group * 4 + step + 1)
    };
    match Option::<Number<'_>>::deserialize(from)? {
        None => Ok(0),
        Some(Number::Unsigned(n)) => i32::try_from(n).map_err(serde::de::Error::custom),
        Some(Number::Signed(n)) => i32::try_from(n).map_err(serde::de::Error::custom),
        Some(Number::Text(text)) => by_name(&text).ok_or_else(|| serde::de::Error::custom("unknown severity")),
        Some(Number::Float(_)) => Err(serde::de::Error::custom("expected an integer")),
    }
}

fn hex<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(from)?.unwrap_or_default();
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<_>>();
    bytes.filter(|_| rest.is_empty()).ok_or_else(|| serde::de::Error::custom("an id is not in hex"))
}

fn base64<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| STANDARD.decode(text).map_err(serde::de::Error::custom)).transpose()
}

fn bytes(text: Option<String>) -> Bytes {
    Bytes::from(text.unwrap_or_default())
}

impl From<Scope> for common::InstrumentationScope {
    fn from(scope: Scope) -> Self {
        Self {
            name: bytes(scope.name),
            version: bytes(scope.version),
            attributes: scope.attributes.into_iter().flatten().map(Into::into).collect(),
            dropped_attributes_count: u32::try_from(scope.dropped_attributes_count).unwrap_or(u32::MAX),
        }
    }
}

impl From<LogRecord> for logs::LogRecord {
    fn from(record: LogRecord) -> Self {
        Self {
            time_unix_nano: record.time_unix_nano,
            observed_time_unix_nano: record.observed_time_unix_nano,
            severity_number: record.severity_number,
            severity_text: bytes(record.severity_text),
            body: record.body.map(Into::into),
            attributes: record.attributes.into_iter().flatten().map(Into::into).collect(),
            dropped_attributes_count: u32::try_from(record.dropped_attributes_count).unwrap_or(u32::MAX),
            flags: u32::try_from(record.flags).unwrap_or(u32::MAX),
            trace_id: record.trace_id.into(),
            span_id: record.span_id.into(),
            event_name: bytes(record.event_name),
        }
    }
}

impl From<KeyValue> for common::KeyValue {
    fn from(pair: KeyValue) -> Self {
        Self { key: bytes(pair.key), value: pair.value.map(Into::into) }
    }
}

impl From<AnyValue> for common::AnyValue {
    fn from(value: AnyValue) -> Self {
        use common::any_value::Value;
        let list = |list: ArrayValue| common::ArrayValue {
            values: list.values.into_iter().flatten().map(Into::into).collect(),
        };
        let map = |map: KeyValueList| common::KeyValueList {
            values: map.values.into_iter().flatten().map(Into::into).collect(),
        };
        let value = (value.string_value.map(|text| Value::StringValue(text.into())))
            .or(value.bool_value.map(Value::BoolValue))
            .or(value.int_value.map(Value::IntValue))
            .or(value.double_value.map(Value::DoubleValue))
            .or(value.array_value.map(list).map(Value::ArrayValue))
            .or(value.kvlist_value.map(map).map(Value::KvlistValue))
            .or(value.bytes_value.map(|bytes| Value::BytesValue(bytes.into())));
        Self { value }
    }
}
