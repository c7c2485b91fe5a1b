//! Why a push was refused, in whole or in part.

/// What a [`PushError`] means to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushErrorKind {
    /// Entries are wrong and will stay wrong (HTTP 400). What was right is stored.
    BadRequest,
    /// A limit was exceeded (HTTP 429). What was within the limits is stored.
    RateLimited,
    /// The push is larger than the log may be (HTTP 413). Nothing is stored.
    TooLarge,
    /// There was no stream in it (HTTP 422).
    NoStreams,
    /// The ingester is coming or going (HTTP 503). Nothing is stored.
    Unavailable,
    /// The disk is full or failing (HTTP 503). Nothing is stored; the same push can be sent again later.
    StorageFailed,
}

/// Why a push was refused, in whole or in part. The texts are Loki's (contract, Loki API §2.6), without a line break at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct PushError {
    /// What it means to the sender.
    pub kind: PushErrorKind,
    /// What to answer.
    pub text: String,
}

impl PushError {
    pub(crate) fn new(kind: PushErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}
