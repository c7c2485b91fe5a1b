//! Historic log queries: every ingester is asked for its part, the parts are merged in answer order, the limit is applied last.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tailwater_logql::LogQuery;
use tailwater_logql::ast::{LogExpr, Matcher, Stage};
use tailwater_logql::matchers::Matchers;
use tailwater_model::{Category, LabelPair, LabelSet, Labels, TenantId, TenantIds, Timestamp};
use tailwater_wire::node::{Direction, MatchedLine, Scanned, SelectRequest, warn};

use crate::busy::busy;
use crate::{Error, Querier};

/// The label that names the tenant in answers over several tenants.
pub const TENANT_LABEL: &str = "__tenant_id__";

/// What a label of that name is called when an entry has one of its own.
const ORIGINAL_TENANT_LABEL: &str = "original___tenant_id__";

/// A log query over a time range.
#[derive(Clone)]
pub struct LogsRequest {
    /// Whose lines.
    pub tenants: TenantIds,
    /// Which lines.
    pub expr: LogExpr,
    /// The earliest timestamp, inclusive.
    pub start: Timestamp,
    /// The end, exclusive; equal to `start` it means just that instant.
    pub end: Timestamp,
    /// Most lines.
    pub limit: usize,
    /// Order, and which lines the limit keeps.
    pub direction: Direction,
    /// Least distance between two answered lines; zero = any.
    pub interval: Duration,
}

/// The lines of a query.
#[derive(Clone, Debug, Default)]
pub struct LogsAnswer {
    /// In answer order: by time in the asked direction; equal times by ascending stream hash, and within a stream in the order
    /// of acceptance in the asked direction.
    pub lines: Vec<(MatchedLine, Bytes)>,
    /// What could not be looked at, and why. Empty: the answer is whole.
    pub warnings: Vec<String>,
    /// What was looked at.
    pub scanned: Scanned,
    /// How many nodes were asked.
    pub nodes: u64,
}

/// The order of lines in answers (contract, LogQL §14), as far as it goes for lines of different logs.
pub(crate) fn by_time_and_stream(a: &MatchedLine, b: &MatchedLine, direction: Direction) -> Ordering {
    let time = match direction {
        Direction::Forward => a.timestamp.cmp(&b.timestamp),
        Direction::Backward => b.timestamp.cmp(&a.timestamp),
    };
    time.then(a.stream_hash.cmp(&b.stream_hash))
}

