//! The one spelling of an expression: what `Display` writes is Loki's `String()`.
//!
//! Invariants: what is printed parses again, to the same tree wherever the spelling keeps everything (sizes are rounded, empty
//! groupings of vector aggregations vanish); and printing what was parsed from a print gives that print again. The exceptions
//! are Loki's: matchers of labels that are not ASCII are quoted, and literals may fold to `NaN` or `+Inf`, which no query can
//! say. Errors mention stages in this spelling too.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::ast::{
    BinOp, BinaryOp, CmpOp, Conversion, Expr, Extraction, GroupSide, Grouping, LabelFilter, LabelFormat,
    LabelFormatValue, LabelReplace, LineFilter, LineOp, LineOperand, LogExpr, MatchOp, Matcher, MetricExpr,
    NameOrMatcher, RangeAggregation, RangeOp, Stage, Text, Unwrap, VectorAggregation, VectorMatching, VectorOp,
};
use crate::go::{bytes, duration, number, quote};
use crate::syntax::simple_regex;

/// `a,b,c`.
fn list<T: Display>(f: &mut Formatter<'_>, separator: &str, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// `%f` of Go.
fn fixed(value: f64) -> String {
    number::special(value).map_or_else(|| format!("{value:.6}"), str::to_owned)
}

impl Display for Text {
    /// As a Go string literal.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::quote(&self.0))
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(log) => log.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
        }
    }
}

impl Display for LogExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        list(f, ", ", &self.selector)?;
        f.write_char('}')?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

impl Display for Matcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let legacy = self.name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        if legacy {
            f.write_str(&self.name)?
        } else {
            f.write_str(&quote::quote(&self.name))?
        }
        write!(f, "{}{}", self.op, self.value)
    }
}

impl Display for MatchOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::Neq => "!=",
            Self::Re => "=~",
            Self::NotRe => "!~",
        })
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(filter) => filter.fmt(f),
            Self::Json(extractions) => {
                f.write_str("| json")?;
                extracted(f, extractions)
            }
            Self::Logfmt { strict, keep_empty, extractions } => {
                f.write_str("| logfmt")?;
                f.write_str(if *strict { " --strict" } else { "" })?;
                f.write_str(if *keep_empty { " --keep-empty" } else { "" })?;
                extracted(f, extractions)
            }
            Self::Regexp(pattern) => write!(f, "| regexp {pattern}"),
            Self::Pattern(pattern) => write!(f, "| pattern {pattern}"),
            Self::Unpack => f.write_str("| unpack"),
            Self::LineFormat(template) => write!(f, "| line_format {template}"),
            Self::LabelFormat(items) => {
                f.write_str("| label_format ")?;
                list(f, ",", items)
            }
            Self::Decolorize => f.write_str("| decolorize"),
            Self::Drop(names) => {
                f.write_str("| drop ")?;
                list(f, ",", names)
            }
            Self::Keep(names) => {
                f.write_str("| keep ")?;
                list(f, ",", names)
            }
            Self::Label(filter) => write!(f, "| {filter}"),
        }
    }
}

fn extracted(f: &mut Formatter<'_>, extractions: &[Extraction]) -> fmt::Result {
    if !extractions.is_empty() {
        f.write_char(' ')?;
    }
    list(f, ",", extractions)
}

impl Display for Extraction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.label, self.expression)
    }
}

impl Display for LabelFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.value {
            LabelFormatValue::Rename(source) => write!(f, "{}={source}", self.label),
            LabelFormatValue::Template(template) => write!(f, "{}={template}", self.label),
        }
    }
}

impl Display for NameOrMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Matcher(matcher) => matcher.fmt(f),
        }
    }
}

impl Display for LineFilter {
    /// To exclude one or the other is to exclude both, and so it is written.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let negated = matches!(self.op, LineOp::NotContains | LineOp::NotRe | LineOp::NotPattern);
        for (i, operand) in self.operands.iter().enumerate() {
            match (i, negated) {
                (0, _) => write!(f, "{} {operand}", self.op)?,
                (_, true) => write!(f, " {} {operand}", self.op)?,
                (_, false) => write!(f, " or {operand}")?,
            }
        }
        Ok(())
    }
}

impl Display for LineOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contains => "|=",
            Self::NotContains => "!=",
            Self::Re => "|~",
            Self::NotRe => "!~",
            Self::Pattern => "|>",
            Self::NotPattern => "!>",
        })
    }
}

impl Display for LineOperand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Ip(pattern) => write!(f, "ip({pattern})"),
        }
    }
}

impl Display for LabelFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(matcher) => match std::str::from_utf8(&matcher.value.0) {
                // What Loki runs as a regular expression it shows in back quotes, if it can.
                Ok(pattern)
                    if matcher.op == MatchOp::Re && !pattern.contains('`') && !simple_regex::is_simple(pattern) =>
                {
                    write!(f, "{}=~`{pattern}`", matcher.name)
                }
                _ => matcher.fmt(f),
            },
            Self::Number { name, op, value } => write!(f, "{name}{op}{}", number::format_f(*value)),
            Self::Duration { name, op, nanos } => write!(f, "{name}{op}{}", duration::format_go(*nanos)),
            Self::Bytes { name, op, bytes: size } => {
                write!(f, "{name}{op}{}", bytes::format_humanize(*size).replace(' ', ""))
            }
            Self::Ip { name, negated, pattern } => {
                write!(f, "{name}{}ip({pattern})", if *negated { "!=" } else { "=" })
            }
            Self::And(left, right) => write!(f, "( {left} , {right} )"),
            Self::Or(left, right) => write!(f, "( {left} or {right} )"),
        }
    }
}

