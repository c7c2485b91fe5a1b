//! Places in arrival logs.
//!
//! Invariants: a log id is made once, when a log is created, and never reused; sequence numbers of a log start at 1,
//! grow by one per accepted batch and never repeat, also across restarts. Position 0 is "before everything".

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;
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

/// A place in the whole cluster's history: one position per log, sorted by log.
///
/// A log that is not named has been read up to nothing (`seq` 0).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Positions(SmallVec<[Position; 1]>);

impl Positions {
    /// The last batch of `log` that lies before this place; 0 = none.
    #[must_use]
    pub fn seq(&self, log: LogId) -> u64 {
        match self.0.binary_search_by_key(&log, |p| p.log) {
            Ok(i) => self.0[i].seq,
            Err(_) => 0,
        }
    }

    /// Moves `position.log` to `position.seq`. Never moves backwards.
    pub fn advance(&mut self, position: Position) {
        match self.0.binary_search_by_key(&position.log, |p| p.log) {
            Ok(i) => self.0[i].seq = self.0[i].seq.max(position.seq),
            Err(i) => self.0.insert(i, position),
        }
    }

    /// The positions, sorted by log id.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Position> for Positions {
    fn from_iter<T: IntoIterator<Item = Position>>(iter: T) -> Self {
        let mut all = Self::default();
        for p in iter {
            all.advance(p);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_only_moves_forward() {
        let (a, b) = (LogId::from_u128(1), LogId::from_u128(2));
        let mut v: Positions = [Position { log: b, seq: 7 }, Position { log: a, seq: 3 }].into_iter().collect();
        v.advance(Position { log: b, seq: 5 });
        assert_eq!((v.seq(a), v.seq(b), v.seq(LogId::from_u128(3))), (3, 7, 0));
        assert_eq!(v.iter().map(|p| p.log).collect::<Vec<_>>(), [a, b]);
    }

    #[test]
    fn a_log_id_survives_its_text() {
        let id = LogId::generate();
        assert_eq!(id.to_string().parse::<LogId>().unwrap(), id);
    }
}
