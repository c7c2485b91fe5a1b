//! Which path is answered by what (contract, Loki API §1). A known path with another method is 405, anything else 404.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

use crate::answer::CLIENT_GONE;
use crate::app::App;
use crate::cluster::pages;
use crate::quiet::Quiet;
use crate::read::{self, endpoint};
use crate::{admin, delete, push, tail};

/// Answers of 500 and more are logged, but not each of a flood.
static BROKEN: Quiet = Quiet::new();

/// All endpoints.
pub(crate) fn router(app: Arc<App>) -> Router {
    let tail = || get(tail::tail).post(tail::tail);
    Router::new()
        .route("/loki/api/v1/push", post(push::v1))
        .route("/api/prom/push", post(push::legacy))
        .route("/otlp/v1/logs", post(push::otlp))
        .route("/loki/api/v1/query_range", endpoint(read::range))
        .route("/loki/api/v1/query", endpoint(read::instant))
        .route("/loki/api/v1/label", endpoint(read::label_names))
        .route("/loki/api/v1/labels", endpoint(read::label_names))
        .route("/loki/api/v1/label/{name}/values", endpoint(read::label_values))
        .route("/loki/api/v1/series", endpoint(read::series))
        .route("/loki/api/v1/index/stats", endpoint(read::index_stats))
        .route("/loki/api/v1/index/shards", endpoint(read::index_shards))
        .route("/loki/api/v1/index/volume", endpoint(read::index_volume))
        .route("/loki/api/v1/index/volume_range", endpoint(read::index_volume_range))
        .route("/loki/api/v1/detected_labels", endpoint(read::detected_labels))
        .route("/loki/api/v1/detected_fields", endpoint(read::detected_fields))
        .route("/loki/api/v1/detected_field/{name}/values", endpoint(read::field_values))
        .route("/loki/api/v1/patterns", endpoint(read::patterns))
        .route("/loki/api/v1/tail", tail())
        .route("/loki/api/v1/format_query", get(admin::format_query).post(admin::format_query))
        .route("/loki/api/v1/drilldown-limits", get(admin::drilldown_limits))
        .route("/loki/api/v1/status/buildinfo", get(admin::buildinfo))
        .route("/api/prom/query", endpoint(read::legacy_query))
        .route("/api/prom/label", endpoint(read::label_names))
        .route("/api/prom/label/{name}/values", endpoint(read::label_values))
        .route("/api/prom/series", endpoint(read::series))
        .route("/api/prom/tail", tail())
        .route("/api/v1/tails", get(tail::list))
        .route("/prometheus/api/v1/rules", get(admin::no_rules))
        .route("/prometheus/api/v1/alerts", get(admin::no_alerts))
        .route("/loki/api/v1/delete", get(delete::list).post(delete::add).put(delete::add).delete(delete::cancel))
        .route("/flush", get(admin::flush).post(admin::flush))
        .route("/ready", get(admin::ready))
        .route("/metrics", get(admin::metrics))
        .route("/config", get(admin::config))
        .route("/config/tenant/v1/limits", get(admin::tenant_limits))
        .route("/services", get(admin::services))
        .route("/ring", get(pages::members))
        .route("/memberlist", get(pages::members))
        .route("/log_level", get(admin::log_level).post(admin::log_level))
        .fallback(admin::not_found)
        .layer(from_fn_with_state(Arc::clone(&app), measure))
        .with_state(app)
}

/// A request being answered. One that is dropped before it is done was given up.
struct Measured {
    app: Arc<App>,
    method: &'static str,
    path: Option<MatchedPath>,
    began: Instant,
    status: u16,
}

impl Drop for Measured {
    fn drop(&mut self) {
        let Self { app, method, path, began, status } = self;
        let route = path.as_ref().map_or("other", MatchedPath::as_str);
        let took = began.elapsed();
        app.metrics.request(method, route, *status, took);
        if *status >= 500
            && let Some(unheard) = BROKEN.speak()
        {
            tracing::warn!(method, route, status, ?took, unheard, "request failed");
        }
    }
}

async fn measure(State(app): State<Arc<App>>, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let mut measured = Measured { app, method, path, began: Instant::now(), status: CLIENT_GONE };
    let response = next.run(request).await;
    measured.status = response.status().as_u16();
    response
}
