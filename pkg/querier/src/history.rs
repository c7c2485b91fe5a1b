//! What a session gets before its first live line: of every source the lines that its mark contains, the newest of all together.
//!
//! Invariants:
//! * No line of it comes live as well. In one process each log answers for everything before the mark. Where the querier reads blocks itself
//!   one boundary per log divides what comes from blocks and what from the log, and the boundary is never beyond what has been given out
//!   completely; of a log that has not begun, nothing is history.
//! * What cannot be read is left out and told. A session never fails for it, and never waits for it longer than [`PATIENCE`]; if it is the
//!   object store that does not answer, not longer than [`STORE_PATIENCE`], and then it gets what the logs themselves have. A history that
//!   goes on with a token, of which nothing may be missing without need, is worth the longer wait.
//! * Read again as of the same mark, wherever, it has the same lines in the same order, but for those that have been deleted or have expired
//!   since. So a session that goes on in the middle of it passes over what was sent. (Of lines of one stream with equal times in several logs
//!   only the number is sure.)

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tailwater_model::{LogId, TenantId, Timestamp};
use tailwater_wire::frame::Notice;
use tailwater_wire::node::{Blocks, Direction, MatchedLine, Node, NodeError, Part, Selected, StateRequest};
use tokio::time::{Instant, timeout, timeout_at};

use crate::away::{Away, back, went};
use crate::had::Name;
use crate::logs::by_time_and_stream;
use crate::outside::Outside;
use crate::place::{ASKING, place};
use crate::replay::{Own, Reading, named};
use crate::resume::{HistoryAt, Sent};
use crate::session::MAX_HISTORY_LINES;
use crate::source::{Source, SourceId};

/// How long a read may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the object store may be silent before history goes on without it.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// The least time that a read has, however long the store has been silent already.
const GRACE: Duration = Duration::from_secs(1);

/// How often it is looked at whether the store is silent.
const LOOK: Duration = Duration::from_millis(250);

/// Why something is missing that the store does not give.
const SILENT: &str = "the object store does not answer";

/// Most reads at a time. Each holds up to the limit of lines.
const SIDE_BY_SIDE: usize = 16;

/// How often boundaries are looked for that no log has been trimmed beyond.
const ATTEMPTS: usize = 3;

/// The lines, oldest first, and what is not among them.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) lines: Own,
    /// Of what something is missing, and why.
    missing: Vec<(Missing, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Log(LogId),
    Blocks,
}

impl History {
    pub(crate) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// What a client is told that knows which logs were away when it joined.
    pub(crate) fn notices(&self, joined: &Away) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (what, reason) in &self.missing {
            match what {
                Missing::Log(log) if joined.why(*log).is_some() => {}
                // It is there, for what comes from now on.
                Missing::Log(log) => notices.extend([went(*log, reason), back(*log)]),
                Missing::Blocks => {
                    let what = "blocks".to_owned();
                    notices
                        .extend([Notice::Away { what: what.clone(), reason: reason.clone() }, Notice::Back { what }]);
                }
            }
        }
        notices
    }

    fn lacks(&mut self, what: Missing, reason: String) {
        if !self.missing.iter().any(|(known, _)| *known == what) {
            self.missing.push((what, reason));
        }
    }
}

/// The newest lines that the mark contains, oldest first, but for those that were sent. `away` are the logs of which nothing can be had now,
/// `origin` is when the tail began, `resumed` whether it goes on with a token.
pub(crate) fn history(
    outside: Outside,
    origin: Timestamp,
    at: HistoryAt,
    away: Away,
    resumed: bool,
) -> Reading<History> {
    Box::pin(async move {
        if at.limit == 0 {
            return History::default();
        }
        let wanted = Wanted { outside, origin, at, away, resumed, began: Instant::now() };
        let mut history = match wanted.outside.nodes.blocks() {
            None => {
                let (asks, mut history) = wanted.of_nodes();
                wanted.read(asks, &mut history, true).await;
                history
            }
            Some(blocks) => wanted.with_blocks(blocks.as_ref()).await,
        };
        history.lines.make_contiguous().reverse();
        if let Some(sent) = &wanted.at.sent {
            sent.pass_over(&mut history.lines);
        }
        if !history.is_whole() {
            wanted.outside.feed.metrics().histories_incomplete.inc();
        }
        history
    })
}

impl Sent {
    /// Where a line stands to the last one that was sent: oldest first, and of equal times the streams come in descending order.
    fn place(&self, line: &MatchedLine) -> Ordering {
        line.timestamp.cmp(&self.timestamp).then(self.stream_hash.cmp(&line.stream_hash))
    }

