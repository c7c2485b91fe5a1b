//! The pager: the reader of the arrival log that puts its lines into blocks, after which the write-ahead log can be trimmed.
//!
//! # When
//! A cut is due when the lines that are in no block have [`PagerConfig::target_block_bytes`], or the oldest of them is
//! [`PagerConfig::max_block_age`] old, or somebody waits for it ([`Pager::flush`]), or the write-ahead log has no room ([`Pager::press`]).
//! A cut takes at most the target size; if more is due, another follows. There is one cut at a time.
//!
//! # How
//! `covered` is the position up to which all lines are in blocks that the catalog lists.
//!
//! 1. The stretch `(covered, P]` of the log is fetched, and made durable: what is in a block must not be forgotten by the log, which would
//!    give its positions away again. It is sorted out by tenant and UTC day.
//! 2. For each tenant and day the manifest is asked how far it covers this log already: up to `K`. Entries up to `K` are left out. If
//!    nothing is left the next step is for the next tenant and day.
//! 3. Blocks are built and uploaded under names that were never used before.
//! 4. The manifest is changed by compare-and-swap: it lists the blocks and covers the log up to `P`, provided that it still covers it up to
//!    `K`. If it does not, somebody else (this process before a crash, or an answer that was lost) was first: the blocks are deleted, unless
//!    the manifest lists them, and it goes on at 2.
//! 5. When that is done for every tenant and day, `covered` becomes `P`.
//!
//! Each step may be the last before a crash. Until 3 nothing has happened. After 3 there is an object that no manifest lists; housekeeping
//! deletes it. After 4 a repetition finds the manifest covering the log up to `P` and leaves the lines out, whatever its own `P` is. Readers
//! take lines after `covered` from the log and no others, so a cut that was committed in part is seen neither twice nor half.
//!
//! # Failures
//! When the store fails nothing is lost and nothing is held in memory: the lines are in the write-ahead log, `covered` stays, and the cut is
//! repeated after a pause that grows up to [`LONGEST_PAUSE`]. Those who wait for a flush are told when an attempt fails that began after they
//! came. Pushes go on as long as the write-ahead log has room.
//!
//! No lock of the log is held while the pager works; what takes processor time runs on a thread for blocking work.

mod build;
mod cut;
mod metrics;
mod of_ingester;
mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tailwater_model::{Clock, Timestamp};
use tailwater_store::Error;
use tailwater_store::block::Options;
use tailwater_store::catalog::Catalog;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::cut::{Cutter, Done};
use self::metrics::Metrics;
use crate::log::ArrivalLog;

pub(crate) use self::metrics::Metrics as PagerMetrics;

/// How often it is looked whether a cut is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after the first failure, on average; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause after a failure, on average.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often failures are logged while they last.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How lines are put into blocks.
#[derive(Clone, Copy, Debug)]
pub struct PagerConfig {
    /// Bytes of lines after which a cut is due, and that a cut takes at most.
    pub target_block_bytes: u64,
    /// How long a line may be in the log and in no block.
    pub max_block_age: Duration,
    /// How blocks are written.
    pub block: Options,
}

impl Default for PagerConfig {
    fn default() -> Self {
        Self { target_block_bytes: 128 << 20, max_block_age: Duration::from_secs(30 * 60), block: Options::default() }
    }
}

/// Why a cut is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// There are enough lines.
    Size,
    /// There are lines that are old enough.
    Age,
    /// Somebody waits for it.
    Flush,
    /// The write-ahead log has no room.
    Pressure,
}

/// What went wrong last.
#[derive(Clone, Debug)]
pub struct PagerFailure {
    /// When.
    pub at: Timestamp,
    /// What.
    pub error: Arc<Error>,
    /// How many attempts in a row have failed.
    pub attempts: u32,
}

/// See the module's words. It stops when it is dropped.
pub(crate) struct Pager {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    log: Arc<ArrivalLog>,
    clock: Arc<dyn Clock>,
    config: PagerConfig,
    cutter: Cutter,
    metrics: Metrics,
    /// Something is due, or it has to stop.
    wake: Notify,
    /// It has to stop. Work on other threads looks at it too.
    stop: Arc<AtomicBool>,
    /// The write-ahead log wants everything up to here to be covered.
    pressed: AtomicU64,
    /// Those who came since the last look; there are no more of them than there are requests.
    waiting: Mutex<Vec<Waiter>>,
    /// And when it was logged last.
    failure: Mutex<Option<(PagerFailure, Timestamp)>>,
}

/// Somebody who waits for everything up to a position to be covered.
struct Waiter {
    upto: u64,
    answer: oneshot::Sender<Result<(), Arc<Error>>>,
}

