//! `proto/tailwater/v1/push.proto` for prost, written out: the oracle of the hand-written decoder.

/// A push.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PushRequest {
    /// Its streams.
    #[prost(message, repeated, tag = "1")]
    pub(crate) streams: Vec<Stream>,
    /// Ignored.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) format: prost::bytes::Bytes,
}

/// A stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stream {
    /// The text of its labels.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) labels: prost::bytes::Bytes,
    /// Its entries.
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<Entry>,
    /// Ignored.
    #[prost(uint64, tag = "3")]
    pub(crate) hash: u64,
}

/// An entry.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    /// Its time.
    #[prost(message, optional, tag = "1")]
    pub(crate) timestamp: Option<Time>,
    /// Its line.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) line: prost::bytes::Bytes,
    /// Its structured metadata.
    #[prost(message, repeated, tag = "3")]
    pub(crate) structured_metadata: Vec<Pair>,
    /// Ignored.
    #[prost(message, repeated, tag = "4")]
    pub(crate) parsed: Vec<Pair>,
}

/// A name and a value.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Pair {
    /// The name.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) name: prost::bytes::Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: prost::bytes::Bytes,
}

/// A time.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Time {
    /// Seconds since the epoch.
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    /// And nanoseconds.
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}
