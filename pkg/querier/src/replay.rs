//! Lines read from the logs for one session alone: again what the ring has lost. Its history is in [`crate::history`].
//!
//! Invariants:
//! * A catch-up reads, of each source, exactly what one mark contains and the other does not. It holds about
//!   [`CATCH_UP_BYTES`] at a time, however much is missing.
//! * The sources of a catch-up go on side by side: the one that is furthest behind is read next.
//! * One that cannot be read is tried again while the others go on, for [`GIVE_UP`]. What is missing then is told like what was trimmed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tailwater_model::Timestamp;
use tailwater_wire::node::{Answer, MatchedLine, NodeError, ReadChunk};
use tokio::time::{Instant, sleep_until, timeout};

use crate::Error;
use crate::backoff::Backoff;
use crate::feed::Feed;
use crate::mark::{Key, Mark};
use crate::ring::Joined;
use crate::source::SourceId;
use crate::tenant_labels::TenantLabels;

/// How much matched text a catch-up holds at a time, in bytes.
const CATCH_UP_BYTES: usize = 1 << 20;

/// The least that is read of a source at a time when there are several, in bytes.
const MIN_PART_BYTES: usize = 64 << 10;

/// How long a read may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Pauses before a source is read again that could not be read.
const READ_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// A source that could not be read for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Lines on their way to a frame of a session alone.
pub(crate) type Own = VecDeque<(MatchedLine, Bytes)>;

/// A read that is under way.
pub(crate) type Reading<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// The line with the labels under which it leaves.
pub(crate) fn named(tenant_labels: &mut Option<TenantLabels>, source: SourceId, mut line: MatchedLine) -> MatchedLine {
    if let Some(known) = tenant_labels {
        line.labels = known.add(source, &line.labels);
    }
    line
}

/// What lies between two marks, being read.
pub(crate) struct CatchUp {
    from: Mark,
    pub(crate) to: Joined,
    /// What is still to be read.
    stretches: Vec<Stretch>,
    reading: Option<Reread>,
    max_bytes: usize,
    tenant_labels: Option<TenantLabels>,
    /// Lines found so far.
    pub(crate) found: u64,
    /// Lines, matching or not, that were trimmed from the logs meanwhile.
    pub(crate) trimmed: u64,
    /// Whether a source was given up.
    pub(crate) gave_up: bool,
}

/// A read that is under way: of which source, and since when.
struct Reread {
    source: SourceId,
    began: Instant,
    chunk: Answer<ReadChunk>,
}

struct Stretch {
    source: SourceId,
    after: u64,
    through: u64,
    /// When what has been read of it was accepted.
    reached: Timestamp,
    /// Since when it cannot be read, and when it is tried again.
    failing: Option<(Instant, Instant)>,
    again: Backoff,
}

impl CatchUp {
    pub(crate) fn new(feed: &Feed, from: Mark, to: Joined) -> Self {
        let stretch = |(id, _)| {
            // What was before a source began is history's business, also if it began after this session joined.
            let (after, through) = from.stretch_to(&to.mark, id);
            Stretch { source: id, after, through, reached: Timestamp::MIN, failing: None, again: READ_AGAIN }
        };
        let stretches: Vec<_> = feed.sources.iter().map(stretch).collect();
        let max_bytes = (CATCH_UP_BYTES / stretches.len().max(1)).max(MIN_PART_BYTES);
        let tenant_labels = feed.tenant_labels();
        Self { from, to, stretches, reading: None, max_bytes, tenant_labels, found: 0, trimmed: 0, gave_up: false }
    }

    /// The next part of what is missing, in time order within the part; `None` when all is read or given up. Cancel-safe.
    pub(crate) async fn read(&mut self, feed: &Feed) -> Result<Option<Own>, Error> {
        loop {
            self.stretches.retain(|stretch| stretch.after < stretch.through);
            let (now, under_way) = (Instant::now(), self.reading.as_ref().map(|reading| reading.source));
            let place = |stretch: &&mut Stretch| {
                let waits_until = stretch.failing.map(|(_, again)| again).filter(|again| *again > now);
                // The same one again after a cancel.
                (under_way.is_some_and(|source| source != stretch.source), waits_until, stretch.reached)
            };
            let Some(stretch) = self.stretches.iter_mut().min_by_key(place) else { return Ok(None) };
            let id = stretch.source;
            let Some(source) = feed.sources.get(id) else { return Ok(None) };
            if let (Some((_, again)), None) = (stretch.failing, under_way)
                && again > now
            {
                sleep_until(again).await;
                continue;
            }
            let (after, through) = (stretch.after, stretch.through);
            let reading = self.reading.get_or_insert_with(|| {
                let (log, read) = (source.node.log_id(), source.read(&feed.query, after, through, self.max_bytes));
                let unavailable = move |reason: &str| NodeError::Unavailable { log, reason: reason.to_owned() };
                let read = async move {
                    let chunk =
                        timeout(PATIENCE, read).await.map_err(|_| unavailable("it did not answer in time"))??;
                    if chunk.through > after { Ok(chunk) } else { Err(unavailable("its answer does not go on")) }
                };
                Reread { source: id, began: now, chunk: Box::pin(read) }
            });
            let (chunk, began) = (reading.chunk.as_mut().await, reading.began);
            self.reading = None;
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    let now = Instant::now();
                    let since = stretch.failing.map_or(now, |(since, _)| since);
                    stretch.failing = Some((since, now + stretch.again.pause()));
                    // The client may have taken nothing for long meanwhile: what counts is whether it was tried after that time.
                    if began >= since + GIVE_UP {
                        tracing::warn!(tenant = %source.tenant, after, through, %error, "a catch-up gives a log up");
                        self.gave_up = true;
                        stretch.after = through;
                    }
                    continue;
                }
            };
            stretch.failing = None;
            stretch.again.reset();
            stretch.after = chunk.through;
            stretch.reached = chunk.batch.watermark;
            self.trimmed += chunk.gap.map_or(0, |gap| gap.lines);
            let batch = &chunk.batch;
            let missing = batch.lines.iter().filter(|l| !self.from.contains(id, l) && self.to.mark.contains(id, l));
            let mut lines: Vec<_> =
                missing.map(|line| (named(&mut self.tenant_labels, id, line.clone()), batch.line(line))).collect();
            if lines.is_empty() {
                continue;
            }
            lines.sort_by_key(|(line, _)| Key::of(id, line));
            self.found += lines.len() as u64;
            return Ok(Some(lines.into()));
        }
    }
}
