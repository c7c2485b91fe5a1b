//! Push bodies, written from the protocol's description alone.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    /// The line; any bytes.
    pub line: Vec<u8>,
    /// Structured metadata.
    pub metadata: Vec<(String, String)>,
}

/// Streams and their entries, in order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Label text and entries.
    pub streams: Vec<(String, Vec<Entry>)>,
}

impl Batch {
    /// No stream at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One stream with one line, now.
    #[must_use]
    pub fn one(labels: &str, line: &str) -> Self {
        Self::new().line(labels, crate::now_ns(), line)
    }

    /// Adds an entry; a stream of its own unless the last one has the same labels.
    #[must_use]
    pub fn entry(mut self, labels: &str, entry: Entry) -> Self {
        match self.streams.last_mut() {
            Some((last, entries)) if last == labels => entries.push(entry),
            _ => self.streams.push((labels.to_owned(), vec![entry])),
        }
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn line(self, labels: &str, timestamp: i64, line: &str) -> Self {
        self.bytes(labels, timestamp, line.as_bytes())
    }

    /// Adds a line of any bytes.
    #[must_use]
    pub fn bytes(self, labels: &str, timestamp: i64, line: &[u8]) -> Self {
        self.entry(labels, Entry { timestamp, line: line.to_vec(), metadata: Vec::new() })
    }

    /// Adds a line with structured metadata.
    #[must_use]
    pub fn with_metadata(self, labels: &str, timestamp: i64, line: &str, metadata: &[(&str, &str)]) -> Self {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.entry(labels, Entry { timestamp, line: line.as_bytes().to_vec(), metadata })
    }

    /// `logproto.PushRequest`.
    #[must_use]
    pub fn protobuf(&self) -> Vec<u8> {
        let mut request = Proto::default();
        for (labels, entries) in &self.streams {
            let mut stream = Proto::default();
            stream.bytes(1, labels.as_bytes());
            for entry in entries {
                let mut message = Proto::default();
                let mut timestamp = Proto::default();
                timestamp.varint(1, entry.timestamp.div_euclid(1_000_000_000).cast_unsigned());
                timestamp.varint(2, entry.timestamp.rem_euclid(1_000_000_000).cast_unsigned());
                message.bytes(1, &timestamp.0);
                message.bytes(2, &entry.line);
                for (name, value) in &entry.metadata {
                    let mut pair = Proto::default();
                    pair.bytes(1, name.as_bytes());
                    pair.bytes(2, value.as_bytes());
                    message.bytes(3, &pair.0);
                }
                stream.bytes(2, &message.0);
            }
            request.bytes(1, &stream.0);
        }
        request.0
    }

    /// The protobuf form in a snappy block.
    ///
    /// # Panics
    /// If it is larger than snappy can hold (4 GiB).
    #[must_use]
    pub fn snappy(&self) -> Vec<u8> {
        snappy(&self.protobuf())
    }

    /// The JSON form of the v1 path. Label texts must be plain `{a="b"}`, lines UTF-8.
    ///
    /// # Panics
    /// If a line is not UTF-8.
    #[must_use]
    pub fn json(&self) -> Value {
        let streams = self.streams.iter().map(|(labels, entries)| {
            let values = entries.iter().map(|entry| {
                let (ts, line) = (entry.timestamp.to_string(), utf8(&entry.line));
                if entry.metadata.is_empty() { json!([ts, line]) } else { json!([ts, line, object(&entry.metadata)]) }
            });
            json!({"stream": object(&plain_labels(labels)), "values": values.collect::<Vec<_>>()})
        });
        json!({"streams": streams.collect::<Vec<_>>()})
    }

    /// The JSON form of the legacy path.
    ///
    /// # Panics
    /// If a line is not UTF-8.
    #[must_use]
    pub fn legacy_json(&self) -> Value {
        let streams = self.streams.iter().map(|(labels, entries)| {
            let entries =
                entries.iter().map(|entry| json!({"ts": rfc3339(entry.timestamp), "line": utf8(&entry.line)}));
            json!({"labels": labels, "entries": entries.collect::<Vec<_>>()})
        });
        json!({"streams": streams.collect::<Vec<_>>()})
    }
}

/// A log record: nanoseconds since 1970, body, attributes.
pub type OtlpRecord<'a> = (i64, &'a str, &'a [(&'a str, &'a str)]);

/// `opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest` with one resource, one scope and these records.
#[must_use]
pub fn otlp_protobuf(resource: &[(&str, &str)], records: &[OtlpRecord<'_>]) -> Vec<u8> {
    let mut scope_logs = Proto::default();
    for (timestamp, body, attributes) in records {
        let mut record = Proto::default();
        record.fixed64(1, timestamp.cast_unsigned());
        let mut value = Proto::default();
        value.bytes(1, body.as_bytes());
        record.bytes(5, &value.0);
        for (name, value) in *attributes {
            record.bytes(6, &key_value(name, value));
        }
        scope_logs.bytes(2, &record.0);
    }
    let mut attributes = Proto::default();
    for (name, value) in resource {
        attributes.bytes(1, &key_value(name, value));
    }
    let mut resource_logs = Proto::default();
    resource_logs.bytes(1, &attributes.0);
    resource_logs.bytes(2, &scope_logs.0);
    let mut request = Proto::default();
    request.bytes(1, &resource_logs.0);
    request.0
}

/// The same in OTLP's JSON.
#[must_use]
pub fn otlp_json(resource: &[(&str, &str)], records: &[OtlpRecord<'_>]) -> Value {
    let attributes = |pairs: &[(&str, &str)]| -> Vec<Value> {
        pairs.iter().map(|(name, value)| json!({"key": name, "value": {"stringValue": value}})).collect()
    };
    let records = records.iter().map(|(timestamp, body, pairs)| {
        json!({"timeUnixNano": timestamp.to_string(), "body": {"stringValue": body}, "attributes": attributes(pairs)})
    });
    json!({"resourceLogs": [{
        "resource": {"attributes": attributes(resource)},
        "scopeLogs": [{"scope": {}, "logRecords": records.collect::<Vec<_>>()}],
    }]})
}

/// A snappy block.
///
/// # Panics
/// If the input is larger than snappy can hold (4 GiB).
#[must_use]
pub fn snappy(raw: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(raw).expect("a body below 4 GiB")
}

/// Seconds of `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ`.
#[must_use]
pub fn rfc3339(timestamp: i64) -> String {
    let (seconds, nanos) = (timestamp.div_euclid(1_000_000_000), timestamp.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1970 to a civil date: years are counted from March, in cycles of 400 years of 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The pairs of a plain `{a="b", c="d"}`: no escapes, no comma in a value.
#[must_use]
pub fn plain_labels(text: &str) -> Vec<(String, String)> {
    text.trim_matches(['{', '}'])
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
        .collect()
}

/// Label text of pairs.
#[must_use]
pub fn label_text(pairs: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (i, (name, value)) in pairs.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(out, "{comma}{name}={value:?}").expect("writing to a string cannot fail");
    }
    out.push('}');
    out
}

fn object(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

fn utf8(line: &[u8]) -> &str {
    std::str::from_utf8(line).expect("JSON holds text")
}

fn key_value(name: &str, value: &str) -> Vec<u8> {
    let mut any = Proto::default();
    any.bytes(1, value.as_bytes());
    let mut pair = Proto::default();
    pair.bytes(1, name.as_bytes());
    pair.bytes(2, &any.0);
    pair.0
}

/// A protobuf message being written.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(1_793_534_400_000_000_000), "2026-11-01T12:00:00.000000000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
