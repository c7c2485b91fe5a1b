use prost::Message as _;
use serde_json::json;

use super::*;
use crate::Kind;
use crate::proto::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest as LogsData, ResourceLogs, ScopeLogs,
};
use crate::proto::opentelemetry::proto::common::v1::{ArrayValue, KeyValueList};

const NOW: Timestamp = Timestamp(42);
const JSON: Option<&str> = Some("application/json");
const PROTOBUF: Option<&str> = Some("application/x-protobuf");

fn take(kind: Option<&str>, body: &[u8]) -> Result<Push, Error> {
    read(kind, None, body, &Caps::default(), NOW, &DEFAULT_INDEX_ATTRIBUTES)
}

/// Streams as (labels, [(time, line, [name=value])]).
type Entries = Vec<(i64, String, Vec<String>)>;

fn show(push: &Push) -> Vec<(String, Entries)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entry = |e| {
        let pairs = push.metadata(e).map(|(n, v)| format!("{}={}", text(n), text(v))).collect();
        (e.timestamp, text(push.line(e)), pairs)
    };
    push.streams().iter().map(|s| (text(push.labels(s)), push.entries(s).iter().map(entry).collect())).collect()
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn string(text: &str) -> AnyValue {
    any(Value::StringValue(text.to_owned().into()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned().into(), value: Some(value) }
}

fn everything() -> LogsData {
    let map = KeyValueList { values: vec![pair("in", string("x")), pair("n", any(Value::IntValue(1)))] };
    let list = ArrayValue { values: vec![any(Value::IntValue(1)), string("a")] };
    let resource = Resource {
        attributes: vec![
            pair("service.name", string("shop \"1\"")),
            pair("host.name", string("h")),
            pair("k8s.pod.name", any(Value::BoolValue(true))),
            pair("r.map", any(Value::KvlistValue(map.clone()))),
        ],
    };
    let scope = InstrumentationScope {
        name: "my.scope".into(),
        version: "1.2".into(),
        attributes: vec![pair("sc.a", string("y"))],
        dropped_attributes_count: 7,
    };
    let full = LogRecord {
        time_unix_nano: 1000,
        observed_time_unix_nano: 2000,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: Some(any(Value::KvlistValue(map))),
        attributes: vec![pair("k", any(Value::ArrayValue(list)))],
        dropped_attributes_count: 3,
        flags: 1,
        trace_id: (0..16).collect::<Vec<u8>>().into(),
        span_id: vec![255; 8].into(),
        event_name: "e".into(),
    };
    let observed = LogRecord { observed_time_unix_nano: 5, body: Some(string("b")), ..LogRecord::default() };
    let bare = LogRecord { trace_id: vec![0; 16].into(), ..LogRecord::default() };
    LogsData {
        resource_logs: vec![
            ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![
                    ScopeLogs { scope: Some(scope), log_records: vec![full] },
                    ScopeLogs { scope: None, log_records: vec![observed, bare] },
                ],
            },
            ResourceLogs { resource: Some(Resource::default()), scope_logs: vec![ScopeLogs::default()] },
            ResourceLogs {
                resource: None,
                scope_logs: vec![ScopeLogs { scope: None, log_records: vec![LogRecord::default()] }],
            },
        ],
    }
}

