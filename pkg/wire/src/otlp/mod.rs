//! Pushes in the OpenTelemetry protocol (contract, Loki API §2.8).
//!
//! Invariants:
//! * Records are decoded one at a time and written straight into the protobuf form of a push. A record, a resource or a scope is
//!   at most [`MAX_RECORD_BYTES`], all of a push together at most [`MAX_EXPANDED_BYTES`]: the attributes of a resource are repeated in each of
//!   its entries, so a small body could claim much memory.
//! * The resource's index attributes name the stream; everything else is metadata of the entries: first that of the record, then the
//!   resource's, then the scope's, each in the order sent. Names of metadata stay as sent, the ingester normalises those of every push.
//! * A resource without records makes no stream.

mod json;
mod value;

use bytes::Bytes;
use tailwater_model::Timestamp;

use crate::compress::{self, Caps};
use crate::proto::opentelemetry::proto::common::v1::any_value::Value;
use crate::proto::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use crate::proto::opentelemetry::proto::logs::v1::LogRecord;
use crate::proto::opentelemetry::proto::resource::v1::Resource;
use crate::protobuf::{BYTES, Cursor, MAX_DEPTH, wrong_wire};
use crate::push::{Builder, Push};
use crate::{Error, labels};

/// Most bytes of a record, of a resource and of a scope.
pub const MAX_RECORD_BYTES: usize = 4 << 20;

/// Most bytes of a push in its protobuf form, where every entry has all of its metadata.
pub const MAX_EXPANDED_BYTES: usize = 512 << 20;

/// The resource attributes that name a stream, unless the configuration says otherwise (Loki's defaults).
pub const DEFAULT_INDEX_ATTRIBUTES: [&str; 18] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.name",
    "k8s.replicaset.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

/// Reads the body of a request to `/otlp/v1/logs`. Entries without any time of their own get `now`.
///
/// # Errors
/// [`Error::Malformed`] for a content type or coding that is not supported (exact match) and for a body that is not what it
/// says; [`Error::TooLarge`] over the caps.
pub fn read(
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    body: &[u8],
    caps: &Caps,
    now: Timestamp,
    index_attributes: &[impl AsRef<str>],
) -> Result<Push, Error> {
    caps.check_body(body.len())?;
    let body = match content_encoding.unwrap_or_default() {
        "" => Bytes::copy_from_slice(body),
        "gzip" => compress::gzip(body, caps)?.into(),
        "zstd" => compress::zstd(body, caps)?.into(),
        "lz4" => compress::lz4(body, caps)?.into(),
        other => {
            let text = format!("unsupported content encoding {other}: only gzip, lz4 and zstd are supported");
            return Err(Error::malformed(text));
        }
    };
    if u32::try_from(body.len()).is_err() {
        let text = format!("message size too large than max ({} vs {})", body.len(), u32::MAX);
        return Err(Error::TooLarge(text.into()));
    }
    let index = |key: &[u8]| index_attributes.iter().any(|name| name.as_ref().as_bytes() == key);
    let mut records = Records::new(now, &index);
    match content_type.unwrap_or_default() {
        "application/x-protobuf" => protobuf(&body, &mut records)?,
        "application/json" => json::read(&body, &mut records)?,
        other => return Err(Error::malformed(format!("content type: {other} is not supported"))),
    }
    Ok(records.push.finish())
}

/// The body of an error answer: `google.rpc.Status` with only its message (field 2).
#[must_use]
pub fn status_body(message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 6);
    prost::encoding::string::encode(2, &message.to_owned(), &mut out);
    out
}

fn protobuf(body: &Bytes, records: &mut Records<'_>) -> Result<(), Error> {
    let mut at = Cursor::new(body);
    while !at.done() {
        match at.key("LogsData")? {
            (1, BYTES) => resource_logs(body, at.message()?, records)?,
            (1, wire) => return Err(wrong_wire(wire, "ResourceLogs")),
            (tag, wire) => at.skip(tag, wire, MAX_DEPTH)?,
        }
    }
    Ok(())
}

