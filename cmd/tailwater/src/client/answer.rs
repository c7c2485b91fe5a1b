//! What Loki-compatible servers answer, as entries.
//!
//! A tail frame and a log query's result hold the same streams: `{"stream":{labels},"values":[["<ns>","<line>",{…}?]]}`.
//! With the categorize flag, `stream` has the labels of the stream and the third element what else belongs to the line;
//! without it (servers that do not know the flag), `stream` has everything.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use tailwater_model::{Category, LabelPair, LabelSet, Timestamp};

/// One line with its time and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it was written.
    pub(crate) timestamp: Timestamp,
    /// The line, after the pipeline of the query.
    pub(crate) line: String,
    /// Its labels, shared by neighbours.
    pub(crate) labels: LabelSet,
}

/// A frame of a tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The lines, in the order of the frame.
    pub(crate) entries: Vec<Entry>,
    /// What the server says it has not sent.
    pub(crate) dropped: Vec<Dropped>,
    /// Where a tail goes on that has had everything up to this frame.
    pub(crate) resume: Option<String>,
    /// The first frame of a tail that went on where it was says so.
    pub(crate) resumed: bool,
    /// What has happened to the tail.
    pub(crate) told: Vec<Told>,
}

/// Something that has happened to a tail. What is not known is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing comes from a part of the logs for now.
    Away {
        /// Which part.
        what: String,
        /// Why.
        reason: String,
    },
    /// It comes again.
    Back {
        /// Which part.
        what: String,
    },
    /// The server is going down.
    Draining {
        /// Where the tail can go on: URLs.
        nodes: Vec<String>,
    },
    /// Frames say no more where a tail goes on that has had them, until one does.
    NoToken {
        /// Why.
        reason: String,
    },
}

/// A line that the server has dropped, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// When it was written.
    pub(crate) timestamp: Timestamp,
    /// Its labels as a selector.
    pub(crate) labels: String,
    /// How many, if they are not told one by one.
    pub(crate) lines: u64,
    /// The lines could not be had: the server's reason. None: the tail was too slow.
    pub(crate) reason: Option<String>,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum QueryAnswer {
    /// Lines: stream after stream, in the order of the answer.
    Streams(Vec<Entry>),
    /// One value per series.
    Vector(Vec<Series>),
    /// Several values per series.
    Matrix(Vec<Series>),
    /// One value.
    Scalar(Sample),
}

/// A series of a metric query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// Its labels.
    pub(crate) labels: LabelSet,
    /// Its samples, oldest first.
    pub(crate) samples: Vec<Sample>,
}

/// A value at a time. The value stays the text that the server wrote (`NaN` and `+Inf` included).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Unix seconds.
    pub(crate) seconds: f64,
    /// The value.
    pub(crate) value: String,
}

/// A tail frame from its JSON text.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn decode_frame(text: &str) -> Result<Frame, String> {
    let raw: RawFrame<'_> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let entries = entries_of(raw.streams.unwrap_or_default());
    let dropped = raw.dropped_entries.unwrap_or_default().into_iter().map(|d| {
        let pairs = d.labels.unwrap_or_default();
        let reason = pairs.get("reason").filter(|reason| reason.starts_with("log_")).cloned();
        let lines = pairs.get("dropped_lines").and_then(|lines| lines.parse().ok()).unwrap_or(1);
        let labels = label_set(&pairs, Category::Stream, []).to_string();
        Dropped { timestamp: Timestamp(d.timestamp.0), labels, lines, reason }
    });
    Ok(Frame {
        entries,
        dropped: dropped.collect(),
        resume: raw.resume.map(Cow::into_owned).filter(|token| !token.is_empty()),
        resumed: raw.resumed.is_some(),
        told: raw.notices.unwrap_or_default().into_iter().filter_map(RawNotice::told).collect(),
    })
}

/// The answer of `query` and `query_range` from its JSON text.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn decode_query(body: &[u8]) -> Result<QueryAnswer, String> {
    let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
    let raw: RawEnvelope<'_> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let wrong = |e: serde_json::Error| format!("data.result: {e}");
    let result = raw.data.result.get();
    Ok(match raw.data.result_type.as_ref() {
        "streams" => QueryAnswer::Streams(entries_of(serde_json::from_str(result).map_err(wrong)?)),
        "vector" => {
            let series: Vec<RawVector> = serde_json::from_str(result).map_err(wrong)?;
            QueryAnswer::Vector(series.into_iter().map(|s| series_of(&s.metric, vec![s.value])).collect())
        }
        "matrix" => {
            let series: Vec<RawMatrix> = serde_json::from_str(result).map_err(wrong)?;
            QueryAnswer::Matrix(series.into_iter().map(|s| series_of(&s.metric, s.values)).collect())
        }
        "scalar" => {
            let value: (f64, String) = serde_json::from_str(result).map_err(wrong)?;
            QueryAnswer::Scalar(sample_of(value))
        }
        other => return Err(format!("data.resultType {other:?} is unknown")),
    })
}

