//! Text → [`crate::ast`].
//!
//! How a query is read, and what holds at each step:
//! 1. its length is below [`MAX_QUERY_BYTES`];
//! 2. `lexer` makes tokens, with the positions that errors show. It never fails: complaints stay with their token;
//! 3. parentheses are nested at most [`MAX_NESTING`] deep, so `parser` may descend into them;
//! 4. `parser` (pest, `logql.pest`) builds the tree; `validate` looks at what must hold beyond the grammar;
//! 5. only if that fails, `expected` (a table-driven parser, `logql.grammar`) reads the same tokens to say why, with the
//!    words and positions that Loki's parser has.

pub(crate) mod checks;
mod expected;
mod lalr;
mod lexer;
mod metric;
pub(crate) mod operators;
mod parser;
pub mod pattern_expr;
mod scan;
pub(crate) mod simple_regex;
#[cfg(test)]
mod tests;
mod token;
mod validate;

use self::metric::Built;
use self::parser::Refused;
pub(crate) use self::parser::{MAX_DEPTH, MAX_REGEXES};
use self::token::{Kind, Token};
use crate::ast::{Expr, LogExpr, Matcher};
use crate::error::Error;

/// A query must be shorter than this, in bytes.
pub const MAX_QUERY_BYTES: usize = 131_072;

/// How deep parentheses may be nested.
pub const MAX_NESTING: usize = 128;

/// Parses and validates a query.
///
/// # Errors
/// Loki's text and position for whatever is wrong with the query; an error of ours when it is nested too deeply or has too
/// many regular expressions.
pub fn parse(query: &str) -> Result<Expr, Error> {
    read(query, |built| built.finish())
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
    let selector = read(query, |built| Ok(Ok(built.into_selector())))?;
    match selector {
        Some(matchers) if matchers.is_empty() => Ok(matchers),
        _ => parse_selector(query),
    }
}

fn read<T>(query: &str, finish: impl FnOnce(Built) -> Result<Result<T, Error>, Refused>) -> Result<T, Error> {
    if query.len() >= MAX_QUERY_BYTES {
        return Err(Error::invalid(format!("input size too long ({} > {MAX_QUERY_BYTES})", query.len())));
    }
    let tokens = lexer::tokens(query);
    let too_deep = nested_too_deep(&tokens);
    let complaint = tokens.iter().any(|token| token.fault.is_some());
    let refused = if complaint || too_deep.is_some() {
        Refused::Wrong
    } else {
        match parser::build(&tokens).and_then(finish) {
            Ok(outcome) => return outcome,
            Err(refused) => refused,
        }
    };
    expected::explain(&tokens)?;
    Err(match (too_deep, refused) {
        (Some(token), _) => Error::Parse {
            line: token.line,
            col: token.col,
            msg: format!("nested too deeply: more than {MAX_NESTING} parentheses in each other"),
        },
        (None, Refused::Deep) => {
            Error::invalid(format!("nested too deeply: more than {} operators in a row", parser::MAX_DEPTH))
        }
        (None, Refused::Regexes) => {
            Error::invalid(format!("too many regular expressions and templates: more than {}", parser::MAX_REGEXES))
        }
        (None, Refused::Wrong) => Error::invalid("syntax error"),
    })
}

/// The parenthesis that is one too many.
fn nested_too_deep<'a, 't>(tokens: &'a [Token<'t>]) -> Option<&'a Token<'t>> {
    let mut depth = 0_usize;
    tokens.iter().find(|token| {
        match token.kind {
            Kind::OpenParen => depth += 1,
            Kind::CloseParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_NESTING
    })
}
