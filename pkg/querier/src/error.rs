//! What can go wrong on the reading side. The texts are the contract's.

use tailwater_logql::metric::{EvaluationError, EvaluationErrorKind, PipelineError};
use tailwater_model::TenantError;
use tailwater_wire::node::NodeError;

/// What kind of answer an error deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request asks for what may not be asked (HTTP 400).
    BadRequest,
    /// An ingester cannot be reached (HTTP 500, as Loki).
    Unavailable,
    /// A query that Loki answers as if it were at fault itself (HTTP 500).
    Internal,
    /// It took too long (HTTP 504).
    Timeout,
}

/// Why the querier could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The tenant has as many tails open as it may.
    #[error("max concurrent tail requests limit exceeded, count > limit ({count} > {limit})")]
    TooManyTails {
        /// Open tails, this one included.
        count: u32,
        /// `max_concurrent_tail_requests`.
        limit: u32,
    },
    /// The tail names more tenants than a tail may follow.
    #[error("a tail is of at most {limit} tenants, and this one names {count}")]
    TooManyTenants {
        /// Tenants named.
        count: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The tenants of the tail in all logs are more than a tail may follow.
    #[error("a tail follows at most {limit} logs, each once for every tenant")]
    TooManySources {
        /// The most there may be.
        limit: usize,
    },
    /// The range is longer than the tenant may ask for.
    #[error("the query time range exceeds the limit (query length: {length}, limit: {limit})")]
    TooLong {
        /// What was asked, as Go prints durations.
        length: String,
        /// `max_query_length`, as Prometheus prints durations.
        limit: String,
    },
    /// The range lies wholly before what the tenant may look at, or begins in the future.
    #[error("this data is no longer available, it is past now - max_query_lookback ({lookback})")]
    PastLookback {
        /// `max_query_lookback`, as Prometheus prints durations.
        lookback: String,
    },
    /// The selector has too many matchers.
    #[error("max streams matchers per query exceeded, matchers-count > limit ({count} > {limit})")]
    TooManyMatchers {
        /// Matchers of the query.
        count: usize,
        /// `max_streams_matchers_per_query`.
        limit: usize,
    },
    /// There are more groups of streams than a volume answer may have.
    #[error("the query hit the max number of series limit (limit: {limit} series)")]
    TooManyVolumes {
        /// `volume_max_series`.
        limit: usize,
    },
    /// A range `[…]` is longer than the tenant may ask for.
    #[error("[interval] value exceeds limit: [{range}] > [{limit}]")]
    RangeTooLong {
        /// What was asked, as Prometheus prints durations.
        range: String,
        /// `max_query_range`, the same way.
        limit: String,
    },
    /// The query would read more than the tenant may.
    #[error(
        "the query would read too many bytes (query: {bytes}, limit: {limit}); consider adding more specific stream selectors or reduce the time range of the query"
    )]
    TooManyBytes {
        /// What the streams hold in the range.
        bytes: String,
        /// `max_query_bytes_read`.
        limit: String,
    },
    /// Lines that a metric query counts bear an error.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A metric expression cannot be evaluated.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The query does not compile.
    #[error(transparent)]
    Query(#[from] tailwater_logql::Error),
    /// What was brought as a resume token is none, or it was damaged, or made with another secret.
    #[error("the resume token is not valid")]
    BadToken,
    /// The resume token was made for other tenants, another query or another form of frames.
    #[error("the resume token is of another query")]
    TokenOfAnother,
    /// The tenants do not fit the request.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// There is no ingester.
    #[error("no active ingester found")]
    NoIngester,
    /// An ingester did not answer.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// `query_timeout` has passed.
    #[error(
        "request timed out, decrease the duration of the request or add more label matchers (prefer exact match over regex match) to reduce the amount of data processed"
    )]
    Timeout,
}

impl Error {
    /// What kind of answer this deserves.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Evaluation(error) if error.kind() == EvaluationErrorKind::Internal => Kind::Internal,
            Self::Node(NodeError::TooLarge { .. }) => Kind::BadRequest,
            Self::NoIngester | Self::Node(_) => Kind::Unavailable,
            Self::Timeout => Kind::Timeout,
            _ => Kind::BadRequest,
        }
    }
}