#[derive(Deserialize)]
struct RawFrame<'a> {
    #[serde(borrow)]
    streams: Option<Vec<RawStream<'a>>>,
    dropped_entries: Option<Vec<RawDropped>>,
    #[serde(borrow)]
    resume: Option<Cow<'a, str>>,
    resumed: Option<bool>,
    notices: Option<Vec<RawNotice>>,
}

#[derive(Deserialize)]
struct RawNotice {
    r#type: String,
    #[serde(default)]
    what: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    nodes: Vec<String>,
}

impl RawNotice {
    fn told(self) -> Option<Told> {
        let Self { r#type, what, reason, nodes } = self;
        Some(match r#type.as_str() {
            "away" => Told::Away { what, reason },
            "back" => Told::Back { what },
            "draining" => Told::Draining { nodes },
            "no_token" => Told::NoToken { reason },
            _ => return None,
        })
    }
}

#[derive(Deserialize)]
struct RawDropped {
    timestamp: Nanos,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawStream<'a> {
    stream: BTreeMap<String, String>,
    #[serde(borrow)]
    values: Vec<RawValue<'a>>,
}

#[derive(Deserialize)]
struct RawEnvelope<'a> {
    #[serde(borrow)]
    data: RawData<'a>,
}

#[derive(Deserialize)]
struct RawData<'a> {
    #[serde(rename = "resultType", borrow)]
    result_type: Cow<'a, str>,
    #[serde(borrow)]
    result: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct RawVector {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
struct RawMatrix {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// What belongs to one line and not to its stream.
#[derive(Deserialize, Default, PartialEq, Eq)]
struct Extra {
    #[serde(rename = "structuredMetadata", default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    parsed: BTreeMap<String, String>,
}

struct RawValue<'a> {
    timestamp: i64,
    line: Cow<'a, str>,
    extra: Option<Extra>,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = RawValue<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[\"<timestamp>\", \"<line>\", {…}]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let Nanos(timestamp) = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let Text(line) = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                let extra = seq.next_element::<Option<Extra>>()?.flatten();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(RawValue { timestamp, line, extra })
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A decimal number of nanoseconds in a string.
struct Nanos(i64);

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map(Nanos).map_err(|_| de::Error::custom(format!("timestamp {text:?} is no number")))
    }
}

fn entries_of(streams: Vec<RawStream<'_>>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(streams.iter().map(|s| s.values.len()).sum());
    for stream in streams {
        // Neighbours mostly share their metadata: then they share the set.
        let mut shared: Option<(Option<Extra>, LabelSet)> = None;
        for value in stream.values {
            let labels = match &shared {
                Some((extra, labels)) if *extra == value.extra => labels.clone(),
                _ => {
                    let extra = value.extra.as_ref();
                    let pairs = extra.map(|e| {
                        let of = |map: &BTreeMap<String, String>, category| {
                            map.iter().map(move |(n, v)| pair(n, v, category)).collect::<Vec<_>>()
                        };
                        [of(&e.metadata, Category::Metadata), of(&e.parsed, Category::Parsed)].concat()
                    });
                    let labels = label_set(&stream.stream, Category::Stream, pairs.unwrap_or_default());
                    // The same stream often comes again right after (one entry each): keep equal sets one.
                    let labels = match entries.last() {
                        Some(previous) if previous.labels == labels => previous.labels.clone(),
                        _ => labels,
                    };
                    shared = Some((value.extra, labels.clone()));
                    labels
                }
            };
            entries.push(Entry { timestamp: Timestamp(value.timestamp), line: value.line.into_owned(), labels });
        }
    }
    entries
}

fn pair(name: &str, value: &str, category: Category) -> LabelPair {
    LabelPair { name: name.into(), value: value.into(), category }
}

/// The labels of a stream and what the line adds; of equal names the line's last one stays.
fn label_set(
    stream: &BTreeMap<String, String>,
    category: Category,
    more: impl IntoIterator<Item = LabelPair>,
) -> LabelSet {
    let mut all: BTreeMap<Box<str>, LabelPair> =
        stream.iter().map(|(n, v)| (n.as_str().into(), pair(n, v, category))).collect();
    all.extend(more.into_iter().map(|p| (p.name.clone(), p)));
    LabelSet::from_pairs(all.into_values().collect())
}

fn series_of(metric: &BTreeMap<String, String>, samples: Vec<(f64, String)>) -> Series {
    Series { labels: label_set(metric, Category::Stream, []), samples: samples.into_iter().map(sample_of).collect() }
}

fn sample_of((seconds, value): (f64, String)) -> Sample {
    Sample { seconds, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_brings_lines_with_all_their_labels_and_what_was_dropped() {
        let frame = decode_frame(
            r#"{"streams":[{"stream":{"app":"a"},"values":[["5","x\ny",{"structuredMetadata":{"detected_level":"info"},"parsed":{"k":"v"}}]]},
               {"stream":{"app":"a"},"values":[["6","z"],["7","w",{},"ignored"]]}],
               "dropped_entries":[{"timestamp":"9","labels":{"app":"b"}}],"encodingFlags":["categorize-labels"]}"#,
        )
        .unwrap();
        let seen: Vec<_> =
            frame.entries.iter().map(|e| (e.timestamp.0, e.line.as_str(), e.labels.to_string())).collect();
        assert_eq!(
            seen,
            [
                (5, "x\ny", r#"{app="a", detected_level="info", k="v"}"#.to_owned()),
                (6, "z", r#"{app="a"}"#.to_owned()),
                (7, "w", r#"{app="a"}"#.to_owned()),
            ]
        );
        assert_eq!(frame.entries[0].labels.of(Category::Parsed).count(), 1);
        assert!(frame.entries[1].labels.ptr_eq(&frame.entries[2].labels));
        let labels = r#"{app="b"}"#.to_owned();
        assert_eq!(frame.dropped, [Dropped { timestamp: Timestamp(9), labels, lines: 1, reason: None }]);
    }

    #[test]
    fn a_frame_says_where_to_go_on_and_what_has_happened() {
        let frame = decode_frame(
            r#"{"streams":[],"dropped_entries":[{"timestamp":"9","labels":{"reason":"log_trimmed","dropped_lines":"7"}}],
               "notices":[{"type":"away","what":"x","reason":"r"},{"type":"back","what":"x"},{"type":"news"},{"type":"no_token","reason":"n"},
                          {"type":"draining","nodes":["http://b"]}],"resumed":false,"resume":"tok"}"#,
        )
        .unwrap();
        assert_eq!((frame.resume.as_deref(), frame.resumed), (Some("tok"), true));
        assert_eq!((frame.dropped[0].lines, frame.dropped[0].reason.as_deref()), (7, Some("log_trimmed")));
        let away = Told::Away { what: "x".into(), reason: "r".into() };
        let draining = Told::Draining { nodes: vec!["http://b".into()] };
        let no_token = Told::NoToken { reason: "n".into() };
        assert_eq!(frame.told, [away, Told::Back { what: "x".into() }, no_token, draining]);
    }

    #[test]
    fn heartbeats_are_empty_frames_and_nonsense_is_an_error() {
        assert_eq!(decode_frame(r#"{"streams":[]}"#).unwrap(), Frame::default());
        assert_eq!(decode_frame(r#"{"streams":null}"#).unwrap(), Frame::default());
        for bad in [
            "",
            "[]x",
            r#"{"streams":[{"stream":{},"values":[[1,"x"]]}]}"#,
            r#"{"streams":[{"stream":{},"values":[["1"]]}]}"#,
        ] {
            assert!(decode_frame(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_kind_of_result_is_understood() {
        let of = |kind: &str, result: &str| {
            let text =
                format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result},"stats":{{}}}}}}"#);
            decode_query(text.as_bytes())
        };
        assert_eq!(of("streams", "[]"), Ok(QueryAnswer::Streams(Vec::new())));
        let Ok(QueryAnswer::Vector(vector)) = of("vector", r#"[{"metric":{"a":"b"},"value":[1.5,"+Inf"]}]"#) else {
            panic!("no vector")
        };
        assert_eq!(vector[0].labels.to_string(), r#"{a="b"}"#);
        assert_eq!(vector[0].samples, [Sample { seconds: 1.5, value: "+Inf".into() }]);
        assert!(
            matches!(of("matrix", r#"[{"metric":{},"values":[[1,"2"],[2,"3"]]}]"#), Ok(QueryAnswer::Matrix(m)) if m[0].samples.len() == 2)
        );
        assert!(matches!(of("scalar", r#"[1,"2"]"#), Ok(QueryAnswer::Scalar(_))));
        assert!(of("what", "[]").unwrap_err().contains("what"));
        assert!(decode_query(b"{}").is_err());
    }
}
