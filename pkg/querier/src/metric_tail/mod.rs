//! Tails of metric queries: at every step the value of the query, and each line evaluated once however many windows it lies in.
//!
//! ```text
//!   nodes ──▶ readers ──▶ collected panes ──▶ a frame per step ──▶ ring ──▶ sessions
//! ```
//!
//! A *feed* is one (tenants, expression, step, delay, limit of series). When a step is due it asks every node what came since the position up to which the
//! node was read, merges that into the partial aggregates of its windows, and folds the panes of the step's window. The frame is encoded
//! once, for however many *sessions*. A session that is behind the feed's ring, or begins before it, has the steps that it lacks evaluated
//! from the logs, as of the positions at which the ring begins.
//!
//! Invariants:
//! * Steps are the multiples of the step since 1970 and are numbered by them, so equal tails share them, and panes of one feed are those
//!   of any other.
//! * A step at `t` holds every line that was accepted before `t + delay_for`, on every node that answered; a node that did not is named
//!   in the frame.
//! * A node that is listed later has a part from the next step on, from where its log was when the feed was opened. Places in logs are said
//!   in the order in which nodes were first listed; it only grows.
//! * Where blocks are read here, lines of logs that nobody has any more count in the windows of the first steps, too, each once: a log is
//!   read by its position or among those others, never both.
//! * A line that is accepted later, and lies in a window of a step that was answered, is counted as late in the next frame.
//! * Every session gets every step from its first on, in order and once: being slow means being late.
//! * What is collected stays within [`crate::Config::query_memory_bytes`] per range aggregation, frames within
//!   [`crate::Config::feed_ring_bytes`].

mod again;
mod collected;
mod feed;
mod frame;
mod others;
mod reader;
mod ring;
mod session;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tailwater_logql::ast::MetricExpr;
use tailwater_logql::go::bytes;
use tailwater_logql::metric::{Grid, Steps, leaves};
use tailwater_model::{Clock, Limits, LogId, TenantId, TenantIds, TenantLimits, Timestamp};
use tailwater_wire::node::{Answer, Blocks, Node, NodeError, Part, Sampled, SamplesRequest, StateRequest, warn};
use tokio::sync::watch;

use self::feed::{Feed, Feeds, Key};
pub use self::session::MetricSession;
use crate::busy::busy;
use crate::follows::Listed;
use crate::meta::MetaRequest;
use crate::metric::{Compiled, CompiledLeaf, check_metric, compile};
use crate::metrics::Metrics;
use crate::querier::MAX_TAIL_TENANTS;
use crate::range::{check_range, past_lookback};
use crate::{Error, Querier};

/// How often a read is begun anew because a log has put more into blocks meanwhile.
const MAX_LOOKS: u32 = 3;

/// A step waits for a node at most as long as a step is, and no longer than this.
const MAX_PATIENCE: Duration = Duration::from_secs(15);

/// Logs, and for each up to where it is read from blocks.
type Boundaries = Arc<[(LogId, u64)]>;

/// A tail of a metric query that a client asks for.
#[derive(Clone)]
pub struct MetricTailRequest {
    /// Whose lines.
    pub tenants: TenantIds,
    /// What of them.
    pub expr: MetricExpr,
    /// The time between steps, at least a second.
    pub step: Duration,
    /// The first step is the first at this time or after it; not later than now.
    pub start: Timestamp,
    /// How long after its time a step is answered.
    pub delay_for: Duration,
}

/// What a querier has of such tails.
pub(crate) struct MetricTails {
    feeds: Arc<Feeds>,
    /// True when they are to end.
    closing: watch::Sender<bool>,
}

impl Default for MetricTails {
    fn default() -> Self {
        Self { feeds: Arc::default(), closing: watch::channel(false).0 }
    }
}

