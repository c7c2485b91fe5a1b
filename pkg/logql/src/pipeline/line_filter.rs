//! Line filters: `|= "a" or "b"`, `!~ "re"`, `|> "<_> x"`, `|= ip("…")`.
//!
//! Invariants: the operands of `|= |~ |>` are alternatives, those of `!= !~ !>` are all excluded; `ip()` goes with `|=` and `!=`
//! only. [`LineTest::may_match`] is false only if no line within a region can pass.

use memchr::memmem::Finder;

use super::fold::Folded;
use super::ip::IpRange;
use super::pattern_filter::PatternFilter;
use crate::ast::{LineFilter, LineOp, LineOperand};
use crate::regex;
use crate::requirements::texts::{self, Texts};

/// What a line must be.
#[derive(Debug)]
pub(crate) enum LineTest {
    /// Anything.
    Always,
    /// Not empty.
    NonEmpty,
    /// Has these bytes somewhere.
    Contains(Box<Finder<'static>>),
    /// Has a text somewhere, in any case.
    Folded(Folded),
    /// Has an address somewhere.
    Ip(IpRange),
    /// Fits a pattern.
    Fits(Box<PatternFilter>),
    /// Matches somewhere; with bytes that every matching line has.
    Matches(Box<regex::Matcher>, Option<Box<Finder<'static>>>),
    /// Passes one of these.
    Any(Box<[LineTest]>),
    /// Does not pass.
    Not(Box<LineTest>),
}

impl LineTest {
    /// Whether a line passes.
    pub(crate) fn passes(&self, line: &[u8]) -> bool {
        match self {
            Self::Always => true,
            Self::NonEmpty => !line.is_empty(),
            Self::Contains(finder) => finder.find(line).is_some(),
            Self::Folded(text) => text.is_in(line),
            Self::Ip(range) => range.is_in(line),
            Self::Fits(pattern) => pattern.fits(line),
            Self::Matches(regex, _) => regex.is_match(line),
            Self::Any(tests) => tests.iter().any(|t| t.passes(line)),
            Self::Not(test) => !test.passes(line),
        }
    }

    /// False only if no line within the region can pass.
    pub(crate) fn may_match(&self, region: &[u8]) -> bool {
        match self {
            Self::Contains(finder) => finder.find(region).is_some(),
            Self::Fits(pattern) => pattern.longest().is_none_or(|text| text.find(region).is_some()),
            Self::Any(tests) => tests.iter().any(|t| t.may_match(region)),
            Self::Matches(_, Some(text)) => text.find(region).is_some(),
            Self::Always | Self::NonEmpty | Self::Folded(_) | Self::Ip(_) | Self::Matches(_, None) | Self::Not(_) => {
                true
            }
        }
    }

    /// Texts that every line that passes has, one of each.
    pub(crate) fn required(&self) -> Vec<Texts> {
        match self {
            Self::Contains(finder) => vec![Texts::one(finder.needle())],
            Self::Folded(text) => text.required(),
            Self::Fits(pattern) => pattern.texts().map(Texts::one).collect(),
            Self::Matches(regex, _) => regex.required_texts().to_vec(),
            Self::Any(tests) => texts::any_of(tests.iter().map(Self::required)),
            Self::Always | Self::NonEmpty | Self::Ip(_) | Self::Not(_) => Vec::new(),
        }
    }

    /// What is tried first: the lower the cheaper.
    pub(crate) fn cost(&self) -> u8 {
        match self {
            Self::Always | Self::NonEmpty => 0,
            Self::Contains(_) => 1,
            Self::Fits(_) | Self::Folded(_) => 2,
            Self::Ip(_) => 3,
            Self::Matches(..) => 4,
            Self::Any(tests) => tests.iter().map(Self::cost).max().unwrap_or(0),
            Self::Not(test) => test.cost(),
        }
    }
}

/// Compiles a line filter into tests that must all be passed.
pub(crate) fn compile(filter: &LineFilter, out: &mut Vec<LineTest>) -> Result<(), String> {
    let tests = filter.operands.iter().map(|operand| test(filter.op, operand)).collect::<Result<Vec<_>, _>>()?;
    if matches!(filter.op, LineOp::NotContains | LineOp::NotRe | LineOp::NotPattern) {
        out.extend(tests.into_iter().map(|t| LineTest::Not(Box::new(t))));
    } else if tests.iter().any(|t| matches!(t, LineTest::Always)) {
        // Nothing to test: an alternative holds for every line.
    } else if tests.len() == 1 {
        out.extend(tests);
    } else {
        out.push(LineTest::Any(tests.into()));
    }
    Ok(())
}

fn test(op: LineOp, operand: &LineOperand) -> Result<LineTest, String> {
    let text = match (op, operand) {
        (LineOp::Contains | LineOp::NotContains, LineOperand::Ip(pattern)) => {
            return Ok(LineTest::Ip(IpRange::parse(pattern.as_bytes())?));
        }
        (_, LineOperand::Ip(_)) => return Err("ip: invalid operation".to_owned()),
        (_, LineOperand::Text(text)) => text.as_bytes(),
    };
    Ok(match op {
        LineOp::Contains | LineOp::NotContains => match text {
            b"" => LineTest::Always,
            text => LineTest::Contains(Box::new(Finder::new(text).into_owned())),
        },
        LineOp::Re | LineOp::NotRe => match text {
            b"" | b".*" => LineTest::Always,
            // As in Loki, a line feed is something too.
            b".+" => LineTest::NonEmpty,
            text if let Some(texts) = Folded::of_pattern(text) => {
                LineTest::Any(texts.into_iter().map(LineTest::Folded).collect())
            }
            text => {
                let regex = regex::unanchored(text)?;
                let required = regex.required_literal().map(|text| Box::new(Finder::new(text).into_owned()));
                LineTest::Matches(Box::new(regex), required)
            }
        },
        LineOp::Pattern | LineOp::NotPattern => LineTest::Fits(Box::new(PatternFilter::new(text)?)),
    })
}
