//! Metric queries: every ingester collects partial aggregates for each range aggregation, they are merged here, become series, and the
//! expression is evaluated over them.
//!
//! Invariants:
//! * Equal range aggregations of an expression are collected once.
//! * Everything that grows with the data is bounded by [`crate::Config::query_memory_bytes`]: the partial aggregates of one range
//!   aggregation after the other, all tenants together, and the series of all of them before they are made.

use std::collections::HashMap;
use std::sync::Arc;

use tailwater_logql::ast::{MetricExpr, RangeAggregation};
use tailwater_logql::go::duration;
use tailwater_logql::metric::{
    Column, Evaluated, EvaluationLimits, Grid, SampleQuery, Series, Steps, check, evaluate, leaves, series, series_at,
};
use tailwater_model::{Labels, Limits, TenantId, TenantIds, Timestamp};
use tailwater_wire::node::{Node, NodeError, SamplesRequest, Scanned, warn};

use crate::busy::busy;
use crate::logs::{stream_with_tenant, tenants_of};
use crate::{Error, Querier};

/// What a series costs beyond its labels' text and its column, in bytes.
const SERIES_COST: usize = 256;

/// What a label of a series costs beyond its text, in bytes.
const LABEL_COST: usize = 64;

/// A metric query at the steps of a range, or at one instant.
#[derive(Clone)]
pub struct MetricRequest {
    /// Whose lines.
    pub tenants: TenantIds,
    /// What of them.
    pub expr: MetricExpr,
    /// When.
    pub steps: Steps,
    /// Most series of the answer; 0 = any number.
    pub max_series: usize,
}

/// The answer to a metric query.
#[derive(Clone, Debug)]
pub struct MetricAnswer {
    /// Series, or a number.
    pub value: Evaluated,
    /// What could not be looked at, and why. Empty: the answer is whole.
    pub warnings: Vec<String>,
    /// What was looked at.
    pub scanned: Scanned,
    /// How many nodes were asked.
    pub nodes: u64,
}

/// A range aggregation and for whom it is collected.
pub(crate) struct CompiledLeaf {
    pub(crate) query: Arc<SampleQuery>,
    pub(crate) tenants: Vec<TenantId>,
}

/// The range aggregations of an expression, each once.
pub(crate) struct Compiled {
    pub(crate) distinct: Vec<CompiledLeaf>,
    /// Which of them each leaf of the expression is, left to right.
    pub(crate) order: Vec<usize>,
}

/// What a request must not ask for, in the order in which Loki finds it.
///
/// # Errors
/// Too many matchers, a range beyond `max_query_range`, an operator that is not enabled.
pub fn check_metric(expr: &MetricExpr, limits: &Limits) -> Result<(), Error> {
    for leaf in leaves(expr) {
        let RangeAggregation { log, range, .. } = leaf.aggregation;
        let (count, limit) = (log.selector.len(), limits.max_streams_matchers_per_query);
        if count > limit {
            return Err(Error::TooManyMatchers { count, limit });
        }
        if !limits.max_query_range.is_zero() && *range > limits.max_query_range {
            return Err(Error::RangeTooLong {
                range: duration::format_prometheus(*range),
                limit: duration::format_prometheus(limits.max_query_range),
            });
        }
    }
    Ok(check(expr)?)
}

/// Compiles the range aggregations of an expression.
///
/// # Errors
/// What their pipelines do not compile.
pub(crate) fn compile(expr: &MetricExpr, tenants: &TenantIds) -> Result<Compiled, Error> {
    let several = tenants.as_slice().len() > 1;
    let mut compiled = Compiled { distinct: Vec::new(), order: Vec::new() };
    let mut known: HashMap<(String, Vec<TenantId>), usize> = HashMap::new();
    for leaf in leaves(expr) {
        let (query, tenants) = if several {
            let (selector, tenants) = tenants_of(&leaf.aggregation.log.selector, tenants)?;
            let mut aggregation = leaf.aggregation.clone();
            aggregation.log.selector = selector;
            (SampleQuery::compile(&aggregation, leaf.pushed.as_ref())?, tenants)
        } else {
            (SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref())?, tenants.as_slice().to_vec())
        };
        let next = compiled.distinct.len();
        let place = *known.entry((query.canonical().to_owned(), tenants.clone())).or_insert(next);
        if place == next {
            compiled.distinct.push(CompiledLeaf { query: Arc::new(query), tenants });
        }
        compiled.order.push(place);
    }
    Ok(compiled)
}

/// Partial aggregates of one range aggregation, from wherever they come.
#[derive(Default)]
pub(crate) struct Merged {
    columns: HashMap<Labels, Column>,
}

impl Merged {
    /// Takes in what a node has found for a tenant; `labelled`: its series get a label that names the tenant.
    pub(crate) fn take(
        &mut self,
        found: Vec<(Labels, Column)>,
        labelled: Option<&TenantId>,
        room: &mut usize,
        limit: usize,
    ) -> Result<(), NodeError> {
        for (labels, column) in found {
            let labels = match labelled {
                Some(tenant) => stream_with_tenant(&labels, tenant),
                None => labels,
            };
            let too_large = NodeError::TooLarge { limit };
            match self.columns.get_mut(&labels) {
                Some(known) => known.merge(column, room).map_err(|_full| too_large)?,
                None => {
                    *room = room.checked_sub(cost(&labels, &column)).ok_or(too_large)?;
                    self.columns.insert(labels, column);
                }
            }
        }
        Ok(())
    }

