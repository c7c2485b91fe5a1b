//! Metric queries: `query_range` and `query` of expressions that answer samples (contract, Loki API §4, LogQL §14).

use tailwater_logql::ast::MetricExpr;
use tailwater_logql::metric::{Evaluated, Steps, answered, leaves};
use tailwater_model::{Labels, Timestamp};
use tailwater_querier::{MetricAnswer, MetricRequest, check_metric};
use tailwater_wire::answer::{self, Sample, Stats};

use super::Asked;
use super::logs::{allowed_range, check_bytes};
use crate::answer::Failure;
use crate::app::App;
use crate::params::RangeParams;

/// A metric query at one instant.
pub(super) async fn instant(app: &App, asked: &Asked, expr: MetricExpr, time: Timestamp) -> Result<Vec<u8>, Failure> {
    let found = run(app, asked, expr, (time, time), Steps::instant(time)).await?;
    let sample = |value| Sample { timestamp: time, value };
    Ok(match found {
        None => answer::vector(&[], &[], &stats(asked, None, 0)),
        Some(MetricAnswer { value: Evaluated::Scalar(value), warnings, .. }) => {
            answer::scalar(sample(value), &warnings, &stats(asked, None, 1))
        }
        Some(found) => {
            let Evaluated::Series(series) = &found.value else { return Ok(Vec::new()) };
            let samples: Vec<_> = series.iter().filter_map(|s| Some((s.labels.clone(), sample(s.get(0)?)))).collect();
            answer::vector(&samples, &found.warnings, &stats(asked, Some(&found), samples.len()))
        }
    })
}

/// A metric query at the steps of a range. As Loki's frontend does, the start is rounded down and the end up to a multiple of the
/// step.
pub(super) async fn range(
    app: &App,
    asked: &Asked,
    expr: MetricExpr,
    params: &RangeParams,
) -> Result<Vec<u8>, Failure> {
    let RangeParams { start, end, step, .. } = params;
    let aligned = |time: Timestamp| time.nanos().div_euclid(*step).saturating_mul(*step);
    let up = |time: Timestamp| time.nanos().saturating_add((step - time.nanos().rem_euclid(*step)) % step);
    let steps = Steps::range(Timestamp(aligned(*start)), Timestamp(up(*end)), *step);
    let Some(found) = run(app, asked, expr, (*start, *end), steps).await? else {
        return Ok(answer::matrix(&[], &[], &stats(asked, None, 0)));
    };
    let Evaluated::Series(series) = &found.value else { return Ok(Vec::new()) };
    let series: Vec<(Labels, Vec<Sample>)> = answered(series)
        .map(|(labels, points)| {
            let sample = |(step, value)| Sample { timestamp: steps.time(step), value };
            (labels.clone(), points.map(sample).collect())
        })
        .collect();
    let returned = series.iter().map(|(_, samples)| samples.len()).sum();
    Ok(answer::matrix(&series, &found.warnings, &stats(asked, Some(&found), returned)))
}

/// The answer, unless the range lies wholly before what the tenants may look at.
async fn run(
    app: &App,
    asked: &Asked,
    expr: MetricExpr,
    (start, end): (Timestamp, Timestamp),
    mut steps: Steps,
) -> Result<Option<MetricAnswer>, Failure> {
    check_metric(&expr, &asked.limits)?;
    let selectors: Vec<_> = leaves(&expr).iter().map(|leaf| leaf.aggregation.log.selector.clone()).collect();
    if !selectors.is_empty() {
        let Some((allowed, _)) = allowed_range(asked, start, end)? else { return Ok(None) };
        if allowed > start && steps.step > 0 {
            // What the tenants may not look at has no steps.
            let first = allowed.nanos().div_euclid(steps.step).saturating_mul(steps.step);
            steps = Steps::range(Timestamp(first), steps.end(), steps.step);
        }
        let longest = leaves(&expr).iter().map(|leaf| leaf.aggregation.range).max().unwrap_or_default();
        check_bytes(app, asked, selectors, allowed.saturating_sub(longest), end).await?;
    }
    let request =
        MetricRequest { tenants: asked.tenants.clone(), expr, steps, max_series: asked.limits.max_query_series };
    Ok(Some(app.querier.evaluate(&request).await?))
}

fn stats(asked: &Asked, found: Option<&MetricAnswer>, returned: usize) -> Stats {
    let scanned = found.map(|found| found.scanned).unwrap_or_default();
    Stats {
        bytes: scanned.bytes,
        lines: scanned.lines,
        matched: scanned.matched,
        batches: scanned.batches,
        blocks: scanned.blocks,
        returned: returned as u64,
        nodes: found.map_or(0, |found| found.nodes),
        took: asked.since.elapsed(),
        queued: asked.queued,
    }
}
