//! What must hold of the literals of a query. The errors are Loki's texts, without `parse error : `.

use std::collections::HashSet;

use super::pattern_expr::PatternExpr;
use crate::go::number;
use crate::regex;

/// A pattern that can be compiled.
pub(crate) fn regex(pattern: &[u8]) -> Result<(), String> {
    regex::validate(pattern)
}

/// The pattern of `| regexp`: it names what it extracts, each name once.
pub(crate) fn regexp_parser(pattern: &[u8]) -> Result<(), String> {
    let wrong = |e: String| format!("invalid regexp parser: {e}");
    let names = regex::group_names(pattern).map_err(wrong)?;
    let mut seen = HashSet::new();
    if let Some(name) = names.iter().find(|name| !seen.insert(*name)) {
        return Err(wrong(format!("duplicate extracted label name '{name}'")));
    }
    if names.is_empty() {
        return Err(wrong("at least one named capture must be supplied".to_owned()));
    }
    Ok(())
}

/// The pattern of `| pattern`.
pub(crate) fn pattern_parser(pattern: &[u8]) -> Result<(), String> {
    PatternExpr::parser(pattern).map(|_| ()).map_err(|e| format!("invalid pattern parser: {e}"))
}

/// The value of a number.
pub(crate) fn literal(text: &str) -> Result<f64, String> {
    number::parse_float(text).map_err(|e| format!("unable to parse literal as a float: {e}"))
}
