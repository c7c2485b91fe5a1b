//! Queries: `query_range`, `query` and `/api/prom/query` (contract, Loki API §1.6, §4).

use std::sync::Arc;

use tailwater_logql::ast::{Expr, LineFilter, LineOp, LineOperand, LogExpr, Matcher, Stage};
use tailwater_logql::go::{bytes, duration};
use tailwater_logql::syntax;
use tailwater_model::{TenantIds, Timestamp};
use tailwater_querier::{Error, LogsRequest, MetaRequest, busy, check_range};
use tailwater_wire::answer::{self, Entry, Stats};
use tailwater_wire::frame::TailEncoding;

use super::{Asked, encoding, is_legacy, metric};
use crate::answer::Failure;
use crate::app::App;
use crate::params::{InstantParams, RangeParams};

/// `/loki/api/v1/query_range`
pub(crate) async fn range(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let params = RangeParams::parse(&asked.form, asked.now).map_err(Failure::bad_request)?;
    match busy(|| syntax::parse(asked.form.get("query")))? {
        Expr::Log(expr) => logs(&app, &asked, expr, &params, encoding(&asked.headers)).await,
        Expr::Metric(expr) => metric::range(&app, &asked, expr, &params).await,
    }
}

/// `/loki/api/v1/query`
pub(crate) async fn instant(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let params = InstantParams::parse(&asked.form, asked.now).map_err(Failure::bad_request)?;
    match busy(|| syntax::parse(asked.form.get("query")))? {
        Expr::Log(_) => Err(Failure::bad_request(
            "log queries are not supported as an instant query type, please change your query to a range query type",
        )),
        Expr::Metric(expr) => metric::instant(&app, &asked, expr, params.time).await,
    }
}

/// `/api/prom/query`: a range query in the old form.
pub(crate) async fn legacy_query(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let params = RangeParams::parse(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let mut expr = match busy(|| syntax::parse(asked.form.get("query")))? {
        Expr::Log(expr) => expr,
        Expr::Metric(_) => {
            let text = "rpc error: code = Code(400) desc = legacy endpoints only support streams result type";
            return Err(Failure::bad_request(text));
        }
    };
    let pattern = asked.form.get("regexp");
    if !pattern.is_empty() {
        expr.stages.push(Stage::Line(LineFilter { op: LineOp::Re, operands: vec![LineOperand::Text(pattern.into())] }));
    }
    let encoding = if is_legacy(&asked.uri) { TailEncoding::Legacy } else { encoding(&asked.headers) };
    logs(&app, &asked, expr, &params, encoding).await
}

async fn logs(
    app: &App,
    asked: &Asked,
    expr: LogExpr,
    params: &RangeParams,
    encoding: TailEncoding,
) -> Result<Vec<u8>, Failure> {
    check_limits(asked, &expr, params.limit)?;
    let mut stats = Stats { queued: asked.queued, ..Stats::default() };
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    if let Some((start, end)) = allowed_range(asked, params.start, params.end)? {
        check_bytes(app, asked, vec![expr.selector.clone()], start, end).await?;
        let request = LogsRequest {
            tenants: TenantIds::clone(&asked.tenants),
            expr,
            start,
            end,
            limit: params.limit as usize,
            direction: params.direction,
            interval: params.interval,
        };
        let found = app.querier.select_logs(request).await?;
        stats.bytes = found.scanned.bytes;
        stats.lines = found.scanned.lines;
        stats.matched = found.scanned.matched;
        stats.batches = found.scanned.batches;
        stats.blocks = found.scanned.blocks;
        stats.nodes = found.nodes;
        (lines, warnings) = (found.lines, found.warnings);
    }
    stats.returned = lines.len() as u64;
    stats.took = asked.since.elapsed();
    let entries =
        lines.iter().map(|(line, text)| Entry { timestamp: line.timestamp, line: text, labels: &line.labels });
    Ok(answer::streams(entries, &encoding, &warnings, &stats))
}

/// Whether a query may be asked, and for so many lines.
pub(super) fn check_limits(asked: &Asked, expr: &LogExpr, limit: u32) -> Result<(), Failure> {
    let limits = &asked.limits;
    let most = limits.max_entries_limit_per_query;
    if most > 0 && limit > most {
        let text =
            format!("max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {most})");
        return Err(Failure::bad_request(text));
    }
    let matchers = expr.selector.len();
    if matchers > limits.max_streams_matchers_per_query {
        let limit = limits.max_streams_matchers_per_query;
        return Err(Error::TooManyMatchers { count: matchers, limit }.into());
    }
    Ok(())
}

/// The part of a range that the tenants may look at.
pub(super) fn allowed_range(
    asked: &Asked,
    start: Timestamp,
    end: Timestamp,
) -> Result<Option<(Timestamp, Timestamp)>, Failure> {
    // Beyond what a timestamp can hold there is nothing to ask for.
    if start == Timestamp::MAX {
        let lookback = duration::format_prometheus(asked.limits.max_query_lookback);
        return Err(Error::PastLookback { lookback }.into());
    }
    Ok(check_range(&asked.limits, start, end, asked.now)?)
}

/// Refuses a query whose streams hold more than the tenants may read, in the range that it asks for.
pub(super) async fn check_bytes(
    app: &App,
    asked: &Asked,
    selectors: Vec<Vec<Matcher>>,
    start: Timestamp,
    end: Timestamp,
) -> Result<(), Failure> {
    let limit = asked.limits.max_query_bytes_read;
    if limit == 0 {
        return Ok(());
    }
    let request = MetaRequest { tenants: asked.tenants.clone(), selectors, start, end };
    let held = app.querier.stats(&request).await?.value.bytes;
    if held <= limit {
        return Ok(());
    }
    let (bytes, limit) = (bytes::format_humanize(held), bytes::format_humanize(limit));
    Err(Error::TooManyBytes { bytes, limit }.into())
}
