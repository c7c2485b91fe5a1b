//! The matchers of a stream selector: all must hold; a label that is missing has the value `""`. Regular expressions are
//! anchored at both ends and `.` matches newlines.

use tailwater_model::Labels;

use crate::Error;
use crate::ast::{self, MatchOp};

/// A stream selector, compiled.
#[derive(Clone, Debug)]
pub struct Matchers(Box<[Matcher]>);

#[derive(Clone, Debug)]
struct Matcher {
    source: ast::Matcher,
    test: ValueTest,
}

/// What a label's value must be.
#[derive(Clone, Debug)]
pub(crate) enum ValueTest {
    Equal(Box<[u8]>),
    NotEqual(Box<[u8]>),
    Matches(::regex::bytes::Regex),
    MatchesNot(::regex::bytes::Regex),
}

impl ValueTest {
    /// Compiles the test of one matcher, with regular expressions as selectors have them.
    pub(crate) fn new(matcher: &ast::Matcher) -> Result<Self, Error> {
        let regex = || {
            ::regex::bytes::Regex::new(&format!("^(?s:{})$", matcher.value.to_str_lossy()))
                .map_err(|e| Error::Invalid(e.to_string()))
        };
        Ok(match matcher.op {
            MatchOp::Eq => Self::Equal(matcher.value.as_bytes().into()),
            MatchOp::Neq => Self::NotEqual(matcher.value.as_bytes().into()),
            MatchOp::Re => Self::Matches(regex()?),
            MatchOp::NotRe => Self::MatchesNot(regex()?),
        })
    }

    /// Whether a value passes; a missing label has the value `""`.
    pub(crate) fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Equal(want) => **want == *value,
            Self::NotEqual(want) => **want != *value,
            Self::Matches(regex) => regex.is_match(value),
            Self::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

impl Matchers {
    /// Compiles matchers, in the order written.
    ///
    /// # Errors
    /// A regular expression is too large.
    pub fn new(matchers: &[ast::Matcher]) -> Result<Self, Error> {
        let compile = |m: &ast::Matcher| Ok(Matcher { source: m.clone(), test: ValueTest::new(m)? });
        Ok(Self(matchers.iter().map(compile).collect::<Result<_, Error>>()?))
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