#[test]
fn every_field_becomes_a_label_or_metadata() {
    let push = take(PROTOBUF, &everything().encode_to_vec()).unwrap();
    let of_resource = ["host.name=h", "r.map_in=x", "r.map_n=1"];
    let full = [
        "k=[1,\"a\"]",
        "observed_timestamp=2000",
        "severity_number=17",
        "severity_text=ERROR",
        "dropped_attributes_count=3",
        "flags=1",
        "trace_id=000102030405060708090a0b0c0d0e0f",
        "span_id=ffffffffffffffff",
        "event_name=e",
    ];
    let of_scope = ["sc.a=y", "scope_name=my.scope", "scope_version=1.2", "scope_dropped_attributes_count=7"];
    let owned = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let stream = r#"{k8s_pod_name="true", service_name="shop \"1\""}"#.to_owned();
    let want = vec![
        (
            stream,
            vec![
                (1000, r#"{"in":"x","n":1}"#.to_owned(), owned(&[&full[..], &of_resource, &of_scope].concat())),
                (5, "b".to_owned(), owned(&of_resource)),
                (42, String::new(), owned(&of_resource)),
            ],
        ),
        ("{}".to_owned(), vec![(42, String::new(), vec![])]),
    ];
    assert_eq!(show(&push), want);
    assert_eq!(crate::push::decode(push.body.clone()).unwrap(), push);
}

#[test]
fn json_means_the_same() {
    let attribute = |key: &str, value| json!({"key": key, "value": value});
    let map = json!({"kvlistValue": {"values": [
        attribute("in", json!({"stringValue": "x"})), attribute("n", json!({"intValue": "1"})),
    ]}});
    let list = json!({"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "a"}]}});
    let body = json!({"resourceLogs": [
        {
            "scopeLogs": [
                {
                    "scope": {"name": "my.scope", "version": "1.2", "droppedAttributesCount": 7,
                        "attributes": [attribute("sc.a", json!({"stringValue": "y"}))], "unknown": [{}]},
                    "logRecords": [{
                        "timeUnixNano": "1000", "observedTimeUnixNano": 2000, "severityNumber": "SEVERITY_NUMBER_ERROR",
                        "severityText": "ERROR", "body": map, "attributes": [attribute("k", list)],
                        "droppedAttributesCount": 3, "flags": 1, "traceId": "000102030405060708090A0B0C0D0E0F",
                        "spanId": "ffffffffffffffff", "eventName": "e",
                    }],
                },
                {"logRecords": [
                    {"observed_time_unix_nano": "5", "body": {"string_value": "b"}},
                    {"trace_id": "00000000000000000000000000000000", "attributes": null, "body": null},
                ]},
            ],
            "resource": {"attributes": [
                attribute("service.name", json!({"stringValue": "shop \"1\""})),
                attribute("host.name", json!({"stringValue": "h"})),
                attribute("k8s.pod.name", json!({"boolValue": true})),
                attribute("r.map", map),
            ]},
        },
        {"resource": {}, "scopeLogs": null},
        {"scope_logs": [{"log_records": [{}]}]},
    ]});
    let from_json = take(JSON, &serde_json::to_vec(&body).unwrap()).unwrap();
    assert_eq!(show(&from_json), show(&take(PROTOBUF, &everything().encode_to_vec()).unwrap()));
}

#[test]
fn nothing_in_it_is_an_empty_push() {
    for body in [r#"{"resourceLogs":[]}"#, "{}", r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[]}]}]}"#] {
        assert!(take(JSON, body.as_bytes()).unwrap().streams.is_empty(), "{body}");
    }
    assert!(take(PROTOBUF, b"").unwrap().streams.is_empty());
}

#[test]
fn what_it_is_not_is_said() {
    let text = |kind, coding, body: &[u8]| {
        read(kind, coding, body, &Caps::default(), NOW, &DEFAULT_INDEX_ATTRIBUTES).unwrap_err().to_string()
    };
    let charset = Some("application/json; charset=utf-8");
    assert_eq!(text(charset, None, b"{}"), "content type: application/json; charset=utf-8 is not supported");
    assert_eq!(text(None, None, b"{}"), "content type:  is not supported");
    let want = "unsupported content encoding deflate: only gzip, lz4 and zstd are supported";
    assert_eq!(text(JSON, Some("deflate"), b"{}"), want);
    for bad in ["{nope", "", "[]", r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"zz"}]}]}]}"#] {
        assert!(take(JSON, bad.as_bytes()).is_err(), "{bad}");
    }
    for bad in [&b"\x0a\x05"[..], b"\x08\x01", b"\x0a\x02\x12\x05", b"\x0a\x06\x12\x04\x12\x02\x4a\x01"] {
        assert_eq!(take(PROTOBUF, bad).unwrap_err().kind(), Kind::BadRequest, "{bad:?}");
    }
    let short = LogRecord { trace_id: vec![1].into(), ..LogRecord::default() };
    let data = LogsData {
        resource_logs: vec![ResourceLogs {
            resource: None,
            scope_logs: vec![ScopeLogs { scope: None, log_records: vec![short] }],
        }],
    };
    assert_eq!(take(PROTOBUF, &data.encode_to_vec()).unwrap_err().to_string(), "invalid length for TraceID");
}

