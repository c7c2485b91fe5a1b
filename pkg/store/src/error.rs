//! What can go wrong with what is stored.

use std::io;

/// What kind of answer an error deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This machine's disk failed.
    Io,
    /// Storage cannot be reached or does not let us in; the same may work later.
    Unavailable,
    /// It is not there.
    NotFound,
    /// It is there and not what was written.
    Corrupt,
    /// There is no space left.
    Full,
    /// The configuration cannot work.
    Config,
    /// Somebody else changed it first.
    Conflict,
}

/// Why something stored could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of this machine.
    #[error("{what}: {source}")]
    Io {
        /// What was done to which file.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The object store does not answer, or refuses.
    #[error("{what}: {reason}")]
    Unavailable {
        /// The operation and the url.
        what: String,
        /// What it said, or that it said nothing, and what to look at.
        reason: String,
    },
    /// There is no such object.
    #[error("{path} does not exist")]
    NotFound {
        /// Its url or path.
        path: String,
    },
    /// Its content is not what it should be.
    #[error("{what} is damaged: {reason}")]
    Corrupt {
        /// Which object or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk, or the quota on it, is full.
    #[error("{what}: no space left")]
    Full {
        /// What was being written.
        what: String,
    },
    /// The configuration of the storage cannot work.
    #[error("{reason}")]
    Config {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Others kept changing the same thing.
    #[error("it is being changed by others all the time")]
    Conflict,
}

impl Error {
    /// What kind of answer this deserves.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::Io,
            Self::Unavailable { .. } => Kind::Unavailable,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Full { .. } => Kind::Full,
            Self::Config { .. } => Kind::Config,
            Self::Conflict => Kind::Conflict,
        }
    }

    /// What the operating system said while something was done; a full disk is told apart.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { what: what.into() },
            _ => Self::Io { what: what.into(), source },
        }
    }

    pub(crate) fn unavailable(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn corrupt(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), reason: reason.into() }
    }
}
