//! Queries: `query_range`, `query` and `/api/prom/query` (contract, Loki API §1.6, §4).

use std::sync::Arc;

use axum::http::StatusCode;
use tailwater_logql::ast::{Expr, LineFilter, LineOp, LineOperand, LogExpr, MetricExpr, Stage};
use tailwater_logql::{go::duration, syntax};
use tailwater_model::{Labels, TenantIds, Timestamp};
use tailwater_querier::{Error, LogsRequest, busy, check_range};
use tailwater_wire::answer::{self, Entry, Sample, Stats};
use tailwater_wire::frame::TailEncoding;

use super::constant::{self, Constant};
use super::{Asked, encoding, is_legacy};
use crate::answer::Failure;
use crate::app::App;
use crate::params::{InstantParams, RangeParams};

/// `/loki/api/v1/query_range`
pub(crate) async fn range(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let params = RangeParams::parse(&asked.form, asked.now).map_err(Failure::bad_request)?;
    match busy(|| syntax::parse(asked.form.get("query")))? {
        Expr::Log(expr) => logs(&app, &asked, expr, &params, encoding(&asked.headers)).await,
        Expr::Metric(expr) => metric_range(&asked, &expr, &params),
    }
}

/// `/loki/api/v1/query`
pub(crate) async fn instant(_app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let params = InstantParams::parse(&asked.form, asked.now).map_err(Failure::bad_request)?;
    match busy(|| syntax::parse(asked.form.get("query")))? {
        Expr::Log(_) => Err(Failure::bad_request(
            "log queries are not supported as an instant query type, please change your query to a range query type",
        )),
        Expr::Metric(expr) => metric_instant(&asked, &expr, params.time),
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
    let mut stats = Stats::default();
    let mut lines = Vec::new();
    if let Some((start, end)) = allowed_range(asked, params.start, params.end)? {
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
        stats.bytes = found.scanned_bytes;
        stats.lines = found.scanned_lines;
        stats.nodes = 1;
        lines = found.lines;
    }
    stats.returned = lines.len() as u64;
    stats.matched = stats.returned;
    stats.took = asked.since.elapsed();
    let entries =
        lines.iter().map(|(line, text)| Entry { timestamp: line.timestamp, line: text, labels: &line.labels });
    Ok(answer::streams(entries, &encoding, &[], &stats))
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

/// The one place where metric queries over log lines end for now; what has no log lines in it is a constant and is evaluated.
fn evaluate(expr: &MetricExpr) -> Result<Constant, Failure> {
    if constant::reads_logs(expr) {
        let text = "metric queries over logs are not evaluated by this version; log queries are (query_range, tail)";
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, text));
    }
    constant::evaluate(expr)
}

fn metric_instant(asked: &Asked, expr: &MetricExpr, time: Timestamp) -> Result<Vec<u8>, Failure> {
    let result = evaluate(expr)?;
    let stats = |returned| Stats { returned, took: asked.since.elapsed(), ..Stats::default() };
    let sample = |value| Sample { timestamp: time, value };
    Ok(match result {
        Constant::Scalar(value) => answer::scalar(sample(value), &[], &stats(1)),
        Constant::Vector(samples) => {
            let samples: Vec<_> = samples.into_iter().map(|(labels, value)| (labels, sample(value))).collect();
            answer::vector(&samples, &[], &stats(samples.len() as u64))
        }
    })
}

fn metric_range(asked: &Asked, expr: &MetricExpr, params: &RangeParams) -> Result<Vec<u8>, Failure> {
    let samples = match evaluate(expr)? {
        Constant::Scalar(value) => vec![(Labels::from_pairs(Vec::new()), value)],
        Constant::Vector(samples) => samples,
    };
    // The frontend's alignment: the start rounded down, the end rounded up to a multiple of the step.
    let step = params.step;
    let start = params.start.nanos().div_euclid(step).saturating_mul(step);
    let end = params.end.nanos();
    let end = end.saturating_add((step - end.rem_euclid(step)) % step);
    let mut times = Vec::new();
    let mut time = Some(start);
    while let Some(now) = time.filter(|time| *time <= end) {
        times.push(Timestamp(now));
        time = now.checked_add(step);
    }
    let series: Vec<_> = samples
        .into_iter()
        .map(|(labels, value)| (labels, times.iter().map(|&timestamp| Sample { timestamp, value }).collect::<Vec<_>>()))
        .collect();
    let returned = (series.len() * times.len()) as u64;
    let stats = Stats { returned, took: asked.since.elapsed(), ..Stats::default() };
    Ok(answer::matrix(&series, &[], &stats))
}
