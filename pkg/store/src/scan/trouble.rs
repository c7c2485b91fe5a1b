//! What goes wrong while a search is under way: what is lost is told in a warning and the search goes on; what cannot be reached ends it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tailwater_model::LogId;
use tailwater_wire::node::NodeError;

use crate::{Error, Kind};

/// Most warnings of an answer.
const MAX_WARNINGS: usize = 10;

/// What the workers of a search have met.
#[derive(Debug)]
pub(super) struct Troubles {
    log: LogId,
    warnings: Mutex<BTreeSet<String>>,
    failed: AtomicBool,
    failure: Mutex<Option<NodeError>>,
}

impl Troubles {
    pub(super) fn new(log: LogId) -> Self {
        Self { log, warnings: Mutex::default(), failed: AtomicBool::new(false), failure: Mutex::default() }
    }

    /// Takes note of an error. Whoever met it goes on with something else.
    pub(super) fn note(&self, error: &Error) {
        match error.kind() {
            Kind::Corrupt | Kind::NotFound => self.warn(format!("the answer is partial: {error}")),
            _ => {
                let reason = error.to_string();
                self.failure.lock().get_or_insert(NodeError::Unavailable { log: self.log, reason });
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock();
        if warnings.len() < MAX_WARNINGS {
            warnings.insert(warning);
        }
    }

    /// Whether the search has failed and may end.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The warnings, unless the search has failed.
    pub(super) fn settle(&self) -> Result<Vec<String>, NodeError> {
        match &*self.failure.lock() {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.warnings.lock().iter().cloned().collect()),
        }
    }
}
