//! The abstract syntax of LogQL, as written: nothing is reordered, folded or compiled here (literals excepted, which the
//! parser folds as Loki does). Printing (`Display`, `pretty`) and compiling are other modules' work.

use std::time::Duration;

/// A whole query.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Answers log lines.
    Log(LogExpr),
    /// Answers samples.
    Metric(MetricExpr),
}

/// A selector and what is done with its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct LogExpr {
    /// Which streams.
    pub selector: Vec<Matcher>,
    /// The pipeline, in the order written.
    pub stages: Vec<Stage>,
}

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Eq,
    /// `!=`
    Neq,
    /// `=~`, anchored at both ends
    Re,
    /// `!~`, anchored at both ends
    NotRe,
}

/// `name op "value"`. A regular expression has been checked to be valid RE2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// Label name.
    pub name: String,
    /// Comparison.
    pub op: MatchOp,
    /// Text or pattern. Go strings are bytes; invalid UTF-8 (`"\xff"`) is kept.
    pub value: Text,
}

/// The value of a string literal: usually text, but `\xff` and octal escapes may make it other bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text with U+FFFD for what is not UTF-8.
    #[must_use]
    pub fn to_str_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Self {
        Self(s.as_bytes().to_vec())
    }
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// `|= "a" or ip("b")`
    Line(LineFilter),
    /// `| json` or `| json a="x.y"`
    Json(Vec<Extraction>),
    /// `| logfmt --strict --keep-empty a="x"`
    Logfmt {
        /// Stop at the first malformed pair and set an error.
        strict: bool,
        /// Keep labels with an empty value.
        keep_empty: bool,
        /// What to extract; empty = everything.
        extractions: Vec<Extraction>,
    },
    /// `| regexp "…"`, valid and with unique named groups
    Regexp(Text),
    /// `| pattern "…"`, valid
    Pattern(Text),
    /// `| unpack`
    Unpack,
    /// `| line_format "…"`
    LineFormat(Text),
    /// `| label_format a=b, c="…"`
    LabelFormat(Vec<LabelFormat>),
    /// `| decolorize`
    Decolorize,
    /// `| drop a, b="c"`
    Drop(Vec<NameOrMatcher>),
    /// `| keep a, b="c"`
    Keep(Vec<NameOrMatcher>),
    /// `| level="error" and status >= 500`
    Label(LabelFilter),
}

/// How a line filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineOp {
    /// `|=`
    Contains,
    /// `!=`
    NotContains,
    /// `|~`
    Re,
    /// `!~`
    NotRe,
    /// `|>`
    Pattern,
    /// `!>`
    NotPattern,
}

/// `op operand or operand …`. For a negated operator every operand is excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFilter {
    /// Comparison, of every operand.
    pub op: LineOp,
    /// At least one.
    pub operands: Vec<LineOperand>,
}

/// What a line filter looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineOperand {
    /// `"text"`
    Text(Text),
    /// `ip("pattern")`
    Ip(Text),
}

/// `label="expression"` of json or logfmt; a bare `label` is `label="label"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extraction {
    /// The label to set.
    pub label: String,
    /// Where the value is.
    pub expression: Text,
}

/// One item of `label_format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFormat {
    /// The label to set.
    pub label: String,
    /// From what.
    pub value: LabelFormatValue,
}

/// The right side of a `label_format` item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelFormatValue {
    /// `dst=src`
    Rename(String),
    /// `dst="template"`
    Template(Text),
}

/// An item of `drop` or `keep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameOrMatcher {
    /// Just a name.
    Name(String),
    /// A name and what its value must be.
    Matcher(Matcher),
}

/// How a number, duration or size compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CmpOp {
    /// `=` or `==`
    Eq,
    /// `!=`
    Neq,
    /// `>`
    Gt,
    /// `>=`
    Gte,
    /// `<`
    Lt,
    /// `<=`
    Lte,
}

/// A label filter with its combinators grouped as LogQL groups them.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelFilter {
    /// `name="x"`, `name=~"x"` …
    Text(Matcher),
    /// `name > 5`
    Number {
        /// Label.
        name: String,
        /// Comparison.
        op: CmpOp,
        /// Right side.
        value: f64,
    },
    /// `name > 5s`
    Duration {
        /// Label.
        name: String,
        /// Comparison.
        op: CmpOp,
        /// Right side in nanoseconds, possibly negative.
        nanos: i64,
    },
    /// `name > 5KB`
    Bytes {
        /// Label.
        name: String,
        /// Comparison.
        op: CmpOp,
        /// Right side in bytes.
        bytes: u64,
    },
    /// `name = ip("…")`
    Ip {
        /// Label.
        name: String,
        /// `true` for `!=`.
        negated: bool,
        /// Address, CIDR or range; checked when the pipeline is compiled.
        pattern: Text,
    },
    /// Both; `and`, `,` and juxtaposition.
    And(Box<LabelFilter>, Box<LabelFilter>),
    /// Either.
    Or(Box<LabelFilter>, Box<LabelFilter>),
}

