//! Searches run on threads for blocking work, a bounded number at a time, and end early when nobody waits for the answer any more.

use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_wire::node::{Answer, NodeError};
use tokio::sync::Semaphore;

use super::Cancel;

/// Sets the cancel when the future that waits for the answer is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Runs `work` on a thread where it may block, once there is a permit. `log`: whose answer it is. Needs a runtime.
pub fn blocking<T: Send + 'static>(
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
