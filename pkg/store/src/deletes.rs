//! Delete requests: lines that their tenant wants gone.
//!
//! A request names a time range and a log query; every line of the range that passes the query is deleted. From the moment when the
//! request is made no search answers such a line; once the request can no longer be cancelled, housekeeping rewrites the blocks of the
//! range without them and marks it processed.
//!
//! Invariants:
//! * A search takes its [`Deletion`]s *before* it asks the catalog for blocks. A request that is processed by then was applied to every
//!   block that the catalog lists, and requests stay among the [`Deletion`]s for [`STAYS_ACTIVE`] after they were processed, so that a
//!   catalog that is remembered for a while shows no deleted line either.
//! * The range is `[start, end]` in nanoseconds, both inclusive, by the timestamps of lines; when they were accepted does not matter.
//!   Lines that are accepted after a request was processed are not deleted.
//! * The requests of a tenant are one object, changed by compare-and-swap; there are at most [`MAX_REQUESTS`] of them.

mod requests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tailwater_logql::LogQuery;
use tailwater_model::Timestamp;
use tailwater_wire::push::EntrySpan;

pub use self::requests::{Cancelled, DeleteError, Deletes, NewRequest};
use crate::entries::{Entries, Run};
use crate::scan::Evaluator;

/// Most requests of a tenant that are remembered, processed ones included.
pub const MAX_REQUESTS: usize = 1000;

/// How long searches go on to apply a request after it was processed.
pub const STAYS_ACTIVE: Duration = Duration::from_secs(3600);

/// How long a processed request is listed.
pub const STAYS_LISTED: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Searches apply it; blocks still hold the lines.
    Received,
    /// The lines are gone.
    Processed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Processed => "processed",
        })
    }
}

/// A delete request as it is remembered. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names it among the requests of its tenant.
    pub request_id: String,
    /// The first instant of the range.
    pub start: i64,
    /// The last instant of the range.
    pub end: i64,
    /// The log query, as it was sent.
    pub query: String,
    /// How far it has come.
    pub status: Status,
    /// When it was made.
    pub created_at: i64,
    /// When it was processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_at: Option<i64>,
}

impl Request {
    /// Whether searches apply it at `now`.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.processed_at.is_none_or(|at| now.since(Timestamp(at)) < STAYS_ACTIVE)
    }

    /// Whether it is still worth listing at `now`.
    pub(crate) fn is_listed(&self, now: Timestamp) -> bool {
        self.processed_at.is_none_or(|at| now.since(Timestamp(at)) < STAYS_LISTED)
    }
}

/// A request, compiled.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// [`Request::request_id`].
    pub id: String,
    /// The first instant of the range.
    pub start: i64,
    /// The last instant of the range.
    pub end: i64,
    /// What is deleted.
    pub query: Arc<LogQuery>,
}

impl Deletion {
    /// Compiles a request.
    ///
    /// # Errors
    /// The query is not a log query.
    pub fn new(request: &Request) -> Result<Self, tailwater_logql::Error> {
        let query = Arc::new(LogQuery::parse(&request.query)?);
        Ok(Self { id: request.request_id.clone(), start: request.start, end: request.end, query })
    }

    /// Whether an instant of `[start, end]` lies in its range.
    #[must_use]
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.start <= end && self.end >= start
    }
}

/// What is deleted of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// No line.
    Nothing,
    /// Some lines perhaps; ask [`Eraser::deletes`] for each.
    Some,
    /// Every line.
    Everything,
}

/// Tells which lines are deleted. Every worker of a search has its own.
#[derive(Debug)]
pub struct Eraser {
    deletions: Arc<[Deletion]>,
    evaluators: Vec<Evaluator>,
    /// Which of them concern the run that was entered last.
    entered: Vec<usize>,
}

impl Eraser {
    /// What applies the deletions. With `detect_level` entries that bring no `detected_level` get one, as in searches of the tenant.
    #[must_use]
    pub fn new(deletions: Arc<[Deletion]>, detect_level: bool) -> Self {
        let evaluators = deletions.iter().map(|d| Evaluator::new(Arc::clone(&d.query), detect_level)).collect();
        Self { deletions, evaluators, entered: Vec::new() }
    }

    /// The lines that follow are of this run.
    pub fn enter(&mut self, run: &Run) -> Deleted {
        self.entered.clear();
        for (number, (deletion, evaluator)) in self.deletions.iter().zip(&mut self.evaluators).enumerate() {
            if !run.overlaps(deletion.start, deletion.end) || !evaluator.selects(run) {
                continue;
            }
            if !deletion.query.has_pipeline() && run.within(deletion.start, deletion.end) {
                self.entered.clear();
                return Deleted::Everything;
            }
            self.entered.push(number);
        }
        if self.entered.is_empty() { Deleted::Nothing } else { Deleted::Some }
    }

