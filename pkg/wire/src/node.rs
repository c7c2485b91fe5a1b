//! What a querier asks of an ingester. The two meet here and in the gRPC contract, never in each other's code; in one process
//! the ingester itself is a [`Node`].
//!
//! Invariants:
//! * Everything is said in positions of the node's arrival log. `as_of` and `through` are inclusive, `after` is exclusive.
//! * [`Node::follow`] from position P yields every matching line of every batch after P exactly once, in log order, or a
//!   [`FollowEvent::Gap`] that names what was trimmed. A slow consumer is late, it never loses.
//! * `read(after, through)`, run at any time, yields the same lines as `follow` did between the same positions, or the same gap.
//! * A line's identity is (log, seq, index): the batch and the place in it. It never changes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use tailwater_logql::LogQuery;
use tailwater_logql::matchers::Matchers;
use tailwater_logql::metric::{Column, Grid, SampleQuery};
use tailwater_logql::patterns::Pattern;
use tailwater_model::{LabelSet, Labels, LogId, TenantId, Timestamp};

/// A future that a node answers with.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, NodeError>> + Send>>;

/// The lines of a follow, as they are accepted.
pub type Follow = Pin<Box<dyn Stream<Item = FollowEvent> + Send>>;

/// An ingester, near or far.
pub trait Node: Send + Sync + 'static {
    /// The node's arrival log.
    fn log_id(&self) -> LogId;

    /// Where the log is: its end, what of it is in blocks, where it was some time ago.
    fn state(&self, request: StateRequest) -> Answer<LogState>;

    /// Every matching line after a position, for as long as the stream is held.
    fn follow(&self, request: FollowRequest) -> Follow;

    /// The matching lines of a stretch of the log, a chunk at a time.
    fn read(&self, request: ReadRequest) -> Answer<ReadChunk>;

    /// The matching lines of a time range as of a position: at most `limit`, the newest or the oldest ones.
    fn select(&self, request: SelectRequest) -> Answer<Selected>;

    /// What the lines of a stretch of the log are worth to a range aggregation, per series and pane.
    fn samples(&self, request: SamplesRequest) -> Answer<Sampled>;

    /// Names of labels, or the values of one, of the matching streams. Sorted, unique.
    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>>;

    /// The matching streams.
    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>>;

    /// How much the matching streams hold within a time range.
    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>>;

    /// How many bytes the matching streams hold within each step of a time range. Streams without any are left out.
    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>>;

    /// The patterns of the lines of the matching streams within a time range, those with the most lines first.
    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>>;
}

/// Why a node could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// The node is gone or going.
    #[error("ingester {log} is unavailable: {reason}")]
    Unavailable {
        /// Its log.
        log: LogId,
        /// What happened.
        reason: String,
    },
    /// The log no longer holds what comes after the position that was asked for ([`Part::Log`]): it is in blocks.
    #[error("the log {log} begins after {through}: what is before that is in blocks")]
    Trimmed {
        /// The log.
        log: LogId,
        /// The last batch that it no longer holds.
        through: u64,
    },
    /// The answer would take more memory than the request allows.
    #[error(
        "the query needs more than {limit} bytes of memory for its series; narrow the selector or the time range, or group by fewer labels"
    )]
    TooLarge {
        /// What was allowed, in bytes.
        limit: usize,
    },
}

/// An answer, and what it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial<T> {
    /// What could be learnt.
    pub value: T,
    /// What could not, and why. Empty: the answer is whole.
    pub warnings: Vec<String>,
}

impl<T> Partial<T> {
    /// An answer that lacks nothing.
    #[must_use]
    pub fn whole(value: T) -> Self {
        Self { value, warnings: Vec::new() }
    }

    /// The value; the warnings join others, each once.
    pub fn take(self, warnings: &mut Vec<String>) -> T {
        warn(warnings, self.warnings);
        self.value
    }
}