    /// Leaves out what was sent.
    fn pass_over(&self, lines: &mut Own) {
        let mut equal = self.lines;
        lines.retain(|(line, _)| match self.place(line) {
            Ordering::Less => false,
            Ordering::Equal => {
                let is_new = equal == 0;
                equal = equal.saturating_sub(1);
                is_new
            }
            Ordering::Greater => true,
        });
    }
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

struct Wanted {
    outside: Outside,
    origin: Timestamp,
    at: HistoryAt,
    away: Away,
    resumed: bool,
    began: Instant,
}

/// One read.
struct Ask {
    /// A source of the tenant in the numbering of the mark; that of the log, if it is one log that is read.
    id: SourceId,
    source: Source,
    what: Missing,
    part: Part,
    as_of: u64,
    limit: usize,
}

/// What a read has found, and what it says of blocks that it lacks.
type Answered = (Result<Selected, NodeError>, Option<String>);

impl Ask {
    async fn answer(self, wanted: &Wanted) -> (Self, Answered) {
        let answer = wanted.patiently(&self, self.part, wanted.began).await;
        let (Err(NodeError::Unavailable { reason, .. }), Part::Whole, Missing::Log(_)) =
            (&answer, self.part, self.what)
        else {
            return (self, (answer, None));
        };
        // The log may have what it cannot add blocks to.
        let reason = reason.clone();
        let Ok(Ok(state)) = timeout(ASKING, self.source.node.state(StateRequest::default())).await else {
            return (self, (answer, None));
        };
        let alone = wanted.patiently(&self, Part::Log { after: state.in_blocks }, Instant::now()).await;
        if alone.is_ok() { (self, (alone, Some(reason))) } else { (self, (answer, None)) }
    }
}

impl Wanted {
    /// The answer to a read, unless it takes too long or waits for a store that says nothing. `since`: when the reads began.
    async fn patiently(&self, ask: &Ask, part: Part, since: Instant) -> Result<Selected, NodeError> {
        let Ask { source, as_of, limit, .. } = ask;
        let mut asked = source.newest(&self.outside.feed.query, (part, *as_of), self.at.start, *limit);
        let (log, end) = (source.node.log_id(), Instant::now() + PATIENCE);
        let late = |reason: &str| Err(NodeError::Unavailable { log, reason: reason.to_owned() });
        loop {
            let now = Instant::now();
            if now >= end {
                return late("it did not answer in time");
            }
            if let Ok(answer) = timeout_at(end.min(now + LOOK), asked.as_mut()).await {
                return answer;
            }
            let is_silent = self.outside.nodes.unanswered() >= STORE_PATIENCE;
            if is_silent && !self.resumed && since.elapsed() >= GRACE {
                return late(SILENT);
            }
        }
    }

    fn sources(&self) -> impl Iterator<Item = (SourceId, &Name)> {
        self.at.mark.names().iter().enumerate().map(|(at, name)| (SourceId::new(at), name))
    }

    /// The sources that had begun, those of logs that are away left out, and what is missing by that.
    fn begun(&self, has_blocks: bool) -> (Vec<(SourceId, Source)>, History) {
        let (mut begun, mut history) = (Vec::new(), History::default());
        for (id, name) in self.sources() {
            if let Some(reason) = self.away.why(name.log) {
                history.lacks(Missing::Log(name.log), reason.to_string());
            } else if let Some(source) = self.outside.source(name) {
                begun.push((id, source));
            } else if !has_blocks || self.at.mark.complete(id) < self.at.mark.mark().consumed(id) {
                history.lacks(Missing::Log(name.log), "nobody answers for it".to_owned());
            }
        }
        (begun, history)
    }

    /// One read per source, as every log answers for all that is before the mark.
    fn of_nodes(&self) -> (Vec<Ask>, History) {
        let (begun, history) = self.begun(false);
        let asks = begun.into_iter().map(|(id, source)| self.of_log(id, source, Part::Whole)).collect();
        (asks, history)
    }

    fn of_log(&self, id: SourceId, source: Source, part: Part) -> Ask {
        let as_of = self.at.mark.mark().consumed(id);
        // Lines the feed still held back are live, not history; they must not use up the limit.
        let limit = self.at.limit.saturating_add(self.at.waiting);
        Ask { id, what: Missing::Log(source.node.log_id()), source, part, as_of, limit }
    }

    /// Blocks up to a boundary of each log, and of each log what comes after it.
    async fn with_blocks(&self, blocks: &dyn Blocks) -> History {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let (begun, mut history) = self.begun(true);
            let logs: BTreeMap<LogId, Arc<dyn Node>> =
                begun.iter().map(|(_, source)| (source.node.log_id(), Arc::clone(&source.node))).collect();
            let states = logs.values().map(|node| timeout(ASKING, node.state(StateRequest::default())));
            let (states, mut boundaries) = tokio::join!(join_all(states), self.not_begun());
            let mut in_blocks = BTreeMap::new();
            for (log, state) in logs.into_keys().zip(states) {
                match state {
                    Ok(Ok(state)) => {
                        in_blocks.insert(log, state.in_blocks);
                    }
                    Ok(Err(error)) => history.lacks(Missing::Log(log), error.to_string()),
                    Err(_elapsed) => history.lacks(Missing::Log(log), "it did not answer in time".into()),
                }
            }
            // Where a log begins that is away is not known: all of it may be live.
            boundaries.extend(self.away.logs().map(|log| (log, 0)));
            // The catalog says what these answers said to whoever reads it from now on.
            let fresh_since = std::time::Instant::now();
            let asks = self.of_both(blocks, begun, &boundaries, &in_blocks, fresh_since);
            if self.read(asks, &mut history, left == 0).await {
                return history;
            }
        }
    }

