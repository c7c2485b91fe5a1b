//! What a query asks: every log there is, and blocks.
//!
//! Where the querier reads blocks itself ([`Nodes::blocks`](crate::Nodes::blocks)) each log has a **boundary** B, a position up to which all
//! is in blocks: of that log lines up to B are read from blocks, those after B are asked of the log's node. A log without a boundary, because
//! it cannot be reached or is no more, is read from blocks entirely. So each line is looked at once, by arithmetic, whatever is cut, merged
//! and trimmed meanwhile (docs/adr/0012-reads-over-many-logs.md).
//!
//! Invariants:
//! * A boundary is only ever too low, which costs time and no line: blocks are read as of a catalog that is not older than the boundaries.
//!   If it is so low that the log has let go of something after it, its node says so, and the query begins anew with others.
//! * Boundaries are known for [`REFRESH`]; they are asked for by one query at a time, which waits for a node no longer than [`PATIENCE`].
//! * A node that cannot answer is named in the answer's warnings, or, if the operator wants no partial answers, fails the query. Since it may
//!   have put much into blocks just before, the query begins anew without its boundary.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tailwater_model::LogId;
use tailwater_wire::node::{Answer, Node, NodeError, Part, StateRequest, warn};

use crate::{Error, Querier};

/// How long boundaries are known.
const REFRESH: Duration = Duration::from_secs(5);

/// The same while a node could not say its own.
const REFRESH_AWAY: Duration = Duration::from_secs(1);

/// How long a boundary stands in for one that cannot be had: a node that does not answer this once may answer the query.
const STANDS_IN: Duration = Duration::from_secs(60);

/// How long a node may take to say where its log is.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a query is begun at most because a log has let go of what was asked for.
const ATTEMPTS: usize = 4;

/// Of a log.
#[derive(Clone, Debug)]
struct Boundary {
    /// Everything up to here is in blocks.
    upto: u64,
    /// As of when.
    at: Instant,
}

/// What a log's node said when it was asked last.
#[derive(Clone, Debug)]
struct Known {
    boundary: Option<Boundary>,
    /// Why it did not say anything.
    away: Option<NodeError>,
}

#[derive(Debug, Default)]
struct State {
    /// By log; those that are there.
    logs: HashMap<LogId, Known>,
    /// When they were asked; none: they have to be now.
    at: Option<Instant>,
}

/// The boundaries of a querier.
#[derive(Debug, Default)]
pub(crate) struct Boundaries {
    state: Mutex<State>,
    /// Whose turn it is to ask.
    asking: tokio::sync::Mutex<()>,
}

/// Whom a query asks, and for what.
pub(crate) struct View {
    /// Blocks first, if they are read here.
    pub(crate) parts: Vec<(Arc<dyn Node>, Part)>,
    /// Logs that cannot be asked.
    away: Vec<NodeError>,
    /// Whether the first part is blocks.
    has_blocks: bool,
}

/// What those who were asked have answered.
pub(crate) struct Asked<T> {
    /// Blocks first, then log by log, without those that could not answer.
    pub(crate) parts: Vec<T>,
    /// What is missing.
    pub(crate) warnings: Vec<String>,
    /// How many were asked.
    pub(crate) nodes: u64,
}

impl Boundaries {
    /// Those of these logs, asked for if it is time, and when they were known.
    async fn of(&self, nodes: &[Arc<dyn Node>]) -> (HashMap<LogId, Known>, Instant) {
        if let Some(known) = self.known(nodes, true) {
            return known;
        }
        let turn = match self.asking.try_lock() {
            Ok(turn) => turn,
            Err(_asking) => {
                // Somebody asks already. What is known will do, if it is all there.
                if let Some(known) = self.known(nodes, false) {
                    return known;
                }
                self.asking.lock().await
            }
        };
        if let Some(known) = self.known(nodes, true) {
            return known;
        }
        self.ask(nodes).await;
        drop(turn);
        let state = self.state.lock();
        (state.logs.clone(), state.as_of())
    }