/// `by (…)` or `without (…)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// `without` instead of `by`.
    pub without: bool,
    /// The labels, as written.
    pub labels: Vec<String>,
}

/// An expression that answers samples.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricExpr {
    /// `rate({…}[5m])`
    Range(Box<RangeAggregation>),
    /// `sum by (a) (…)`
    Vector(Box<VectorAggregation>),
    /// `a + b`
    Binary(Box<BinaryOp>),
    /// `5`; folded arithmetic on literals too
    Literal(f64),
    /// `vector(5)`
    VectorLiteral(f64),
    /// `label_replace(…)`
    LabelReplace(Box<LabelReplace>),
}

/// Aggregations over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are LogQL's")]
pub enum RangeOp {
    Rate,
    RateCounter,
    CountOverTime,
    BytesRate,
    BytesOverTime,
    AvgOverTime,
    SumOverTime,
    MinOverTime,
    MaxOverTime,
    StdvarOverTime,
    StddevOverTime,
    QuantileOverTime,
    FirstOverTime,
    LastOverTime,
    AbsentOverTime,
}

/// `op(param, log [range] offset …) by (…)`
#[derive(Clone, Debug, PartialEq)]
pub struct RangeAggregation {
    /// Which.
    pub op: RangeOp,
    /// The quantile, for `quantile_over_time` only.
    pub param: Option<f64>,
    /// The lines.
    pub log: LogExpr,
    /// `[range]`.
    pub range: Duration,
    /// `offset`, in nanoseconds, possibly negative.
    pub offset_nanos: i64,
    /// `| unwrap …`.
    pub unwrap: Option<Unwrap>,
    /// `by`/`without` after the closing parenthesis.
    pub grouping: Option<Grouping>,
}

/// `| unwrap duration(label) | filter …`
#[derive(Clone, Debug, PartialEq)]
pub struct Unwrap {
    /// The label with the number.
    pub label: String,
    /// How its text becomes a number.
    pub conversion: Option<Conversion>,
    /// Label filters after the unwrap; all must hold.
    pub filters: Vec<LabelFilter>,
}

/// How the text of an unwrapped label becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conversion {
    /// `bytes(x)`
    Bytes,
    /// `duration(x)`, in seconds
    Duration,
    /// `duration_seconds(x)`
    DurationSeconds,
}

/// Aggregations over series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are LogQL's")]
pub enum VectorOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    ApproxTopk,
    Sort,
    SortDesc,
}

/// `op by (…) (param, inner)`
#[derive(Clone, Debug, PartialEq)]
pub struct VectorAggregation {
    /// Which.
    pub op: VectorOp,
    /// `k`, for topk, bottomk and approx_topk; at least 1.
    pub param: Option<i64>,
    /// `by`/`without`.
    pub grouping: Option<Grouping>,
    /// What is aggregated.
    pub inner: MetricExpr,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are LogQL's")]
pub enum BinOp {
    Or,
    And,
    Unless,
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

/// `left op bool on (…) group_left (…) right`
#[derive(Clone, Debug, PartialEq)]
pub struct BinaryOp {
    /// Which.
    pub op: BinOp,
    /// `bool`.
    pub return_bool: bool,
    /// `on`/`ignoring` and `group_*`.
    pub matching: Option<VectorMatching>,
    /// Left operand.
    pub left: MetricExpr,
    /// Right operand.
    pub right: MetricExpr,
}

/// How the series of two operands are paired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VectorMatching {
    /// `on` instead of `ignoring`.
    pub on: bool,
    /// The labels, as written.
    pub labels: Vec<String>,
    /// `group_left`/`group_right`.
    pub group: Option<GroupSide>,
    /// The labels of `group_left (…)`.
    pub include: Vec<String>,
}

/// Which side may have many series per match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupSide {
    /// `group_left`: many on the left.
    Left,
    /// `group_right`: many on the right.
    Right,
}

/// `label_replace(inner, "dst", "replacement", "src", "regex")`
#[derive(Clone, Debug, PartialEq)]
pub struct LabelReplace {
    /// The samples.
    pub inner: MetricExpr,
    /// The label to set.
    pub dst: Text,
    /// What to set it to, with `$1` and `${name}`.
    pub replacement: Text,
    /// The label to look at.
    pub src: Text,
    /// What its value must match, anchored.
    pub regex: Text,
}
