//! What every crate's errors mean in HTTP: the one table (contract, Loki API §0.2, §2.6).

use axum::http::StatusCode;
use tailwater_ingester::{PushError, PushErrorKind};

use crate::answer::Failure;

/// When a push that could not be stored may be sent again, in seconds: disks do not become empty at once.
const RETRY_STORAGE: u32 = 5;

impl From<tailwater_logql::Error> for Failure {
    fn from(error: tailwater_logql::Error) -> Self {
        Self::bad_request(error)
    }
}

impl From<tailwater_wire::Error> for Failure {
    fn from(error: tailwater_wire::Error) -> Self {
        let status = match error.kind() {
            tailwater_wire::Kind::BadRequest => StatusCode::BAD_REQUEST,
            tailwater_wire::Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        let status = match error.kind {
            PushErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            PushErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            PushErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            PushErrorKind::NoStreams => StatusCode::UNPROCESSABLE_ENTITY,
            PushErrorKind::Unavailable | PushErrorKind::StorageFailed => StatusCode::SERVICE_UNAVAILABLE,
        };
        let failure = Self::new(status, error.text);
        if status == StatusCode::SERVICE_UNAVAILABLE { failure.retry_after(RETRY_STORAGE) } else { failure }
    }
}

impl From<tailwater_querier::Error> for Failure {
    fn from(error: tailwater_querier::Error) -> Self {
        let status = match error.kind() {
            tailwater_querier::Kind::BadRequest => StatusCode::BAD_REQUEST,
            tailwater_querier::Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            tailwater_querier::Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            tailwater_querier::Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, error.to_string())
    }
}