impl Display for CmpOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "==",
            Self::Neq => "!=",
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::Lt => "<",
            Self::Lte => "<=",
        })
    }
}

impl Display for MetricExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Vector(vector) => vector.fmt(f),
            Self::Binary(binary) => binary.fmt(f),
            Self::Literal(value) => f.write_str(&number::format_v(*value)),
            Self::VectorLiteral(value) => write!(f, "vector({})", fixed(*value)),
            Self::LabelReplace(replace) => replace.fmt(f),
        }
    }
}

impl Display for RangeAggregation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.op)?;
        if let Some(param) = self.param {
            write!(f, "{},", number::format_f(param))?;
        }
        self.log.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        write!(f, "[{}]", duration::format_prometheus(self.range))?;
        if self.offset_nanos != 0 {
            write!(f, " offset {}", duration::format_go(self.offset_nanos))?;
        }
        f.write_char(')')?;
        self.grouping.iter().try_for_each(|grouping| write!(f, " {grouping}"))
    }
}

impl Display for Unwrap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.conversion {
            None => write!(f, "| unwrap {}", self.label)?,
            Some(conversion) => write!(f, "| unwrap {conversion}({})", self.label)?,
        }
        self.filters.iter().try_for_each(|filter| write!(f, " | {filter}"))
    }
}

impl Display for Conversion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Duration => "duration",
            Self::DurationSeconds => "duration_seconds",
        })
    }
}

impl Display for Grouping {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.without { "without (" } else { "by (" })?;
        list(f, ",", &self.labels)?;
        f.write_char(')')
    }
}

impl Display for VectorAggregation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if let Some(grouping) = self.grouping.as_ref().filter(|g| g.without || !g.labels.is_empty()) {
            write!(f, " {grouping}")?;
        }
        f.write_char('(')?;
        if let Some(param) = self.param {
            write!(f, "{param},")?;
        }
        write!(f, "{})", self.inner)
    }
}

impl Display for BinaryOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "({} {}", self.left, self.op)?;
        f.write_str(if self.return_bool { " bool" } else { "" })?;
        if let Some(matching) = self.matching.as_ref().filter(|m| m.on || !m.labels.is_empty()) {
            write!(f, " {matching}")?;
            f.write_str(if self.needs_empty_include() { " ()" } else { "" })?;
        }
        write!(f, " {})", self.right)
    }
}

impl BinaryOp {
    /// Whether the parenthesis of the right operand would be read as the labels of `group_left`, were there none before it.
    pub(crate) fn needs_empty_include(&self) -> bool {
        let bare =
            self.matching.as_ref().is_some_and(|matching| matching.group.is_some() && matching.include.is_empty());
        bare && matches!(self.right, MetricExpr::Binary(_))
    }
}

impl Display for VectorMatching {
    /// Ends with a blank if nothing is grouped, as Loki has it.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.on { "on (" } else { "ignoring (" })?;
        list(f, ",", &self.labels)?;
        f.write_str(") ")?;
        if let Some(group) = self.group {
            write!(f, "{group}")?;
            if !self.include.is_empty() {
                f.write_str(" (")?;
                list(f, ",", &self.include)?;
                f.write_char(')')?;
            }
        }
        Ok(())
    }
}

impl Display for GroupSide {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "group_left",
            Self::Right => "group_right",
        })
    }
}

impl Display for LabelReplace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { inner, dst, replacement, src, regex } = self;
        write!(f, "label_replace({inner},{dst},{replacement},{src},{regex})")
    }
}

impl Display for RangeOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "rate",
            Self::RateCounter => "rate_counter",
            Self::CountOverTime => "count_over_time",
            Self::BytesRate => "bytes_rate",
            Self::BytesOverTime => "bytes_over_time",
            Self::AvgOverTime => "avg_over_time",
            Self::SumOverTime => "sum_over_time",
            Self::MinOverTime => "min_over_time",
            Self::MaxOverTime => "max_over_time",
            Self::StdvarOverTime => "stdvar_over_time",
            Self::StddevOverTime => "stddev_over_time",
            Self::QuantileOverTime => "quantile_over_time",
            Self::FirstOverTime => "first_over_time",
            Self::LastOverTime => "last_over_time",
            Self::AbsentOverTime => "absent_over_time",
        })
    }
}

impl Display for VectorOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::ApproxTopk => "approx_topk",
            Self::Sort => "sort",
            Self::SortDesc => "sort_desc",
        })
    }
}

impl Display for BinOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Unless => "unless",
            Self::Eq => "==",
            Self::Neq => "!=",
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        })
    }
}
