//! Label filters: `| level="error" and status >= 500 or addr = ip("10.0.0.0/8")`.
//!
//! Invariants:
//! * A text filter takes a missing label for an empty one; every other filter stops a line that lacks the label.
//! * A value that cannot be read as what it is compared with sets `__error__` and lets the line pass. An error that is there
//!   already is kept.
//! * `or` does not look at its right side when its left side holds; `and` always looks at both, for the errors' sake.

use super::ip::IpRange;
use super::labels::LineLabels;
use super::names::{self, NameId};
use crate::ast::{self, CmpOp};
use crate::go;
use crate::matchers::ValueTest;

/// What `__error__` says of a value that cannot be read.
const ERROR: &str = "LabelFilterErr";

/// Deepest nesting that is compiled.
const MAX_DEPTH: usize = 1_000;

/// A compiled filter.
#[derive(Debug)]
pub(crate) enum Filter {
    Text { name: NameId, test: ValueTest },
    Number { name: NameId, op: CmpOp, value: f64 },
    Duration { name: NameId, op: CmpOp, nanos: i64 },
    Bytes { name: NameId, op: CmpOp, bytes: u64 },
    Ip { name: NameId, negated: bool, range: IpRange },
    And(Box<[Filter]>),
    Or(Box<[Filter]>),
}

impl Filter {
    /// Compiles a filter; `intern` numbers the names it looks at.
    pub(crate) fn new(filter: &ast::LabelFilter, intern: &mut impl FnMut(&str) -> NameId) -> Result<Self, String> {
        Self::at_depth(filter, intern, 0)
    }

    fn at_depth(
        filter: &ast::LabelFilter,
        intern: &mut impl FnMut(&str) -> NameId,
        depth: usize,
    ) -> Result<Self, String> {
        if depth > MAX_DEPTH {
            return Err(format!("label filters are nested more than {MAX_DEPTH} deep"));
        }
        Ok(match filter {
            ast::LabelFilter::Text(m) => Self::Text { name: intern(&m.name), test: ValueTest::label_filter(m)? },
            ast::LabelFilter::Number { name, op, value } => Self::Number { name: intern(name), op: *op, value: *value },
            ast::LabelFilter::Duration { name, op, nanos } => {
                Self::Duration { name: intern(name), op: *op, nanos: *nanos }
            }
            ast::LabelFilter::Bytes { name, op, bytes } => {
                Self::Bytes { name: intern(name), op: *op, bytes: printed(*bytes) }
            }
            ast::LabelFilter::Ip { name, negated, pattern } => {
                Self::Ip { name: intern(name), negated: *negated, range: IpRange::parse(pattern.as_bytes())? }
            }
            ast::LabelFilter::And(..) => {
                let mut parts = Vec::new();
                chain(filter, &mut parts, |f| match f {
                    ast::LabelFilter::And(a, b) => Some((a, b)),
                    _ => None,
                });
                let parts = parts.into_iter().map(|f| Self::at_depth(f, intern, depth + 1));
                Self::And(parts.collect::<Result<_, _>>()?)
            }
            ast::LabelFilter::Or(..) => {
                let mut parts = Vec::new();
                chain(filter, &mut parts, |f| match f {
                    ast::LabelFilter::Or(a, b) => Some((a, b)),
                    _ => None,
                });
                let parts = parts.into_iter().map(|f| Self::at_depth(f, intern, depth + 1));
                Self::Or(parts.collect::<Result<_, _>>()?)
            }
        })
    }

    /// Whether the line goes on.
    pub(crate) fn passes(&self, labels: &mut LineLabels) -> bool {
        match self {
            Self::Text { name: names::ERROR, test } => test.passes(labels.error().as_bytes()),
            Self::Text { name, test } => test.passes(labels.get(*name).unwrap_or_default().as_bytes()),
            Self::Number { name, op, value } => {
                compare(labels, *name, go::number::parse_float, |v| holds(*op, &v, value))
            }
            Self::Duration { name, op, nanos } => {
                compare(labels, *name, go::duration::parse_go, |v| holds(*op, &v, nanos))
            }
            Self::Bytes { name, op, bytes } => {
                compare(labels, *name, go::bytes::parse_humanize, |v| holds(*op, &v, bytes))
            }
            Self::Ip { .. } if !labels.error().is_empty() => true,
            Self::Ip { name, negated, range } => {
                labels.get(*name).is_some_and(|value| range.is_in(value.as_bytes()) != *negated)
            }
            Self::And(parts) => {
                let mut all = true;
                for part in parts {
                    all &= part.passes(labels);
                }
                all
            }
            Self::Or(parts) => parts.iter().any(|part| part.passes(labels)),
        }
    }
}

/// A size as it is after it was printed and read: queries that print the same mean the same, and sizes are printed rounded.
fn printed(bytes: u64) -> u64 {
    go::bytes::parse_humanize(&go::bytes::format_humanize(bytes)).unwrap_or(bytes)
}

/// The operands of a chain of one operator, in the order written.
fn chain<'a>(
    filter: &'a ast::LabelFilter,
    out: &mut Vec<&'a ast::LabelFilter>,
    split: impl Fn(&'a ast::LabelFilter) -> Option<(&'a ast::LabelFilter, &'a ast::LabelFilter)>,
) {
    let mut open = vec![filter];
    while let Some(next) = open.pop() {
        match split(next) {
            Some((left, right)) => open.extend([right, left]),
            None => out.push(next),
        }
    }
}

fn compare<T>(
    labels: &mut LineLabels,
    name: NameId,
    read: impl Fn(&str) -> Result<T, String>,
    holds: impl Fn(T) -> bool,
) -> bool {
    match labels.get(name).map(read) {
        None => false,
        Some(Ok(value)) => holds(value),
        Some(Err(details)) => {
            if labels.error().is_empty() {
                labels.set_error(ERROR, &details);
            }
            true
        }
    }
}

fn holds<T: PartialOrd>(op: CmpOp, left: &T, right: &T) -> bool {
    match op {
        CmpOp::Eq => left == right,
        CmpOp::Neq => left != right,
        CmpOp::Gt => left > right,
        CmpOp::Gte => left >= right,
        CmpOp::Lt => left < right,
        CmpOp::Lte => left <= right,
    }
}
