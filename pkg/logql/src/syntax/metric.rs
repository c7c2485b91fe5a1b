//! Tokens → syntax tree of metric queries.
//!
//! Invariants of a [`Built`]:
//! * its fault is the one that is told if the whole text is well-formed: a node's own before those of its operands, the left
//!   operand's before the right one's;
//! * arithmetic on two literals is a literal.

use pest::iterators::Pair;

use super::operators;
use super::parser::{Builder, Made, Refused, Rule, deeper, next};
use super::token::{Kind, Token, Value};
use super::validate;
use crate::ast::{
    BinOp, BinaryOp, Conversion, Expr, GroupSide, Grouping, LabelReplace, LogExpr, MetricExpr, RangeAggregation,
    RangeOp, Unwrap, VectorAggregation, VectorMatching, VectorOp,
};
use crate::error::Error;
use crate::go::number;

/// An expression, and what is wrong with it beyond its syntax.
pub(crate) struct Built {
    node: Node,
    fault: Option<Error>,
    depth: u32,
}

enum Node {
    Log(LogExpr),
    Metric(MetricExpr),
    /// It has a fault and cannot be held.
    Broken,
}

impl Built {
    fn metric(expr: MetricExpr) -> Self {
        Self { node: Node::Metric(expr), fault: None, depth: 1 }
    }

    fn broken(fault: Error) -> Self {
        Self { node: Node::Broken, fault: Some(fault), depth: 1 }
    }

    fn literal(&self) -> Option<f64> {
        match self.node {
            Node::Metric(MetricExpr::Literal(value)) => Some(value),
            _ => None,
        }
    }

    /// The samples that an aggregation needs.
    fn samples(self) -> Made<Result<(MetricExpr, u32), Error>> {
        match (self.node, self.fault) {
            (Node::Log(_), _) => Err(Refused::Wrong),
            (_, Some(fault)) => Ok(Err(fault)),
            (Node::Metric(expr), None) => Ok(Ok((expr, self.depth))),
            (Node::Broken, None) => Err(Refused::Wrong),
        }
    }

    /// The whole expression, if nothing is wrong with it.
    pub(crate) fn finish(self) -> Made<Result<Expr, Error>> {
        Ok(match (self.node, self.fault) {
            (_, Some(fault)) => Err(fault),
            (Node::Log(log), None) => validate::selector(&log.selector).map(|()| Expr::Log(log)),
            (Node::Metric(metric), None) => Ok(Expr::Metric(metric)),
            (Node::Broken, None) => return Err(Refused::Wrong),
        })
    }

    /// The matchers, if it is nothing but a selector; not validated.
    pub(crate) fn into_selector(self) -> Option<Vec<crate::ast::Matcher>> {
        match self.node {
            Node::Log(log) if log.stages.is_empty() => Some(log.selector),
            _ => None,
        }
    }
}

/// An operator between two operands, as written.
struct Operator {
    op: BinOp,
    return_bool: bool,
    matching: Option<VectorMatching>,
}

