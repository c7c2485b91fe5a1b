//! Putting the lines of a log into blocks whose node is gone, from a copy.
//!
//! It is the pager's work, with the positions of the original: a manifest moves from one covered position to the next by compare-and-swap,
//! whoever does it, so of several nodes that hold the same log each finds what another has put into blocks already, and leaves it out. What a
//! copy alone has lost is never passed over: the original may have it.

use std::sync::Arc;
use std::time::Duration;

use tailwater_model::Clock;
use tailwater_store::catalog::Catalog;
use tokio::task::JoinHandle;

use super::copy::Copy;
use super::metrics::Metrics;
use crate::pager::{Pager, PagerConfig, PagerFailure};

/// The pause after the first failure, on average; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a failure, on average.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is under way. Dropping it ends it.
pub(super) struct Flushing {
    pager: Arc<Pager>,
    task: JoinHandle<()>,
}

impl Flushing {
    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    pub(super) fn failure(&self) -> Option<PagerFailure> {
        self.pager.failure()
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Copy {
    /// See [`super::Copies::adopt`].
    pub(super) fn adopt(
        &self,
        catalog: Arc<Catalog>,
        config: PagerConfig,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> bool {
        let mut flushing = self.flushing.lock();
        if !self.is_ready() || self.is_written() {
            return false;
        }
        if flushing.as_ref().is_some_and(Flushing::is_running) {
            return true;
        }
        let log = Arc::clone(&self.ingester.log);
        let (id, head, in_blocks) = (log.id(), log.head(), log.covered());
        if in_blocks >= head {
            return true;
        }
        tracing::info!(log = %id, head, in_blocks, "the lines of a log whose node is gone are put into blocks");
        let pager = Arc::new(Pager::start(log, catalog, config, clock, metrics.pager.clone()));
        let (work, done) = (Arc::clone(&pager), metrics.adopted.clone());
        let task = tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Err(error) = work.flush().await {
                tracing::debug!(%error, log = %id, "a copy of a log cannot be put into blocks yet");
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            done.inc();
            tracing::info!(log = %id, through = head, "all lines of a log whose node is gone are in blocks");
        });
        *flushing = Some(Flushing { pager, task });
        true
    }

    /// Ends it, after the step that is under way.
    pub(super) fn abandon(&self) {
        drop(self.flushing.lock().take());
    }
}
