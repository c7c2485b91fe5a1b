//! The tokens of LogQL. Their names are the words of error messages and the terminals of both grammars (`logql.pest`, which
//! builds the syntax tree, and `logql.grammar`, which explains what is wrong with a text); their order is the order in which
//! an error message lists what was expected.

macro_rules! kinds {
    ($($variant:ident = $name:literal,)*) => {
        /// What a token is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub(crate) enum Kind { $(#[doc = $name] $variant,)* }

        impl Kind {
            /// All kinds, in the order of error messages.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in error messages and grammars.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    End = "$end",
    Bytes = "BYTES",
    Identifier = "IDENTIFIER",
    String = "STRING",
    Number = "NUMBER",
    FunctionFlag = "FUNCTION_FLAG",
    Duration = "DURATION",
    Range = "RANGE",
    Eq = "=",
    Re = "=~",
    NotRe = "!~",
    NotPattern = "!>",
    OpenBrace = "{",
    CloseBrace = "}",
    OpenBracket = "[",
    CloseBracket = "]",
    Comma = ",",
    Dot = ".",
    PipeRe = "|~",
    PipeEq = "|=",
    PipePattern = "|>",
    OpenParen = "(",
    CloseParen = ")",
    By = "by",
    Without = "without",
    CountOverTime = "COUNT_OVER_TIME",
    Rate = "RATE",
    RateCounter = "RATE_COUNTER",
    Sum = "SUM",
    Sort = "SORT",
    SortDesc = "SORT_DESC",
    Avg = "AVG",
    Max = "MAX",
    Min = "MIN",
    Count = "COUNT",
    Stddev = "STDDEV",
    Stdvar = "STDVAR",
    Bottomk = "BOTTOMK",
    Topk = "TOPK",
    ApproxTopk = "APPROX_TOPK",
    BytesOverTime = "BYTES_OVER_TIME",
    BytesRate = "BYTES_RATE",
    Bool = "bool",
    Json = "json",
    Regexp = "regexp",
    Logfmt = "logfmt",
    Pipe = "|",
    LineFormat = "line_format",
    LabelFormat = "label_format",
    Unwrap = "unwrap",
    AvgOverTime = "AVG_OVER_TIME",
    SumOverTime = "SUM_OVER_TIME",
    MinOverTime = "MIN_OVER_TIME",
    MaxOverTime = "MAX_OVER_TIME",
    StdvarOverTime = "STDVAR_OVER_TIME",
    StddevOverTime = "STDDEV_OVER_TIME",
    QuantileOverTime = "QUANTILE_OVER_TIME",
    BytesConv = "BYTES_CONV",
    DurationConv = "DURATION_CONV",
    DurationSecondsConv = "DURATION_SECONDS_CONV",
    FirstOverTime = "FIRST_OVER_TIME",
    LastOverTime = "LAST_OVER_TIME",
    AbsentOverTime = "ABSENT_OVER_TIME",
    Vector = "VECTOR",
    LabelReplace = "label_replace",
    Unpack = "unpack",
    Offset = "offset",
    Pattern = "pattern",
    Ip = "ip",
    On = "on",
    Ignoring = "ignoring",
    GroupLeft = "group_left",
    GroupRight = "group_right",
    Decolorize = "decolorize",
    Drop = "drop",
    Keep = "keep",
    Or = "or",
    And = "and",
    Unless = "unless",
    CmpEq = "==",
    Neq = "!=",
    Lt = "<",
    Lte = "<=",
    Gt = ">",
    Gte = ">=",
    Add = "+",
    Sub = "-",
    Mul = "*",
    Div = "/",
    Mod = "%",
    Pow = "^",
}

/// What a token stands for, beyond its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing; the text says it all.
    None,
    /// The bytes of a string literal.
    Text(Vec<u8>),
    /// Nanoseconds.
    Nanos(i64),
    /// Bytes.
    Size(u64),
}

/// Something wrong, and where it is said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Line as told to the user.
    pub(crate) line: u32,
    /// Column as told to the user.
    pub(crate) col: u32,
    /// What is wrong.
    pub(crate) msg: String,
}

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its text in the query.
    pub(crate) text: &'a str,
    /// What it stands for.
    pub(crate) value: Value,
    /// Line of its first character; 0 when the lexer had to look ahead.
    pub(crate) line: u32,
    /// Column of its first character.
    pub(crate) col: u32,
    /// The first thing the lexer complained about while it read this token.
    pub(crate) fault: Option<Fault>,
}