#[test]
fn the_index_attributes_are_the_callers() {
    let data = everything().encode_to_vec();
    let push = read(PROTOBUF, None, &data, &Caps::default(), NOW, &["host.name", "r.map"]).unwrap();
    assert_eq!(show(&push)[0].0, r#"{host_name="h", r_map_in="x", r_map_n="1"}"#);
}

#[test]
fn attributes_that_would_multiply_are_refused() {
    // A name of a megabyte over ten thousand members.
    let members = (0..10_000).map(|_| pair("", any(Value::IntValue(1)))).collect();
    let map = any(Value::KvlistValue(KeyValueList { values: members }));
    let record = LogRecord { attributes: vec![pair(&"n".repeat(1 << 20), map)], ..LogRecord::default() };
    let scope = ScopeLogs { scope: None, log_records: vec![record] };
    let data = LogsData { resource_logs: vec![ResourceLogs { resource: None, scope_logs: vec![scope] }] };
    assert_eq!(take(PROTOBUF, &data.encode_to_vec()).unwrap_err().kind(), Kind::TooLarge);
    // A resource of three megabytes over a thousand records of two bytes.
    let resource = Resource { attributes: vec![pair("r", string(&"x".repeat(3 << 20)))] };
    let scope = ScopeLogs { scope: None, log_records: vec![LogRecord::default(); 1000] };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![scope] };
    let data = LogsData { resource_logs: vec![logs] };
    assert_eq!(take(PROTOBUF, &data.encode_to_vec()).unwrap_err().kind(), Kind::TooLarge);
    // One record beyond the bound.
    let record = LogRecord { body: Some(string(&"x".repeat(MAX_RECORD_BYTES))), ..LogRecord::default() };
    let scope = ScopeLogs { scope: None, log_records: vec![record] };
    let data = LogsData { resource_logs: vec![ResourceLogs { resource: None, scope_logs: vec![scope] }] };
    assert_eq!(take(PROTOBUF, &data.encode_to_vec()).unwrap_err().kind(), Kind::TooLarge);
}

#[test]
fn lists_in_json_take_bounded_memory() {
    let long = "{},".repeat(crate::push::MAX_RECORDS + 1);
    for body in [
        format!(r#"{{"resourceLogs":[{long}{{}}]}}"#),
        format!(r#"{{"resource_logs":[{{"scope_logs":[{long}{{}}]}}]}}"#),
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{long}{{}}]}}]}}]}}"#),
    ] {
        let error = take(JSON, body.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "request body too large: more than 4194304 records");
    }
    assert!(take(JSON, br#"{"resourceLogs":null}"#).is_ok());
    assert!(take(JSON, br#"{"resourceLogs":7}"#).is_err());
}

#[test]
fn deep_values_are_refused_or_read_but_never_overflow() {
    let mut value = string("x");
    for _ in 0..1000 {
        value = any(Value::ArrayValue(ArrayValue { values: vec![value] }));
    }
    let record = LogRecord { body: Some(value), ..LogRecord::default() };
    let scope = ScopeLogs { scope: None, log_records: vec![record] };
    let data = LogsData { resource_logs: vec![ResourceLogs { resource: None, scope_logs: vec![scope] }] };
    assert!(take(PROTOBUF, &data.encode_to_vec()).is_err());
    let deep = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{}1{}}}]}}]}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(5000),
        "]}}".repeat(5000)
    );
    assert!(take(JSON, deep.as_bytes()).is_err());
}

#[test]
fn errors_are_told_as_a_status() {
    assert_eq!(status_body("no"), b"\x12\x02no");
}