/// Adds warnings to others, each once.
pub fn warn(warnings: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for warning in more {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

/// See [`Node::state`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StateRequest {
    /// Find where the log was so long ago, by the node's own clock.
    pub age: Option<std::time::Duration>,
}

/// Where a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The last accepted batch.
    pub head: u64,
    /// The last batch up to which nothing is missing that this copy of the log alone has lost and that is in no block. That of the log itself
    /// is `head`.
    pub whole: u64,
    /// The last batch that was accepted longer ago than [`StateRequest::age`]; `head` if that was not asked for. If it is not known any more,
    /// the last one of which it is known.
    pub before: u64,
    /// Everything up to this batch is in blocks, and the catalog says so to whoever reads it from now on. 0: nothing, or there are no blocks.
    pub in_blocks: u64,
    /// The node's clock: whatever is accepted later is accepted at or after this.
    pub watermark: Timestamp,
}

/// Which of the places that hold lines are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of them: blocks, also those of other logs, and the log.
    #[default]
    Whole,
    /// The log alone, and of it only what comes after this position. Whoever asks reads the rest from blocks.
    Log {
        /// The position.
        after: u64,
    },
}

/// Blocks as a querier reads them that asks ingesters for their logs only.
pub trait Blocks: Send + Sync + 'static {
    /// What is in blocks: of these logs each up to a position, of all others everything. Its [`Node::follow`] yields nothing, its
    /// [`Node::read`] and [`Node::samples`] with `after > 0` are about the log that it bears the name of, `own`; everything else is about all
    /// logs, unless [`Part::Log`] is asked for: then about that one only. What the catalog says is asked for again if it was known before `fresh_since`.
    fn up_to(&self, boundaries: Arc<[(LogId, u64)]>, own: LogId, fresh_since: std::time::Instant) -> Arc<dyn Node>;
}

/// See [`Node::follow`].
#[derive(Clone)]
pub struct FollowRequest {
    /// Whose lines.
    pub tenant: TenantId,
    /// Which lines. Equal canonical queries of a tenant share one evaluation.
    pub query: Arc<LogQuery>,
    /// Add `detected_level` to entries that bring none.
    pub detect_level: bool,
    /// Begin with the batch after this one.
    pub after: u64,
}

/// What a follow yields.
#[derive(Clone, Debug)]
pub enum FollowEvent {
    /// Matching lines.
    Lines(Arc<MatchedBatch>),
    /// Nothing matched up to here; sent at least every [`HEARTBEAT`] while idle.
    Idle {
        /// Every batch up to this one has been looked at.
        through: u64,
        /// The node's clock then: whatever is accepted later is accepted at or after this.
        watermark: Timestamp,
    },
    /// Batches were trimmed before they were read.
    Gap(Gap),
    /// Nothing can be had of the log for now. The follow goes on where it was as soon as it can: every other event says that it does.
    Away {
        /// Why.
        reason: Arc<str>,
    },
}

/// The longest silence of a follow.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_millis(250);

/// A stretch of the log that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last batch before the gap.
    pub after: u64,
    /// The last batch in the gap.
    pub through: u64,
    /// Lines of the tenant in the gap, matching or not.
    pub lines: u64,
}

/// Matching lines of consecutive batches, after the pipeline.
#[derive(Clone, Debug)]
pub struct MatchedBatch {
    /// Every batch up to this one has been looked at.
    pub through: u64,
    /// The node's clock after the last batch was accepted.
    pub watermark: Timestamp,
    /// The text that the lines point into.
    pub text: Bytes,
    /// The lines in log order; not empty.
    pub lines: Vec<MatchedLine>,
}

/// One matching line.
#[derive(Clone, Debug)]
pub struct MatchedLine {
    /// When it happened, as the sender says.
    pub timestamp: Timestamp,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Its batch; 0 if it is in an earlier log than the node's own: before everything.
    pub seq: u64,
    /// Its place in the batch.
    pub index: u32,
    /// Where its text begins.
    pub offset: u32,
    /// How long its text is.
    pub len: u32,
    /// Its labels.
    pub labels: LabelSet,
    /// [`Labels::loki_hash`] of its stream: the order among equal timestamps in query answers.
    pub stream_hash: u64,
}

impl MatchedBatch {
    /// The text of a line of this batch.
    #[must_use]
    pub fn line(&self, line: &MatchedLine) -> Bytes {
        self.text.slice(line.offset as usize..(line.offset + line.len) as usize)
    }
}