impl Token<'_> {
    /// The bytes of a string literal; nothing for other tokens.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.value {
            Value::Text(bytes) => bytes,
            _ => &[],
        }
    }
}

/// The token of a word that is a keyword wherever it stands. `word` is lower case.
pub(crate) fn keyword(word: &str) -> Option<Kind> {
    use Kind::*;
    Some(match word {
        "by" => By,
        "without" => Without,
        "bool" => Bool,
        "on" => On,
        "ignoring" => Ignoring,
        "group_left" => GroupLeft,
        "group_right" => GroupRight,
        "or" => Or,
        "and" => And,
        "unless" => Unless,
        "offset" => Offset,
        "unwrap" => Unwrap,
        "json" => Json,
        "regexp" => Regexp,
        "logfmt" => Logfmt,
        "unpack" => Unpack,
        "pattern" => Pattern,
        "label_format" => LabelFormat,
        "line_format" => LineFormat,
        "decolorize" => Decolorize,
        "drop" => Drop,
        "keep" => Keep,
        _ => return None,
    })
}

/// The token of a word that is a keyword only in front of its arguments. `word` is lower case.
pub(crate) fn function(word: &str) -> Option<Kind> {
    use Kind::*;
    Some(match word {
        "rate" => Rate,
        "rate_counter" => RateCounter,
        "count_over_time" => CountOverTime,
        "bytes_rate" => BytesRate,
        "bytes_over_time" => BytesOverTime,
        "avg_over_time" => AvgOverTime,
        "sum_over_time" => SumOverTime,
        "min_over_time" => MinOverTime,
        "max_over_time" => MaxOverTime,
        "stdvar_over_time" => StdvarOverTime,
        "stddev_over_time" => StddevOverTime,
        "quantile_over_time" => QuantileOverTime,
        "first_over_time" => FirstOverTime,
        "last_over_time" => LastOverTime,
        "absent_over_time" => AbsentOverTime,
        "vector" => Vector,
        "sum" => Sum,
        "avg" => Avg,
        "max" => Max,
        "min" => Min,
        "count" => Count,
        "stddev" => Stddev,
        "stdvar" => Stdvar,
        "bottomk" => Bottomk,
        "topk" => Topk,
        "sort" => Sort,
        "sort_desc" => SortDesc,
        "approx_topk" => ApproxTopk,
        "label_replace" => LabelReplace,
        "bytes" => BytesConv,
        "duration" => DurationConv,
        "duration_seconds" => DurationSecondsConv,
        "ip" => Ip,
        _ => return None,
    })
}

/// The token of an operator of two characters.
pub(crate) fn long_operator(first: char, second: char) -> Option<Kind> {
    use Kind::*;
    Some(match (first, second) {
        ('!', '=') => Neq,
        ('=', '~') => Re,
        ('!', '~') => NotRe,
        ('!', '>') => NotPattern,
        ('|', '=') => PipeEq,
        ('|', '~') => PipeRe,
        ('|', '>') => PipePattern,
        ('=', '=') => CmpEq,
        ('>', '=') => Gte,
        ('<', '=') => Lte,
        _ => return None,
    })
}

/// The token of an operator of one character.
pub(crate) fn short_operator(first: char) -> Option<Kind> {
    use Kind::*;
    Some(match first {
        '{' => OpenBrace,
        '}' => CloseBrace,
        ']' => CloseBracket,
        '(' => OpenParen,
        ')' => CloseParen,
        ',' => Comma,
        '.' => Dot,
        '=' => Eq,
        '|' => Pipe,
        '+' => Add,
        '-' => Sub,
        '*' => Mul,
        '/' => Div,
        '%' => Mod,
        '^' => Pow,
        '<' => Lt,
        '>' => Gt,
        _ => return None,
    })
}
