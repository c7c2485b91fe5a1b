//! Tokens → syntax tree of log queries; those of metric queries are in [`super::metric`].
//!
//! Invariants:
//! * the text that pest reads is the names of the tokens, each followed by a blank: a pair starts where a token starts;
//! * what the tree cannot hold (an unreadable number, a log query where samples are needed) is [`Refused`]; which error that
//!   is, is [`super::expected`]'s to say;
//! * pest descends only into parentheses, whose nesting was bounded before; everything else is a loop here. The depth of the
//!   tree is bounded by [`MAX_DEPTH`], so that whoever walks it may recurse.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Once;

use pest::Parser as _;
use pest::iterators::{Pair, Pairs};

use super::checks;
use super::metric::Built;
use super::operators::{self, Combinator};
use super::token::{Kind, Token, Value};
use crate::ast::{
    CmpOp, Extraction, LabelFilter, LabelFormat, LabelFormatValue, LineFilter, LineOp, LineOperand, LogExpr, MatchOp,
    Matcher, NameOrMatcher, Stage, Text,
};

/// How deep a syntax tree may be: operators in a row, each of which is an operand of the next.
pub(crate) const MAX_DEPTH: u32 = 500;

/// How many regular expressions and templates (which have some) a query may have: compiled, each may take milliseconds and
/// megabytes.
pub(crate) const MAX_REGEXES: u32 = 100;

/// How many rules pest may try. The longest query allowed needs less than a tenth of it.
const MAX_CALLS: usize = 100_000_000;

#[derive(pest_derive::Parser)]
#[grammar = "syntax/logql.pest"]
struct Grammar;

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The text is wrong.
    Wrong,
    /// The tree would be deeper than [`MAX_DEPTH`].
    Deep,
    /// There are more than [`MAX_REGEXES`].
    Regexes,
}

pub(crate) type Made<T> = Result<T, Refused>;

/// Builds the tree of the tokens of a text. Their parentheses must not be nested deeper than pest can descend.
pub(crate) fn build(tokens: &[Token<'_>]) -> Made<Built> {
    static LIMIT: Once = Once::new();
    LIMIT.call_once(|| pest::set_call_limit(NonZeroUsize::new(MAX_CALLS)));
    let mut text = String::new();
    let mut starts = Vec::with_capacity(tokens.len());
    for token in tokens.iter().filter(|token| token.kind != Kind::End) {
        starts.push(text.len());
        text.push_str(token.kind.name());
        text.push(' ');
    }
    let mut pairs = Grammar::parse(Rule::query, &text).map_err(|_| Refused::Wrong)?;
    let builder = Builder { tokens, starts, regexes: Cell::new(0) };
    builder.expr(pairs.next().ok_or(Refused::Wrong)?)
}

/// Makes tree nodes of pest's pairs.
pub(crate) struct Builder<'a> {
    tokens: &'a [Token<'a>],
    starts: Vec<usize>,
    /// How many regular expressions there were so far.
    regexes: Cell<u32>,
}

