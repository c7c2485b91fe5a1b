//! The delete API (contract, Loki API §1.4): requests to delete the lines of a query within a time range. It exists only where
//! retention does; the paths are unknown otherwise.
//!
//! Parameters come in the query string, also of POST and PUT. Times are exactly ten digits of Unix seconds, or RFC 3339.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tailwater_model::{DeletionMode, TenantId, Timestamp};
use tailwater_store::deletes::{Cancelled, DeleteError, Deletes, NewRequest, Request as Deletion};

use crate::answer::{self, Failure};
use crate::app::App;
use crate::form::Form;
use crate::params::rfc3339;
use crate::read::query_string;
use crate::tenancy::Tenancy;

/// Carries the id of a request that was made.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-delete-request-id");

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// `POST`, `PUT /loki/api/v1/delete`
pub(crate) async fn add(State(app): State<Arc<App>>, request: Request) -> Response {
    let asked = match Asked::of(&app, request.headers(), request.uri()) {
        Ok(asked) => asked,
        Err(failure) => return failure.lined().into_response(),
    };
    let new = match new_request(&asked.form, app.clock.now()) {
        Ok(new) => new,
        Err(why) => return Failure::bad_request(why).lined().into_response(),
    };
    let query = new.query.clone();
    match asked.deletes.add(&asked.tenant, new).await {
        Ok(id) => {
            tracing::info!(tenant = %asked.tenant, id, query, "lines are to be deleted");
            let mut response = StatusCode::NO_CONTENT.into_response();
            response.headers_mut().extend(HeaderValue::from_str(&id).ok().map(|id| (REQUEST_ID.clone(), id)));
            response
        }
        Err(error) => failure(&error).lined().into_response(),
    }
}

/// `GET /loki/api/v1/delete`
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    let asked = match Asked::of(&app, request.headers(), request.uri()) {
        Ok(asked) => asked,
        Err(failure) => return failure.lined().into_response(),
    };
    match asked.deletes.list(&asked.tenant).await {
        Ok(requests) => {
            let all: Vec<_> = requests.iter().map(described).collect();
            answer::ok("application/json", format!("{}\n", Value::from(all)))
        }
        Err(error) => failure(&error.into()).lined().into_response(),
    }
}

/// `DELETE /loki/api/v1/delete`
pub(crate) async fn cancel(State(app): State<Arc<App>>, request: Request) -> Response {
    let asked = match Asked::of(&app, request.headers(), request.uri()) {
        Ok(asked) => asked,
        Err(failure) => return failure.lined().into_response(),
    };
    let (id, force) = (asked.form.get("request_id"), asked.form.get("force") == "true");
    let refusal = match asked.deletes.cancel(&asked.tenant, id, force).await {
        Ok(Cancelled::Done) => return StatusCode::NO_CONTENT.into_response(),
        Ok(Cancelled::Unknown) => Failure::new(StatusCode::NOT_FOUND, "could not find delete request with given id"),
        Ok(Cancelled::Processed) => {
            Failure::bad_request("deletion of request which is already processed is not allowed")
        }
        Ok(Cancelled::PastDeadline) => Failure::bad_request(
            "deletion of request past the deadline of compactor.delete_request_cancel_period since its creation is not allowed; \
             force=true cancels what is left of it",
        ),
        Err(error) => failure(&error.into()),
    };
    refusal.lined().into_response()
}

/// Who asks, and what.
struct Asked {
    deletes: Arc<Deletes>,
    tenant: TenantId,
    form: Form,
}

impl Asked {
    fn of(app: &App, headers: &HeaderMap, uri: &Uri) -> Result<Self, Failure> {
        let Some(deletes) = app.deletes() else { return Err(Failure::not_found()) };
        let tenant = Tenancy::one(app.tenancy.claim(headers)?)?;
        if app.limits.limits(&tenant).deletion_mode == DeletionMode::Disabled {
            return Err(Failure::new(StatusCode::FORBIDDEN, "deletion is not available for this tenant"));
        }
        let form = Form::parse(b"", &query_string(uri, headers)).map_err(Failure::bad_request)?;
        Ok(Self { deletes, tenant, form })
    }
}

