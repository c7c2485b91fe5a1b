//! The history of one session, read from the logs for it alone.
//!
//! Invariant: history is what the mark at which the session joined contains, so no line of it comes live as well. Read again as of the same
//! mark it has the same lines in the same order, but for those that have been deleted or have expired since.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_logql::LogQuery;
use tailwater_wire::node::{Direction, MatchedLine};

use crate::Error;
use crate::logs::answer_order;
use crate::resume::{HistoryAt, Sent};
use crate::source::{Source, SourceId};
use crate::tenant_labels::TenantLabels;

/// Lines on their way to a frame of a session alone.
pub(crate) type Own = VecDeque<(MatchedLine, Bytes)>;

/// A read that is under way.
pub(crate) type Reading<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// The newest `limit` lines from `start` on that the mark contains, oldest first, but for those that were sent. `sources` have the numbers of
/// the mark; `tenant_labels` knows them by their places.
pub(crate) fn history(
    query: Arc<LogQuery>,
    sources: Vec<(SourceId, Source)>,
    mut tenant_labels: Option<TenantLabels>,
    at: HistoryAt,
) -> Reading<Own> {
    Box::pin(async move {
        let HistoryAt { mark, start, limit, waiting, sent } = at;
        let mark = mark.mark();
        let mut lines = Vec::new();
        for (place, (id, source)) in sources.iter().enumerate() {
            let (place, id) = (SourceId::new(place), *id);
            // Lines the feed still holds back are live, not history; they must not use up the limit.
            let selected = source.newest(&query, mark.consumed(id), start, limit + waiting).await?.lines;
            let given_out = selected.into_iter().filter(|(line, _)| mark.contains(id, line)).take(limit);
            lines.extend(given_out.map(|(line, text)| (named(&mut tenant_labels, place, line), text)));
            if sources.len() > 1 {
                lines.sort_by(|(a, _), (b, _)| answer_order(a, b, Direction::Backward));
                lines.truncate(limit);
            }
        }
        lines.reverse();
        Ok(not_sent(lines, sent))
    })
}

/// The lines after the last one that was sent.
fn not_sent(lines: Vec<(MatchedLine, Bytes)>, sent: Option<Sent>) -> Own {
    let Some(Sent { timestamp, stream_hash, lines: mut equal }) = sent else { return lines.into() };
    // Oldest first, and of equal times the streams come in descending order.
    let place = |line: &MatchedLine| line.timestamp.cmp(&timestamp).then(stream_hash.cmp(&line.stream_hash));
    let is_new = |line: &MatchedLine| match place(line) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => {
            let new = equal == 0;
            equal = equal.saturating_sub(1);
            new
        }
        std::cmp::Ordering::Greater => true,
    };
    let mut is_new = is_new;
    lines.into_iter().filter(|(line, _)| is_new(line)).collect()
}

impl HistoryAt {
    /// Another line was sent.
    pub(crate) fn sent(&mut self, line: &MatchedLine) {
        let (timestamp, stream_hash) = (line.timestamp, line.stream_hash);
        let before = self.sent.filter(|sent| (sent.timestamp, sent.stream_hash) == (timestamp, stream_hash));
        let lines = before.map_or(0, |sent| sent.lines) + 1;
        self.sent = Some(Sent { timestamp, stream_hash, lines });
    }
}

/// The line with the labels under which it leaves.
pub(crate) fn named(tenant_labels: &mut Option<TenantLabels>, source: SourceId, mut line: MatchedLine) -> MatchedLine {
    if let Some(known) = tenant_labels {
        line.labels = known.add(source, &line.labels);
    }
    line
}