impl Builder<'_> {
    pub(crate) fn expr(&self, pair: Pair<'_, Rule>) -> Made<Built> {
        let mut inner = pair.into_inner().peekable();
        let first = self.operand(inner.next().ok_or(Refused::Wrong)?)?;
        let mut rest = Vec::new();
        while let Some(operator) = inner.next() {
            let op = bin_op(self.token(&operator)?.kind)?;
            let modifier = inner.next_if(|pair| pair.as_rule() == Rule::modifier);
            let (return_bool, matching) = modifier.map_or(Ok((false, None)), |modifier| self.modifier(modifier))?;
            let operand = self.operand(inner.next().ok_or(Refused::Wrong)?)?;
            rest.push((Operator { op, return_bool, matching }, operand));
        }
        operators::tree(first, rest, |a, b| operators::binary_binds_before(a.op, b.op), binary)
    }

    fn operand(&self, pair: Pair<'_, Rule>) -> Made<Built> {
        match pair.as_rule() {
            Rule::nested => self.expr(next(&mut pair.into_inner())?),
            Rule::log => Ok(Built { node: Node::Log(self.log(pair)?), fault: None, depth: 1 }),
            Rule::literal => Ok(match self.literal(&pair)? {
                Ok(value) => Built::metric(MetricExpr::Literal(value)),
                Err(e) => {
                    Built { node: Node::Metric(MetricExpr::Literal(0.0)), fault: Some(Error::Invalid(e)), depth: 1 }
                }
            }),
            Rule::vector => {
                let value = number::parse_float(self.token(&next(&mut pair.into_inner())?)?.text);
                Ok(match value {
                    Ok(value) => Built::metric(MetricExpr::VectorLiteral(value)),
                    Err(e) => Built::broken(Error::invalid(format!("unable to parse vectorExpr as a float: {e}"))),
                })
            }
            Rule::range_aggregation => self.range_aggregation(pair),
            Rule::vector_aggregation => self.vector_aggregation(pair),
            Rule::label_replace => self.label_replace(pair),
            _ => Err(Refused::Wrong),
        }
    }

    fn modifier(&self, pair: Pair<'_, Rule>) -> Made<(bool, Option<VectorMatching>)> {
        let mut return_bool = false;
        let mut matching = None;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::return_bool => return_bool = true,
                _ => matching = Some(self.matching(part)?),
            }
        }
        Ok((return_bool, matching))
    }

    fn matching(&self, pair: Pair<'_, Rule>) -> Made<VectorMatching> {
        let mut matching = VectorMatching::default();
        for part in pair.into_inner() {
            match part.as_rule() {
                rule @ (Rule::on | Rule::ignoring) => {
                    matching.on = rule == Rule::on;
                    matching.labels = self.labels(part)?;
                }
                Rule::group_left => matching.group = Some(GroupSide::Left),
                Rule::group_right => matching.group = Some(GroupSide::Right),
                _ => matching.include = self.labels(part)?,
            }
        }
        Ok(matching)
    }

    fn labels(&self, pair: Pair<'_, Rule>) -> Made<Vec<String>> {
        pair.into_inner().map(|label| self.name(&label)).collect()
    }

    fn grouping(&self, pair: Pair<'_, Rule>) -> Made<Grouping> {
        let list = next(&mut pair.into_inner())?;
        Ok(Grouping { without: list.as_rule() == Rule::without, labels: self.labels(list)? })
    }

    fn range_aggregation(&self, pair: Pair<'_, Rule>) -> Made<Built> {
        let mut inner = pair.into_inner();
        let op = range_op(self.token(&next(&mut inner)?)?.kind)?;
        let mut parameter: Option<&Token<'_>> = None;
        let mut log = LogExpr { selector: Vec::new(), stages: Vec::new() };
        let (mut range, mut offset) = (0, 0);
        let mut unwrap = None;
        let mut grouping = None;
        for part in inner {
            match part.as_rule() {
                Rule::number => parameter = Some(self.token(&part)?),
                Rule::selector => log.selector = self.selector(part)?,
                Rule::range => range = nanos(self.token(&part)?)?,
                Rule::shift => offset = nanos(self.last_token(&part)?)?,
                Rule::unwrap => unwrap = Some(self.unwrap(part)?),
                Rule::grouping => grouping = Some(self.grouping(part)?),
                _ => log.stages.push(self.stage(part)?),
            }
        }
        let validated = validate::range(op, parameter.map(|p| p.text), grouping.as_ref(), unwrap.as_ref())
            .and_then(|parameter| validate::selector(&log.selector).map(|()| parameter));
        Ok(match validated {
            Ok(param) => Built::metric(MetricExpr::Range(Box::new(RangeAggregation {
                op,
                param,
                log,
                range: std::time::Duration::from_nanos(u64::try_from(range).map_err(|_| Refused::Wrong)?),
                offset_nanos: offset,
                unwrap,
                grouping,
            }))),
            Err(fault) => Built::broken(fault),
        })
    }

    fn unwrap(&self, pair: Pair<'_, Rule>) -> Made<Unwrap> {
        let mut unwrap = Unwrap { label: String::new(), conversion: None, filters: Vec::new() };
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::conversion => {
                    unwrap.conversion = Some(match self.token(&part)?.kind {
                        Kind::BytesConv => Conversion::Bytes,
                        Kind::DurationConv => Conversion::Duration,
                        Kind::DurationSecondsConv => Conversion::DurationSeconds,
                        _ => return Err(Refused::Wrong),
                    });
                }
                Rule::identifier => unwrap.label = self.name(&part)?,
                _ => unwrap.filters.push(self.label_filter(part)?.0),
            }
        }
        Ok(unwrap)
    }

    fn vector_aggregation(&self, pair: Pair<'_, Rule>) -> Made<Built> {
        let mut inner = pair.into_inner();
        let op = vector_op(self.token(&next(&mut inner)?)?.kind)?;
        let mut parameter: Option<&Token<'_>> = None;
        let mut grouping = None;
        let mut samples = Err(Error::NotLog);
        for part in inner {
            match part.as_rule() {
                Rule::number => parameter = Some(self.token(&part)?),
                Rule::grouping => grouping = Some(self.grouping(part)?),
                _ => samples = self.expr(part)?.samples()?,
            }
        }
        let validated = validate::vector(op, parameter.map(|p| p.text), grouping.as_ref());
        Ok(match validated.and_then(|param| samples.map(|samples| (param, samples))) {
            Ok((param, (inner, depth))) => Built {
                node: Node::Metric(MetricExpr::Vector(Box::new(VectorAggregation { op, param, grouping, inner }))),
                fault: None,
                depth: deeper(depth, 0)?,
            },
            Err(fault) => Built::broken(fault),
        })
    }

    fn label_replace(&self, pair: Pair<'_, Rule>) -> Made<Built> {
        let mut inner = pair.into_inner();
        let samples = self.expr(next(&mut inner)?)?.samples()?;
        let mut text = || self.text(&next(&mut inner)?);
        let (dst, replacement, src, regex) = (text()?, text()?, text()?, text()?);
        self.count_regex()?;
        let validated = validate::replacement(regex.as_bytes()).and(samples);
        Ok(match validated {
            Ok((inner, depth)) => Built {
                node: Node::Metric(MetricExpr::LabelReplace(Box::new(LabelReplace {
                    inner,
                    dst,
                    replacement,
                    src,
                    regex,
                }))),
                fault: None,
                depth: deeper(depth, 0)?,
            },
            Err(fault) => Built::broken(fault),
        })
    }
}

