//! Answers to queries as JSON (contract, Loki API §1, §4.3-4.4; Grafana §1.4).
//!
//! Invariants:
//! * The order of keys is Loki's: Grafana reads the text as it comes and needs `resultType` and `encodingFlags` before `result`, `stream`
//!   before `values`. Entries have exactly two elements, or three when labels are categorised.
//! * Result streams are sorted by the text of their labels and appear once; entries of a stream keep the order of the answer.
//! * `result` is an array also when it is empty; `data` of labels is absent when it is.

mod detected;
mod stats;
mod step;

use std::collections::HashMap;
use std::sync::Arc;

use tailwater_logql::go::number::format_f;
use tailwater_model::{Category, LabelSet, Labels, Timestamp};

pub use self::detected::{detected_fields, detected_labels, field_values, patterns};
pub use self::stats::Stats;
pub use self::step::{step_error, step_scalar, step_vector};
use crate::frame::{Encoded, TailEncoding};
use crate::text;

/// The type of JSON answers.
pub const CONTENT_TYPE: &str = "application/json; charset=UTF-8";

/// An entry of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its time.
    pub timestamp: Timestamp,
    /// Its line.
    pub line: &'a [u8],
    /// Its labels after the pipeline.
    pub labels: &'a LabelSet,
}

/// Entries, in answer order, as result streams: `query_range` and `query` in v1, `/api/prom/query` in the legacy form.
#[must_use]
pub fn streams<'a>(
    entries: impl IntoIterator<Item = Entry<'a>>,
    encoding: &TailEncoding,
    warnings: &[String],
    stats: &Stats,
) -> Vec<u8> {
    let mut groups = Groups::default();
    for entry in entries {
        groups.add(&entry, encoding);
    }
    let body = groups.groups.iter().map(|g| g.entries.len() + g.labels.stream.len() + 32).sum::<usize>();
    let mut out = Vec::with_capacity(body + 4096);
    match encoding {
        TailEncoding::V1 { flags, .. } => {
            out.extend_from_slice(br#"{"status":"success","#);
            if !warnings.is_empty() {
                member(&mut out, "warnings", |out| text::strings(out, warnings));
            }
            out.extend_from_slice(br#""data":{"resultType":"streams","#);
            if !flags.is_empty() {
                member(&mut out, "encodingFlags", |out| text::strings(out, flags));
            }
            out.extend_from_slice(br#""result":"#);
            groups.write(&mut out, encoding);
            out.extend_from_slice(br#","stats":"#);
            stats.write(&mut out);
            out.extend_from_slice(b"}}");
        }
        TailEncoding::Legacy => {
            out.extend_from_slice(br#"{"streams":"#);
            groups.write(&mut out, encoding);
            out.extend_from_slice(br#","stats":"#);
            stats.write(&mut out);
            out.push(b'}');
        }
    }
    out
}

/// `"name":value,`
fn member(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    text::string(out, name.as_bytes());
    out.push(b':');
    value(out);
    out.push(b',');
}

/// Result streams in the making.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    /// By the text of the labels.
    by_text: HashMap<String, usize>,
    /// By the address of a label set, which is held so that the address stays its own.
    by_address: HashMap<usize, (LabelSet, usize, Arc<Encoded>)>,
}

struct Group {
    text: String,
    labels: Arc<Encoded>,
    entries: Vec<u8>,
}

impl Groups {
    fn add(&mut self, entry: &Entry<'_>, encoding: &TailEncoding) {
        let (_, group, encoded) = self.by_address.entry(entry.labels.address()).or_insert_with(|| {
            let mut encoded = encoding.labels(entry.labels);
            if *encoding == TailEncoding::Legacy {
                encoded.entry = parsed_member(entry.labels);
            }
            let encoded = Arc::new(encoded);
            let text = match encoding {
                TailEncoding::V1 { categorize: true, .. } => {
                    let of_stream = entry.labels.of(Category::Stream).cloned().collect();
                    LabelSet::from_pairs(of_stream).to_string()
                }
                _ => entry.labels.to_string(),
            };
            let next = self.groups.len();
            let group = *self.by_text.entry(text.clone()).or_insert(next);
            if group == next {
                self.groups.push(Group { text, labels: Arc::clone(&encoded), entries: Vec::new() });
            }
            (entry.labels.clone(), group, encoded)
        });
        let out = &mut self.groups[*group].entries;
        if !out.is_empty() {
            out.push(b',');
        }
        encoding.entry(out, entry.timestamp, entry.line, encoded);
    }

    fn write(&mut self, out: &mut Vec<u8>, encoding: &TailEncoding) {
        self.groups.sort_by(|a, b| a.text.cmp(&b.text));
        out.push(b'[');
        for (i, group) in self.groups.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            encoding.begin_stream(out, &group.labels);
            out.extend_from_slice(&group.entries);
            out.extend_from_slice(b"]}");
        }
        out.push(b']');
    }
}

/// What the query parsed, as answers in the legacy form repeat it in each entry: `,"parsed":{…}`, nothing if there is nothing.
fn parsed_member(labels: &LabelSet) -> Box<[u8]> {
    let mut out = Vec::new();
    let parsed = labels.of(Category::Parsed).map(|p| (&*p.name, &*p.value));
    if parsed.clone().next().is_some() {
        out.extend_from_slice(br#","parsed":"#);
        text::object(&mut out, parsed);
    }
    out.into()
}

/// A value of a metric query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its time; answered in milliseconds, what is finer is cut off.
    pub timestamp: Timestamp,
    /// The value.
    pub value: f64,
}

/// An instant vector: one sample per series, in the order given.
#[must_use]
pub fn vector(samples: &[(Labels, Sample)], warnings: &[String], stats: &Stats) -> Vec<u8> {
    metrics("vector", samples, warnings, stats, value)
}

/// A range vector: the samples of each series by time, the series in the order given.
#[must_use]
pub fn matrix(series: &[(Labels, Vec<Sample>)], warnings: &[String], stats: &Stats) -> Vec<u8> {
    metrics("matrix", series, warnings, stats, |out, samples| {
        out.extend_from_slice(br#","values":["#);
        for (i, sample) in samples.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            point(out, sample);
        }
        out.push(b']');
    })
}

/// A number without labels.
#[must_use]
pub fn scalar(sample: Sample, warnings: &[String], stats: &Stats) -> Vec<u8> {
    prometheus("scalar", warnings, stats, |out| point(out, &sample))
}

fn metrics<T>(
    kind: &str,
    series: &[(Labels, T)],
    warnings: &[String],
    stats: &Stats,
    values: impl Fn(&mut Vec<u8>, &T),
) -> Vec<u8> {
    prometheus(kind, warnings, stats, |out| all_series(out, series, values))
}

fn all_series<T>(out: &mut Vec<u8>, series: &[(Labels, T)], values: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, (labels, value)) in series.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"metric":"#);
        text::object(out, labels.iter());
        values(out, value);
        out.push(b'}');
    }
    out.push(b']');
}

fn prometheus(kind: &str, warnings: &[String], stats: &Stats, result: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    success(&mut out, kind, result);
    out.extend_from_slice(br#","stats":"#);
    stats.write(&mut out);
    out.push(b'}');
    warn(&mut out, warnings);
    out.push(b'}');
    out
}

/// `{"status":"success","data":{"resultType":…,"result":…`
fn success(out: &mut Vec<u8>, kind: &str, result: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(br#"{"status":"success","data":{"#);
    member(out, "resultType", |out| text::string(out, kind.as_bytes()));
    out.extend_from_slice(br#""result":"#);
    result(out);
}

/// `,"warnings":[…]`, if there are any.
fn warn(out: &mut Vec<u8>, warnings: &[String]) {
    if !warnings.is_empty() {
        out.extend_from_slice(br#","warnings":"#);
        text::strings(out, warnings);
    }
}

/// `,"value":[seconds,"value"]`
fn value(out: &mut Vec<u8>, sample: &Sample) {
    out.extend_from_slice(br#","value":"#);
    point(out, sample);
}

/// `[seconds,"value"]`
fn point(out: &mut Vec<u8>, sample: &Sample) {
    out.push(b'[');
    seconds(out, sample.timestamp);
    out.push(b',');
    text::string(out, format_f(sample.value).as_bytes());
    out.push(b']');
}

/// Seconds with at most three decimals.
fn seconds(out: &mut Vec<u8>, time: Timestamp) {
    let milliseconds = time.nanos().div_euclid(1_000_000);
    if milliseconds < 0 {
        out.push(b'-');
    }
    let (seconds, rest) = (milliseconds.unsigned_abs() / 1000, milliseconds.unsigned_abs() % 1000);
    text::integer(out, seconds);
    if rest > 0 {
        let decimals = format!(".{rest:03}");
        out.extend_from_slice(decimals.trim_end_matches('0').as_bytes());
    }
}

/// Names of labels or values of one, as given.
#[must_use]
pub fn labels<S: AsRef<str>>(values: &[S], warnings: &[String]) -> Vec<u8> {
    let mut out = br#"{"status":"success""#.to_vec();
    if !values.is_empty() {
        out.extend_from_slice(br#","data":"#);
        text::strings(&mut out, values.iter().map(AsRef::as_ref));
    }
    warn(&mut out, warnings);
    out.push(b'}');
    out
}

/// Streams, in the order given.
#[must_use]
pub fn series(streams: &[Labels], warnings: &[String]) -> Vec<u8> {
    let mut out = br#"{"status":"success","data":["#.to_vec();
    for (i, labels) in streams.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text::object(&mut out, labels.iter());
    }
    out.push(b']');
    warn(&mut out, warnings);
    out.push(b'}');
    out
}

/// What streams hold (`index/stats`): the bare object.
#[must_use]
pub fn index_stats(stats: &crate::node::Stats) -> Vec<u8> {
    let crate::node::Stats { streams, chunks, bytes, entries } = stats;
    format!(r#"{{"streams":{streams},"chunks":{chunks},"bytes":{bytes},"entries":{entries}}}"#).into_bytes()
}

/// What streams hold, as one shard that is everything (`index/shards`).
#[must_use]
pub fn index_shards(stats: &crate::node::Stats) -> Vec<u8> {
    let stats = String::from_utf8(index_stats(stats)).unwrap_or_default();
    format!(r#"{{"shards":[{{"bounds":{{"min":0,"max":{}}},"stats":{stats}}}]}}"#, u64::MAX).into_bytes()
}

#[cfg(test)]
mod tests;
