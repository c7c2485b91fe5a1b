//! Why a query was refused. The texts are Loki's, byte for byte, because clients show and compare them; HTTP answers each of
//! them with 400.

use std::fmt;

/// Why a query was refused. `Display` is the text that the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not LogQL. `line` is 0 when the offending token needed look-ahead, both are 0 when there is no position.
    #[error("parse error{}: {msg}", Position(*.line, *.col))]
    Parse {
        /// Line, 1-based; 0 where Loki says 0.
        line: u32,
        /// Column in characters, 1-based.
        col: u32,
        /// What is wrong.
        msg: String,
    },
    /// The text is LogQL, but not a query that can be answered.
    #[error("parse error : {0}")]
    Invalid(String),
    /// A stage of the pipeline cannot be built.
    #[error("parse error : stage '{stage}' : {msg}")]
    Stage {
        /// The stage, as LogQL prints it.
        stage: String,
        /// What is wrong.
        msg: String,
    },
    /// A metric query where only a log query has a meaning.
    #[error("only log selector is supported")]
    NotLog,
    /// More than a selector where only a selector has a meaning.
    #[error("only label matchers are supported")]
    NotMatchers,
}

impl Error {
    /// A query that is well-formed, but refused.
    pub(crate) fn invalid(msg: impl Into<String>) -> Self {
        Self::Invalid(msg.into())
    }
}

struct Position(u32, u32);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (0, 0) => f.write_str(" "),
            (line, col) => write!(f, " at line {line}, col {col}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_told_unless_there_is_none() {
        let at = |line, col| Error::Parse { line, col, msg: "m".into() }.to_string();
        assert_eq!(at(3, 7), "parse error at line 3, col 7: m");
        assert_eq!(at(0, 7), "parse error at line 0, col 7: m");
        assert_eq!(at(0, 0), "parse error : m");
        assert_eq!(
            Error::Stage { stage: "| json".into(), msg: "m".into() }.to_string(),
            "parse error : stage '| json' : m"
        );
    }
}
