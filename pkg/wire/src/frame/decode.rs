//! Reading frames of any Loki-compatible server, in either form.

use std::collections::BTreeMap;

use serde::Deserialize;
use tailwater_model::Timestamp;

use crate::{Error, labels};

/// A frame of a tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailFrame {
    /// The entries by stream, in the order of the frame.
    pub streams: Vec<TailStream>,
    /// What the server dropped.
    pub dropped: Vec<DroppedEntry>,
}

/// A stream object of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailStream {
    /// The labels of the stream object.
    pub labels: BTreeMap<String, String>,
    /// Its entries in order.
    pub entries: Vec<TailEntry>,
}

/// An entry of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailEntry {
    /// Its time.
    pub timestamp: Timestamp,
    /// Its line.
    pub line: String,
    /// Structured metadata, if the server tells it apart.
    pub metadata: BTreeMap<String, String>,
    /// What the query parsed, if the server tells it apart.
    pub parsed: BTreeMap<String, String>,
}

/// An entry that the server dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DroppedEntry {
    /// Its time.
    pub timestamp: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Reads a frame of `/loki/api/v1/tail` or `/api/prom/tail`.
///
/// # Errors
/// [`Error::Malformed`] for what is no such frame.
pub fn decode_tail(text: &[u8]) -> Result<TailFrame, Error> {
    let frame: Frame = serde_json::from_slice(text).map_err(|e| Error::malformed(e.to_string()))?;
    let streams = frame.streams.unwrap_or_default().into_iter().map(TailStream::try_from);
    let dropped = frame.dropped_entries.unwrap_or_default().into_iter().map(DroppedEntry::try_from);
    Ok(TailFrame { streams: streams.collect::<Result<_, _>>()?, dropped: dropped.collect::<Result<_, _>>()? })
}

#[derive(Deserialize)]
struct Frame {
    streams: Option<Vec<Stream>>,
    dropped_entries: Option<Vec<Lost>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stream {
    V1 { stream: BTreeMap<String, String>, values: Vec<Value> },
    Legacy { labels: String, entries: Vec<Entry> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Plain(String, String),
    Categorized(String, String, Categories),
}

#[derive(Deserialize)]
struct Categories {
    #[serde(default, rename = "structuredMetadata")]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    parsed: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    ts: String,
    line: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Lost {
    V1 {
        timestamp: String,
        labels: BTreeMap<String, String>,
    },
    Legacy {
        #[serde(rename = "Timestamp")]
        timestamp: String,
        #[serde(rename = "Labels")]
        labels: String,
    },
}

impl TryFrom<Stream> for TailStream {
    type Error = Error;
    fn try_from(stream: Stream) -> Result<Self, Error> {
        Ok(match stream {
            Stream::V1 { stream, values } => {
                Self { labels: stream, entries: values.into_iter().map(TailEntry::try_from).collect::<Result<_, _>>()? }
            }
            Stream::Legacy { labels, entries } => {
                let entries = entries
                    .into_iter()
                    .map(|e| Ok(TailEntry { timestamp: rfc3339(&e.ts)?, line: e.line, ..TailEntry::default() }));
                Self { labels: pairs(&labels)?, entries: entries.collect::<Result<_, Error>>()? }
            }
        })
    }
}

impl TryFrom<Value> for TailEntry {
    type Error = Error;
    fn try_from(value: Value) -> Result<Self, Error> {
        Ok(match value {
            Value::Plain(time, line) => Self { timestamp: nanoseconds(&time)?, line, ..Self::default() },
            Value::Categorized(time, line, Categories { metadata, parsed }) => {
                Self { timestamp: nanoseconds(&time)?, line, metadata, parsed }
            }
        })
    }
}

impl TryFrom<Lost> for DroppedEntry {
    type Error = Error;
    fn try_from(lost: Lost) -> Result<Self, Error> {
        Ok(match lost {
            Lost::V1 { timestamp, labels } => Self { timestamp: nanoseconds(&timestamp)?, labels },
            Lost::Legacy { timestamp, labels } => Self { timestamp: rfc3339(&timestamp)?, labels: pairs(&labels)? },
        })
    }
}

fn pairs(text: &str) -> Result<BTreeMap<String, String>, Error> {
    Ok(labels::parse(text.as_bytes())?.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
}

fn nanoseconds(text: &str) -> Result<Timestamp, Error> {
    text.parse().map(Timestamp).map_err(|_| Error::malformed(format!("{text:?} is not a time in nanoseconds")))
}

fn rfc3339(text: &str) -> Result<Timestamp, Error> {
    let bad = || Error::malformed(format!("{text:?} is not a time in the form of RFC 3339"));
    let time: jiff::Timestamp = text.parse().map_err(|_| bad())?;
    i64::try_from(time.as_nanosecond()).map(Timestamp).map_err(|_| bad())
}
