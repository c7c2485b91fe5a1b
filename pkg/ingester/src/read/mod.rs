//! Reads of history: by position, by time, and what streams there are. They run on threads for blocking work, a bounded number at a
//! time, in slices, and end early when nobody waits for the answer any more.

mod chunk;
mod patterns;
mod samples;
mod select;
mod streams;
mod volume;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tailwater_model::LogId;
use tailwater_wire::node::{Answer, NodeError, Scanned};
use tokio::sync::Semaphore;

pub(crate) use chunk::chunk;
pub(crate) use patterns::patterns;
pub(crate) use samples::{no_samples, samples};
pub(crate) use select::select;
pub(crate) use streams::{labels, series, stats};
pub(crate) use volume::volume;

/// Most workers of a read.
const MAX_WORKERS: usize = 8;

/// Lines under which a second worker is not worth its start. (Few in tests.)
const LINES_PER_WORKER: u64 = if cfg!(test) { 20 } else { 20_000 };

/// Has as many workers do `work` as that many lines are worth; answers what each has found.
fn workers<T: Send + Default>(lines: u64, work: impl Fn() -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let workers = usize::try_from(lines / LINES_PER_WORKER).unwrap_or(cores).clamp(1, cores);
    if workers == 1 {
        return vec![work()];
    }
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(&work)).collect();
        let mut found = vec![work()];
        // A worker does not panic; if one did, so would the read.
        found.extend(others.into_iter().map(|other| other.join().unwrap_or_default()));
        found
    })
}

/// What several workers have looked at together.
#[derive(Debug, Default)]
struct Totals {
    lines: AtomicU64,
    bytes: AtomicU64,
    matched: AtomicU64,
    batches: AtomicU64,
}

impl Totals {
    fn add(&self, more: Scanned) {
        self.lines.fetch_add(more.lines, Ordering::Relaxed);
        self.bytes.fetch_add(more.bytes, Ordering::Relaxed);
        self.matched.fetch_add(more.matched, Ordering::Relaxed);
        self.batches.fetch_add(more.batches, Ordering::Relaxed);
    }

    fn sum(&self) -> Scanned {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Scanned {
            lines: get(&self.lines),
            bytes: get(&self.bytes),
            matched: get(&self.matched),
            batches: get(&self.batches),
        }
    }
}

/// Whether the answer is still wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Nobody waits any more.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sets the cancel when the future that waits for the answer is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Runs `work` on a thread where it may block.
pub(crate) fn blocking<T: Send + 'static>(
    permits: Arc<Semaphore>,
    log: LogId,
    work: impl FnOnce(&Cancel) -> T + Send + 'static,
) -> Answer<T> {
    let unavailable = move |reason: String| NodeError::Unavailable { log, reason };
    Box::pin(async move {
        let permit = permits.acquire_owned().await.map_err(|e| unavailable(e.to_string()))?;
        let cancel = Cancel::default();
        let guard = CancelOnDrop(cancel.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let answer = work(&cancel);
            // Held until the work has ended, also when nobody waits for it.
            drop(permit);
            answer
        })
        .await;
        drop(guard);
        answer.map_err(|e| unavailable(e.to_string()))
    })
}
