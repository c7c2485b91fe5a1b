//! What an answer of the object store means: that something is not there, that somebody else was first, that it may work in a moment, or
//! that it will not.
//!
//! The crate below tells the status of an answer only in its texts, so they are read here; a text that is not understood counts as
//! something that may pass.

use std::error::Error as StdError;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use crate::Error;

/// Most bytes of a server's answer that are told.
const BODY_TOLD_MAX: usize = 200;

/// With what the crate below begins the text of an answer that is not a success.
const STATUS_TEXT: &str = "Server returned non-2xx status code: ";

/// Why an attempt, or a whole operation, came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such object.
    Missing,
    /// The object is not the one that a condition names, or exists although it should not.
    Taken,
    /// The object is still the one that the asker has.
    Unchanged,
    /// The object ends before the range that was asked for.
    Short(String),
    /// It may work when it is tried again.
    Passing(String),
    /// It will not.
    Lasting(Error),
}

impl Failure {
    /// For an operation that knows no special answers. `url` names the object.
    pub(super) fn into_error(self, what: &str, url: &str) -> Error {
        match self {
            Self::Missing => Error::NotFound { path: url.to_owned() },
            Self::Taken | Self::Unchanged => Error::Conflict,
            Self::Short(reason) => Error::Corrupt { what: url.to_owned(), reason },
            Self::Passing(reason) => Error::Unavailable { what: what.to_owned(), reason },
            Self::Lasting(error) => error,
        }
    }

    /// The label of the metric.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Taken => "conflict",
            Self::Unchanged => "unchanged",
            Self::Short(_) => "corrupt",
            Self::Passing(_) => "unavailable",
            Self::Lasting(_) => "refused",
        }
    }
}

/// What an error of an attempt means. `what`: the operation and the url.
pub(super) fn judge(error: &object_store::Error, what: &str) -> Failure {
    use object_store::Error as Source;
    let refuse = |reason: String| Failure::Lasting(Error::Unavailable { what: what.to_owned(), reason });
    let answer = Answer::of(error);
    if let Some(answer) = answer.as_ref().filter(|answer| answer.lacks_bucket()) {
        return refuse(format!("{}: the bucket does not exist; it has to be made first", answer.told()));
    }
    match error {
        Source::NotFound { .. } => Failure::Missing,
        Source::AlreadyExists { .. } | Source::Precondition { .. } => Failure::Taken,
        Source::NotModified { .. } => Failure::Unchanged,
        Source::PermissionDenied { .. } | Source::Unauthenticated { .. } => {
            let told = answer.map_or_else(|| innermost(error), |answer| answer.told());
            refuse(format!("access denied ({told}): check the credentials, and what they permit on the bucket"))
        }
        Source::NotImplemented { .. } | Source::NotSupported { .. } | Source::UnknownConfigurationKey { .. } => {
            Failure::Lasting(Error::Config { reason: format!("{what}: {}", innermost(error)) })
        }
        Source::InvalidPath { .. } => refuse(innermost(error)),
        _ => match answer {
            Some(answer) if answer.status == 416 => Failure::Short(answer.told()),
            Some(answer) if answer.passes() => Failure::Passing(answer.told()),
            Some(answer) => refuse(answer.told()),
            None => judge_silence(error, what),
        },
    }
}

/// An error without an answer of a server: of the network, or of the local disk.
fn judge_silence(error: &object_store::Error, what: &str) -> Failure {
    if let Some(http) = causes(error).find_map(|e| e.downcast_ref::<HttpError>()) {
        let cause = innermost(error);
        return Failure::Passing(match http.kind() {
            HttpErrorKind::Timeout => "no answer in time".to_owned(),
            HttpErrorKind::Connect => format!("cannot connect: {cause}"),
            _ => format!("the connection broke: {cause}"),
        });
    }
    let lasting = |reason| Failure::Lasting(Error::Unavailable { what: what.to_owned(), reason });
    if let Some(source) = causes(error).find_map(|e| e.downcast_ref::<io::Error>()) {
        return match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Failure::Lasting(Error::Full { what: what.to_owned() })
            }
            io::ErrorKind::PermissionDenied => {
                lasting(format!("{source}: check who owns the folder, and what its owner may do"))
            }
            _ => lasting(source.to_string()),
        };
    }
    let text = innermost(error);
    if text.contains("redirect") {
        return lasting(format!("{text}: check the region and the endpoint"));
    }
    Failure::Passing(text)
}

/// An answer that is not a success.
struct Answer {
    /// Of HTTP.
    status: u16,
    /// Status, and what is left of the body.
    text: String,
}

impl Answer {
    fn of(error: &object_store::Error) -> Option<Self> {
        causes(error).find_map(|cause| {
            let text = cause.to_string();
            let text = text.strip_prefix(STATUS_TEXT)?;
            Some(Self { status: text.get(..3)?.parse().ok()?, text: text.to_owned() })
        })
    }

    /// Whether the server may answer otherwise in a moment.
    fn passes(&self) -> bool {
        self.status >= 500 || matches!(self.status, 408 | 429)
    }

    fn lacks_bucket(&self) -> bool {
        ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"].iter().any(|said| self.text.contains(said))
    }

    /// The answer in a line: the code and message of its XML, or the beginning of it.
    fn told(&self) -> String {
        let (status, body) = self.text.split_once(": ").unwrap_or((&self.text, ""));
        let inside = |tag: &str| {
            let (_, rest) = body.split_once(&format!("<{tag}>"))?;
            let (inside, _) = rest.split_once(&format!("</{tag}>"))?;
            Some(inside)
        };
        let said = match (inside("Code"), inside("Message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => body.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        if said.is_empty() {
            return status.to_owned();
        }
        let end = (0..=BODY_TOLD_MAX.min(said.len())).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0);
        format!("{status}, {}", said.get(..end).unwrap_or_default())
    }
}

/// The error and what caused it, outermost first.
fn causes<'a>(error: &'a object_store::Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error as &'a (dyn StdError + 'static)), |error| (*error).source())
}

/// The text of the first cause of all.
pub(super) fn innermost(error: &object_store::Error) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(String);

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: Box::new(Said(text.to_owned())) }
    }

    #[test]
    fn answers_are_told_in_a_line() {
        let busy = generic(
            "Server returned non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>",
        );
        match judge(&busy, "get s3://b/x") {
            Failure::Passing(reason) => assert_eq!(reason, "503 Service Unavailable, SlowDown: Reduce your rate"),
            other => panic!("{other:?}"),
        }
        let long = generic(&format!("Server returned non-2xx status code: 400 Bad Request: {}", "ä".repeat(500)));
        match judge(&long, "get s3://b/x") {
            Failure::Lasting(Error::Unavailable { what, reason }) => {
                assert_eq!(what, "get s3://b/x");
                assert!(reason.len() < 250, "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_disk_is_told_from_one_that_fails() {
        let full = object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(io::Error::from(io::ErrorKind::StorageFull)),
        };
        assert!(matches!(judge(&full, "put x"), Failure::Lasting(Error::Full { .. })));
        let denied = object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(io::Error::from(io::ErrorKind::PermissionDenied)),
        };
        assert!(matches!(judge(&denied, "put x"), Failure::Lasting(Error::Unavailable { .. })));
        assert!(matches!(judge(&generic("what is this"), "put x"), Failure::Passing(_)));
    }
}
