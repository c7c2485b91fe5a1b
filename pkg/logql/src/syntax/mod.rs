//! Text → [`crate::ast`]. See [`parse`].

pub mod pattern_expr;

use crate::ast::{Expr, LogExpr, Matcher};
use crate::error::Error;

/// Parses and validates a query.
///
/// # Errors
/// Loki's text and position for whatever is wrong with the query.
pub fn parse(query: &str) -> Result<Expr, Error> {
    Err(Error::Parse { line: 1, col: 1, msg: format!("the grammar is not there yet ({} bytes)", query.len()) })
}

/// Parses a query that must answer log lines.
///
/// # Errors
/// As [`parse`]; [`Error::NotLog`] for a metric query.
pub fn parse_log(query: &str) -> Result<LogExpr, Error> {
    match parse(query)? {
        Expr::Log(log) => Ok(log),
        Expr::Metric(_) => Err(Error::NotLog),
    }
}

/// Parses a bare stream selector.
///
/// # Errors
/// As [`parse`]; [`Error::NotMatchers`] for anything but a selector without a pipeline.
pub fn parse_selector(query: &str) -> Result<Vec<Matcher>, Error> {
    match parse(query)? {
        Expr::Log(log) if log.stages.is_empty() => Ok(log.selector),
        _ => Err(Error::NotMatchers),
    }
}

/// As [`parse_selector`], but `{}` is allowed and selects everything.
///
/// # Errors
/// As [`parse_selector`].
pub fn parse_match(query: &str) -> Result<Vec<Matcher>, Error> {
    parse_selector(query)
}
