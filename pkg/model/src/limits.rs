//! What a tenant may do. Names and defaults are Loki's `limits_config` (contract, defaults), so that a Loki user's numbers
//! mean the same here.

use std::sync::Arc;
use std::time::Duration;

use crate::TenantId;

/// The limits of one tenant. `0` switches a limit off where the field says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Accepted volume in MiB per second (`ingestion_rate_mb`).
    pub ingestion_rate_mb: f64,
    /// Burst in MiB (`ingestion_burst_size_mb`).
    pub ingestion_burst_size_mb: f64,
    /// Longest line in bytes; 0 = any.
    pub max_line_size: usize,
    /// Cut longer lines instead of refusing them.
    pub max_line_size_truncate: bool,
    /// Longest label name in bytes.
    pub max_label_name_length: usize,
    /// Longest label value in bytes.
    pub max_label_value_length: usize,
    /// Most labels of a stream, `service_name` not counted.
    pub max_label_names_per_series: usize,
    /// Most active streams of the tenant; 0 = any.
    pub max_global_streams_per_user: usize,
    /// Volume of one stream in bytes per second.
    pub per_stream_rate_limit: u64,
    /// Burst of one stream in bytes.
    pub per_stream_rate_limit_burst: u64,
    /// Refuse entries older than [`Limits::reject_old_samples_max_age`].
    pub reject_old_samples: bool,
    /// See [`Limits::reject_old_samples`].
    pub reject_old_samples_max_age: Duration,
    /// How far in the future an entry may lie.
    pub creation_grace_period: Duration,
    /// How far behind the newest entry of its stream an entry may lie (half of Loki's `max_chunk_age`).
    pub out_of_order_window: Duration,
    /// Accept structured metadata.
    pub allow_structured_metadata: bool,
    /// Most bytes of structured metadata of an entry.
    pub max_structured_metadata_size: usize,
    /// Most pairs of structured metadata of an entry.
    pub max_structured_metadata_entries_count: usize,
    /// Where a missing `service_name` is taken from, in this order; empty = not at all.
    pub discover_service_name: Vec<String>,
    /// Find the level of each entry (`detected_level`).
    pub discover_log_levels: bool,
    /// Move repeated timestamps of a push on by 1 ns.
    pub increment_duplicate_timestamp: bool,
    /// Largest `limit` of a log query.
    pub max_entries_limit_per_query: u32,
    /// Most series of a metric query; 0 = any number.
    pub max_query_series: usize,
    /// Longest time range of a query.
    pub max_query_length: Duration,
    /// How far back a query may reach; zero = any.
    pub max_query_lookback: Duration,
    /// Longest range of a range vector; zero = any.
    pub max_query_range: Duration,
    /// Most bytes of lines that the streams of a query may hold in its range; 0 = any number.
    pub max_query_bytes_read: u64,
    /// Most queries of the tenant at a time, others wait; 0 = any number.
    pub max_query_parallelism: usize,
    /// Longest run of a query.
    pub query_timeout: Duration,
    /// Most matchers of a query.
    pub max_streams_matchers_per_query: usize,
    /// Most tails of the tenant at a time; 0 = any.
    pub max_concurrent_tail_requests: u32,
    /// Answer the volume endpoints.
    pub volume_enabled: bool,
    /// Most series of a volume answer.
    pub volume_max_series: usize,
    /// How long lines are kept; zero = for ever.
    pub retention_period: Duration,
    /// How long the lines of some streams are kept instead.
    pub retention_stream: Vec<StreamRetention>,
    /// What asking for lines to be deleted does.
    pub deletion_mode: DeletionMode,
}

/// How long the lines of streams are kept that a selector selects. Of several rules for a stream that of the highest priority holds, of
/// equal ones that of the shortest period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRetention {
    /// A stream selector of LogQL, valid.
    pub selector: String,
    /// The higher goes before.
    pub priority: i32,
    /// At least a day.
    pub period: Duration,
}

/// What a request to delete lines does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionMode {
    /// It is refused.
    Disabled,
    /// Queries leave the lines out.
    FilterOnly,
    /// Queries leave the lines out, and later they are deleted.
    FilterAndDelete,
}

