//! Syntax trees as bytes. Trees that are taken from bytes obey the bounds that the parser holds: their depth, and how many regular expressions
//! they have, each of which is checked as the parser does.

use std::time::Duration;

use super::{Malformed, Source, put_bytes, put_float, put_number, put_signed};
use crate::ast::{
    CmpOp, Conversion, Extraction, Grouping, LabelFilter, LabelFormat, LabelFormatValue, LineFilter, LineOp,
    LineOperand, LogExpr, MatchOp, Matcher, NameOrMatcher, RangeAggregation, RangeOp, Stage, Text, Unwrap,
};
use crate::syntax::{MAX_DEPTH, MAX_REGEXES, checks};

/// The version of the format of queries.
const VERSION: u8 = 1;

/// Something that can be put into bytes and taken out again.
pub(crate) trait Portable: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn read(from: &mut Source<'_>) -> Result<Self, Malformed>;

    /// All by itself, after the version.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.put(&mut out);
        out
    }

    /// What [`Portable::to_bytes`] made.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Source::new(bytes, VERSION)?;
        let made = Self::read(&mut from)?;
        from.end()?;
        Ok(made)
    }
}

/// Variants without fields, by number. The order is part of the format.
macro_rules! by_number {
    ($type:ident: $($variant:ident),+ $(,)?) => {
        impl Portable for $type {
            fn put(&self, out: &mut Vec<u8>) {
                const ALL: &[$type] = &[$($type::$variant),+];
                out.push(ALL.iter().position(|one| one == self).unwrap_or(ALL.len()) as u8);
            }

            fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
                const ALL: &[$type] = &[$($type::$variant),+];
                ALL.get(usize::from(from.byte()?)).copied().ok_or(Malformed("no such operator"))
            }
        }
    };
}

by_number!(MatchOp: Eq, Neq, Re, NotRe);
by_number!(CmpOp: Eq, Neq, Gt, Gte, Lt, Lte);
by_number!(LineOp: Contains, NotContains, Re, NotRe, Pattern, NotPattern);
by_number!(Conversion: Bytes, Duration, DurationSeconds);
by_number!(
    RangeOp: Rate, RateCounter, CountOverTime, BytesRate, BytesOverTime, AvgOverTime, SumOverTime, MinOverTime,
    MaxOverTime, StdvarOverTime, StddevOverTime, QuantileOverTime, FirstOverTime, LastOverTime, AbsentOverTime,
);

impl<T: Portable> Portable for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.len() as u64);
        self.iter().for_each(|one| one.put(out));
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        (0..from.count()?).map(|_| T::read(from)).collect()
    }
}

impl<T: Portable> Portable for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(one) = self {
            one.put(out);
        }
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        if from.flag()? { T::read(from).map(Some) } else { Ok(None) }
    }
}

impl Portable for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_float(out, *self);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        from.float()
    }
}

impl Portable for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        std::str::from_utf8(from.bytes()?).map(str::to_owned).map_err(|_| Malformed("a name is not UTF-8"))
    }
}

impl Portable for Text {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.0);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        from.bytes().map(|bytes| Self(bytes.to_vec()))
    }
}

/// Allows one more regular expression or template.
fn count_regex(from: &mut Source<'_>) -> Result<(), Malformed> {
    from.regexes += 1;
    if from.regexes > MAX_REGEXES { Err(Malformed("too many regular expressions")) } else { Ok(()) }
}

impl Portable for Matcher {
    fn put(&self, out: &mut Vec<u8>) {
        self.name.put(out);
        self.op.put(out);
        self.value.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        let matcher = Self { name: String::read(from)?, op: MatchOp::read(from)?, value: Text::read(from)? };
        if matches!(matcher.op, MatchOp::Re | MatchOp::NotRe) {
            count_regex(from)?;
            checks::regex(matcher.value.as_bytes()).map_err(|_| Malformed("a bad regular expression"))?;
        }
        Ok(matcher)
    }
}

