//! The push endpoints (contract, Loki API §2). The handler collects the body; what happens to it then is the intake's. A body that
//! came as the log keeps it goes there as it came.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tailwater_model::TenantId;
use tailwater_wire::compress;
use tailwater_wire::push::{self, Kind, Push};
use tailwater_wire::{Error, otlp};

use crate::answer::Failure;
use crate::app::App;
use crate::body;
use crate::intake::Read;
use crate::quiet::Quiet;
use crate::tenancy::Tenancy;

/// Refused pushes are logged, but not each of a flood.
static REFUSED: Quiet = Quiet::new();

/// How much of a refusal is logged, in bytes: it may quote what was pushed.
const MAX_LOGGED: usize = 500;

/// `/loki/api/v1/push`
pub(crate) async fn v1(State(app): State<Arc<App>>, request: Request) -> Response {
    loki(&app, request, Kind::V1).await
}

/// `/api/prom/push`
pub(crate) async fn legacy(State(app): State<Arc<App>>, request: Request) -> Response {
    loki(&app, request, Kind::Legacy).await
}

async fn loki(app: &Arc<App>, request: Request, kind: Kind) -> Response {
    let read = move |app: &App, headers: &HeaderMap, body: &[u8]| {
        push::read(kind, header(headers, &CONTENT_TYPE), header(headers, &CONTENT_ENCODING), body, app.intake.caps())
    };
    match accept(app, request, true, read).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(failure) => failure.lined().into_response(),
    }
}

/// `/otlp/v1/logs`
pub(crate) async fn otlp(State(app): State<Arc<App>>, request: Request) -> Response {
    let read = |app: &App, headers: &HeaderMap, body: &[u8]| {
        let index = &app.config.distributor.otlp_resource_attributes_as_index_labels;
        let (content_type, coding) = (header(headers, &CONTENT_TYPE), header(headers, &CONTENT_ENCODING));
        otlp::read(content_type, coding, body, app.intake.caps(), app.clock.now(), index)
    };
    match accept(&app, request, false, read).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(failure) if failure.status == StatusCode::UNAUTHORIZED => failure.into_response(),
        Err(failure) => {
            // Exporters give up on 500 and try again on 503.
            let status = match failure.status {
                StatusCode::INTERNAL_SERVER_ERROR => StatusCode::SERVICE_UNAVAILABLE,
                other => other,
            };
            let mut response = (status, otlp::status_body(&failure.text)).into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            if let Some(seconds) = failure.retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

async fn accept(
    app: &Arc<App>,
    request: Request,
    nested: bool,
    read: impl Fn(&App, &HeaderMap, &[u8]) -> Result<Push, Error> + Send + 'static,
) -> Result<(), Failure> {
    let claim = app.tenancy.claim(request.headers())?;
    let tenant = Tenancy::one(claim)?;
    let result = take_in(app, request, &tenant, nested, read).await;
    if let Err(failure) = &result
        && let Some(unheard) = REFUSED.speak()
    {
        let status = failure.status.as_u16();
        let error = &failure.text[..failure.text.floor_char_boundary(MAX_LOGGED)];
        tracing::warn!(%tenant, status, error, unheard, "push refused, in whole or in part");
    }
    result
}

async fn take_in(
    app: &Arc<App>,
    request: Request,
    tenant: &TenantId,
    nested: bool,
    read: impl Fn(&App, &HeaderMap, &[u8]) -> Result<Push, Error> + Send + 'static,
) -> Result<(), Failure> {
    let (head, body) = request.into_parts();
    let (cap, patience) = (app.intake.caps().max_body, app.config.server.http_server_read_timeout);
    let body = body::collect(body, cap, patience, app.intake.in_flight()).await?;
    let most = expands_to(app, &head.headers, &body, nested);
    let own = Arc::clone(app);
    let read = move || {
        let headers = &head.headers;
        let push = read(&own, headers, &body)?;
        let is_packed = nested && push::is_packed(header(headers, &CONTENT_TYPE), header(headers, &CONTENT_ENCODING));
        Ok(Read { push, packed: Some(body).filter(|_| is_packed) })
    };
    app.intake.take(tenant, most, read).await
}

/// What a body can become. `nested`: protobuf is in snappy, also inside of another coding.
fn expands_to(app: &App, headers: &HeaderMap, body: &[u8], nested: bool) -> usize {
    let caps = app.intake.caps();
    let coding = header(headers, &CONTENT_ENCODING).unwrap_or_default();
    let most = compress::expands_to(coding, body, caps);
    let json = header(headers, &CONTENT_TYPE).is_some_and(|t| t.starts_with("application/json"));
    let twice = !json && nested && most > body.len() && !matches!(coding, "" | "snappy");
    if twice { caps.max_decompressed } else { most }
}

fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}
