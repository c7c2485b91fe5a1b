//! An operation as a series of attempts, each with a time limit and a place among the bounded number of those under way, all of them within
//! the operation's budget.
//!
//! Whatever the server does, an operation ends: an attempt is given up when its limit or the budget is over, the pause before the next one
//! is at most [`LONGEST_PAUSE`], and there is no next one when the budget would be over by then. Waiting for a place counts.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Inner;
use super::failure::{Failure, judge};
use super::metrics::Operation;
use super::silence::Asked;
use crate::Error;

/// The pause before the second attempt, on average; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, on average.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// One operation on one object.
pub(super) struct Trial<'a> {
    inner: &'a Inner,
    operation: Operation,
    /// The operation and the url, for texts.
    what: String,
    url: String,
    began: Instant,
    deadline: Instant,
    attempts: u32,
    /// If it reads.
    asked: Option<Asked<'a>>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(inner: &'a Inner, operation: Operation, path: &str) -> Self {
        let url = inner.place.url_of(path);
        let began = Instant::now();
        let timing = &inner.timing;
        let budget = if operation.writes() { timing.writes } else { timing.reads };
        Self {
            inner,
            operation,
            what: format!("{} {url}", operation.word()),
            url,
            began,
            deadline: began + budget,
            attempts: 0,
            asked: (!operation.writes()).then(|| inner.silence.asked()),
        }
    }

    /// The operation and the url, for texts.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// What came instead. After [`Failure::Passing`] nobody knows whether something was written.
    pub(super) async fn once<T>(
        &mut self,
        attempt: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        self.attempts += 1;
        let Ok(place) = timeout_at(self.deadline, self.inner.slots.acquire()).await else {
            return Err(Failure::Passing(format!("{} other operations are under way", self.inner.concurrency)));
        };
        let limit = self.deadline.min(Instant::now() + self.inner.timing.attempt);
        let metrics = &self.inner.metrics;
        let _gauge = InFlight::new(&metrics.in_flight);
        let answer = timeout_at(limit, attempt).await;
        drop(place);
        let answer = match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(judge(&error, &self.what)),
            Err(_) => Err(Failure::Passing("no answer in time".to_owned())),
        };
        if let (Some(asked), Ok(_) | Err(Failure::Missing | Failure::Unchanged | Failure::Short(_))) =
            (&self.asked, &answer)
        {
            asked.answered();
        }
        answer
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// There is no time for another attempt: `reason` is why the last one failed.
    pub(super) async fn pause(&mut self, reason: String) -> Result<(), Failure> {
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.attempts.saturating_sub(1)).min(10));
        let pause = doubled.min(LONGEST_PAUSE).mul_f64(0.5 + fastrand::f64());
        if Instant::now() + pause >= self.deadline {
            let reason = match self.attempts {
                1 => reason,
                attempts => format!("{reason} ({attempts} attempts in {:.1} s)", self.began.elapsed().as_secs_f64()),
            };
            return Err(Failure::Lasting(Error::Unavailable { what: self.what.clone(), reason }));
        }
        tracing::debug!(what = self.what, reason, "the object store does not answer as it should, trying again");
        self.inner.metrics.retried(self.operation);
        sleep(pause).await;
        Ok(())
    }

    /// Attempts until one succeeds, fails for good, or there is no more time; for what is not written on a condition. Never fails with
    /// [`Failure::Passing`] or [`Failure::Taken`].
    pub(super) async fn run<T, F>(&mut self, attempt: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        loop {
            match self.once(attempt()).await {
                Err(Failure::Passing(reason)) => self.pause(reason).await?,
                // There was no condition that could fail: the server is busy with several writes.
                Err(Failure::Taken) => self.pause("others write to it at the same time".to_owned()).await?,
                ended => return ended,
            }
        }
    }

    /// Counts how the operation ended.
    pub(super) fn end<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        let outcome = match &result {
            Ok(_) => "ok",
            Err(failure) => failure.outcome(),
        };
        self.inner.metrics.ended(self.operation, outcome, self.began.elapsed());
        result
    }

    /// The same, with an error for whoever expects no special answer.
    pub(super) fn end_plainly<T>(self, result: Result<T, Failure>) -> Result<T, Error> {
        let (what, url) = (self.what.clone(), self.url.clone());
        self.end(result).map_err(|failure| failure.into_error(&what, &url))
    }
}

/// One operation in the gauge, however it ends.
struct InFlight<'a>(&'a prometheus_client::metrics::gauge::Gauge);

impl<'a> InFlight<'a> {
    fn new(gauge: &'a prometheus_client::metrics::gauge::Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