    /// Up to where logs that have not begun are history: what came after the origin is read otherwise.
    async fn not_begun(&self) -> BTreeMap<LogId, u64> {
        let listed: Vec<Arc<dyn Node>> = self.outside.nodes.nodes().borrow().to_vec();
        let begun = |log: LogId| self.sources().any(|(_, name)| name.log == log);
        let others = listed.into_iter().filter(|node| !begun(node.log_id()) && self.away.why(node.log_id()).is_none());
        // Whoever asks later, to read on from there, is never told of an earlier place.
        let ago = self.outside.clock.now().since(self.origin) + 2 * ASKING;
        let place = |node: Arc<dyn Node>| async move { (node.log_id(), place(node.as_ref(), ago).await.unwrap_or(0)) };
        join_all(others.map(place)).await.into_iter().collect()
    }

    fn of_both(
        &self,
        blocks: &dyn Blocks,
        begun: Vec<(SourceId, Source)>,
        not_begun: &BTreeMap<LogId, u64>,
        in_blocks: &BTreeMap<LogId, u64>,
        fresh_since: std::time::Instant,
    ) -> Vec<Ask> {
        let mut of_tenants: BTreeMap<&TenantId, Vec<(SourceId, LogId)>> = BTreeMap::new();
        for (id, name) in self.sources() {
            of_tenants.entry(&name.tenant).or_default().push((id, name.log));
        }
        let (mut of_logs, mut of_blocks) = (Vec::new(), Vec::new());
        let mut begun: BTreeMap<SourceId, Source> = begun.into_iter().collect();
        for (tenant, sources) in of_tenants {
            let mut boundaries = not_begun.clone();
            for (id, log) in &sources {
                let complete = self.at.mark.complete(*id);
                let boundary = in_blocks.get(log).map_or(complete, |in_blocks| complete.min(*in_blocks));
                boundaries.insert(*log, boundary);
                if let (Some(source), true) = (begun.remove(id), in_blocks.contains_key(log)) {
                    of_logs.push(self.of_log(*id, source, Part::Log { after: boundary }));
                }
            }
            let Some((id, own)) = sources.first().copied() else { continue };
            let node = blocks.up_to(boundaries.into_iter().collect(), own, fresh_since);
            let Some(source) = self.outside.answered_by(tenant, node) else { continue };
            let (what, limit) = (Missing::Blocks, self.at.limit);
            of_blocks.push(Ask { id, source, what, part: Part::Whole, as_of: u64::MAX, limit });
        }
        // What is still in the logs is newer than what is in blocks: so lines of one stream with equal times stay in their order.
        of_logs.append(&mut of_blocks);
        of_logs
    }

    /// Reads, newest line first. False: a log has been trimmed beyond its boundary, and it is not the last attempt.
    async fn read(&self, asks: Vec<Ask>, history: &mut History, is_last: bool) -> bool {
        let HistoryAt { mark, limit, sent, .. } = &self.at;
        let mut tenant_labels = self.outside.tenant_labels(mark.names().iter());
        let several = asks.len() > 1;
        let answers = asks.into_iter().map(|ask| ask.answer(self));
        // In order: lines of equal times come source by source.
        let mut answers = stream::iter(answers).buffered(SIDE_BY_SIDE);
        let mut lines: Vec<(MatchedLine, Bytes)> = Vec::new();
        while let Some((Ask { id, what, .. }, (answer, lacks_blocks))) = answers.next().await {
            if let Some(reason) = lacks_blocks {
                history.lacks(Missing::Blocks, reason);
            }
            let selected = match answer {
                Ok(selected) => selected,
                Err(NodeError::Trimmed { .. }) if !is_last => return false,
                Err(error) => {
                    history.lacks(what, error.to_string());
                    continue;
                }
            };
            for warning in selected.warnings {
                history.lacks(what, warning);
            }
            let given_out = selected.lines.into_iter().filter(|(line, _)| mark.mark().contains(id, line)).take(*limit);
            let new = given_out.filter(|(line, _)| sent.is_none_or(|sent| sent.place(line) != Ordering::Less));
            lines.extend(new.map(|(line, text)| (named(&mut tenant_labels, id, line), text)));
            if several {
                lines.sort_by(|(a, _), (b, _)| by_time_and_stream(a, b, Direction::Backward));
                // What has been sent is at the end of it: all that is newer than that was among the newest, too. A log that could not be
                // read then has more, but takes nothing from the others.
                lines.truncate(if sent.is_none() { *limit } else { MAX_HISTORY_LINES });
            }
        }
        history.lines = lines.into();
        true
    }
}