/// The resource may come behind its records: it is looked for first.
fn resource_logs(body: &Bytes, at: Cursor<'_>, records: &mut Records<'_>) -> Result<(), Error> {
    let mut resource = Resource::default();
    let (mut first, mut second) = (at, at);
    while !first.done() {
        match first.key("ResourceLogs")? {
            (1, BYTES) => merge(&mut resource, body, &mut first)?,
            (2, BYTES) => drop(first.bytes()?),
            (1, wire) => return Err(wrong_wire(wire, "Resource")),
            (2, wire) => return Err(wrong_wire(wire, "ScopeLogs")),
            (tag, wire) => first.skip(tag, wire, MAX_DEPTH - 1)?,
        }
    }
    records.begin_resource(&resource.attributes)?;
    while !second.done() {
        match second.key("ResourceLogs")? {
            (2, BYTES) => scope_logs(body, second.message()?, records)?,
            (tag, wire) => second.skip(tag, wire, MAX_DEPTH - 1)?,
        }
    }
    records.end_resource()
}

fn scope_logs(body: &Bytes, at: Cursor<'_>, records: &mut Records<'_>) -> Result<(), Error> {
    let mut scope = InstrumentationScope::default();
    let (mut first, mut second) = (at, at);
    while !first.done() {
        match first.key("ScopeLogs")? {
            (1, BYTES) => merge(&mut scope, body, &mut first)?,
            (2, BYTES) => drop(first.bytes()?),
            (1, wire) => return Err(wrong_wire(wire, "Scope")),
            (2, wire) => return Err(wrong_wire(wire, "LogRecords")),
            (tag, wire) => first.skip(tag, wire, MAX_DEPTH - 2)?,
        }
    }
    records.begin_scope(&scope)?;
    while !second.done() {
        match second.key("ScopeLogs")? {
            (2, BYTES) => {
                let mut record = LogRecord::default();
                merge(&mut record, body, &mut second)?;
                records.record(&record)?;
            }
            (tag, wire) => second.skip(tag, wire, MAX_DEPTH - 2)?,
        }
    }
    Ok(())
}

fn merge(message: &mut impl prost::Message, body: &Bytes, at: &mut Cursor<'_>) -> Result<(), Error> {
    let (start, len) = at.bytes()?;
    check_record(len as usize)?;
    let bytes = body.slice(start as usize..start as usize + len as usize);
    message.merge(bytes).map_err(|e| Error::malformed(format!("proto: {e}")))
}

fn check_record(len: usize) -> Result<(), Error> {
    if len > MAX_RECORD_BYTES {
        let text = format!("log record size too large than max ({len} vs {MAX_RECORD_BYTES})");
        return Err(Error::TooLarge(text.into()));
    }
    Ok(())
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Where records go, in the order resource, scope, record.
struct Records<'a> {
    push: Builder,
    now: Timestamp,
    index: &'a dyn Fn(&[u8]) -> bool,
    labels: Vec<u8>,
    resource: Pairs,
    scope: Pairs,
    lines: usize,
}

impl<'a> Records<'a> {
    fn new(now: Timestamp, index: &'a dyn Fn(&[u8]) -> bool) -> Self {
        let push = Builder::bounded(MAX_EXPANDED_BYTES);
        Self { push, now, index, labels: Vec::new(), resource: Vec::new(), scope: Vec::new(), lines: 0 }
    }

    fn begin_resource(&mut self, attributes: &[KeyValue]) -> Result<(), Error> {
        self.push.begin_stream();
        self.resource.clear();
        self.scope.clear();
        self.lines = 0;
        let mut stream = Vec::new();
        let (mut named, mut rest) = (Flat::new(&mut stream), Flat::new(&mut self.resource));
        for attribute in attributes {
            let flat = if (self.index)(&attribute.key) { &mut named } else { &mut rest };
            flat.add(&attribute.key, attribute.value.as_ref())?;
        }
        let mut stream: Vec<_> = stream.into_iter().map(|(name, value)| (labels::normalize(&name), value)).collect();
        stream.sort_by(|a, b| a.0.cmp(&b.0));
        // Of names that became equal the last one counts.
        stream.reverse();
        stream.dedup_by(|next, kept| next.0 == kept.0);
        stream.reverse();
        self.labels.clear();
        labels::write(&mut self.labels, stream.iter().map(|(name, value)| (name.as_bytes(), &value[..])));
        Ok(())
    }

