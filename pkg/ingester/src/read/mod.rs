//! Reads of history: by position, by time, and what streams there are. They run on threads for blocking work, a bounded number at a
//! time, in slices, and end early when nobody waits for the answer any more.

mod chunk;
mod patterns;
mod select;
mod streams;
mod volume;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_model::LogId;
use tailwater_wire::node::{Answer, NodeError};
use tokio::sync::Semaphore;

pub(crate) use chunk::chunk;
pub(crate) use patterns::patterns;
pub(crate) use select::select;
pub(crate) use streams::{labels, series, stats};
pub(crate) use volume::volume;

/// Whether the answer is still wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets the cancel when the future that waits for the answer is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
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