/// See [`Node::read`].
#[derive(Clone)]
pub struct ReadRequest {
    /// Whose lines.
    pub tenant: TenantId,
    /// Which lines.
    pub query: Arc<LogQuery>,
    /// Add `detected_level` to entries that bring none.
    pub detect_level: bool,
    /// Begin with the batch after this one.
    pub after: u64,
    /// End with this batch.
    pub through: u64,
    /// Stop at the end of the batch with which the matched text exceeds this.
    pub max_bytes: usize,
}

/// A part of a stretch of the log.
#[derive(Clone, Debug)]
pub struct ReadChunk {
    /// Every batch up to this one has been looked at; continue after it.
    pub through: u64,
    /// What was trimmed at the beginning of the stretch.
    pub gap: Option<Gap>,
    /// The matching lines, possibly none (`lines` empty).
    pub batch: MatchedBatch,
}

/// See [`Node::select`].
#[derive(Clone)]
pub struct SelectRequest {
    /// Whose lines.
    pub tenant: TenantId,
    /// Where they are looked for.
    pub part: Part,
    /// Which lines.
    pub query: Arc<LogQuery>,
    /// Add `detected_level` to entries that bring none.
    pub detect_level: bool,
    /// Only batches up to this one.
    pub as_of: u64,
    /// The earliest timestamp, inclusive.
    pub start: Timestamp,
    /// The end of the range, exclusive.
    pub end: Timestamp,
    /// Which lines to keep.
    pub direction: Direction,
    /// Most lines to answer.
    pub limit: usize,
}

/// The order of an answer, and which lines a limit keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// The answer to a [`SelectRequest`].
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// The lines in answer order: by timestamp in the asked direction; equal timestamps by ascending `stream_hash`, and within a stream by
    /// (seq, index) in the asked direction. Entries equal in stream, timestamp, line and metadata appear once.
    pub lines: Vec<(MatchedLine, Bytes)>,
    /// What could not be looked at, and why. Empty: the answer is whole.
    pub warnings: Vec<String>,
    /// What was looked at.
    pub scanned: Scanned,
}

/// See [`Node::samples`].
#[derive(Clone)]
pub struct SamplesRequest {
    /// Whose lines.
    pub tenant: TenantId,
    /// Where they are looked for.
    pub part: Part,
    /// Which lines, and what they are worth.
    pub query: Arc<SampleQuery>,
    /// Add `detected_level` to entries that bring none.
    pub detect_level: bool,
    /// Begin with the batch after this one.
    pub after: u64,
    /// Only batches up to this one.
    pub as_of: u64,
    /// The windows that count.
    pub grid: Grid,
    /// What is older is not collected, although it may lie in a window: the beginning of a window, or of time.
    pub from: Timestamp,
    /// For who goes on after `after`: timestamps up to this one have been answered as of `after`, later batches with such are late.
    /// Without it nothing is late, and what was trimmed before the first batch of all is not told.
    pub settled: Option<Timestamp>,
    /// Most memory of the answer and of making it, in bytes.
    pub max_bytes: usize,
}

/// The answer to a [`SamplesRequest`].
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Partial aggregates of every series with a sample in a window. Entries equal in stream, timestamp, line and metadata count once.
    pub series: Vec<(Labels, Column)>,
    /// Every batch up to this one has been looked at.
    pub through: u64,
    /// The node's clock then: whatever is accepted later is accepted at or after this.
    pub watermark: Timestamp,
    /// What was trimmed at the beginning of the stretch.
    pub gap: Option<Gap>,
    /// Lines that count in a window and are not later than `settled`, also those from before `from`.
    pub late: Late,
    /// What could not be looked at, and why. Empty: the answer is whole.
    pub warnings: Vec<String>,
    /// What was looked at.
    pub scanned: Scanned,
}

/// Lines that came too late for what had been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// How many.
    pub lines: u64,
    /// The earliest timestamp of them; [`Timestamp::MAX`] if there are none.
    pub oldest: Timestamp,
}

impl Default for Late {
    fn default() -> Self {
        Self { lines: 0, oldest: Timestamp::MAX }
    }
}

impl std::ops::AddAssign for Late {
    fn add_assign(&mut self, more: Self) {
        self.lines += more.lines;
        self.oldest = self.oldest.min(more.oldest);
    }
}

