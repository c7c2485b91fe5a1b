//! Places in arrival logs.
//!
//! Invariants: a log id is made once, when a log is created, and never reused; sequence numbers of a log start at 1,
//! grow by one per accepted batch and never repeat, also across restarts. Position 0 is "before everything".

use std::fmt;
use std::str::FromStr;

use ulid::Ulid;

/// Names one arrival log for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(Ulid);

impl LogId {
    /// A new, unique id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Ulid::generate())
    }

    /// An id with a chosen value, for tests and decoding.
    #[must_use]
    pub const fn from_u128(v: u128) -> Self {
        Self(Ulid(v))
    }

    /// The id as a number.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LogId {
    type Err = ulid::DecodeError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(s).map(Self)
    }
}

/// A place in one arrival log: everything up to and including batch `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The log.
    pub log: LogId,
    /// Number of the last batch that lies before this place; 0 = none.
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_id_survives_its_text() {
        let id = LogId::generate();
        assert_eq!(id.to_string().parse::<LogId>().unwrap(), id);
    }
}
