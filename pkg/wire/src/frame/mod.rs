//! Frames of a tail: one JSON document each (contract, Loki API §3.5), encoded once for everybody who gets it.
//!
//! Invariants:
//! * A frame is valid UTF-8 JSON whatever the lines hold. Entries come in the order in which they were pushed; neighbours with the
//!   same stream labels share one stream object, others never do.
//! * Labels are encoded once per [`LabelSet`] allocation. The cache is bounded by [`MAX_CACHED_BYTES`] and holds the sets it knows, so an
//!   address never means another set than the cached one.
//! * Without the categorise flag `stream` holds all labels; with it only those of the stream, and each entry its own.

mod decode;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_model::{Category, LabelSet, Timestamp};

pub use self::decode::{DroppedEntry, TailEntry, TailFrame, TailStream, decode_tail};
use crate::text;

/// A frame without entries, which Grafana's Explore needs to show what came before it. It is ignored by everybody else.
pub const HEARTBEAT_JSON: &str = r#"{"streams":[]}"#;

/// The flag by which a client asks for labels by category.
pub const CATEGORIZE_LABELS: &str = "categorize-labels";

/// Most bytes of labels, and of their encoded forms, that an encoder keeps.
pub const MAX_CACHED_BYTES: usize = 256 << 10;

/// Most label sets that an encoder keeps.
const MAX_CACHED_SETS: usize = 1024;

/// What entries look like in frames and in query answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TailEncoding {
    /// `/loki/api/v1`: times in nanoseconds, labels as objects.
    V1 {
        /// Tell apart labels of the stream, structured metadata and what the query parsed.
        categorize: bool,
        /// The flags that the client sent, echoed.
        flags: Vec<String>,
    },
    /// `/api/prom`: times in RFC 3339, labels as text.
    Legacy,
}

impl TailEncoding {
    /// The v1 encoding that the values of `X-Loki-Response-Encoding-Flags` ask for: names separated by commas.
    #[must_use]
    pub fn v1<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        let names = headers.into_iter().flat_map(|header| header.split(','));
        let flags: Vec<_> = names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self::V1 { categorize: flags.iter().any(|f| f == CATEGORIZE_LABELS), flags }
    }

    pub(crate) fn flags(&self) -> &[String] {
        match self {
            Self::V1 { flags, .. } => flags,
            Self::Legacy => &[],
        }
    }

    /// What precedes the entries of a stream with these labels, and what ends each of its entries.
    pub(crate) fn labels(&self, labels: &LabelSet) -> Encoded {
        let (mut stream, mut entry) = (Vec::new(), Vec::new());
        match self {
            Self::V1 { categorize: false, .. } => {
                text::object(&mut stream, labels.pairs().iter().map(|p| (&*p.name, &*p.value)));
            }
            Self::V1 { categorize: true, .. } => {
                let of = |category| labels.of(category).map(|p| (&*p.name, &*p.value));
                text::object(&mut stream, of(Category::Stream));
                entry.extend_from_slice(b",{");
                for (category, name) in [(Category::Metadata, "structuredMetadata"), (Category::Parsed, "parsed")] {
                    if of(category).next().is_some() {
                        if entry.len() > 2 {
                            entry.push(b',');
                        }
                        text::string(&mut entry, name.as_bytes());
                        entry.push(b':');
                        text::object(&mut entry, of(category));
                    }
                }
                entry.push(b'}');
            }
            Self::Legacy => text::string(&mut stream, labels.to_string().as_bytes()),
        }
        Encoded { stream: stream.into(), entry: entry.into() }
    }

    /// Appends an entry.
    #[inline]
    pub(crate) fn entry(&self, out: &mut Vec<u8>, timestamp: Timestamp, line: &[u8], labels: &Encoded) {
        match self {
            Self::V1 { .. } => {
                out.push(b'[');
                text::nanoseconds(out, timestamp);
                out.push(b',');
                text::string(out, line);
                out.extend_from_slice(&labels.entry);
                out.push(b']');
            }
            Self::Legacy => {
                out.extend_from_slice(br#"{"ts":"#);
                text::rfc3339(out, timestamp);
                out.extend_from_slice(br#","line":"#);
                text::string(out, line);
                out.extend_from_slice(&labels.entry);
                out.push(b'}');
            }
        }
    }

    /// Appends the beginning of a stream object, up to its first entry.
    pub(crate) fn begin_stream(&self, out: &mut Vec<u8>, labels: &Encoded) {
        let (key, entries) = match self {
            Self::V1 { .. } => (&br#"{"stream":"#[..], &br#","values":["#[..]),
            Self::Legacy => (&br#"{"labels":"#[..], &br#","entries":["#[..]),
        };
        out.extend_from_slice(key);
        out.extend_from_slice(&labels.stream);
        out.extend_from_slice(entries);
    }
}

/// The encoded labels of an entry: those of the stream object, and those in the entry itself.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) stream: Box<[u8]>,
    pub(crate) entry: Box<[u8]>,
}

/// An entry that a client does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its time.
    pub timestamp: Timestamp,
    /// Its labels.
    pub labels: LabelSet,
}

/// What a frame says to clients that asked for it. Nothing of it is in the frames of others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// What has happened to the tail.
    pub notices: &'a [Notice],
    /// In the first frame of a tail that was resumed: whether nothing is missing. False again with every gap that is found later.
    pub resumed: Option<bool>,
    /// Where a tail goes on that has had everything up to this frame.
    pub resume: Option<&'a str>,
}