impl MetricTails {
    /// Ends all of them, and those that are opened later.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// What a feed and its sessions know of their query. Nothing of it changes, but that nodes are added.
pub(crate) struct Plan {
    key: Key,
    expr: MetricExpr,
    compiled: Compiled,
    /// If it is the querier that reads them.
    blocks: Option<Arc<dyn Blocks>>,
    listed: Listed,
    /// Those of which something is or will be read, in the order in which they were first listed.
    nodes: RwLock<Vec<Arc<dyn Node>>>,
    limits: Arc<dyn TenantLimits>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// Most bytes per range aggregation.
    memory: usize,
    /// Most bytes of frames that wait for sessions.
    ring_bytes: usize,
    /// How long a read for one session may take.
    timeout: Duration,
}

impl Plan {
    /// All steps there are before `end`.
    fn steps(&self, end: u32) -> Steps {
        // Two, so that panes are those of steps and not of a single window.
        Steps { start: Timestamp(0), step: self.key.step, count: end.max(2) }
    }

    /// The windows of a range aggregation at all steps before `end`. Their panes have the same numbers whatever `end` is.
    fn grid(&self, leaf: usize, end: u32) -> Grid {
        let steps = self.steps(end);
        self.compiled.distinct.get(leaf).map_or_else(|| Grid::new(steps, 0, 0), |leaf| leaf.query.grid(steps))
    }

    fn time(&self, step: u32) -> Timestamp {
        self.steps(u32::MAX).time(step)
    }

    /// When a step is answered.
    fn due(&self, step: u32) -> Timestamp {
        self.time(step).saturating_add(self.key.delay)
    }

    /// The first step at a time or after it.
    fn step_from(&self, time: Timestamp) -> u32 {
        let (whole, rest) = (time.nanos().div_euclid(self.key.step), time.nanos().rem_euclid(self.key.step));
        u32::try_from((whole + i64::from(rest > 0)).max(0)).unwrap_or(u32::MAX)
    }

    /// The first step that is due after a time.
    fn step_due_after(&self, now: Timestamp) -> u32 {
        self.step_from(Timestamp(now.saturating_sub(self.key.delay).nanos().saturating_add(1)))
    }

    /// How long a step waits for a node.
    fn patience(&self) -> Duration {
        Duration::from_nanos(self.key.step.unsigned_abs()).min(MAX_PATIENCE)
    }

    /// The range aggregations and for whom each is collected.
    fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let leaves = self.compiled.distinct.iter().enumerate();
        leaves.flat_map(|(leaf, of)| of.tenants.iter().map(move |tenant| Pair { leaf, of, tenant }))
    }

    /// Asks for what the windows of some steps hold in the stretch `(after, as_of]` of a node's log. `settled`: the last step that has been
    /// answered with what lies up to `after`.
    fn samples_request(
        &self,
        pair: Pair<'_>,
        (after, as_of): (u64, u64),
        steps: Range<u32>,
        settled: Option<u32>,
        max_bytes: usize,
    ) -> SamplesRequest {
        let Pair { leaf, of, tenant } = pair;
        let grid = self.grid(leaf, steps.end);
        let limits = self.limits.limits(tenant);
        SamplesRequest {
            tenant: tenant.clone(),
            part: Part::Whole,
            query: Arc::clone(&of.query),
            detect_level: limits.discover_log_levels && limits.allow_structured_metadata,
            after,
            as_of,
            grid,
            from: Timestamp(grid.span(steps.start).map_or(i64::MAX, |(first, _)| first)),
            settled: settled.and_then(|step| grid.span(step)).map(|(_, last)| Timestamp(last)),
            max_bytes,
        }
    }

    /// What the lines of a stretch of one node's log are worth, each line once: where blocks are read here, from the log's blocks and from
    /// what the log has after them.
    fn samples(&self, node: &Arc<dyn Node>, request: SamplesRequest) -> Answer<Sampled> {
        let Some(blocks) = self.blocks.clone() else { return node.samples(request) };
        let (node, log) = (Arc::clone(node), node.log_id());
        Box::pin(async move {
            let mut trimmed = None;
            for _ in 0..MAX_LOOKS {
                let boundary = node.state(StateRequest::default()).await?.in_blocks;
                let of_log = SamplesRequest { part: Part::Log { after: boundary }, ..request.clone() };
                let mut sampled = match node.samples(of_log).await {
                    // It has put more into blocks meanwhile.
                    Err(error @ NodeError::Trimmed { .. }) => {
                        trimmed = Some(error);
                        continue;
                    }
                    sampled => sampled?,
                };
                if request.after < boundary {
                    let of_blocks = SamplesRequest {
                        part: Part::Log { after: request.after },
                        as_of: request.as_of.min(boundary),
                        ..request.clone()
                    };
                    let in_blocks = blocks.up_to(Arc::new([(log, boundary)]), log, std::time::Instant::now());
                    let more = in_blocks.samples(of_blocks).await?;
                    sampled.series.extend(more.series);
                    sampled.late += more.late;
                    warn(&mut sampled.warnings, more.warnings);
                    sampled.scanned += more.scanned;
                    // What the log has let go of was read.
                    sampled.gap = None;
                }
                return Ok(sampled);
            }
            let reason = || "it puts lines into blocks faster than they can be read".to_owned();
            Err(trimmed.unwrap_or_else(|| NodeError::Unavailable { log, reason: reason() }))
        })
    }