/// What a read has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Lines.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines that passed the pipeline.
    pub matched: u64,
    /// Batches of the log.
    pub batches: u64,
    /// What of it was in blocks.
    pub blocks: BlocksScanned,
}

impl std::ops::AddAssign for Scanned {
    fn add_assign(&mut self, more: Self) {
        self.lines += more.lines;
        self.bytes += more.bytes;
        self.matched += more.matched;
        self.batches += more.batches;
        self.blocks += more.blocks;
    }
}

/// What a read has looked at in blocks, and what it did not have to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlocksScanned {
    /// Blocks that were opened.
    pub blocks: u64,
    /// Pages that were read, wholly or only their small columns.
    pub pages: u64,
    /// Pages that were not read: of other streams, times or positions.
    pub pruned_by_streams: u64,
    /// Pages that were not read: they lack structured metadata that the query requires.
    pub pruned_by_fields: u64,
    /// Pages that were not read: they lack a text that the query requires.
    pub pruned_by_grams: u64,
    /// Bytes that were fetched from the object store.
    pub fetched_bytes: u64,
    /// How long the fetches took together, in nanoseconds. Several are under way at a time.
    pub fetch_nanos: u64,
    /// Parts of blocks (footers, grams, pages) that were in the cache.
    pub cache_hits: u64,
    /// Bytes of pages, as stored.
    pub compressed_bytes: u64,
    /// Bytes of their lines.
    pub decompressed_bytes: u64,
    /// Their lines.
    pub lines: u64,
}

impl std::ops::AddAssign for BlocksScanned {
    fn add_assign(&mut self, more: Self) {
        self.blocks += more.blocks;
        self.pages += more.pages;
        self.pruned_by_streams += more.pruned_by_streams;
        self.pruned_by_fields += more.pruned_by_fields;
        self.pruned_by_grams += more.pruned_by_grams;
        self.fetched_bytes += more.fetched_bytes;
        self.fetch_nanos += more.fetch_nanos;
        self.cache_hits += more.cache_hits;
        self.compressed_bytes += more.compressed_bytes;
        self.decompressed_bytes += more.decompressed_bytes;
        self.lines += more.lines;
    }
}

/// See [`Node::labels`].
#[derive(Clone)]
pub struct LabelsRequest {
    /// Whose streams.
    pub tenant: TenantId,
    /// Where they are looked for.
    pub part: Part,
    /// Which streams; none = all.
    pub matchers: Option<Arc<Matchers>>,
    /// Only streams with entries at or after this.
    pub start: Timestamp,
    /// Only streams with entries before or at this.
    pub end: Timestamp,
    /// The label whose values are asked for; none = the names.
    pub name: Option<String>,
}

/// See [`Node::series`] and [`Node::stats`].
#[derive(Clone)]
pub struct SeriesRequest {
    /// Whose streams.
    pub tenant: TenantId,
    /// Where they are looked for.
    pub part: Part,
    /// Which streams: those that match any; empty = all.
    pub matchers: Vec<Arc<Matchers>>,
    /// The earliest timestamp, inclusive.
    pub start: Timestamp,
    /// The latest timestamp, inclusive.
    pub end: Timestamp,
}

/// What streams hold (`/loki/api/v1/index/stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Streams with entries in the range.
    pub streams: u64,
    /// Batches of the log that hold such entries.
    pub chunks: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// Their number.
    pub entries: u64,
}

/// See [`Node::volume`].
#[derive(Clone)]
pub struct VolumeRequest {
    /// Which streams, and when.
    pub series: SeriesRequest,
    /// The length of a step in nanoseconds, positive; steps begin at its multiples. None: the whole range is one.
    pub step: Option<i64>,
}

/// How much a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamVolume {
    /// The stream.
    pub labels: Labels,
    /// Bytes of lines and structured metadata in each step that has any, by the time that the step ends: the last ends with the
    /// range. Sorted by time.
    pub bytes: Vec<(Timestamp, u64)>,
}

/// See [`Node::patterns`].
#[derive(Clone)]
pub struct PatternsRequest {
    /// Which streams, and when.
    pub series: SeriesRequest,
    /// The length of a step in nanoseconds, positive; steps begin at its multiples.
    pub step: i64,
    /// Find the level of entries that bring none.
    pub detect_level: bool,
    /// Most patterns to answer.
    pub limit: usize,
}
