//! The ingester's log as others copy it.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use tailwater_model::LogId;
use tailwater_wire::host::{Copied, CopyState, Records};

use crate::Ingester;

/// What is wrong with a configuration that wants copies of logs that are in memory only: for whoever reads the configuration.
pub const COPIES_NEED_WAL: &str = "logs that are in memory only cannot be copied: ingester.replication_factor above 1 needs \
     ingester.wal.enabled: true";

impl Copied for Ingester {
    fn log_id(&self) -> LogId {
        self.log.id()
    }

    fn in_blocks(&self) -> u64 {
        self.log.covered()
    }

    fn records(&self, after: u64) -> Records {
        if self.readiness.is_ready() {
            return self.log.records(after);
        }
        // Where the log ends is not known before everything is back.
        let (log, mut ready) = (Arc::clone(&self.log), self.readiness.subscribe());
        let begin = async move {
            let is_ready = ready.wait_for(|is_ready| *is_ready).await.is_ok();
            stream::iter(is_ready.then(|| log.records(after))).flatten()
        };
        Box::pin(stream::once(begin).flatten())
    }

    fn acknowledged_by(&self, copies: &[CopyState], quorum: usize) {
        self.quorum.acknowledged_by(copies, quorum);
    }
}
