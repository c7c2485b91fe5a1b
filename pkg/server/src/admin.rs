//! Everything that is neither push, query nor tail: state, settings, metrics, and the small endpoints that Grafana asks (contract,
//! Loki API §1.5, §9.3; Grafana §7-§8).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tailwater_logql::{level, parse, pretty};
use tailwater_model::TenantId;

use crate::answer::{self, Failure, JSON_UTF8, TEXT};
use crate::app::App;
use crate::config::Mode;
use crate::form::Form;
use crate::read::{form, query_string};
use crate::tenancy::{Claim, TENANT_HEADER, Tenancy};
use crate::{logging, metrics};

/// What the endpoints of status say of the parts of this process.
const PARTS: [&str; 4] = ["server", "distributor", "ingester", "querier"];

/// `/ready`
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.stopping() {
        return Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Application is stopping").lined().into_response();
    }
    if app.intake.ingester().is_some_and(|ingester| ingester.recovering().is_some()) {
        let text = "Ingester not ready: ingester not ready: Starting";
        return Failure::new(StatusCode::SERVICE_UNAVAILABLE, text).lined().into_response();
    }
    if app.cluster.is_some() && !app.is_active() {
        let text = "Ingester not ready: ingester not ready: joining the cluster";
        return Failure::new(StatusCode::SERVICE_UNAVAILABLE, text).lined().into_response();
    }
    answer::ok(TEXT, "ready\n")
}

/// `/flush`: puts everything into blocks that was accepted by now, and answers when it is done.
pub(crate) async fn flush(State(app): State<Arc<App>>) -> Response {
    if app.intake.ingester().is_none() {
        let text = "this process is a querier and keeps no log; ask the ingesters, which /ring names";
        return Failure::new(StatusCode::NOT_FOUND, text).lined().into_response();
    }
    match app.storage.flush().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            let text = format!("not everything could be put into blocks, it stays in the write-ahead log: {error}");
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, text).lined().into_response()
        }
    }
}

/// `/services`
pub(crate) async fn services(State(app): State<Arc<App>>) -> Response {
    let state = |part: &str| match part {
        _ if app.stopping() => "Stopping",
        "ingester" if app.intake.ingester().is_some_and(|i| i.recovering().is_some()) => "Starting",
        _ => "Running",
    };
    let here = |part: &&&str| **part != "ingester" || app.intake.ingester().is_some();
    answer::ok(TEXT, PARTS.iter().filter(here).map(|part| format!("{part} => {}\n", state(part))).collect::<String>())
}

/// `/metrics`
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.metrics.expanded_bytes.set(i64::try_from(app.intake.room().bytes()).unwrap_or(i64::MAX));
    app.metrics.body_bytes.set(i64::try_from(app.intake.in_flight().bytes()).unwrap_or(i64::MAX));
    match metrics::prometheus_text(&app.registry) {
        Ok(text) => {
            let content_type = "text/plain; version=0.0.4; charset=utf-8";
            answer::ok_compressed(content_type, Bytes::from(text), answer::accepts_gzip(&headers)).await
        }
        Err(error) => Failure::internal(error).lined().into_response(),
    }
}

/// `/config`
pub(crate) async fn config(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    let mode = Form::parse(b"", &query_string(&uri, &headers)).map(|form| form.get("mode").to_owned());
    match mode.as_deref() {
        Ok("") => answer::ok(TEXT, app.config.to_yaml(Mode::All)),
        Ok("defaults") => answer::ok(TEXT, app.config.to_yaml(Mode::Defaults)),
        Ok("diff") => answer::ok(TEXT, app.config.to_yaml(Mode::Diff)),
        Ok(other) => {
            Failure::bad_request(format!("unknown mode {other:?}; known are diff and defaults")).lined().into_response()
        }
        Err(why) => Failure::bad_request(why).lined().into_response(),
    }
}

/// `/loki/api/v1/status/buildinfo`. What the build was not told is empty.
pub(crate) async fn buildinfo() -> Response {
    let info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": option_env!("TAILWATER_BUILD_REVISION").unwrap_or_default(),
        "branch": option_env!("TAILWATER_BUILD_BRANCH").unwrap_or_default(),
        "buildUser": option_env!("TAILWATER_BUILD_USER").unwrap_or_default(),
        "buildDate": option_env!("TAILWATER_BUILD_DATE").unwrap_or_default(),
        "goVersion": "",
    });
    answer::ok("application/json", info.to_string())
}