impl Builder<'_> {
    /// Allows one more regular expression or template.
    pub(crate) fn count_regex(&self) -> Made<()> {
        self.regexes.set(self.regexes.get() + 1);
        if self.regexes.get() > MAX_REGEXES { Err(Refused::Regexes) } else { Ok(()) }
    }

    /// The first token of a pair.
    pub(crate) fn token(&self, pair: &Pair<'_, Rule>) -> Made<&Token<'_>> {
        let index = self.starts.binary_search(&pair.as_span().start()).map_err(|_| Refused::Wrong)?;
        self.tokens.get(index).ok_or(Refused::Wrong)
    }

    /// The last token of a pair.
    pub(crate) fn last_token(&self, pair: &Pair<'_, Rule>) -> Made<&Token<'_>> {
        let end = self.starts.partition_point(|start| *start < pair.as_span().end());
        end.checked_sub(1).and_then(|last| self.tokens.get(last)).ok_or(Refused::Wrong)
    }

    pub(crate) fn name(&self, pair: &Pair<'_, Rule>) -> Made<String> {
        Ok(self.token(pair)?.text.to_owned())
    }

    pub(crate) fn text(&self, pair: &Pair<'_, Rule>) -> Made<Text> {
        Ok(Text(self.token(pair)?.bytes().to_vec()))
    }

    pub(crate) fn log(&self, pair: Pair<'_, Rule>) -> Made<LogExpr> {
        let mut inner = pair.into_inner();
        let selector = self.selector(next(&mut inner)?)?;
        let stages = inner.map(|stage| self.stage(stage)).collect::<Made<_>>()?;
        Ok(LogExpr { selector, stages })
    }

    pub(crate) fn selector(&self, pair: Pair<'_, Rule>) -> Made<Vec<Matcher>> {
        pair.into_inner().map(|matcher| self.matcher(matcher)).collect()
    }

    fn matcher(&self, pair: Pair<'_, Rule>) -> Made<Matcher> {
        let mut inner = pair.into_inner();
        let name = self.name(&next(&mut inner)?)?;
        let op = match self.token(&next(&mut inner)?)?.kind {
            Kind::Eq => MatchOp::Eq,
            Kind::Neq => MatchOp::Neq,
            Kind::Re => MatchOp::Re,
            Kind::NotRe => MatchOp::NotRe,
            _ => return Err(Refused::Wrong),
        };
        let value = self.text(&next(&mut inner)?)?;
        if matches!(op, MatchOp::Re | MatchOp::NotRe) {
            self.count_regex()?;
            checks::regex(value.as_bytes()).map_err(wrong)?;
        }
        Ok(Matcher { name, op, value })
    }

    pub(crate) fn stage(&self, pair: Pair<'_, Rule>) -> Made<Stage> {
        let rule = pair.as_rule();
        if rule == Rule::label_filter {
            return Ok(Stage::Label(self.label_filter(pair)?.0));
        }
        let mut inner = pair.into_inner();
        Ok(match rule {
            Rule::line_filter => Stage::Line(self.line_filter(inner)?),
            Rule::json => Stage::Json(self.extractions(inner)?),
            Rule::logfmt => self.logfmt(inner)?,
            Rule::regexp => {
                self.count_regex()?;
                let pattern = self.text(&next(&mut inner)?)?;
                checks::regexp_parser(pattern.as_bytes()).map_err(wrong)?;
                Stage::Regexp(pattern)
            }
            Rule::pattern => {
                let pattern = self.text(&next(&mut inner)?)?;
                checks::pattern_parser(pattern.as_bytes()).map_err(wrong)?;
                Stage::Pattern(pattern)
            }
            Rule::unpack => Stage::Unpack,
            Rule::decolorize => Stage::Decolorize,
            Rule::line_format => {
                self.count_regex()?;
                Stage::LineFormat(self.text(&next(&mut inner)?)?)
            }
            Rule::label_format => Stage::LabelFormat(inner.map(|item| self.label_format(item)).collect::<Made<_>>()?),
            Rule::drop => Stage::Drop(self.names(inner)?),
            Rule::keep => Stage::Keep(self.names(inner)?),
            _ => return Err(Refused::Wrong),
        })
    }

    fn line_filter(&self, mut inner: Pairs<'_, Rule>) -> Made<LineFilter> {
        let op = match self.token(&next(&mut inner)?)?.kind {
            Kind::PipeEq => LineOp::Contains,
            Kind::Neq => LineOp::NotContains,
            Kind::PipeRe => LineOp::Re,
            Kind::NotRe => LineOp::NotRe,
            Kind::PipePattern => LineOp::Pattern,
            Kind::NotPattern => LineOp::NotPattern,
            _ => return Err(Refused::Wrong),
        };
        let operand = |pair: Pair<'_, Rule>| {
            if matches!(op, LineOp::Re | LineOp::NotRe) {
                self.count_regex()?;
            }
            Ok(match pair.as_rule() {
                Rule::ip => LineOperand::Ip(self.text(&next(&mut pair.into_inner())?)?),
                _ => LineOperand::Text(self.text(&pair)?),
            })
        };
        Ok(LineFilter { op, operands: inner.map(operand).collect::<Made<_>>()? })
    }

    fn logfmt(&self, inner: Pairs<'_, Rule>) -> Made<Stage> {
        let (mut strict, mut keep_empty) = (false, false);
        let mut extractions = Vec::new();
        for pair in inner {
            match pair.as_rule() {
                Rule::flag => match self.token(&pair)?.text {
                    "--strict" => strict = true,
                    _ => keep_empty = true,
                },
                _ => extractions.push(self.extraction(pair)?),
            }
        }
        Ok(Stage::Logfmt { strict, keep_empty, extractions })
    }

    fn extractions(&self, inner: Pairs<'_, Rule>) -> Made<Vec<Extraction>> {
        inner.map(|pair| self.extraction(pair)).collect()
    }

    fn extraction(&self, pair: Pair<'_, Rule>) -> Made<Extraction> {
        let mut inner = pair.into_inner();
        let label = self.name(&next(&mut inner)?)?;
        let expression = match inner.next() {
            Some(expression) => self.text(&expression)?,
            None => Text::from(label.as_str()),
        };
        Ok(Extraction { label, expression })
    }

    fn label_format(&self, pair: Pair<'_, Rule>) -> Made<LabelFormat> {
        let mut inner = pair.into_inner();
        let label = self.name(&next(&mut inner)?)?;
        let value = next(&mut inner)?;
        let value = match value.as_rule() {
            Rule::identifier => LabelFormatValue::Rename(self.name(&value)?),
            _ => {
                self.count_regex()?;
                LabelFormatValue::Template(self.text(&value)?)
            }
        };
        Ok(LabelFormat { label, value })
    }

    fn names(&self, inner: Pairs<'_, Rule>) -> Made<Vec<NameOrMatcher>> {
        inner
            .map(|name| {
                Ok(match name.as_rule() {
                    Rule::matcher => NameOrMatcher::Matcher(self.matcher(name)?),
                    _ => NameOrMatcher::Name(self.name(&name)?),
                })
            })
            .collect()
    }

    /// A label filter and how deep it is.
    pub(crate) fn label_filter(&self, pair: Pair<'_, Rule>) -> Made<(LabelFilter, u32)> {
        let mut inner = pair.into_inner().peekable();
        let first = self.comparison(inner.next().ok_or(Refused::Wrong)?)?;
        let mut rest = Vec::new();
        while let Some(pair) = inner.next() {
            if pair.as_rule() == Rule::combinator {
                let combinator = match self.token(&pair)?.kind {
                    Kind::And => Combinator::And,
                    Kind::Or => Combinator::Or,
                    _ => Combinator::Beside,
                };
                rest.push((combinator, self.comparison(inner.next().ok_or(Refused::Wrong)?)?));
            } else {
                rest.push((Combinator::Beside, self.comparison(pair)?));
            }
        }
        operators::tree(
            first,
            rest,
            |waiting, next| waiting.binds_before(*next),
            |(left, left_depth), combinator, (right, right_depth)| {
                let depth = deeper(left_depth, right_depth)?;
                let (left, right) = (Box::new(left), Box::new(right));
                Ok(match combinator {
                    Combinator::Or => (LabelFilter::Or(left, right), depth),
                    Combinator::And | Combinator::Beside => (LabelFilter::And(left, right), depth),
                })
            },
        )
    }

    fn comparison(&self, pair: Pair<'_, Rule>) -> Made<(LabelFilter, u32)> {
        let filter = match pair.as_rule() {
            Rule::label_filter => return self.label_filter(pair),
            Rule::matcher => LabelFilter::Text(self.matcher(pair)?),
            rule => {
                let mut inner = pair.into_inner();
                let name = self.name(&next(&mut inner)?)?;
                let op = self.token(&next(&mut inner)?)?.kind;
                let value = next(&mut inner)?;
                if rule == Rule::ip_filter {
                    LabelFilter::Ip { name, negated: op == Kind::Neq, pattern: self.text(&value)? }
                } else {
                    self.value_filter(name, cmp_op(op)?, &value)?
                }
            }
        };
        Ok((filter, 1))
    }

    fn value_filter(&self, name: String, op: CmpOp, value: &Pair<'_, Rule>) -> Made<LabelFilter> {
        Ok(match (value.as_rule(), &self.token(value)?.value) {
            (Rule::duration, Value::Nanos(nanos)) => LabelFilter::Duration { name, op, nanos: *nanos },
            (Rule::size, Value::Size(bytes)) => LabelFilter::Bytes { name, op, bytes: *bytes },
            (Rule::literal, _) => LabelFilter::Number { name, op, value: self.literal(value)?.map_err(wrong)? },
            _ => return Err(Refused::Wrong),
        })
    }

    /// A number with or without sign, or why it cannot be read.
    pub(crate) fn literal(&self, pair: &Pair<'_, Rule>) -> Made<Result<f64, String>> {
        let negative = self.token(pair)?.kind == Kind::Sub;
        // `0 - value` rather than `-value`: no query can say `-0` (with nothing between, that is a duration).
        Ok(checks::literal(self.last_token(pair)?.text).map(|value| if negative { 0.0 - value } else { value }))
    }
}

/// The depth of a node above two others.
pub(crate) fn deeper(left: u32, right: u32) -> Made<u32> {
    let depth = left.max(right) + 1;
    if depth > MAX_DEPTH { Err(Refused::Deep) } else { Ok(depth) }
}

pub(crate) fn next<'i>(inner: &mut Pairs<'i, Rule>) -> Made<Pair<'i, Rule>> {
    inner.next().ok_or(Refused::Wrong)
}

fn wrong(_: String) -> Refused {
    Refused::Wrong
}

fn cmp_op(kind: Kind) -> Made<CmpOp> {
    Ok(match kind {
        Kind::Eq | Kind::CmpEq => CmpOp::Eq,
        Kind::Neq => CmpOp::Neq,
        Kind::Gt => CmpOp::Gt,
        Kind::Gte => CmpOp::Gte,
        Kind::Lt => CmpOp::Lt,
        Kind::Lte => CmpOp::Lte,
        _ => return Err(Refused::Wrong),
    })
}
