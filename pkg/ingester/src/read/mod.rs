//! Reads of history: by position here, by time in the store. They run on threads for blocking work, a bounded number at a
//! time, and end early when nobody waits for the answer any more.

mod beyond;
mod chunk;
mod everything;

use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_store::scan::{self, Cancel};
use tailwater_wire::node::{Answer, NodeError, Sampled, SamplesRequest};
use tokio::sync::Semaphore;

pub(crate) use beyond::not_beyond;
pub(crate) use chunk::chunk;
pub(crate) use everything::Everything;

/// See [`tailwater_wire::node::Node::samples`].
pub(crate) fn samples(
    source: &Everything,
    request: &SamplesRequest,
    seed: u64,
    cancel: &Cancel,
) -> Result<Sampled, NodeError> {
    let Everything { log, account, history } = source;
    let (head, ()) = log.with_head(account, || ());
    let through = request.as_of.min(head.seq);
    let from_anywhere = request.after == 0 && request.settled.is_none();
    // What the log has trimmed is in blocks, if there are any.
    let complete = from_anywhere || history.is_some();
    let gap = if complete { None } else { log.gap_after(account, request.after, through) };
    let known = Sampled { through, watermark: head.watermark, gap, ..Sampled::default() };
    scan::samples(source, request, known, seed, cancel)
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
    work: impl FnOnce(&Cancel) -> Result<T, NodeError> + Send + 'static,
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
        answer.map_err(|e| unavailable(e.to_string()))?
    })
}