    /// How much memory the series at the steps of a grid take, in bytes.
    fn memory_of_series(&self, grid: &Grid) -> usize {
        (grid.steps().count as usize).saturating_mul(size_of::<f64>()).saturating_mul(self.columns.len())
    }

    /// The series at the steps of a grid.
    fn series(self, query: &SampleQuery, grid: &Grid) -> Result<Vec<Series>, Error> {
        Ok(series(query, grid, self.columns)?)
    }

    /// The series at one step of a grid; it goes on collecting.
    pub(crate) fn series_at(&self, query: &SampleQuery, grid: &Grid, step: u32) -> Result<Vec<Series>, Error> {
        Ok(series_at(query, grid, step, &self.columns)?)
    }

    /// Forgets the panes before one, and series of which nothing is left.
    pub(crate) fn forget_before(&mut self, pane: u64) {
        self.columns.retain(|_, column| {
            column.forget_before(pane);
            !column.is_empty()
        });
    }

    /// How much memory it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.columns.iter().map(|(labels, column)| cost(labels, column)).sum()
    }
}

/// How much memory a series with its partial aggregates takes, in bytes.
fn cost(labels: &Labels, column: &Column) -> usize {
    let text = labels.iter().map(|(n, v)| n.len() + v.len() + LABEL_COST).sum::<usize>();
    SERIES_COST + text + column.memory()
}

impl Querier {
    /// Answers a metric query. Dropping the future cancels it.
    ///
    /// # Errors
    /// What the query asks beyond the tenants' limits, a pipeline that does not compile, lines that bear an error, series that do
    /// not match, more memory than there is, an ingester that does not answer, or `query_timeout`.
    pub async fn evaluate(&self, request: &MetricRequest) -> Result<MetricAnswer, Error> {
        let timeout = self.strictest_timeout(&request.tenants);
        let answer = match tokio::time::timeout(timeout, self.evaluate_in_time(request)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Error::Timeout),
        };
        match &answer {
            Ok(answer) => self.metrics().scanned(answer.scanned),
            Err(Error::Node(NodeError::TooLarge { .. })) => {
                self.metrics().queries_too_large.inc();
            }
            Err(_) => {}
        }
        answer
    }

    async fn evaluate_in_time(&self, request: &MetricRequest) -> Result<MetricAnswer, Error> {
        let MetricRequest { tenants, expr, steps, max_series } = request;
        let compiled = busy(|| compile(expr, tenants))?;
        let several = tenants.as_slice().len() > 1;
        let memory = self.config().query_memory_bytes;
        let (mut scanned, mut warnings) = (Scanned::default(), Vec::new());
        let mut asked = 0;
        let too_large = NodeError::TooLarge { limit: memory };
        let mut found = Vec::new();
        let mut room_of_series = memory;
        for (place, leaf) in compiled.distinct.iter().enumerate() {
            let grid = leaf.query.grid(*steps);
            let mut merged = Merged::default();
            let mut room = memory;
            for tenant in &leaf.tenants {
                let limits = self.limits().limits(tenant);
                let ask = |node: &dyn Node, part| {
                    node.samples(SamplesRequest {
                        tenant: tenant.clone(),
                        part,
                        query: Arc::clone(&leaf.query),
                        detect_level: limits.discover_log_levels && limits.allow_structured_metadata,
                        after: 0,
                        as_of: u64::MAX,
                        grid,
                        from: Timestamp::MIN,
                        settled: None,
                        max_bytes: room,
                    })
                };
                let found = self.ask(ask).await.map_err(|error| match error {
                    // What is left of the bound tells nobody what the bound is.
                    Error::Node(NodeError::TooLarge { .. }) => too_large.clone().into(),
                    other => other,
                })?;
                asked = asked.max(found.nodes);
                warn(&mut warnings, found.warnings);
                for part in found.parts {
                    scanned += part.scanned;
                    warn(&mut warnings, part.warnings);
                    merged.take(part.series, several.then_some(tenant), &mut room, memory)?;
                }
            }
            // A leaf that stands in several places has its series copied.
            let places = compiled.order.iter().filter(|of| **of == place).count();
            let needed = merged.memory_of_series(&grid).saturating_mul(places);
            room_of_series = room_of_series.checked_sub(needed).ok_or(too_large.clone())?;
            found.push(busy(|| merged.series(&leaf.query, &grid))?);
        }
        let limits = EvaluationLimits { max_query_series: u32::try_from(*max_series).unwrap_or(u32::MAX) };
        let value = busy(|| evaluate(expr, *steps, in_order(found, &compiled.order), limits))?;
        Ok(MetricAnswer { value, warnings, scanned, nodes: asked })
    }
}

/// The series of each leaf, in the order of the leaves; what several leaves have is copied for all but the last.
pub(crate) fn in_order(mut found: Vec<Vec<Series>>, order: &[usize]) -> Vec<Vec<Series>> {
    let last_use = |place: usize| order.iter().rposition(|p| *p == place);
    let mut leaves = Vec::with_capacity(order.len());
    for (index, place) in order.iter().enumerate() {
        let Some(series) = found.get_mut(*place) else { continue };
        leaves.push(if last_use(*place) == Some(index) { std::mem::take(series) } else { series.clone() });
    }
    leaves
}
