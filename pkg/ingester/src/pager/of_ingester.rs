//! The pager as the ingester offers it.

use std::sync::Arc;

use tailwater_model::Timestamp;
use tailwater_store::Error;
use tailwater_store::catalog::Catalog;

use super::{Pager, PagerConfig, PagerFailure};
use crate::Ingester;

impl Ingester {
    /// Begins to put what is in the log into blocks. Called once, after [`Ingester::recover`] and within a runtime; without a write-ahead
    /// log it does nothing.
    pub fn start_pager(&self, catalog: Arc<Catalog>, config: PagerConfig) {
        if self.log.is_durable() {
            self.pager.get_or_init(|| {
                let (log, clock) = (Arc::clone(&self.log), Arc::clone(&self.clock));
                Pager::start(log, catalog, config, clock, self.pager_metrics.clone())
            });
        }
    }

    /// Puts everything into blocks that is in the log now. Returns when the catalog lists it.
    ///
    /// # Errors
    /// Why it could not be done: then the lines are still in the log, and it is tried again. [`Error::Config`]: there is no pager.
    pub async fn flush(&self) -> Result<(), Arc<Error>> {
        match self.pager.get() {
            Some(pager) => pager.flush().await,
            None => Err(Arc::new(Error::Config { reason: "lines are not put into blocks here".into() })),
        }
    }

    /// Stops putting lines into blocks; what is not in any stays in the write-ahead log.
    pub async fn stop_pager(&self) {
        if let Some(pager) = self.pager.get() {
            pager.stop().await;
        }
    }

    /// Why lines could not be put into blocks when it was tried last; nothing if they could.
    #[must_use]
    pub fn pager_failure(&self) -> Option<PagerFailure> {
        self.pager.get()?.failure()
    }

    /// Everything that was accepted before this instant is in blocks.
    #[must_use]
    pub fn in_blocks_until(&self) -> Timestamp {
        self.log.in_blocks_until()
    }
}
