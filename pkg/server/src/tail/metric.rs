//! Tails of metric queries, for clients that ask for them with `metrics=1`. What Loki has no answer for has words of our own.

use axum::http::Uri;
use tailwater_logql::ast::MetricExpr;
use tailwater_logql::metric::{SampleQuery, leaves};
use tailwater_model::Limits;
use tailwater_querier::{MetricTailRequest, OnSlow, busy, check_metric};

use crate::answer::Failure;
use crate::app::App;
use crate::form::Form;
use crate::params::{StepParams, TailParams};
use crate::read::is_legacy;
use crate::tenancy::Claim;

/// Whether a client wants the steps of a metric query.
pub(super) fn asked(form: &Form) -> Result<bool, Failure> {
    match form.get("metrics") {
        "" | "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        other => Err(Failure::bad_request(format!("invalid metrics '{other}', expected 0 or 1"))),
    }
}

/// What such a client asks for, completely checked. `expr` is none for a log query.
pub(super) fn request(
    app: &App,
    uri: &Uri,
    form: &Form,
    tail: &TailParams,
    on_slow: OnSlow,
    expr: Option<MetricExpr>,
    claim: Claim,
) -> Result<MetricTailRequest, Failure> {
    let Some(expr) = expr else {
        return Err(Failure::bad_request("metrics=1 is for metric queries, this is a log query"));
    };
    if is_legacy(uri) {
        return Err(Failure::bad_request("legacy endpoints only support streams result type"));
    }
    if on_slow == OnSlow::Drop {
        return Err(Failure::bad_request("on_slow=drop is for log queries, steps are never dropped"));
    }
    let StepParams { step, start } = StepParams::parse(form, tail, app.clock.now()).map_err(Failure::bad_request)?;
    let tenants = app.tenancy.tailed(claim)?;
    let limits = Limits::strictest(tenants.as_slice().iter().map(|tenant| app.limits.limits(tenant)));
    check_metric(&expr, &limits)?;
    // The querier compiles for its tenants; what no compiler takes is found before the upgrade.
    busy(|| {
        leaves(&expr).iter().try_for_each(|leaf| SampleQuery::compile(leaf.aggregation, leaf.pushed.as_ref()).map(drop))
    })?;
    Ok(MetricTailRequest { tenants, expr, step, start, delay_for: tail.delay_for })
}