impl Pager {
    /// Starts to page. Needs a runtime.
    pub(crate) fn start(
        log: Arc<ArrivalLog>,
        catalog: Arc<Catalog>,
        config: PagerConfig,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cutter = Cutter::new(
            Arc::clone(&log),
            Arc::clone(&clock),
            catalog,
            config.block,
            metrics.clone(),
            Arc::clone(&stop),
        );
        let shared = Arc::new(Shared {
            log,
            clock,
            config,
            cutter,
            metrics,
            wake: Notify::new(),
            stop,
            pressed: AtomicU64::new(0),
            waiting: Mutex::default(),
            failure: Mutex::default(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// Puts everything into blocks that is in the log now. Returns when the catalog lists it.
    ///
    /// # Errors
    /// Why it could not be done. The lines are still in the log, and the pager goes on trying.
    pub(crate) async fn flush(&self) -> Result<(), Arc<Error>> {
        let (answer, answered) = oneshot::channel();
        self.shared.waiting.lock().push(Waiter { upto: self.shared.log.head(), answer });
        self.shared.wake.notify_one();
        if self.shared.stop.load(Ordering::Acquire) {
            // Nobody may look at it any more.
            self.shared.waiting.lock().clear();
        }
        answered.await.unwrap_or_else(|_| Err(Arc::new(stopped())))
    }

    /// The write-ahead log has no room: what is in it now shall be covered soon.
    pub(crate) fn press(&self) {
        let before = self.shared.pressed.fetch_max(self.shared.log.head(), Ordering::AcqRel);
        if before <= self.shared.log.covered() {
            self.shared.wake.notify_one();
        }
    }

    /// What went wrong with the last attempt; nothing if it succeeded.
    pub(crate) fn failure(&self) -> Option<PagerFailure> {
        self.shared.failure.lock().as_ref().map(|(failure, _)| failure.clone())
    }

    /// Stops it, after the step that is under way, if any. Nothing is flushed.
    pub(crate) async fn stop(&self) {
        self.shared.stop();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // Whatever became of it, it has ended.
            let _ = task.await;
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl fmt::Debug for Pager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

async fn run(shared: Arc<Shared>) {
    let mut waiters: Vec<Waiter> = Vec::new();
    let mut failures = 0_u32;
    let mut pause_until: Option<Instant> = None;
    while !shared.stop.load(Ordering::Acquire) {
        waiters.append(&mut shared.waiting.lock());
        answer(&mut waiters, shared.log.covered());
        let paused = pause_until.is_some_and(|until| Instant::now() < until);
        let Some((reason, upto)) = shared.due(&waiters, paused) else {
            let look_at = Instant::now() + LOOK_INTERVAL;
            tokio::select! {
                () = shared.wake.notified() => {}
                () = tokio::time::sleep_until(pause_until.filter(|_| paused).map_or(look_at, |until| until.min(look_at))) => {}
            }
            continue;
        };
        match shared.cut(reason, upto).await {
            None => break,
            Some(Ok(())) => {
                shared.recovered();
                (failures, pause_until) = (0, None);
            }
            Some(Err(error)) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
                pause_until = Some(Instant::now() + pause.mul_f64(0.5 + fastrand::f64()));
                failures = failures.saturating_add(1);
                let error = Arc::new(error);
                shared.failed(&error, failures);
                for waiter in waiters.drain(..) {
                    // They may have gone.
                    let _ = waiter.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
    shared.waiting.lock().clear();
}

/// Tells those whose lines are covered.
fn answer(waiters: &mut Vec<Waiter>, covered: u64) {
    for waiter in waiters.extract_if(.., |waiter| waiter.upto <= covered) {
        // They may have gone.
        let _ = waiter.answer.send(Ok(()));
    }
}

impl Shared {
    /// Whether a cut is due, why, and how far it may reach. In a pause after a failure only somebody who waits is a reason.
    fn due(&self, waiters: &[Waiter], paused: bool) -> Option<(Reason, u64)> {
        let uncovered = self.log.uncovered();
        let covered = self.log.covered();
        if uncovered.last <= covered {
            return None;
        }
        let old = |at: Timestamp| self.clock.now().since(at) >= self.config.max_block_age;
        let reason = if !waiters.is_empty() {
            Reason::Flush
        } else if paused {
            return None;
        } else if self.pressed.load(Ordering::Acquire) > covered {
            Reason::Pressure
        } else if uncovered.bytes >= self.config.target_block_bytes {
            Reason::Size
        } else if uncovered.oldest.is_some_and(old) {
            Reason::Age
        } else {
            return None;
        };
        Some((reason, uncovered.last))
    }

    /// One attempt at a cut; nothing if it has to stop.
    async fn cut(&self, reason: Reason, upto: u64) -> Option<Result<(), Error>> {
        let began = Instant::now();
        let cut = std::pin::pin!(self.cutter.cut(upto, self.config.target_block_bytes));
        let stopped = async {
            while !self.stop.load(Ordering::Acquire) {
                self.wake.notified().await;
            }
        };
        let result = tokio::select! {
            biased;
            result = cut => result,
            () = stopped => return None,
        };
        // Whoever came meanwhile has used up a wake; the next look comes at once anyway.
        Some(result.map(|done| {
            self.metrics.cut(reason, began.elapsed());
            let Done { through, blocks, lines } = done;
            tracing::debug!(?reason, through, blocks, lines, took = ?began.elapsed(), "lines are in blocks");
        }))
    }

    fn failed(&self, error: &Arc<Error>, attempts: u32) {
        self.metrics.failures.inc();
        let now = self.clock.now();
        let mut state = self.failure.lock();
        let told = state.as_ref().map(|(_, told)| *told).filter(|told| now.since(*told) < COMPLAINT_INTERVAL);
        if told.is_none() {
            let uncovered_bytes = self.log.uncovered().bytes;
            tracing::warn!(
                %error,
                attempts,
                uncovered_bytes,
                "lines cannot be put into blocks; they stay in the write-ahead log, and it is tried again"
            );
        }
        let failure = PagerFailure { at: now, error: Arc::clone(error), attempts };
        *state = Some((failure, told.unwrap_or(now)));
    }

    fn recovered(&self) {
        if let Some((failure, _)) = self.failure.lock().take() {
            tracing::info!(attempts = failure.attempts, "lines are put into blocks again");
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

fn stopped() -> Error {
    Error::Unavailable { what: "the pager".into(), reason: "it is stopped".into() }
}
