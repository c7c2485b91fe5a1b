//! Searches over entries, wherever they are: by time, over whole streams. They run on threads where they may block, share their work
//! between cores, and end early when nobody waits for the answer any more.

mod blocking;
mod evaluator;
mod overlaps;
mod patterns;
mod pieces;
mod positions;
mod queue;
mod repeats;
mod samples;
mod select;
mod streams;
mod trouble;
mod unit;
mod volume;
mod wanted;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tailwater_wire::node::Scanned;

pub use blocking::blocking;
pub use evaluator::Evaluator;
pub use patterns::patterns;
pub(crate) use positions::{Stretch as Positions, UnitOf, read};
pub use samples::samples;
pub use select::select;
pub use streams::{labels, series, stats};
pub use unit::{Source, Stretch, Unit};
pub use volume::volume;

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
struct Totals(Mutex<Scanned>);

impl Totals {
    fn add(&self, more: Scanned) {
        *self.0.lock() += more;
    }

    fn sum(&self) -> Scanned {
        *self.0.lock()
    }
}

/// Whether the answer is still wanted.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Whether it is not.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Nobody waits any more.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