impl Querier {
    /// Answers a log query. Dropping the future cancels it.
    ///
    /// # Errors
    /// What the query asks beyond the tenant's limits, a stage that does not compile, an ingester that does not answer, or
    /// `query_timeout`.
    pub async fn select_logs(&self, request: LogsRequest) -> Result<LogsAnswer, Error> {
        let timeout = self.strictest_timeout(&request.tenants);
        match tokio::time::timeout(timeout, self.select_all_tenants(request)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Error::Timeout),
        }
    }

    async fn select_all_tenants(&self, request: LogsRequest) -> Result<LogsAnswer, Error> {
        let several = request.tenants.as_slice().len() > 1;
        let (expr, tenants) = if several {
            let (selector, tenants) = tenants_of(&request.expr.selector, &request.tenants)?;
            (LogExpr { selector, stages: request.expr.stages.clone() }, tenants)
        } else {
            (request.expr.clone(), request.tenants.as_slice().to_vec())
        };
        let query = Arc::new(busy(|| LogQuery::compile(&expr))?);
        let mut answer = LogsAnswer::default();
        for tenant in tenants {
            let mut part = self.select_tenant(&tenant, &query, &request).await?;
            if several {
                label_with_tenant(&mut part.lines, &tenant);
            }
            answer.lines.append(&mut part.lines);
            warn(&mut answer.warnings, part.warnings);
            answer.scanned += part.scanned;
            answer.nodes = answer.nodes.max(part.nodes);
        }
        if several {
            // Stable: lines of one tenant keep their order, equal times come tenant by tenant.
            answer.lines.sort_by(|(a, _), (b, _)| match request.direction {
                Direction::Forward => a.timestamp.cmp(&b.timestamp),
                Direction::Backward => b.timestamp.cmp(&a.timestamp),
            });
            answer.lines.truncate(request.limit);
        }
        // The limit is what is looked at, as in Loki: what the interval then leaves out is not replaced.
        thin_out(&mut answer.lines, request.interval);
        Ok(answer)
    }

    /// A tenant's part.
    async fn select_tenant(
        &self,
        tenant: &TenantId,
        query: &Arc<LogQuery>,
        request: &LogsRequest,
    ) -> Result<LogsAnswer, Error> {
        let limits = self.limits().limits(tenant);
        // `start == end` asks for one instant.
        let point = Timestamp(request.start.nanos().saturating_add(1));
        let end = if request.end == request.start { point } else { request.end };
        let asked = self
            .ask(|node, part| {
                node.select(SelectRequest {
                    tenant: tenant.clone(),
                    part,
                    query: Arc::clone(query),
                    detect_level: limits.discover_log_levels && limits.allow_structured_metadata,
                    as_of: u64::MAX,
                    start: request.start,
                    end,
                    direction: request.direction,
                    limit: request.limit,
                })
            })
            .await?;
        let mut answer = LogsAnswer { warnings: asked.warnings, nodes: asked.nodes, ..LogsAnswer::default() };
        let mut parts = Vec::with_capacity(asked.parts.len());
        for part in asked.parts {
            parts.push(part.lines);
            warn(&mut answer.warnings, part.warnings);
            answer.scanned += part.scanned;
        }
        answer.lines = merge(parts, request.direction, keeps_entries(&request.expr));
        answer.lines.truncate(request.limit);
        self.metrics().scanned(answer.scanned);
        Ok(answer)
    }
}

/// Lines of a part of an answer, in answer order.
type Lines = Vec<(MatchedLine, Bytes)>;

/// Whether entries that differ are answered as lines that differ, so that equal lines of a stream and an instant are equal entries.
fn keeps_entries(expr: &LogExpr) -> bool {
    expr.stages.iter().all(|stage| match stage {
        Stage::Line(_) | Stage::Json(_) | Stage::Logfmt { .. } | Stage::Regexp(_) | Stage::Pattern(_) => true,
        Stage::Label(_) => true,
        Stage::Unpack | Stage::LineFormat(_) | Stage::LabelFormat(_) | Stage::Decolorize => false,
        Stage::Drop(_) | Stage::Keep(_) => false,
    })
}

