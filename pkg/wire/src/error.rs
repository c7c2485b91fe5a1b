//! Why bytes were refused. The texts are what Loki answers (contract, Loki API §2.2-2.5).

/// Why bytes were refused. [`std::fmt::Display`] is the answer's text, without a line break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The body is not what it claims to be: broken protobuf, JSON, compression, or an unknown content type or coding.
    #[error("{0}")]
    Malformed(Box<str>),
    /// The text of a stream's labels cannot be read.
    #[error("couldn't parse labels: {0}")]
    Labels(Box<str>),
    /// A cap was exceeded.
    #[error("request body too large: {0}")]
    TooLarge(Box<str>),
}

/// What an [`Error`] means to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong and will stay wrong (HTTP 400).
    BadRequest,
    /// The request is too large (HTTP 413).
    TooLarge,
}

impl Error {
    /// What the error means to the sender.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_) | Self::Labels(_) => Kind::BadRequest,
            Self::TooLarge(_) => Kind::TooLarge,
        }
    }

    pub(crate) fn malformed(text: impl Into<Box<str>>) -> Self {
        Self::Malformed(text.into())
    }
}