fn binary(left: Built, operator: Operator, right: Built) -> Made<Built> {
    let Operator { op, return_bool, matching } = operator;
    if let Some(fault) = misfit(op, &left, "left").or_else(|| misfit(op, &right, "right")) {
        return Ok(Built::broken(fault));
    }
    let set = matches!(op, BinOp::Or | BinOp::And | BinOp::Unless);
    for (side, name) in [(&left, "left"), (&right, "right")] {
        if let (true, Some(value)) = (set, side.literal()) {
            let msg = format!("unexpected literal for {name} leg of logical/set binary operation ({op}): {value:.6}");
            return Ok(Built::broken(Error::Invalid(msg)));
        }
    }
    let depth = deeper(left.depth, right.depth)?;
    if let Some(fault) = left.fault.or(right.fault) {
        return Ok(Built { node: Node::Broken, fault: Some(fault), depth });
    }
    let (Node::Metric(left), Node::Metric(right)) = (left.node, right.node) else { return Err(Refused::Wrong) };
    if let (MetricExpr::Literal(a), MetricExpr::Literal(b)) = (&left, &right)
        && let Some(value) = operators::fold(op, *a, *b)
    {
        return Ok(Built::metric(MetricExpr::Literal(value)));
    }
    let node = MetricExpr::Binary(Box::new(BinaryOp { op, return_bool, matching, left, right }));
    Ok(Built { node: Node::Metric(node), fault: None, depth })
}