    fn begin_scope(&mut self, scope: &InstrumentationScope) -> Result<(), Error> {
        let pairs = &mut self.scope;
        pairs.clear();
        Flat::new(pairs).add_all(&scope.attributes)?;
        text(pairs, "scope_name", &scope.name);
        text(pairs, "scope_version", &scope.version);
        number(pairs, "scope_dropped_attributes_count", scope.dropped_attributes_count.into());
        Ok(())
    }

    fn record(&mut self, record: &LogRecord) -> Result<(), Error> {
        let mut pairs = Vec::with_capacity(record.attributes.len() + 8);
        Flat::new(&mut pairs).add_all(&record.attributes)?;
        if record.time_unix_nano != 0 {
            number(&mut pairs, "observed_timestamp", record.observed_time_unix_nano);
        }
        if record.severity_number != 0 {
            pairs.push((b"severity_number".to_vec(), record.severity_number.to_string().into_bytes()));
        }
        text(&mut pairs, "severity_text", &record.severity_text);
        number(&mut pairs, "dropped_attributes_count", record.dropped_attributes_count.into());
        number(&mut pairs, "flags", record.flags.into());
        id(&mut pairs, "trace_id", "TraceID", 16, &record.trace_id)?;
        id(&mut pairs, "span_id", "SpanID", 8, &record.span_id)?;
        text(&mut pairs, "event_name", &record.event_name);
        let timestamp = match (record.time_unix_nano, record.observed_time_unix_nano) {
            (0, 0) => self.now.nanos(),
            (0, nanos) | (nanos, _) => i64::try_from(nanos).unwrap_or(i64::MAX),
        };
        let line = value::text(record.body.as_ref());
        let all = pairs.iter().chain(&self.resource).chain(&self.scope);
        self.push.entry(timestamp, &line, all.map(|(n, v)| (&n[..], &v[..])))?;
        self.lines += 1;
        Ok(())
    }

    fn end_resource(&mut self) -> Result<(), Error> {
        if self.lines > 0 { self.push.end_stream(&self.labels) } else { Ok(()) }
    }
}

/// Attributes as pairs: a map becomes one pair per leaf, named by the path.
struct Flat<'a> {
    pairs: &'a mut Pairs,
    /// Bytes that may yet be used: a long name of a map is repeated in each of its members.
    left: usize,
}

impl<'a> Flat<'a> {
    fn new(pairs: &'a mut Pairs) -> Self {
        Self { pairs, left: 2 * MAX_RECORD_BYTES }
    }

    fn add(&mut self, name: &[u8], value: Option<&AnyValue>) -> Result<(), Error> {
        if let Some(AnyValue { value: Some(Value::KvlistValue(map)) }) = value {
            for member in &map.values {
                self.spend(name.len() + member.key.len() + 1)?;
                let path = [name, b"_", &member.key].concat();
                self.add(&path, member.value.as_ref())?;
            }
            return Ok(());
        }
        let value = value::text(value);
        self.spend(name.len() + value.len())?;
        self.pairs.push((name.to_vec(), value.into_owned()));
        Ok(())
    }

    fn add_all(&mut self, attributes: &[KeyValue]) -> Result<(), Error> {
        attributes.iter().try_for_each(|attribute| self.add(&attribute.key, attribute.value.as_ref()))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Error::TooLarge(format!("attributes size too large than max ({})", 2 * MAX_RECORD_BYTES).into())
        })?;
        Ok(())
    }
}

fn text(pairs: &mut Pairs, name: &str, text: &[u8]) {
    if !text.is_empty() {
        pairs.push((name.as_bytes().to_vec(), text.to_vec()));
    }
}

fn number(pairs: &mut Pairs, name: &str, value: u64) {
    if value != 0 {
        pairs.push((name.as_bytes().to_vec(), value.to_string().into_bytes()));
    }
}

fn id(pairs: &mut Pairs, name: &str, kind: &str, len: usize, id: &[u8]) -> Result<(), Error> {
    if !id.is_empty() && id.len() != len {
        return Err(Error::malformed(format!("invalid length for {kind}")));
    }
    if id.iter().any(|b| *b != 0) {
        let hex = id.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| b"0123456789abcdef"[n as usize]);
        pairs.push((name.as_bytes().to_vec(), hex.collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
