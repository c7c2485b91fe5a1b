//! [`NodeError`] as the status of a call, and back.

use bytes::Bytes;
use prost::Message as _;
use tailwater_model::LogId;
use tailwater_wire::node::NodeError;
use tonic::{Code, Status};

use super::proto;
use super::requests::{log_bytes, log_of};

/// Most bytes of a reason: it travels among the headers.
const MAX_REASON_BYTES: usize = 1024;

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_REASON_BYTES)]
}

/// The status that says what went wrong.
pub(super) fn status(error: &NodeError) -> Status {
    use proto::failure::What;
    let (code, message, what) = match error {
        NodeError::Unavailable { log, reason } => {
            (Code::Unavailable, cut(reason).to_owned(), What::Unavailable(log_bytes(*log)))
        }
        NodeError::Trimmed { log, through } => {
            let trimmed = proto::Trimmed { log: log_bytes(*log), through: *through };
            (Code::OutOfRange, error.to_string(), What::Trimmed(trimmed))
        }
        NodeError::TooLarge { limit } => (Code::ResourceExhausted, error.to_string(), What::TooLarge(*limit as u64)),
    };
    let details = proto::Failure { what: Some(what) }.encode_to_vec();
    Status::with_details(code, message, Bytes::from(details))
}

/// What went wrong with a call to `who` about a log.
pub(super) fn error(status: &Status, log: LogId, who: &str) -> NodeError {
    use proto::failure::What;
    let details = proto::Failure::decode(status.details()).ok().and_then(|failure| failure.what);
    match details {
        Some(What::Trimmed(trimmed)) => {
            NodeError::Trimmed { log: log_of(&trimmed.log).unwrap_or(log), through: trimmed.through }
        }
        Some(What::TooLarge(limit)) => NodeError::TooLarge { limit: usize::try_from(limit).unwrap_or(usize::MAX) },
        Some(What::Unavailable(of)) => {
            NodeError::Unavailable { log: log_of(&of).unwrap_or(log), reason: format!("{who}: {}", status.message()) }
        }
        None => NodeError::Unavailable { log, reason: format!("{who}: {}", reason(status)) },
    }
}

/// A status in words, with what is known of its cause.
pub(super) fn reason(status: &Status) -> String {
    let mut text = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    let mut cause = std::error::Error::source(status);
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    cut(&text).to_owned()
}
