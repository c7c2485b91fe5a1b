//! Lines read from the logs for one session alone: its history, and again what the ring has lost.
//!
//! Invariants:
//! * History is what the mark at which the session joined contains, so no line of it comes live as well.
//! * A catch-up reads, of each source, exactly what one mark contains and the other does not. It holds about
//!   [`CATCH_UP_BYTES`] at a time, however much is missing.
//! * The sources of a catch-up go on side by side: the one that is furthest behind is read next.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_model::Timestamp;
use tailwater_wire::node::{Answer, Direction, MatchedLine, ReadChunk};

use crate::Error;
use crate::feed::Feed;
use crate::logs::answer_order;
use crate::mark::{Key, Mark};
use crate::ring::Joined;
use crate::source::{Source, SourceId};
use crate::tenant_labels::TenantLabels;

/// How much matched text a catch-up holds at a time, in bytes.
const CATCH_UP_BYTES: usize = 1 << 20;

/// The least that is read of a source at a time when there are several, in bytes.
const MIN_PART_BYTES: usize = 64 << 10;

/// Lines on their way to a frame of a session alone.
pub(crate) type Own = VecDeque<(MatchedLine, Bytes)>;

/// A read that is under way.
pub(crate) type Reading<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// The newest `limit` lines from `start` on that the feed had given out when the session joined, oldest first.
pub(crate) fn history(feed: Arc<Feed>, joined: &Joined, start: Timestamp, limit: usize) -> Reading<Own> {
    let (mark, waiting) = (joined.mark.clone(), joined.waiting);
    Box::pin(async move {
        let mut tenant_labels = feed.tenant_labels();
        let mut lines = Vec::new();
        for (id, source) in feed.sources.iter() {
            // Lines the feed still holds back are live, not history; they must not use up the limit.
            let selected = source.newest(&feed.query, mark.consumed(id), start, limit + waiting).await?.lines;
            let given_out = selected.into_iter().filter(|(line, _)| mark.contains(id, line)).take(limit);
            lines.extend(given_out.map(|(line, text)| (named(&mut tenant_labels, id, line), text)));
            if feed.sources.len() > 1 {
                lines.sort_by(|(a, _), (b, _)| answer_order(a, b, Direction::Backward));
                lines.truncate(limit);
            }
        }
        lines.reverse();
        Ok(lines.into())
    })
}

/// The line with the labels under which it leaves.
fn named(tenant_labels: &mut Option<TenantLabels>, source: SourceId, mut line: MatchedLine) -> MatchedLine {
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
    reading: Option<Answer<ReadChunk>>,
    max_bytes: usize,
    tenant_labels: Option<TenantLabels>,
    /// Lines found so far.
    pub(crate) found: u64,
    /// Lines, matching or not, that were trimmed from the logs meanwhile.
    pub(crate) trimmed: u64,
}

struct Stretch {
    source: SourceId,
    after: u64,
    through: u64,
    /// When what has been read of it was accepted.
    reached: Timestamp,
}

impl CatchUp {
    pub(crate) fn new(feed: &Feed, from: Mark, to: Joined) -> Self {
        let stretch = |(id, _): (SourceId, &Source)| {
            let (after, through) = (from.complete.seq(id), to.mark.consumed(id));
            Stretch { source: id, after, through, reached: Timestamp::MIN }
        };
        let stretches: Vec<_> = feed.sources.iter().map(stretch).collect();
        let max_bytes = (CATCH_UP_BYTES / stretches.len().max(1)).max(MIN_PART_BYTES);
        let tenant_labels = feed.tenant_labels();
        Self { from, to, stretches, reading: None, max_bytes, tenant_labels, found: 0, trimmed: 0 }
    }

    /// The next part of what is missing, in time order within the part; `None` when all is read. Cancel-safe.
    pub(crate) async fn read(&mut self, feed: &Feed) -> Result<Option<Own>, Error> {
        loop {
            self.stretches.retain(|stretch| stretch.after < stretch.through);
            // The same one again after a cancel: nothing has changed.
            let Some(stretch) = self.stretches.iter_mut().min_by_key(|stretch| stretch.reached) else {
                return Ok(None);
            };
            let id = stretch.source;
            let Some(source) = feed.sources.get(id) else { return Ok(None) };
            let reading = self
                .reading
                .get_or_insert_with(|| source.read(&feed.query, stretch.after, stretch.through, self.max_bytes));
            let chunk = reading.as_mut().await;
            self.reading = None;
            let chunk = chunk?;
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