    /// What is known of these logs, if it is known of all; `fresh`: and new enough.
    fn known(&self, nodes: &[Arc<dyn Node>], fresh: bool) -> Option<(HashMap<LogId, Known>, Instant)> {
        let state = self.state.lock();
        let age = state.at?.elapsed();
        let all = |is: &dyn Fn(&Known) -> bool| nodes.iter().all(|n| state.logs.get(&n.log_id()).is_some_and(is));
        let is_new = !fresh || age <= REFRESH_AWAY || (age <= REFRESH && all(&|known| known.away.is_none()));
        (is_new && age <= STANDS_IN && all(&|_| true)).then(|| (state.logs.clone(), state.as_of()))
    }

    async fn ask(&self, nodes: &[Arc<dyn Node>]) {
        let ask = |node: &Arc<dyn Node>| {
            let (log, state) = (node.log_id(), node.state(StateRequest::default()));
            async move {
                let late = |_elapsed| {
                    Err(NodeError::Unavailable { log, reason: "it did not say in time where its log is".to_owned() })
                };
                let state = tokio::time::timeout(PATIENCE, state).await.unwrap_or_else(late);
                (log, state)
            }
        };
        let answers = join_all(nodes.iter().map(ask)).await;
        // Only now: whoever reads the catalog from here on finds what the nodes have said.
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut before = std::mem::take(&mut state.logs);
        for (log, answer) in answers {
            let stands_in = before.remove(&log).and_then(|known| known.boundary);
            let stands_in = stands_in.filter(|boundary| now.duration_since(boundary.at) <= STANDS_IN);
            let known = match answer {
                Ok(answer) => {
                    // What was in blocks stays there, also if one answers now who does not know.
                    let upto = stands_in.map_or(0, |before| before.upto).max(answer.in_blocks);
                    Known { boundary: Some(Boundary { upto, at: now }), away: None }
                }
                Err(error) => Known { boundary: stands_in, away: Some(error) },
            };
            state.logs.insert(log, known);
        }
        state.at = Some(now);
    }

    /// The log has let go of everything up to a position, which is in blocks therefore.
    fn trimmed(&self, log: LogId, through: u64) {
        let mut state = self.state.lock();
        state.at = None;
        let known = state.logs.entry(log).or_insert(Known { boundary: None, away: None });
        let upto = known.boundary.as_ref().map_or(0, |boundary| boundary.upto).max(through);
        known.boundary = Some(Boundary { upto, at: Instant::now() });
    }

    /// All are to be asked for by the next query.
    #[cfg(test)]
    pub(crate) fn ask_again(&self) {
        self.state.lock().at = None;
    }

    /// The log cannot be reached: until it is asked again it has no boundary. False: it has none already.
    fn lost(&self, log: LogId, error: &NodeError) -> bool {
        let mut state = self.state.lock();
        let Some(known) = state.logs.get_mut(&log) else { return false };
        known.away = Some(error.clone());
        known.boundary.take().is_some()
    }
}

impl State {
    /// A catalog must not be older than this.
    fn as_of(&self) -> Instant {
        let latest = self.logs.values().filter_map(|known| known.boundary.as_ref()).map(|boundary| boundary.at).max();
        latest.or(self.at).unwrap_or_else(Instant::now)
    }
}

