//! Going down as a member of a cluster, as far as clients of tails see it: no new tails are begun, and those who can are told where to go.

use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::answer::{self, Failure};
use crate::app::App;
use crate::form::Form;
use crate::read::query_string;

/// Says that a client can go on with a tail elsewhere, as does the parameter `resume`.
const RESUME_HEADER: &str = "x-tailwater-resume";

/// What others are told.
const STOPPING: &str = "Application is stopping";

/// The answer to a request for a tail that is not to begin any more; none if it may.
pub(crate) fn refusal(app: &App, request: &Request) -> Option<Response> {
    let nodes = app.tails.draining().borrow().clone()?;
    let headers = request.headers();
    let resumes = headers.contains_key(RESUME_HEADER)
        || Form::parse(b"", &query_string(request.uri(), headers))
            .is_ok_and(|form| !form.get("resume").is_empty() || form.get("notices") == "true");
    if !resumes {
        return Some(Failure::new(StatusCode::SERVICE_UNAVAILABLE, STOPPING).retry_after(1).into_response());
    }
    let mut response = answer::ok("application/json", json!({ "error": STOPPING, "nodes": &*nodes }).to_string());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("0"));
    Some(response)
}
