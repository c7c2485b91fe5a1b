//! Everything a tenant has: blocks, the write-ahead log, and memory; or, for who reads blocks himself, the log alone.
//!
//! A search looks at blocks up to the boundary and at the log after it (docs/adr/0009-one-boundary.md). The boundary is taken first, then
//! the catalog is asked: it lists everything up to there, and what it lists beyond is passed over by position.

use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_store::deletes::Deletion;
use tailwater_store::history::History;
use tailwater_store::scan::{Source, Unit};
use tailwater_wire::node::{NodeError, Part};

use crate::log::{Account, ArrivalLog, Boundary};

/// See the module's words.
#[derive(Clone)]
pub(crate) struct Everything {
    pub(crate) log: Arc<ArrivalLog>,
    pub(crate) account: Arc<Account>,
    /// The blocks; none where lines are in memory only.
    pub(crate) history: Option<History>,
    /// Where lines are looked for.
    pub(crate) part: Part,
}

impl Everything {
    /// What of the log comes after a position, as far as it is asked for.
    fn of_log(&self, boundary: u64, (after, upto): (u64, u64), times: (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        let look = self.log.look(&self.account, (after.max(boundary), upto), times, Boundary::At(boundary));
        // Without blocks what left memory is nowhere.
        if look.boundary > boundary && self.log.is_durable() {
            return Err(NodeError::Trimmed { log: self.log.id(), through: look.boundary });
        }
        Ok(look.units)
    }
}

impl Source for Everything {
    fn log(&self) -> LogId {
        self.log.id()
    }

    fn collect(&self, positions: (u64, u64), times: (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        if let Part::Log { after } = self.part {
            return self.of_log(after, positions, times);
        }
        // What was deleted is gone from blocks, and still in memory: it is asked of blocks as far as these go.
        let far = self.history.as_ref().is_some_and(|history| history.has_deleted(&self.account.tenant));
        let look =
            self.log.look(&self.account, positions, times, if far { Boundary::Highest } else { Boundary::Lowest });
        let Some(history) = &self.history else { return Ok(look.units) };
        let after = positions.0;
        if after > 0 && after >= look.boundary {
            return Ok(look.units);
        }
        let mut units = history.units(&self.account.tenant, times, (self.log.id(), look.boundary), positions)?;
        units.extend(look.units);
        Ok(units)
    }

    fn deletions(&self) -> Result<Arc<[Deletion]>, NodeError> {
        let Some(history) = &self.history else { return Ok(Arc::default()) };
        history.deletions(&self.account.tenant, self.log.id())
    }
}
