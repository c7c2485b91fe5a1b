//! The matchers of a stream selector: all must hold; a label that is missing has the value `""`. Regular expressions are
//! anchored at both ends and `.` matches newlines.

use tailwater_model::Labels;

use crate::ast::{self, MatchOp};
use crate::portable::Portable as _;
use crate::{Error, regex};

/// A stream selector, compiled.
#[derive(Debug)]
pub struct Matchers(Box<[Matcher]>);

#[derive(Debug)]
struct Matcher {
    source: ast::Matcher,
    test: ValueTest,
}

/// What a label's value must be.
#[derive(Debug)]
pub(crate) enum ValueTest {
    Any,
    NonEmpty,
    Equal(Box<[u8]>),
    NotEqual(Box<[u8]>),
    Matches(regex::Matcher),
    MatchesNot(regex::Matcher),
    Nothing,
}

impl ValueTest {
    /// The test of a matcher as selectors, `drop` and `keep` have it: `.` matches line feeds.
    pub(crate) fn selector(matcher: &ast::Matcher) -> Result<Self, String> {
        Self::new(matcher, true)
    }

    /// The test of a matcher as label filters have it: `.` does not match line feeds, but `.*` alone means anything and `.+`
    /// alone anything but nothing.
    pub(crate) fn label_filter(matcher: &ast::Matcher) -> Result<Self, String> {
        Ok(match (matcher.op, matcher.value.as_bytes()) {
            (MatchOp::Re, b".*") => Self::Any,
            (MatchOp::NotRe, b".*") => Self::Nothing,
            (MatchOp::Re, b".+") => Self::NonEmpty,
            (MatchOp::NotRe, b".+") => Self::Equal(Box::default()),
            _ => Self::new(matcher, false)?,
        })
    }

    fn new(matcher: &ast::Matcher, dot_all: bool) -> Result<Self, String> {
        let value = matcher.value.as_bytes();
        Ok(match matcher.op {
            MatchOp::Eq => Self::Equal(value.into()),
            MatchOp::Neq => Self::NotEqual(value.into()),
            MatchOp::Re => Self::Matches(regex::anchored(value, dot_all)?),
            MatchOp::NotRe => Self::MatchesNot(regex::anchored(value, dot_all)?),
        })
    }

    /// Whether a value passes; a missing label has the value `""`.
    pub(crate) fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::NonEmpty => !value.is_empty(),
            Self::Equal(want) => **want == *value,
            Self::NotEqual(want) => **want != *value,
            Self::Matches(regex) => regex.is_match(value),
            Self::MatchesNot(regex) => !regex.is_match(value),
            Self::Nothing => false,
        }
    }
}

impl Matchers {
    /// Compiles matchers, in the order written.
    ///
    /// # Errors
    /// A regular expression is too large.
    pub fn new(matchers: &[ast::Matcher]) -> Result<Self, Error> {
        let compile =
            |m: &ast::Matcher| Ok(Matcher { source: m.clone(), test: ValueTest::selector(m).map_err(Error::Invalid)? });
        Ok(Self(matchers.iter().map(compile).collect::<Result<_, Error>>()?))
    }

    /// Compiles what [`Matchers::to_bytes`] made, possibly in another process.
    ///
    /// # Errors
    /// The bytes are not such; otherwise as [`Matchers::new`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::new(&Vec::<ast::Matcher>::from_bytes(bytes)?)
    }

    /// The matchers as bytes, exactly.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.iter().cloned().collect::<Vec<_>>().to_bytes()
    }

    /// Whether a stream with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|m| m.test.passes(labels.get(&m.source.name).unwrap_or_default().as_bytes()))
    }

    /// The matchers, in the order written.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ast::Matcher> {
        self.0.iter().map(|m| &m.source)
    }

    /// Names and values that a selected stream must have.
    pub fn equality(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|m| m.op == MatchOp::Eq).filter_map(|m| {
            let value = std::str::from_utf8(m.value.as_bytes()).ok()?;
            (!value.is_empty()).then_some((m.name.as_str(), value))
        })
    }
}