impl Querier {
    /// Whom a query asks now.
    ///
    /// # Errors
    /// [`Error::NoIngester`]; a log that cannot be reached, if there are to be no partial answers.
    pub(crate) async fn view(&self) -> Result<View, Error> {
        let nodes = self.nodes_now();
        let Some(blocks) = self.blocks() else {
            if nodes.is_empty() {
                return Err(Error::NoIngester);
            }
            let parts = nodes.into_iter().map(|node| (node, Part::Whole)).collect();
            return Ok(View { parts, away: Vec::new(), has_blocks: false });
        };
        if nodes.is_empty() && !self.config().allow_partial {
            return Err(Error::NoIngester);
        }
        let (known, as_of) = self.boundaries().of(&nodes).await;
        let (mut boundaries, mut logs, mut away) = (Vec::new(), Vec::new(), Vec::new());
        for node in nodes {
            let log = node.log_id();
            match known.get(&log) {
                Some(Known { boundary: Some(Boundary { upto, .. }), .. }) => {
                    boundaries.push((log, *upto));
                    logs.push((node, Part::Log { after: *upto }));
                }
                Some(Known { away: Some(error), .. }) => away.push(error.clone()),
                _ => away.push(NodeError::Unavailable { log, reason: "it did not say where its log is".to_owned() }),
            }
        }
        // The name is of no matter: of all logs everything up to its boundary is read.
        let own = boundaries.first().map_or(LogId::from_u128(0), |(log, _)| *log);
        let mut parts = vec![(blocks.up_to(boundaries.into(), own, as_of), Part::Whole)];
        parts.extend(logs);
        Ok(View { parts, away, has_blocks: true })
    }

    /// Asks everybody there is at the same time. `ask` makes the request of a part.
    ///
    /// # Errors
    /// [`Error::NoIngester`], a node that fails for another reason than that it cannot be reached, blocks that cannot be read, nobody who
    /// answers, or somebody who does not, if there are to be no partial answers.
    pub(crate) async fn ask<T>(
        &self,
        ask: impl Fn(&dyn Node, Part) -> Answer<T> + Send + Sync,
    ) -> Result<Asked<T>, Error> {
        let mut attempt = 1;
        loop {
            let View { parts, away, has_blocks } = self.view().await?;
            let nodes = (parts.len() + away.len()) as u64;
            let answers = join_all(parts.iter().map(|(node, part)| ask(&**node, *part))).await;
            if has_blocks && self.learn(&answers, attempt) {
                attempt += 1;
                continue;
            }
            let mut asked = Asked { parts: Vec::with_capacity(answers.len()), warnings: Vec::new(), nodes };
            let mut missing = away;
            for (number, answer) in answers.into_iter().enumerate() {
                match answer {
                    Ok(part) => asked.parts.push(part),
                    Err(error @ NodeError::Unavailable { .. }) if number > 0 || !has_blocks => missing.push(error),
                    Err(error) => return Err(error.into()),
                }
            }
            if asked.parts.is_empty() || !self.config().allow_partial {
                if let Some(error) = missing.into_iter().next() {
                    return Err(error.into());
                }
                return Ok(asked);
            }
            if nodes == 1 && has_blocks {
                warn(&mut asked.warnings, [NO_LOG.to_owned()]);
            }
            warn(&mut asked.warnings, missing.iter().map(|error| told(error, has_blocks)));
            return Ok(asked);
        }
    }
}

impl Querier {
    /// Takes note of what answers say of boundaries. Whether the query has to begin anew with others.
    fn learn<T>(&self, answers: &[Result<T, NodeError>], attempt: usize) -> bool {
        let mut again = false;
        for answer in answers {
            match answer {
                Err(NodeError::Trimmed { log, through }) => {
                    self.boundaries().trimmed(*log, *through);
                    again |= attempt < ATTEMPTS;
                }
                Err(error @ NodeError::Unavailable { log, .. }) if attempt == 1 => {
                    again |= self.boundaries().lost(*log, error);
                }
                _ => {}
            }
        }
        again
    }
}

/// What an answer lacks that is made of blocks alone.
const NO_LOG: &str = "the answer is partial: there is no active ingester, lines that are not in blocks yet are missing";

/// What an answer lacks without a log.
fn told(error: &NodeError, in_blocks: bool) -> String {
    let what = if in_blocks { "its lines since the last ones that are in blocks" } else { "its lines" };
    format!("the answer is partial: {error}; {what} are missing")
}