/// Lines are no operand. The names of types are part of Loki's text.
fn misfit(op: BinOp, side: &Built, name: &str) -> Option<Error> {
    let Node::Log(log) = &side.node else { return None };
    let kind = if log.stages.is_empty() { "MatchersExpr" } else { "PipelineExpr" };
    Some(Error::Invalid(format!("unexpected type for {name} leg of binary operation ({op}): *syntax.{kind}")))
}

fn nanos(token: &Token<'_>) -> Made<i64> {
    match token.value {
        Value::Nanos(nanos) => Ok(nanos),
        _ => Err(Refused::Wrong),
    }
}

fn bin_op(kind: Kind) -> Made<BinOp> {
    Ok(match kind {
        Kind::Or => BinOp::Or,
        Kind::And => BinOp::And,
        Kind::Unless => BinOp::Unless,
        Kind::CmpEq => BinOp::Eq,
        Kind::Neq => BinOp::Neq,
        Kind::Gt => BinOp::Gt,
        Kind::Gte => BinOp::Gte,
        Kind::Lt => BinOp::Lt,
        Kind::Lte => BinOp::Lte,
        Kind::Add => BinOp::Add,
        Kind::Sub => BinOp::Sub,
        Kind::Mul => BinOp::Mul,
        Kind::Div => BinOp::Div,
        Kind::Mod => BinOp::Mod,
        Kind::Pow => BinOp::Pow,
        _ => return Err(Refused::Wrong),
    })
}

fn range_op(kind: Kind) -> Made<RangeOp> {
    Ok(match kind {
        Kind::Rate => RangeOp::Rate,
        Kind::RateCounter => RangeOp::RateCounter,
        Kind::CountOverTime => RangeOp::CountOverTime,
        Kind::BytesRate => RangeOp::BytesRate,
        Kind::BytesOverTime => RangeOp::BytesOverTime,
        Kind::AvgOverTime => RangeOp::AvgOverTime,
        Kind::SumOverTime => RangeOp::SumOverTime,
        Kind::MinOverTime => RangeOp::MinOverTime,
        Kind::MaxOverTime => RangeOp::MaxOverTime,
        Kind::StdvarOverTime => RangeOp::StdvarOverTime,
        Kind::StddevOverTime => RangeOp::StddevOverTime,
        Kind::QuantileOverTime => RangeOp::QuantileOverTime,
        Kind::FirstOverTime => RangeOp::FirstOverTime,
        Kind::LastOverTime => RangeOp::LastOverTime,
        Kind::AbsentOverTime => RangeOp::AbsentOverTime,
        _ => return Err(Refused::Wrong),
    })
}

fn vector_op(kind: Kind) -> Made<VectorOp> {
    Ok(match kind {
        Kind::Sum => VectorOp::Sum,
        Kind::Avg => VectorOp::Avg,
        Kind::Min => VectorOp::Min,
        Kind::Max => VectorOp::Max,
        Kind::Count => VectorOp::Count,
        Kind::Stddev => VectorOp::Stddev,
        Kind::Stdvar => VectorOp::Stdvar,
        Kind::Topk => VectorOp::Topk,
        Kind::Bottomk => VectorOp::Bottomk,
        Kind::ApproxTopk => VectorOp::ApproxTopk,
        Kind::Sort => VectorOp::Sort,
        Kind::SortDesc => VectorOp::SortDesc,
        _ => return Err(Refused::Wrong),
    })
}