fn new_request(form: &Form, now: Timestamp) -> Result<NewRequest, String> {
    let query = form.get("query");
    if query.is_empty() {
        return Err("query not set".to_owned());
    }
    let start = match form.get("start") {
        "" => return Err("start time not set".to_owned()),
        text => seconds_or_rfc3339(text).ok_or("invalid start time: require unix seconds or RFC3339 format")?,
    };
    let end = match form.get("end") {
        "" => now,
        text => seconds_or_rfc3339(text).ok_or("invalid end time: require unix seconds or RFC3339 format")?,
    };
    if end > now {
        return Err("deletes in the future are not allowed".to_owned());
    }
    if start > end {
        return Err("start time can't be greater than end time".to_owned());
    }
    Ok(NewRequest { start, end, query: query.to_owned() })
}

/// Exactly ten digits, or RFC 3339.
fn seconds_or_rfc3339(text: &str) -> Option<Timestamp> {
    if text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<i64>().ok().map(|seconds| Timestamp(seconds.saturating_mul(NANOS_PER_SECOND)));
    }
    rfc3339(text)
}

/// A request as the API shows it. Its times are seconds.
fn described(request: &Deletion) -> Value {
    json!({
        "request_id": request.request_id,
        "start_time": seconds(request.start),
        "end_time": seconds(request.end),
        "query": request.query,
        "status": request.status.to_string(),
        "created_at": seconds(request.created_at),
        "user_id": "",
    })
}

/// Seconds with as many decimals as milliseconds need.
fn seconds(nanos: i64) -> Value {
    let millis = nanos.div_euclid(NANOS_PER_SECOND / 1000);
    if millis % 1000 == 0 { json!(millis / 1000) } else { json!(millis as f64 / 1000.0) }
}

fn failure(error: &DeleteError) -> Failure {
    match error {
        DeleteError::Store(error) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        DeleteError::Query(error) => Failure::bad_request(format!("invalid query: {error}")),
        other => Failure::bad_request(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000 * NANOS_PER_SECOND);

    fn asked(query: &str) -> Result<NewRequest, String> {
        new_request(&Form::parse(b"", query).unwrap(), NOW)
    }

    #[test]
    fn query_and_start_are_needed_and_times_have_two_forms() {
        assert_eq!(asked("start=1700000000").unwrap_err(), "query not set");
        assert_eq!(asked("query={a=\"b\"}").unwrap_err(), "start time not set");
        for bad in ["1", "17000000000", "1700000000.5", "yesterday", "-700000000"] {
            let text = format!("query=%7Ba%3D%22b%22%7D&start={bad}");
            assert_eq!(
                asked(&text).unwrap_err(),
                "invalid start time: require unix seconds or RFC3339 format",
                "{bad}"
            );
        }
        let new = asked("query=%7Ba%3D%22b%22%7D&start=1700000000").unwrap();
        assert_eq!((new.start, new.end), (Timestamp(1_700_000_000 * NANOS_PER_SECOND), NOW));
        let new = asked("query=%7Ba%3D%22b%22%7D&start=2023-11-14T22:13:20Z&end=1700000001").unwrap();
        assert_eq!(new.start, Timestamp(1_700_000_000 * NANOS_PER_SECOND));
        assert_eq!(new.end, Timestamp(1_700_000_001 * NANOS_PER_SECOND));
        assert!(asked("query=q&start=1700000001&end=1700000000").is_err());
        assert!(asked("query=q&start=1700000001&end=1900000000").is_err(), "the future cannot be deleted");
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds(1_700_000_000 * NANOS_PER_SECOND).to_string(), "1700000000");
        assert_eq!(seconds(1_700_000_000 * NANOS_PER_SECOND + 250_000_000).to_string(), "1700000000.25");
    }
}