    /// Whether a line of the run that was entered last is deleted, if [`Eraser::enter`] answered [`Deleted::Some`].
    pub fn deletes(&mut self, run: &Run, entries: &Entries, entry: &EntrySpan) -> bool {
        self.entered.iter().any(|number| {
            let (Some(deletion), Some(evaluator)) = (self.deletions.get(*number), self.evaluators.get_mut(*number))
            else {
                return false;
            };
            (deletion.start..=deletion.end).contains(&entry.timestamp)
                && evaluator.run(&run.stream.labels, entries, entry).is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tailwater_model::Labels;
    use tailwater_wire::push;

    use super::*;
    use crate::Stream;

    /// A batch of one stream `{app="a"}` with lines `(timestamp, line)`.
    fn batch(lines: &[(i64, &str)]) -> Entries {
        let outgoing = lines.iter().map(|(at, line)| push::Outgoing {
            timestamp: Timestamp(*at),
            line: line.as_bytes(),
            metadata: &[],
        });
        let body = push::encode([(r#"{app="a"}"#, outgoing)]).unwrap();
        let caps = tailwater_wire::compress::Caps::default();
        let plain = tailwater_wire::compress::snappy(&body, &caps).unwrap();
        let push = push::decode(Bytes::from(plain)).unwrap();
        let labels = Labels::from_pairs(vec![("app".into(), "a".into())]);
        let run = Run {
            stream: Arc::new(Stream::new(labels)),
            first: 0,
            len: u32::try_from(lines.len()).unwrap(),
            min: lines.iter().map(|l| l.0).min().unwrap(),
            max: lines.iter().map(|l| l.0).max().unwrap(),
            bytes: 0,
        };
        Entries::of_batch(vec![run], push)
    }

    fn request(start: i64, end: i64, query: &str) -> Request {
        Request {
            request_id: "r".into(),
            start,
            end,
            query: query.into(),
            status: Status::Received,
            created_at: 0,
            processed_at: None,
        }
    }

    /// Which lines of the batch are left.
    fn left(batch: &Entries, requests: &[Request]) -> (Deleted, Vec<String>) {
        let deletions: Arc<[Deletion]> = requests.iter().map(|r| Deletion::new(r).unwrap()).collect();
        let mut eraser = Eraser::new(deletions, true);
        let run = &batch.runs[0];
        let verdict = eraser.enter(run);
        let keep = batch.entries(run).iter().filter(|e| match verdict {
            Deleted::Nothing => true,
            Deleted::Some => !eraser.deletes(run, batch, e),
            Deleted::Everything => false,
        });
        (verdict, keep.map(|e| String::from_utf8_lossy(batch.line(e)).into_owned()).collect())
    }

    #[test]
    fn a_request_deletes_what_passes_its_query_within_its_range() {
        let batch = batch(&[(10, "a x"), (20, "b x"), (30, "b"), (40, "b x")]);
        let (verdict, lines) = left(&batch, &[request(20, 30, r#"{app="a"} |= "x""#)]);
        assert_eq!((verdict, lines), (Deleted::Some, vec!["a x".into(), "b".into(), "b x".into()]));
        // Both ends belong to it.
        let (_, lines) = left(&batch, &[request(10, 40, r#"{app="a"} |= "x""#)]);
        assert_eq!(lines, ["b"]);
        // Several requests add up.
        let (_, lines) = left(&batch, &[request(10, 10, r#"{app="a"}"#), request(30, 40, r#"{app="a"}"#)]);
        assert_eq!(lines, ["b x"]);
    }

    #[test]
    fn runs_are_passed_over_or_dropped_as_a_whole_where_that_is_certain() {
        let batch = batch(&[(10, "a"), (20, "b")]);
        assert_eq!(left(&batch, &[request(21, 30, r#"{app="a"}"#)]).0, Deleted::Nothing);
        assert_eq!(left(&batch, &[request(0, 30, r#"{app="b"}"#)]).0, Deleted::Nothing);
        assert_eq!(left(&batch, &[request(10, 20, r#"{app="a"}"#)]).0, Deleted::Everything);
        assert_eq!(left(&batch, &[request(11, 20, r#"{app="a"}"#)]).0, Deleted::Some);
        assert_eq!(left(&batch, &[]).0, Deleted::Nothing);
    }

    #[test]
    fn a_processed_request_stays_active_for_a_while() {
        let at = |processed_at| Request { processed_at, ..request(0, 1, "{}") };
        let now = Timestamp(0).saturating_add(STAYS_ACTIVE);
        assert!(at(None).is_active(now) && at(Some(1)).is_active(now) && !at(Some(0)).is_active(now));
    }
}
