//! This process as other members use it: its own log, its copies of others', and pushes that came in elsewhere.

use std::sync::Arc;

use tailwater_ingester::Copies;
use tailwater_model::LogId;
use tailwater_wire::host::{CopyBegin, Copying, ForwardedPush, Host, PushAnswer};
use tailwater_wire::node::{Answer, Node, NodeError};

use crate::intake::Intake;

/// See the module.
pub(crate) struct OwnHost {
    intake: Arc<Intake>,
    /// Copies of others' logs.
    copies: Option<Copies>,
}

impl OwnHost {
    pub(crate) fn new(intake: Arc<Intake>, copies: Option<Copies>) -> Arc<Self> {
        Arc::new(Self { intake, copies })
    }

    fn own(&self) -> Option<Arc<dyn Node>> {
        self.intake.ingester().map(|ingester| Arc::clone(ingester) as Arc<dyn Node>)
    }
}

impl Host for OwnHost {
    fn log(&self, log: LogId) -> Option<Arc<dyn Node>> {
        let own = self.own().filter(|own| own.log_id() == log);
        own.or_else(|| self.copies.as_ref().and_then(|copies| copies.node(log)))
    }

    fn logs(&self) -> Vec<LogId> {
        let own = self.own().map(|own| own.log_id());
        let copies = self.copies.iter().flat_map(|copies| copies.logs()).filter(|log| Some(*log) != own);
        own.into_iter().chain(copies).collect()
    }

    fn push(&self, push: ForwardedPush) -> Answer<PushAnswer> {
        let intake = Arc::clone(&self.intake);
        Box::pin(async move { Ok(intake.forwarded(push).await) })
    }

    fn copy(&self, begin: CopyBegin) -> Answer<Arc<dyn Copying>> {
        match &self.copies {
            // The owner of a log keeps no copy of it: whoever asks believes somebody else to be the owner.
            Some(copies) if self.own().is_none_or(|own| own.log_id() != begin.log) => copies.begin(begin),
            _ => Box::pin(async move {
                let reason = "this node keeps no copy of it".to_owned();
                Err(NodeError::Unavailable { log: begin.log, reason })
            }),
        }
    }
}
