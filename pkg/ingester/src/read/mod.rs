//! Reads of history: by position here, by time in the store. They run on threads for blocking work, a bounded number at a
//! time, and end early when nobody waits for the answer any more.

mod chunk;

use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_store::scan::{self, Cancel, Source, Unit};
use tailwater_wire::node::{Answer, NodeError, Sampled, SamplesRequest};
use tokio::sync::Semaphore;

pub(crate) use chunk::chunk;

use crate::log::{Account, ArrivalLog};

/// What a tenant has in the log.
pub(crate) struct InLog {
    pub(crate) log: Arc<ArrivalLog>,
    pub(crate) account: Arc<Account>,
}

impl Source for InLog {
    fn log(&self) -> LogId {
        self.log.id()
    }

    fn collect(&self, positions: (u64, u64), times: (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        Ok(self.log.look(&self.account, positions, times).units)
    }
}

/// See [`tailwater_wire::node::Node::samples`].
pub(crate) fn samples(
    source: &InLog,
    request: &SamplesRequest,
    seed: u64,
    cancel: &Cancel,
) -> Result<Sampled, NodeError> {
    let InLog { log, account } = source;
    let (head, ()) = log.with_head(account, || ());
    let through = request.as_of.min(head.seq);
    let from_anywhere = request.after == 0 && request.settled.is_none();
    let gap = if from_anywhere { None } else { log.gap_after(account, request.after, through) };
    let known = Sampled { through, watermark: head.watermark, gap, ..Sampled::default() };
    scan::samples(source, request, known, seed, cancel)
}

/// The answer for a tenant that has no lines.
pub(crate) fn no_samples(log: &ArrivalLog, request: &SamplesRequest) -> Sampled {
    let as_of = request.as_of;
    let (head, ()) = log.with_head(&Account::new(request.tenant.clone()), || ());
    Sampled { through: as_of.min(head.seq), watermark: head.watermark, ..Sampled::default() }
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