impl Portable for LogExpr {
    fn put(&self, out: &mut Vec<u8>) {
        self.selector.put(out);
        self.stages.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { selector: Vec::read(from)?, stages: Vec::read(from)? })
    }
}

impl Portable for Stage {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Line(filter) => {
                out.push(0);
                filter.put(out);
            }
            Self::Json(extractions) => {
                out.push(1);
                extractions.put(out);
            }
            Self::Logfmt { strict, keep_empty, extractions } => {
                out.extend_from_slice(&[2, u8::from(*strict), u8::from(*keep_empty)]);
                extractions.put(out);
            }
            Self::Regexp(text) => {
                out.push(3);
                text.put(out);
            }
            Self::Pattern(text) => {
                out.push(4);
                text.put(out);
            }
            Self::Unpack => out.push(5),
            Self::LineFormat(text) => {
                out.push(6);
                text.put(out);
            }
            Self::LabelFormat(items) => {
                out.push(7);
                items.put(out);
            }
            Self::Decolorize => out.push(8),
            Self::Drop(names) => {
                out.push(9);
                names.put(out);
            }
            Self::Keep(names) => {
                out.push(10);
                names.put(out);
            }
            Self::Label(filter) => {
                out.push(11);
                filter.put(out);
            }
        }
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            0 => Self::Line(LineFilter::read(from)?),
            1 => Self::Json(Vec::read(from)?),
            2 => Self::Logfmt { strict: from.flag()?, keep_empty: from.flag()?, extractions: Vec::read(from)? },
            3 => {
                count_regex(from)?;
                let text = Text::read(from)?;
                checks::regexp_parser(text.as_bytes()).map_err(|_| Malformed("a bad regular expression"))?;
                Self::Regexp(text)
            }
            4 => {
                let text = Text::read(from)?;
                checks::pattern_parser(text.as_bytes()).map_err(|_| Malformed("a bad pattern"))?;
                Self::Pattern(text)
            }
            5 => Self::Unpack,
            6 => {
                count_regex(from)?;
                Self::LineFormat(Text::read(from)?)
            }
            7 => Self::LabelFormat(Vec::read(from)?),
            8 => Self::Decolorize,
            9 => Self::Drop(Vec::read(from)?),
            10 => Self::Keep(Vec::read(from)?),
            11 => Self::Label(LabelFilter::read(from)?),
            _ => return Err(Malformed("no such stage")),
        })
    }
}

impl Portable for LineFilter {
    fn put(&self, out: &mut Vec<u8>) {
        self.op.put(out);
        self.operands.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        let (op, operands) = (LineOp::read(from)?, Vec::read(from)?);
        if operands.is_empty() {
            return Err(Malformed("a filter of nothing"));
        }
        if matches!(op, LineOp::Re | LineOp::NotRe) {
            operands.iter().try_for_each(|_: &LineOperand| count_regex(from))?;
        }
        Ok(Self { op, operands })
    }
}

impl Portable for LineOperand {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, text) = match self {
            Self::Text(text) => (0, text),
            Self::Ip(text) => (1, text),
        };
        out.push(kind);
        text.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        let ip = from.flag()?;
        let text = Text::read(from)?;
        Ok(if ip { Self::Ip(text) } else { Self::Text(text) })
    }
}

impl Portable for Extraction {
    fn put(&self, out: &mut Vec<u8>) {
        self.label.put(out);
        self.expression.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { label: String::read(from)?, expression: Text::read(from)? })
    }
}

impl Portable for LabelFormat {
    fn put(&self, out: &mut Vec<u8>) {
        self.label.put(out);
        match &self.value {
            LabelFormatValue::Rename(name) => {
                out.push(0);
                name.put(out);
            }
            LabelFormatValue::Template(text) => {
                out.push(1);
                text.put(out);
            }
        }
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        let label = String::read(from)?;
        let value = if from.flag()? {
            count_regex(from)?;
            LabelFormatValue::Template(Text::read(from)?)
        } else {
            LabelFormatValue::Rename(String::read(from)?)
        };
        Ok(Self { label, value })
    }
}

