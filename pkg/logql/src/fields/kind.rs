//! What the value of a field looks like.

use crate::go::{bytes, duration, number};

/// What `strconv.ParseBool` reads, but for `0` and `1`, which are numbers.
const BOOLEANS: [&str; 10] = ["t", "T", "true", "TRUE", "True", "f", "F", "false", "FALSE", "False"];

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A whole number of 64 bits.
    Int,
    /// Any other number.
    Float,
    /// True or false.
    Boolean,
    /// As Go writes durations.
    Duration,
    /// An amount of bytes with a unit.
    Bytes,
    /// Anything else.
    String,
}

impl FieldKind {
    /// The type of a value.
    #[must_use]
    pub fn of(value: &str) -> Self {
        if number::parse_int(value).is_ok() {
            Self::Int
        } else if number::parse_float(value).is_ok() {
            Self::Float
        } else if BOOLEANS.contains(&value) {
            Self::Boolean
        } else if duration::parse_go(value).is_ok() {
            Self::Duration
        } else if bytes::parse_humanize(value).is_ok() {
            Self::Bytes
        } else {
            Self::String
        }
    }

    /// What answers call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
            Self::String => "string",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_values() {
        for (value, kind) in [
            ("0", "int"),
            ("-12", "int"),
            ("99999999999999999999", "float"),
            ("1.5", "float"),
            ("1e3", "float"),
            ("NaN", "float"),
            ("true", "boolean"),
            ("T", "boolean"),
            ("tRUE", "string"),
            ("5ms", "duration"),
            ("1h2m", "duration"),
            ("3m", "duration"),
            ("3MB", "bytes"),
            ("1.2 KiB", "bytes"),
            ("5 apples", "string"),
            ("", "string"),
            ("-", "string"),
        ] {
            assert_eq!(FieldKind::of(value).as_str(), kind, "{value}");
        }
    }
}