/// Something that has happened to a tail, beside its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing comes from a log for now. Its lines come later, late, or a gap is told.
    Away {
        /// The log, or the node if its log is not known.
        what: String,
        /// Why.
        reason: String,
    },
    /// A log that was away goes on where it was.
    Back {
        /// As [`Notice::Away`].
        what: String,
    },
    /// The node that serves this tail is going down: the client had better go on elsewhere.
    Draining {
        /// Other nodes: their URLs.
        nodes: Vec<String>,
    },
    /// From here on frames have no resume tokens, until one has one again. For clients that asked for tokens, whether they asked for
    /// notices or not.
    NoToken {
        /// Why.
        reason: String,
    },
}

impl Extras<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        if !self.notices.is_empty() {
            out.extend_from_slice(br#","notices":["#);
            for (i, notice) in self.notices.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                notice.encode(out);
            }
            out.push(b']');
        }
        if let Some(resumed) = self.resumed {
            out.extend_from_slice(if resumed { &br#","resumed":true"#[..] } else { &br#","resumed":false"#[..] });
        }
        if let Some(token) = self.resume {
            out.extend_from_slice(br#","resume":"#);
            text::string(out, token.as_bytes());
        }
    }
}

/// A frame that ends with a token, with other extras in its place; none of them may be notices. `token` is what it ends with, if anything.
#[must_use]
pub fn with_resume(frame: &[u8], token: Option<&str>, extras: &Extras<'_>) -> Bytes {
    let mut ending = Vec::new();
    Extras { resume: token, ..Extras::default() }.encode(&mut ending);
    ending.push(b'}');
    let kept = frame.strip_suffix(&ending[..]).or(frame.strip_suffix(b"}")).unwrap_or(frame);
    let mut out = Vec::with_capacity(frame.len() + ending.len());
    out.extend_from_slice(kept);
    extras.encode(&mut out);
    out.push(b'}');
    Bytes::from(out)
}

impl Notice {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Away { what, reason } => {
                text::object(out, [("type", "away"), ("what", what.as_str()), ("reason", reason.as_str())]);
            }
            Self::Back { what } => text::object(out, [("type", "back"), ("what", what.as_str())]),
            Self::Draining { nodes } => {
                out.extend_from_slice(br#"{"type":"draining","nodes":"#);
                text::strings(out, nodes);
                out.push(b'}');
            }
            Self::NoToken { reason } => text::object(out, [("type", "no_token"), ("reason", reason.as_str())]),
        }
    }
}

/// Encodes frames of a tail, one after the other.
#[derive(Debug)]
pub struct FrameEncoder {
    encoding: TailEncoding,
    out: Vec<u8>,
    lines: usize,
    /// The labels of the last entry of this frame, and what they are encoded as.
    open: Option<(LabelSet, Arc<Encoded>)>,
    cache: HashMap<usize, (LabelSet, Arc<Encoded>)>,
    cached_bytes: usize,
}

