//! What can go wrong on disk and in object storage.

use std::io;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system, or a library that speaks its errors, refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: Box<str>,
        /// Why it failed.
        source: io::Error,
    },
    /// Bytes are not what was written: a checksum is wrong, or what they say is impossible.
    #[error("{what} is corrupt: {reason}")]
    Corrupt {
        /// The part that is corrupt.
        what: Box<str>,
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// Something has no room for more.
    #[error("{what} is full")]
    Full {
        /// What is full.
        what: Box<str>,
    },
}

/// What an [`Error`] means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Error::Io`].
    Io,
    /// [`Error::Corrupt`].
    Corrupt,
    /// [`Error::Full`].
    Full,
}

impl Error {
    /// What the error means to the caller.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::Io,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Full { .. } => Kind::Full,
        }
    }

    pub(crate) fn corrupt(what: impl Into<Box<str>>, reason: impl Into<Box<str>>) -> Self {
        Self::Corrupt { what: what.into(), reason: reason.into() }
    }
}
