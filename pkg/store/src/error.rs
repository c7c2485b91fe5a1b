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
    /// Something cannot be used now; the same may succeed later.
    #[error("{what} is not available: {reason}")]
    Unavailable {
        /// What cannot be used.
        what: Box<str>,
        /// Why.
        reason: Box<str>,
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
    /// [`Error::Unavailable`].
    Unavailable,
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
            Self::Unavailable { .. } => Kind::Unavailable,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Full { .. } => Kind::Full,
        }
    }

    /// What the operating system said while something was done; a full disk is told apart.
    pub(crate) fn io(what: impl Into<Box<str>>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { what: what.into() },
            _ => Self::Io { what: what.into(), source },
        }
    }

    pub(crate) fn corrupt(what: impl Into<Box<str>>, reason: impl Into<Box<str>>) -> Self {
        Self::Corrupt { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn unavailable(what: impl Into<Box<str>>, reason: impl Into<Box<str>>) -> Self {
        Self::Unavailable { what: what.into(), reason: reason.into() }
    }
}