/// `/loki/api/v1/format_query`
pub(crate) async fn format_query(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let form = match form(&app, &head, body).await {
        Ok(form) => form,
        Err(failure) => return failure.into_response(),
    };
    let (status, body) = match parse(form.get("query")) {
        Ok(expr) => (StatusCode::OK, json!({ "status": "success", "data": pretty(&expr) })),
        Err(error) => (StatusCode::BAD_REQUEST, json!({ "status": "invalid-query", "error": error.to_string() })),
    };
    json_line(status, &body)
}

/// `/log_level`
pub(crate) async fn log_level(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return json_line(StatusCode::OK, &json!({ "message": format!("Current log level is {}", logging::level()) }));
    }
    let form = match form(&app, &head, body).await {
        Ok(form) => form,
        Err(failure) => return failure.into_response(),
    };
    let wanted = form.get("log_level");
    let (status, body) = match logging::set_level(wanted) {
        Ok(()) => {
            tracing::info!(level = wanted, "log level set");
            (StatusCode::OK, json!({ "status": "success", "message": format!("Log level set to {wanted}") }))
        }
        Err(why) => (StatusCode::BAD_REQUEST, json!({ "status": "failed", "message": why })),
    };
    json_line(status, &body)
}

/// JSON with a line break, as Go's encoder writes it.
fn json_line(status: StatusCode, body: &Value) -> Response {
    let mut response = answer::ok("application/json; charset=utf-8", format!("{body}\n"));
    *response.status_mut() = status;
    if status != StatusCode::OK {
        response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    }
    response
}

/// The limits that Logs Drilldown asks for.
const DRILLDOWN_LIMITS: [&str; 14] = [
    "discover_log_levels",
    "discover_service_name",
    "max_entries_limit_per_query",
    "max_line_size_truncate",
    "max_query_bytes_read",
    "max_query_length",
    "max_query_lookback",
    "max_query_range",
    "max_query_series",
    "query_timeout",
    "retention_period",
    "retention_stream",
    "volume_enabled",
    "volume_max_series",
];

/// `/loki/api/v1/drilldown-limits`
pub(crate) async fn drilldown_limits(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let tenant = match named_tenant(&app, &headers) {
        Ok(tenant) => tenant,
        Err(failure) => return failure.into_response(),
    };
    let all = app.config.limits_of(&app.limits.limits(&tenant));
    let mut limits: BTreeMap<&str, Value> =
        DRILLDOWN_LIMITS.iter().filter_map(|name| Some((*name, all.get(*name)?.clone()))).collect();
    let index_labels = &app.config.distributor.otlp_resource_attributes_as_index_labels;
    let attributes = json!([{ "action": "index_label", "attributes": index_labels }]);
    // What is not there is off, and said to be.
    limits.extend([
        ("log_level_fields", json!(level::NAMES)),
        ("metric_aggregation_enabled", json!(false)),
        ("otlp_config", json!({ "resource_attributes": { "attributes_config": attributes } })),
        ("pattern_persistence_enabled", json!(false)),
    ]);
    let body = json!({
        "limits": limits,
        "pattern_ingester_enabled": true,
        "version": env!("CARGO_PKG_VERSION"),
    });
    answer::ok(JSON_UTF8, body.to_string())
}

/// `/config/tenant/v1/limits`
pub(crate) async fn tenant_limits(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match named_tenant(&app, &headers) {
        Ok(tenant) => answer::ok(TEXT, app.config.limits_yaml(&app.limits.limits(&tenant))),
        Err(failure) => failure.into_response(),
    }
}

/// The tenant of endpoints that read the header themselves: with authentication off it is still needed.
fn named_tenant(app: &App, headers: &HeaderMap) -> Result<TenantId, Failure> {
    match headers.get(TENANT_HEADER) {
        Some(value) => Tenancy::one(Claim::Named(String::from_utf8_lossy(value.as_bytes()).into_owned())),
        None if app.config.auth_enabled.is_some() => Err(Failure::no_tenant()),
        None => Tenancy::one(app.tenancy.claim(headers)?),
    }
    .map_err(Failure::lined)
}

/// `/prometheus/api/v1/rules`: there are none.
pub(crate) async fn no_rules() -> Response {
    answer::ok("application/json", json!({ "status": "success", "data": { "groups": [] } }).to_string())
}

/// `/prometheus/api/v1/alerts`: there are none.
pub(crate) async fn no_alerts() -> Response {
    answer::ok("application/json", json!({ "status": "success", "data": { "alerts": [] } }).to_string())
}

/// Any other path.
pub(crate) async fn not_found() -> Response {
    Failure::not_found().into_response()
}
