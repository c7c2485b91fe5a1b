//! Line filters.

use memchr::memmem::Finder;

use crate::ast::{LineFilter, LineOp, LineOperand};

/// What a line must be.
#[derive(Debug)]
pub(crate) enum LineTest {
    /// Has these bytes somewhere.
    Contains(Box<Finder<'static>>),
    /// Matches somewhere.
    Matches(::regex::bytes::Regex),
    /// Passes one of these.
    Any(Box<[LineTest]>),
    /// Does not pass.
    Not(Box<LineTest>),
}

impl LineTest {
    /// Whether a line passes.
    pub(crate) fn passes(&self, line: &[u8]) -> bool {
        match self {
            Self::Contains(finder) => finder.find(line).is_some(),
            Self::Matches(regex) => regex.is_match(line),
            Self::Any(tests) => tests.iter().any(|t| t.passes(line)),
            Self::Not(test) => !test.passes(line),
        }
    }

    /// False only if no line within the region can pass.
    pub(crate) fn may_match(&self, region: &[u8]) -> bool {
        match self {
            Self::Contains(finder) => finder.find(region).is_some(),
            Self::Any(tests) => tests.iter().any(|t| t.may_match(region)),
            Self::Matches(_) | Self::Not(_) => true,
        }
    }
}

/// Compiles a line filter into tests that must all be passed.
pub(crate) fn compile(filter: &LineFilter, out: &mut Vec<LineTest>) -> Result<(), String> {
    let mut tests = Vec::with_capacity(filter.operands.len());
    for operand in &filter.operands {
        let LineOperand::Text(text) = operand else { return Err("not supported".into()) };
        tests.push(match filter.op {
            LineOp::Contains | LineOp::NotContains => {
                LineTest::Contains(Box::new(Finder::new(text.as_bytes()).into_owned()))
            }
            LineOp::Re | LineOp::NotRe => {
                LineTest::Matches(::regex::bytes::Regex::new(&text.to_str_lossy()).map_err(|e| e.to_string())?)
            }
            LineOp::Pattern | LineOp::NotPattern => return Err("not supported".into()),
        });
    }
    if matches!(filter.op, LineOp::NotContains | LineOp::NotRe | LineOp::NotPattern) {
        out.extend(tests.into_iter().map(|t| LineTest::Not(Box::new(t))));
    } else if tests.len() == 1 {
        out.append(&mut tests);
    } else {
        out.push(LineTest::Any(tests.into()));
    }
    Ok(())
}
