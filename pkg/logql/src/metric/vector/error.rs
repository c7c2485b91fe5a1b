//! Why a metric query has no answer although it is well-formed. The texts are Loki's where Loki has one.

use super::matching::MAX_PAIRED_VALUES;
use super::replace::{MAX_REPLACED_BYTES, MAX_REPLACED_BYTES_OF_ALL};

/// Whether HTTP answers 400 or 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationErrorKind {
    /// 400: the query asks for more than it may.
    Refused,
    /// 500: Loki says so of operands that do not match, although it is the query that is wrong.
    Internal,
}

/// Why a metric query has no answer. `Display` is the text that the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The answer has too many series, or what `topk` or `bottomk` choose from has.
    #[error(
        "maximum number of series ({limit}) reached for a single query; consider reducing query cardinality by adding more \
         specific stream selectors, reducing the time range, or aggregating results with functions like sum(), count() or topk()"
    )]
    TooManySeries {
        /// How many there may be.
        limit: u32,
    },
    /// `label_replace` makes a value that is too long.
    #[error("label_replace makes a value of more than {MAX_REPLACED_BYTES} bytes")]
    LongReplacement,
    /// `label_replace` makes values that are too long together.
    #[error("label_replace makes values of more than {MAX_REPLACED_BYTES_OF_ALL} bytes")]
    LongReplacements,
    /// `group_left (…)` or `group_right (…)` gives a series so many different labels over time that there are too many series.
    #[error("matching makes more than {MAX_PAIRED_VALUES} values; consider including fewer labels")]
    TooManyPairs,
    /// The regular expression of `label_replace` cannot be compiled.
    #[error("parse error : invalid regex in label_replace: {0}")]
    Regex(String),
    /// `approx_topk`.
    #[error("approx_topk is not enabled. See -limits.shard_aggregations")]
    NoApproxTopk,
    /// Several series of the side that must have one per match.
    #[error(
        "found duplicate series on the {side} hand-side;many-to-many matching not allowed: matching labels must be unique on \
         one side"
    )]
    ManyToMany {
        /// `left` or `right`.
        side: &'static str,
    },
    /// Several series of the left side have the same match, and no `group_left` or `group_right` says that they may.
    #[error("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")]
    ManyToOne,
    /// Two results of `group_left` or `group_right` have the same labels.
    #[error("multiple matches for labels: grouping labels must ensure unique matches")]
    NotUnique,
}

impl EvaluationError {
    /// Whether HTTP answers 400 or 500.
    #[must_use]
    pub fn kind(&self) -> EvaluationErrorKind {
        match self {
            Self::TooManySeries { .. }
            | Self::LongReplacement
            | Self::LongReplacements
            | Self::TooManyPairs
            | Self::Regex(_) => EvaluationErrorKind::Refused,
            Self::NoApproxTopk | Self::ManyToMany { .. } | Self::ManyToOne | Self::NotUnique => {
                EvaluationErrorKind::Internal
            }
        }
    }
}
