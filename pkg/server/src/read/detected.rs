//! What lines look like: `detected_labels`, `detected_fields`, `patterns` (contract, Loki API §1.3).

use std::sync::Arc;
use std::time::Duration;

use tailwater_logql::ast::Expr;
use tailwater_logql::{parse_selector, syntax};
use tailwater_querier::{LogsRequest, MetaRequest, busy};
use tailwater_wire::answer;
use tailwater_wire::node::Direction;

use super::logs::{allowed_range, check_limits};
use super::{Asked, label_of};
use crate::answer::Failure;
use crate::app::App;
use crate::params::{FieldsParams, bounds, ordered_bounds, step};

/// Patterns are counted in seconds at least, in nanoseconds.
const MIN_PATTERN_STEP: i64 = 1_000_000_000;

/// `/loki/api/v1/detected_labels`
pub(crate) async fn detected_labels(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let (start, end) = bounds(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let selectors = match asked.form.get("query") {
        "" => Vec::new(),
        query => vec![busy(|| parse_selector(query))?],
    };
    let Some((start, end)) = allowed_range(&asked, start, end)? else { return Ok(answer::detected_labels([])) };
    let request = MetaRequest { tenants: asked.tenants.clone(), selectors, start, end };
    let found = app.querier.detected_labels(&request).await?;
    Ok(answer::detected_labels(found.iter().map(|label| (label.name.as_str(), label.cardinality))))
}

/// `/loki/api/v1/detected_fields`
pub(crate) async fn detected_fields(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let params = FieldsParams::parse(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let fields = match lines(&asked, &params)? {
        Some(lines) => app.querier.detected_fields(lines, params.limit as usize).await?,
        None => Vec::new(),
    };
    Ok(answer::detected_fields(&fields, params.limit))
}

/// `/loki/api/v1/detected_field/{name}/values`
pub(crate) async fn field_values(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let name = label_of(&asked.uri)?;
    let params = FieldsParams::parse(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let values = match lines(&asked, &params)? {
        Some(lines) => app.querier.field_values(lines, &name, params.limit as usize).await?,
        None => Vec::new(),
    };
    Ok(answer::field_values(&values, params.limit))
}

/// The lines to look at: the newest of the query.
fn lines(asked: &Asked, params: &FieldsParams) -> Result<Option<LogsRequest>, Failure> {
    let Expr::Log(expr) = busy(|| syntax::parse(asked.form.get("query")))? else {
        return Err(Failure::bad_request("only log selector is supported"));
    };
    check_limits(asked, &expr, params.line_limit)?;
    let range = allowed_range(asked, params.start, params.end)?;
    Ok(range.map(|(start, end)| LogsRequest {
        tenants: asked.tenants.clone(),
        expr,
        start,
        end,
        limit: params.line_limit as usize,
        direction: Direction::Backward,
        interval: Duration::ZERO,
    }))
}

/// `/loki/api/v1/patterns`
pub(crate) async fn patterns(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let (start, end) = ordered_bounds(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let step = step(&asked.form, start, end).map_err(Failure::bad_request)?;
    let selector = busy(|| parse_selector(asked.form.get("query")))?;
    let Some((start, end)) = allowed_range(&asked, start, end)? else { return Ok(answer::patterns(&[], &[])) };
    let request = MetaRequest { tenants: asked.tenants.clone(), selectors: vec![selector], start, end };
    let found = app.querier.patterns(&request, step.max(MIN_PATTERN_STEP)).await?;
    Ok(answer::patterns(&found.value, &found.warnings))
}