impl FrameEncoder {
    /// An encoder with no entries yet.
    #[must_use]
    pub fn new(encoding: TailEncoding) -> Self {
        Self { encoding, out: Vec::new(), lines: 0, open: None, cache: HashMap::new(), cached_bytes: 0 }
    }

    /// Adds an entry to the frame.
    #[inline]
    pub fn push(&mut self, timestamp: Timestamp, line: &[u8], labels: &LabelSet) {
        let same = self.open.as_ref().is_some_and(|(open, _)| open.ptr_eq(labels));
        if same {
            self.out.push(b',');
        } else {
            self.turn_to(labels);
        }
        if let Some((_, encoded)) = &self.open {
            self.encoding.entry(&mut self.out, timestamp, line, encoded);
        }
        self.lines += 1;
    }

    /// Makes `labels` the open ones: goes on in the stream object if the stream is the same, else begins one.
    fn turn_to(&mut self, labels: &LabelSet) {
        let encoded = self.encoded(labels);
        match &self.open {
            Some((_, open)) if open.stream == encoded.stream => self.out.push(b','),
            Some(_) => {
                self.out.extend_from_slice(b"]},");
                self.encoding.begin_stream(&mut self.out, &encoded);
            }
            None => {
                self.out.extend_from_slice(br#"{"streams":["#);
                self.encoding.begin_stream(&mut self.out, &encoded);
            }
        }
        self.open = Some((labels.clone(), encoded));
    }

    fn encoded(&mut self, labels: &LabelSet) -> Arc<Encoded> {
        if let Some((_, encoded)) = self.cache.get(&labels.address()) {
            return Arc::clone(encoded);
        }
        let encoded = Arc::new(self.encoding.labels(labels));
        let bytes = labels.heap_bytes() + encoded.stream.len() + encoded.entry.len();
        if bytes > MAX_CACHED_BYTES {
            return encoded;
        }
        if self.cached_bytes + bytes > MAX_CACHED_BYTES || self.cache.len() >= MAX_CACHED_SETS {
            self.cache.clear();
            self.cached_bytes = 0;
        }
        self.cached_bytes += bytes;
        self.cache.insert(labels.address(), (labels.clone(), Arc::clone(&encoded)));
        encoded
    }

    /// Bytes of the frame so far.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.out.len()
    }

    /// Entries of the frame so far.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// The frame, with what was dropped since the last one and what the client asked to be told; the encoder is ready for the next.
    #[must_use]
    pub fn finish(&mut self, dropped: &[Dropped], extras: &Extras<'_>) -> Bytes {
        let size = self.out.len();
        let out = &mut self.out;
        out.extend_from_slice(if self.open.take().is_some() { &b"]}]"[..] } else { &br#"{"streams":[]"#[..] });
        if !dropped.is_empty() {
            out.extend_from_slice(br#","dropped_entries":["#);
            for (i, entry) in dropped.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                self.encoding.dropped(out, entry);
            }
            out.push(b']');
        } else if self.encoding == TailEncoding::Legacy {
            out.extend_from_slice(br#","dropped_entries":null"#);
        }
        if !self.encoding.flags().is_empty() {
            out.extend_from_slice(br#","encodingFlags":"#);
            text::strings(out, self.encoding.flags());
        }
        extras.encode(out);
        out.push(b'}');
        self.lines = 0;
        // The next frame of a tail is about as large as this one; what one huge line took is given back.
        let next = Vec::with_capacity(size.min(MAX_CACHED_BYTES));
        Bytes::from(std::mem::replace(&mut self.out, next))
    }
}

impl TailEncoding {
    fn dropped(&self, out: &mut Vec<u8>, entry: &Dropped) {
        match self {
            Self::V1 { .. } => {
                out.extend_from_slice(br#"{"timestamp":"#);
                text::nanoseconds(out, entry.timestamp);
                out.extend_from_slice(br#","labels":"#);
                text::object(out, entry.labels.pairs().iter().map(|p| (&*p.name, &*p.value)));
            }
            Self::Legacy => {
                out.extend_from_slice(br#"{"Timestamp":"#);
                text::rfc3339(out, entry.timestamp);
                out.extend_from_slice(br#","Labels":"#);
                text::string(out, entry.labels.to_string().as_bytes());
            }
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests;