/// Puts parts together in answer order. Lines of one stream and instant keep the order that their part has given them; those of an earlier
/// part come first, or last if the newest come first. `once`: equal ones of several parts are one, the first.
fn merge(mut parts: Vec<Lines>, direction: Direction, once: bool) -> Lines {
    parts.retain(|part| !part.is_empty());
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    if direction == Direction::Backward {
        parts.reverse();
    }
    let mut lines: Vec<(usize, (MatchedLine, Bytes))> = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    for (number, part) in parts.into_iter().enumerate() {
        lines.extend(part.into_iter().map(|line| (number, line)));
    }
    // Stable, and quick with runs that are sorted.
    lines.sort_by(|(_, (a, _)), (_, (b, _))| by_time_and_stream(a, b, direction));
    if once && direction == Direction::Backward {
        // The same are left out as forward.
        lines.reverse();
        drop_repeats(&mut lines);
        lines.reverse();
    } else if once {
        drop_repeats(&mut lines);
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Leaves out lines that equal one of an earlier part: a push that was sent again, to another ingester.
fn drop_repeats(lines: &mut Vec<(usize, (MatchedLine, Bytes))>) {
    let mut keep = Vec::with_capacity(lines.len());
    let together = |a: &(usize, (MatchedLine, Bytes)), b: &(usize, (MatchedLine, Bytes))| {
        (a.1.0.timestamp, a.1.0.stream_hash) == (b.1.0.timestamp, b.1.0.stream_hash)
    };
    for group in lines.chunk_by(together) {
        let of_one_part = group.iter().all(|(part, _)| group.first().is_some_and(|(first, _)| first == part));
        let mut met: HashMap<(&Bytes, &LabelSet), usize> = HashMap::new();
        let mut is_first =
            |part: usize, text, labels| of_one_part || *met.entry((text, labels)).or_insert(part) == part;
        keep.extend(group.iter().map(|(part, (line, text))| is_first(*part, text, &line.labels)));
    }
    let mut keep = keep.into_iter();
    lines.retain(|_| keep.next() == Some(true));
}

/// Keeps the first line and then those at least `interval` away from the line kept before.
fn thin_out(lines: &mut Vec<(MatchedLine, Bytes)>, interval: Duration) {
    if interval.is_zero() {
        return;
    }
    let mut kept: Option<Timestamp> = None;
    lines.retain(|(line, _)| {
        let keep = kept.is_none_or(|kept| line.timestamp.since(kept).max(kept.since(line.timestamp)) >= interval);
        if keep {
            kept = Some(line.timestamp);
        }
        keep
    });
}

/// Takes the matchers on `__tenant_id__` out of a selector and applies them to the tenants.
///
/// # Errors
/// A matcher that does not compile.
pub(crate) fn tenants_of(
    selector: &[Matcher],
    tenants: &TenantIds,
) -> Result<(Vec<Matcher>, Vec<TenantId>), tailwater_logql::Error> {
    let (on_tenant, rest): (Vec<Matcher>, Vec<Matcher>) =
        selector.iter().cloned().partition(|m| m.name == TENANT_LABEL);
    let matchers = Matchers::new(&on_tenant)?;
    let labels = |tenant: &TenantId| Labels::from_pairs(vec![(TENANT_LABEL.into(), tenant.as_str().into())]);
    let tenants = tenants.as_slice().iter().filter(|tenant| matchers.matches(&labels(tenant))).cloned().collect();
    Ok((rest, tenants))
}

/// Adds `__tenant_id__` to every line, once per distinct label set.
fn label_with_tenant(lines: &mut [(MatchedLine, Bytes)], tenant: &TenantId) {
    let mut made: HashMap<usize, (LabelSet, LabelSet)> = HashMap::new();
    for (line, _) in lines {
        // The old set is kept beside the new one, so that its address stays its own.
        let (_, labelled) = made
            .entry(line.labels.address())
            .or_insert_with(|| (line.labels.clone(), with_tenant(&line.labels, tenant)));
        line.labels = labelled.clone();
    }
}

/// The labels of an entry with its tenant.
pub(crate) fn with_tenant(labels: &LabelSet, tenant: &TenantId) -> LabelSet {
    let mut pairs: Vec<LabelPair> = labels.pairs().to_vec();
    if labels.get(TENANT_LABEL).is_some() {
        // Names are unique: what is renamed takes the place of what bears that name already.
        pairs.retain(|pair| pair.name.as_ref() != ORIGINAL_TENANT_LABEL);
    }
    for pair in &mut pairs {
        if pair.name.as_ref() == TENANT_LABEL {
            pair.name = ORIGINAL_TENANT_LABEL.into();
        }
    }
    let value = tenant.as_str().into();
    pairs.push(LabelPair { name: TENANT_LABEL.into(), value, category: Category::Stream });
    LabelSet::from_pairs(pairs)
}

/// [`with_tenant`] for the labels of a stream or a series.
pub(crate) fn stream_with_tenant(labels: &Labels, tenant: &TenantId) -> Labels {
    let rename = |n: &str| if n == TENANT_LABEL { ORIGINAL_TENANT_LABEL.into() } else { n.into() };
    let mut pairs: Vec<(Box<str>, Box<str>)> = labels.iter().map(|(n, v)| (rename(n), v.into())).collect();
    pairs.push((TENANT_LABEL.into(), tenant.as_str().into()));
    Labels::keeping_empty(pairs)
}