    /// Whether series get a label that names their tenant.
    fn names_tenants(&self) -> bool {
        self.key.tenants.as_slice().len() > 1
    }
}

/// A range aggregation and one of those for whom it is collected.
#[derive(Clone, Copy)]
struct Pair<'a> {
    leaf: usize,
    of: &'a CompiledLeaf,
    tenant: &'a TenantId,
}

impl Querier {
    /// Opens a tail of a metric query: the steps from `start` on, then each when it is due.
    ///
    /// # Errors
    /// What the request asks beyond the tenants' limits, a pipeline that does not compile, or that there is no ingester.
    pub async fn tail_metric(&self, request: MetricTailRequest) -> Result<MetricSession, Error> {
        let MetricTailRequest { tenants, expr, step, start, delay_for } = request;
        let named = tenants.as_slice();
        if named.len() > MAX_TAIL_TENANTS {
            return Err(Error::TooManyTenants { count: named.len(), limit: MAX_TAIL_TENANTS });
        }
        let limits = Limits::strictest(named.iter().map(|tenant| self.limits().limits(tenant)));
        check_metric(&expr, &limits)?;
        let now = self.clock().now();
        if start > now {
            return Err(past_lookback(limits.max_query_lookback));
        }
        let Some((start, _)) = check_range(&limits, start, now, now)? else {
            return Err(past_lookback(limits.max_query_lookback));
        };
        let compiled = busy(|| compile(&expr, &tenants))?;
        self.check_bytes(&tenants, &expr, (start, now), limits.max_query_bytes_read).await?;
        let query = expr.to_string();
        let (account, admission) = self.admit(&tenants, query.clone(), now)?;
        let step = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX).max(1);
        let plan = Arc::new(Plan {
            key: Key { tenants: tenants.clone(), query, step, delay: delay_for, max_series: limits.max_query_series },
            expr,
            compiled,
            blocks: self.blocks(),
            listed: self.listed().await?,
            nodes: RwLock::default(),
            limits: self.shared_limits(),
            clock: self.clock(),
            metrics: self.metrics().clone(),
            memory: self.config().query_memory_bytes,
            ring_bytes: self.config().feed_ring_bytes,
            timeout: self.strictest_timeout(&tenants),
        });
        let first = plan.step_from(start);
        let MetricTails { feeds, closing } = self.metric_tails();
        let feed = Feed::shared(plan, feeds, closing.subscribe()).await;
        Ok(MetricSession::join(feed, first, self.config().tail_max_duration, account, admission))
    }

    /// Refuses a tail whose first windows hold more than the tenants may read.
    async fn check_bytes(
        &self,
        tenants: &TenantIds,
        expr: &MetricExpr,
        (start, end): (Timestamp, Timestamp),
        limit: u64,
    ) -> Result<(), Error> {
        let leaves = leaves(expr);
        if limit == 0 || leaves.is_empty() {
            return Ok(());
        }
        let longest = leaves.iter().map(|leaf| leaf.aggregation.range).max().unwrap_or_default();
        let selectors = leaves.iter().map(|leaf| leaf.aggregation.log.selector.clone()).collect();
        let start = start.saturating_sub(longest);
        let held = self.stats(&MetaRequest { tenants: tenants.clone(), selectors, start, end }).await?.value.bytes;
        if held <= limit {
            return Ok(());
        }
        Err(Error::TooManyBytes { bytes: bytes::format_humanize(held), limit: bytes::format_humanize(limit) })
    }
}