impl Portable for NameOrMatcher {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Name(name) => {
                out.push(0);
                name.put(out);
            }
            Self::Matcher(matcher) => {
                out.push(1);
                matcher.put(out);
            }
        }
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(if from.flag()? { Self::Matcher(Matcher::read(from)?) } else { Self::Name(String::read(from)?) })
    }
}

impl Portable for LabelFilter {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(matcher) => {
                out.push(0);
                matcher.put(out);
            }
            Self::Number { name, op, value } => {
                out.push(1);
                name.put(out);
                op.put(out);
                put_float(out, *value);
            }
            Self::Duration { name, op, nanos } => {
                out.push(2);
                name.put(out);
                op.put(out);
                put_signed(out, *nanos);
            }
            Self::Bytes { name, op, bytes } => {
                out.push(3);
                name.put(out);
                op.put(out);
                put_number(out, *bytes);
            }
            Self::Ip { name, negated, pattern } => {
                out.push(4);
                name.put(out);
                out.push(u8::from(*negated));
                pattern.put(out);
            }
            Self::And(left, right) | Self::Or(left, right) => {
                out.push(if matches!(self, Self::And(..)) { 5 } else { 6 });
                left.put(out);
                right.put(out);
            }
        }
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            0 => Self::Text(Matcher::read(from)?),
            1 => Self::Number { name: String::read(from)?, op: CmpOp::read(from)?, value: from.float()? },
            2 => Self::Duration { name: String::read(from)?, op: CmpOp::read(from)?, nanos: from.signed()? },
            3 => Self::Bytes { name: String::read(from)?, op: CmpOp::read(from)?, bytes: from.number()? },
            4 => Self::Ip { name: String::read(from)?, negated: from.flag()?, pattern: Text::read(from)? },
            kind @ (5 | 6) => {
                from.depth += 1;
                if from.depth > MAX_DEPTH {
                    return Err(Malformed("nested too deeply"));
                }
                let (left, right) = (Box::new(Self::read(from)?), Box::new(Self::read(from)?));
                from.depth -= 1;
                if kind == 5 { Self::And(left, right) } else { Self::Or(left, right) }
            }
            _ => return Err(Malformed("no such filter")),
        })
    }
}

impl Portable for Grouping {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.without));
        self.labels.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { without: from.flag()?, labels: Vec::read(from)? })
    }
}

impl Portable for Unwrap {
    fn put(&self, out: &mut Vec<u8>) {
        self.label.put(out);
        self.conversion.put(out);
        self.filters.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { label: String::read(from)?, conversion: Option::read(from)?, filters: Vec::read(from)? })
    }
}

impl Portable for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.as_secs());
        put_number(out, self.subsec_nanos().into());
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        let (seconds, nanos) = (from.number()?, from.number()?);
        match u32::try_from(nanos) {
            Ok(nanos) if nanos < 1_000_000_000 => Ok(Self::new(seconds, nanos)),
            _ => Err(Malformed("a number is too large")),
        }
    }
}

impl Portable for RangeAggregation {
    fn put(&self, out: &mut Vec<u8>) {
        self.op.put(out);
        self.param.put(out);
        self.log.put(out);
        self.range.put(out);
        put_signed(out, self.offset_nanos);
        self.unwrap.put(out);
        self.grouping.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            op: RangeOp::read(from)?,
            param: Option::read(from)?,
            log: LogExpr::read(from)?,
            range: Duration::read(from)?,
            offset_nanos: from.signed()?,
            unwrap: Option::read(from)?,
            grouping: Option::read(from)?,
        })
    }
}

/// A range aggregation and the grouping that is handed down to it.
impl Portable for (RangeAggregation, Option<Grouping>) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn read(from: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok((RangeAggregation::read(from)?, Option::read(from)?))
    }
}
