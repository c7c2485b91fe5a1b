//! What a session gets before its first live line: of every source the lines that its mark contains, the newest of all together.
//!
//! Invariants:
//! * No line of it comes live as well. In one process each log answers for everything before the mark. Where the querier reads blocks itself
//!   one boundary per log divides what comes from blocks and what from the log, and the boundary is never beyond what has been given out
//!   completely; of a log that has not begun, nothing is history.
//! * What cannot be read is left out and told. A session never fails for it, and never waits for it longer than [`PATIENCE`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tailwater_logql::LogQuery;
use tailwater_model::{LogId, TenantId, Timestamp};
use tailwater_wire::frame::Notice;
use tailwater_wire::node::{Blocks, Direction, Node, NodeError, Part, Selected, StateRequest};
use tokio::time::timeout;

use crate::away::{back, went};
use crate::feed::Feed;
use crate::logs::answer_order;
use crate::place::ASKING;
use crate::replay::{Own, Reading, named};
use crate::ring::Joined;
use crate::source::{Source, SourceId};

/// How long a read may take.
const PATIENCE: Duration = Duration::from_secs(60);

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
    pub(crate) fn notices(&self, joined: &crate::away::Away) -> Vec<Notice> {
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

/// The newest `limit` lines from `start` on that the feed had given out when the session joined, oldest first.
pub(crate) fn history(feed: Arc<Feed>, joined: &Joined, start: Timestamp, limit: usize) -> Reading<History> {
    let joined = joined.clone();
    Box::pin(async move {
        if limit == 0 {
            return Ok(History::default());
        }
        let wanted = Wanted { start, limit, joined };
        let mut history = match &feed.blocks {
            None => {
                let (asks, mut history) = wanted.of_nodes(&feed);
                wanted.read(&feed, asks, &mut history, true).await;
                history
            }
            Some(blocks) => wanted.with_blocks(&feed, blocks.as_ref()).await,
        };
        history.lines.make_contiguous().reverse();
        if !history.is_whole() {
            feed.metrics().histories_incomplete.inc();
        }
        Ok(history)
    })
}

struct Wanted {
    start: Timestamp,
    limit: usize,
    joined: Joined,
}

/// One read.
struct Ask {
    /// A source of the tenant; that of the log, if it is one log that is read.
    id: SourceId,
    source: Arc<Source>,
    node: Arc<dyn Node>,
    what: Missing,
    part: Part,
    as_of: u64,
    limit: usize,
}

impl Ask {
    async fn answer(self, query: Arc<LogQuery>, start: Timestamp) -> (Self, Result<Selected, NodeError>) {
        let Self { source, node, part, as_of, limit, .. } = &self;
        let answer = timeout(PATIENCE, source.newest(node.as_ref(), &query, (*part, *as_of), start, *limit)).await;
        let late = |_elapsed| NodeError::Unavailable { log: node.log_id(), reason: "it did not answer in time".into() };
        let answer = answer.map_err(late).flatten();
        (self, answer)
    }
}

impl Wanted {
    /// The sources that had begun, those of logs that were away left out, and what is missing by that.
    fn begun(&self, feed: &Feed) -> (Vec<(SourceId, Arc<Source>)>, History) {
        let (mut begun, mut history) = (Vec::new(), History::default());
        for (id, source) in feed.sources.iter().filter(|(id, _)| self.joined.mark.names(*id)) {
            match self.joined.away.why(source.node.log_id()) {
                Some(reason) => history.lacks(Missing::Log(source.node.log_id()), reason.to_string()),
                None => begun.push((id, source)),
            }
        }
        (begun, history)
    }

    /// One read per source, as every log answers for all that is before the mark.
    fn of_nodes(&self, feed: &Feed) -> (Vec<Ask>, History) {
        let (begun, history) = self.begun(feed);
        let asks = begun.into_iter().map(|(id, source)| self.of_log(id, source, Part::Whole)).collect();
        (asks, history)
    }

    fn of_log(&self, id: SourceId, source: Arc<Source>, part: Part) -> Ask {
        let (node, as_of) = (Arc::clone(&source.node), self.joined.mark.consumed(id));
        // Lines the feed still holds back are live, not history; they must not use up the limit.
        let limit = self.limit + self.joined.waiting;
        Ask { id, what: Missing::Log(node.log_id()), source, node, part, as_of, limit }
    }

    /// Blocks up to a boundary of each log, and of each log what comes after it.
    async fn with_blocks(&self, feed: &Feed, blocks: &dyn Blocks) -> History {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let (begun, mut history) = self.begun(feed);
            let logs: BTreeMap<LogId, Arc<dyn Node>> =
                begun.iter().map(|(_, source)| (source.node.log_id(), Arc::clone(&source.node))).collect();
            let states = join_all(logs.values().map(|node| timeout(ASKING, node.state(StateRequest::default())))).await;
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
            // The catalog says what these answers said to whoever reads it from now on.
            let fresh_since = std::time::Instant::now();
            let asks = self.of_both(feed, blocks, &in_blocks, fresh_since);
            if self.read(feed, asks, &mut history, left == 0).await {
                return history;
            }
        }
    }

    fn of_both(
        &self,
        feed: &Feed,
        blocks: &dyn Blocks,
        in_blocks: &BTreeMap<LogId, u64>,
        fresh_since: std::time::Instant,
    ) -> Vec<Ask> {
        let mut of_tenants: BTreeMap<TenantId, Vec<(SourceId, Arc<Source>)>> = BTreeMap::new();
        for (id, source) in feed.sources.iter().filter(|(id, _)| self.joined.mark.names(*id)) {
            of_tenants.entry(source.tenant.clone()).or_default().push((id, source));
        }
        let mut asks = Vec::new();
        for sources in of_tenants.into_values() {
            // Where a log begins that is away is not known: all of it may be live.
            let mut boundaries: BTreeMap<LogId, u64> = self.joined.away.logs().map(|log| (log, 0)).collect();
            for (id, source) in &sources {
                let log = source.node.log_id();
                let complete = self.joined.mark.complete.seq(*id);
                let boundary = in_blocks.get(&log).map_or(complete, |in_blocks| complete.min(*in_blocks));
                boundaries.insert(log, boundary);
            }
            let Some((id, source)) = sources.first().cloned() else { continue };
            let node = blocks.up_to(boundaries.clone().into_iter().collect(), source.node.log_id(), fresh_since);
            let (what, limit) = (Missing::Blocks, self.limit);
            asks.push(Ask { id, source, node, what, part: Part::Whole, as_of: u64::MAX, limit });
            for (id, source) in sources {
                let log = source.node.log_id();
                if let (Some(after), true) = (boundaries.get(&log), in_blocks.contains_key(&log)) {
                    asks.push(self.of_log(id, source, Part::Log { after: *after }));
                }
            }
        }
        asks
    }

    /// Reads, newest line first. False: a log has been trimmed beyond its boundary, and it is not the last attempt.
    async fn read(&self, feed: &Feed, asks: Vec<Ask>, history: &mut History, is_last: bool) -> bool {
        let mut tenant_labels = feed.tenant_labels();
        let several = asks.len() > 1;
        let answers = asks.into_iter().map(|ask| ask.answer(Arc::clone(&feed.query), self.start));
        // In order: lines of equal times come source by source.
        let mut answers = stream::iter(answers).buffered(SIDE_BY_SIDE);
        let mut lines = Vec::new();
        while let Some((Ask { id, what, .. }, answer)) = answers.next().await {
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
            let given_out = selected.lines.into_iter().filter(|(line, _)| self.joined.mark.contains(id, line));
            lines.extend(given_out.take(self.limit).map(|(line, text)| (named(&mut tenant_labels, id, line), text)));
            if several {
                lines.sort_by(|(a, _), (b, _)| answer_order(a, b, Direction::Backward));
                lines.truncate(self.limit);
            }
        }
        history.lines = lines.into();
        true
    }
}
