//! How far a query may reach (contract, LogQL §14 and API §4.2).

use std::time::Duration;

use tailwater_logql::go::duration;
use tailwater_model::{Limits, Timestamp};

use crate::Error;

/// Checks the length of a range and cuts it to what the tenant may look at. `None`: nothing of it is left, the answer is empty.
///
/// # Errors
/// [`Error::TooLong`].
pub fn check_range(
    limits: &Limits,
    start: Timestamp,
    end: Timestamp,
    now: Timestamp,
) -> Result<Option<(Timestamp, Timestamp)>, Error> {
    let length = end.since(start);
    if !limits.max_query_length.is_zero() && length > limits.max_query_length {
        return Err(Error::TooLong {
            length: duration::format_go(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)),
            limit: duration::format_prometheus(limits.max_query_length),
        });
    }
    if limits.max_query_lookback.is_zero() {
        return Ok(Some((start, end)));
    }
    let oldest = now.saturating_sub(limits.max_query_lookback);
    Ok((end >= oldest).then(|| (start.max(oldest), end)))
}

/// What a tail says whose history lies out of reach.
pub(crate) fn past_lookback(lookback: Duration) -> Error {
    Error::PastLookback { lookback: duration::format_prometheus(lookback) }
}