impl Limits {
    /// The limits that hold for a request over several tenants: of each that bounds a request the smallest that is not off, else
    /// the first tenant's.
    #[must_use]
    pub fn strictest(of_tenants: impl IntoIterator<Item = Arc<Self>>) -> Self {
        let mut all = of_tenants.into_iter();
        let first = all.next().map_or_else(Self::default, Arc::unwrap_or_clone);
        all.fold(first, |mut strict, next| {
            let shorter = |a: Duration, b: Duration| if a.is_zero() || (!b.is_zero() && b < a) { b } else { a };
            let fewer = |a: usize, b: usize| [a, b].into_iter().filter(|n| *n > 0).min().unwrap_or(0);
            strict.max_query_length = shorter(strict.max_query_length, next.max_query_length);
            strict.max_query_lookback = shorter(strict.max_query_lookback, next.max_query_lookback);
            strict.query_timeout = shorter(strict.query_timeout, next.query_timeout);
            let entries = [strict.max_entries_limit_per_query, next.max_entries_limit_per_query];
            strict.max_entries_limit_per_query = entries.into_iter().filter(|n| *n > 0).min().unwrap_or(0);
            strict.max_streams_matchers_per_query =
                strict.max_streams_matchers_per_query.min(next.max_streams_matchers_per_query);
            strict.max_query_range = shorter(strict.max_query_range, next.max_query_range);
            strict.max_query_series = fewer(strict.max_query_series, next.max_query_series);
            strict.max_query_parallelism = fewer(strict.max_query_parallelism, next.max_query_parallelism);
            strict.volume_enabled &= next.volume_enabled;
            strict.volume_max_series = strict.volume_max_series.min(next.volume_max_series);
            let bytes = [strict.max_query_bytes_read, next.max_query_bytes_read];
            strict.max_query_bytes_read = bytes.into_iter().filter(|n| *n > 0).min().unwrap_or(0);
            strict
        })
    }
}

/// Where the limits of a tenant come from.
pub trait TenantLimits: Send + Sync + 'static {
    /// The limits of `tenant` now. Called per push and per query; must be cheap.
    fn limits(&self, tenant: &TenantId) -> Arc<Limits>;
}

/// The same limits for everybody.
impl TenantLimits for Arc<Limits> {
    fn limits(&self, _tenant: &TenantId) -> Arc<Limits> {
        Self::clone(self)
    }
}

impl Default for Limits {
    fn default() -> Self {
        const SERVICE_NAME_LABELS: [&str; 13] = [
            "service",
            "app",
            "application",
            "app_name",
            "name",
            "app_kubernetes_io_name",
            "container",
            "container_name",
            "k8s_container_name",
            "component",
            "workload",
            "job",
            "k8s_job_name",
        ];
        let hours = |h: u64| Duration::from_secs(h * 3600);
        Self {
            ingestion_rate_mb: 4.0,
            ingestion_burst_size_mb: 6.0,
            max_line_size: 256 << 10,
            max_line_size_truncate: false,
            max_label_name_length: 1024,
            max_label_value_length: 2048,
            max_label_names_per_series: 15,
            max_global_streams_per_user: 5000,
            per_stream_rate_limit: 3 << 20,
            per_stream_rate_limit_burst: 15 << 20,
            reject_old_samples: true,
            reject_old_samples_max_age: hours(7 * 24),
            creation_grace_period: Duration::from_secs(600),
            out_of_order_window: hours(1),
            allow_structured_metadata: true,
            max_structured_metadata_size: 64 << 10,
            max_structured_metadata_entries_count: 128,
            discover_service_name: SERVICE_NAME_LABELS.iter().map(|s| (*s).to_owned()).collect(),
            discover_log_levels: true,
            increment_duplicate_timestamp: false,
            max_entries_limit_per_query: 5000,
            max_query_series: 500,
            max_query_length: hours(721),
            max_query_lookback: Duration::ZERO,
            max_query_range: Duration::ZERO,
            max_query_bytes_read: 0,
            max_query_parallelism: 32,
            query_timeout: Duration::from_secs(60),
            max_streams_matchers_per_query: 1000,
            max_concurrent_tail_requests: 10,
            volume_enabled: true,
            volume_max_series: 1000,
            retention_period: Duration::ZERO,
            retention_stream: Vec::new(),
            deletion_mode: DeletionMode::FilterAndDelete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_tenants_the_strictest_limit_that_is_on_holds() {
        let hour = Duration::from_secs(3600);
        let limits = |lookback: Duration, entries: u32, matchers: usize| {
            Arc::new(Limits {
                max_query_lookback: lookback,
                max_entries_limit_per_query: entries,
                max_streams_matchers_per_query: matchers,
                ..Limits::default()
            })
        };
        let strict = Limits::strictest([limits(Duration::ZERO, 0, 7), limits(2 * hour, 5, 9), limits(hour, 6, 8)]);
        assert_eq!(strict, Limits::clone(&limits(hour, 5, 7)));
        assert_eq!(Limits::strictest([limits(hour, 0, 7)]), Limits::clone(&limits(hour, 0, 7)));
    }
}
