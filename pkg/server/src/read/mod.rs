//! The read endpoints (contract, Loki API §0.4, §1, §4): what they have in common.

mod detected;
pub(crate) mod gate;
mod logs;
mod meta;
mod metric;
mod volume;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use tailwater_model::{Limits, TenantIds, Timestamp};
use tailwater_wire::frame::TailEncoding;

use crate::answer::{self, Failure};
use crate::app::App;
use crate::body;
use crate::conn::LONG_QUERY;
use crate::form::{Form, unescape};

pub(crate) use detected::{detected_fields, detected_labels, field_values, patterns};
pub(crate) use logs::{instant, legacy_query, range};
pub(crate) use meta::{index_shards, index_stats, label_names, label_values, series};
pub(crate) use volume::{index_volume, index_volume_range};

/// The text of an answer to a query that ran out of time.
const TIMED_OUT: &str = "request timed out, decrease the duration of the request or add more label matchers (prefer exact match over \
                         regex match) to reduce the amount of data processed";

/// The content type of a form of answers that Loki does not give either unless told to.
const PARQUET: &[u8] = b"application/vnd.apache.parquet";

/// What is said to those who ask for it.
const NO_PARQUET: &str =
    "support for Parquet encoded responses is disabled. Enable with -frontend.support-parquet-encoding=true";

/// The text of an answer to one query too many.
const TOO_MANY: &str = "too many outstanding requests";

/// A request to a read endpoint, taken apart.
pub(crate) struct Asked {
    pub(crate) tenants: TenantIds,
    pub(crate) form: Form,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    pub(crate) now: Timestamp,
    pub(crate) since: Instant,
    /// How long it waited for its turn.
    pub(crate) queued: Duration,
    /// Of all tenants, the strictest.
    pub(crate) limits: Limits,
}

/// An endpoint that answers `GET` and `POST` with JSON.
pub(crate) fn endpoint<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Arc<App>, Asked) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Result<Vec<u8>, Failure>> + Send + 'static,
{
    on(MethodFilter::GET.or(MethodFilter::POST), async move |State(app): State<Arc<App>>, request: Request| {
        answer(app, request, handler).await
    })
}

async fn answer<H, F>(app: Arc<App>, request: Request, handler: H) -> Response
where
    H: Fn(Arc<App>, Asked) -> F,
    F: Future<Output = Result<Vec<u8>, Failure>>,
{
    let gzip = app.config.frontend.compress_responses && answer::accepts_gzip(request.headers());
    let asked = match take_apart(&app, request).await {
        Ok(asked) => asked,
        Err(failure) => return failure.into_response(),
    };
    if asked.headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == PARQUET) {
        return Failure::bad_request(NO_PARQUET).into_response();
    }
    let patience = asked.limits.query_timeout;
    let result = tokio::time::timeout(patience, in_turn(&app, asked, &handler)).await;
    match result.unwrap_or_else(|_elapsed| Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, TIMED_OUT))) {
        Ok(body) => answer::ok_compressed(answer::JSON_UTF8, body.into(), gzip).await,
        Err(failure) => failure.into_response(),
    }
}

/// Runs a query when it is the tenants' turn.
async fn in_turn<H, F>(app: &Arc<App>, mut asked: Asked, handler: &H) -> Result<Vec<u8>, Failure>
where
    H: Fn(Arc<App>, Asked) -> F,
    F: Future<Output = Result<Vec<u8>, Failure>>,
{
    let began = Instant::now();
    let (width, queue) = (asked.limits.max_query_parallelism, app.config.frontend.max_outstanding_per_tenant);
    let waiting = app.metrics.query_waits();
    let place = app.gates.enter(&asked.tenants, width, queue).await;
    drop(waiting);
    let _place = place.map_err(|gate::TooMany| {
        app.metrics.queries_refused.inc();
        Failure::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY)
    })?;
    asked.queued = began.elapsed();
    handler(Arc::clone(app), asked).await
}

async fn take_apart(app: &App, request: Request) -> Result<Asked, Failure> {
    let since = Instant::now();
    let claim = app.tenancy.claim(request.headers())?;
    let (head, body) = request.into_parts();
    let form = form(app, &head, body).await?;
    let tenants = app.tenancy.several(claim)?;
    let limits = Limits::strictest(tenants.as_slice().iter().map(|tenant| app.limits.limits(tenant)));
    Ok(Asked {
        tenants,
        form,
        headers: head.headers,
        uri: head.uri,
        now: app.clock.now(),
        since,
        queued: Duration::ZERO,
        limits,
    })
}

/// The parameters of a request: a form in its body, if it has one, and its query string.
pub(crate) async fn form(
    app: &App,
    head: &axum::http::request::Parts,
    body: axum::body::Body,
) -> Result<Form, Failure> {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let query = query_string(&head.uri, &head.headers);
    if head.method == Method::POST && media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let cap = app.config.frontend.max_body_size;
        let body = body::collect(body, cap, app.config.server.http_server_read_timeout, app.intake.in_flight()).await?;
        return Form::parse(&body, &query).map_err(Failure::bad_request);
    }
    Form::parse(b"", &query).map_err(Failure::bad_request)
}

/// The query string, wherever it travelled.
pub(crate) fn query_string<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Cow<'r, str> {
    match headers.get(LONG_QUERY) {
        Some(long) => String::from_utf8_lossy(long.as_bytes()),
        None => uri.query().unwrap_or_default().into(),
    }
}

/// Whether the answer has the form that came before `/loki/api/v1`.
pub(crate) fn is_legacy(uri: &Uri) -> bool {
    !uri.path().to_ascii_lowercase().contains("/loki/api/v1")
}

/// The form of entries that a request asks for.
pub(crate) fn encoding(headers: &HeaderMap) -> TailEncoding {
    let flags = headers.get_all("x-loki-response-encoding-flags");
    TailEncoding::v1(flags.iter().filter_map(|value| value.to_str().ok()))
}

/// The last but one segment of the path, which names a label.
fn label_of(uri: &Uri) -> Result<String, Failure> {
    let name = uri.path().trim_end_matches("/values").rsplit('/').next().unwrap_or_default();
    unescape(name.as_bytes(), false).map_err(Failure::bad_request)
}
