//! The store that an ingester writes its lines to and reads them from again: blocks, their catalog, and what was asked to be deleted.
//!
//! A search looks at blocks up to the boundary and at the log after it (docs/adr/0009-one-boundary.md). The boundary is taken first, then
//! the catalog is asked: it lists everything up to there, and what it lists beyond is passed over by position.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use tailwater_model::{LogId, TenantId};
use tailwater_store::Error;
use tailwater_store::catalog::Catalog;
use tailwater_store::deletes::{Deletes, Deletion};
use tailwater_store::entries::Entries;
use tailwater_store::history::{BlockRef, History, Places};
use tailwater_store::scan::{Source, Stretch, Unit};
use tailwater_wire::node::NodeError;
use tokio::runtime::Handle;

use crate::log::{Account, ArrivalLog};

/// Where blocks are kept and found.
#[derive(Clone)]
pub struct Store {
    /// Which blocks there are.
    pub catalog: Arc<Catalog>,
    /// Reads them.
    pub history: History,
    /// What searches leave out; none: nothing is ever deleted on request.
    pub deletes: Option<Arc<Deletes>>,
    /// Where the store's operations run while a search waits for them.
    pub runtime: Handle,
}

/// Everything a tenant has: blocks, the write-ahead log, and memory.
pub(crate) struct Everything {
    pub(crate) log: Arc<ArrivalLog>,
    pub(crate) account: Arc<Account>,
    pub(crate) store: Option<Store>,
}

impl Everything {
    fn unavailable(&self, error: &Error) -> NodeError {
        NodeError::Unavailable { log: self.log.id(), reason: error.to_string() }
    }
}

impl Source for Everything {
    fn log(&self) -> LogId {
        self.log.id()
    }

    fn collect(&self, (after, upto): (u64, u64), (first, last): (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        let look = self.log.look(&self.account, (after, upto), (first, last));
        let Some(store) = &self.store else { return Ok(look.units) };
        if after > 0 && after >= look.boundary {
            return Ok(look.units);
        }
        let found = store.runtime.block_on(store.catalog.blocks(&self.account.tenant, first, last));
        let found = found.map_err(|error| self.unavailable(&error))?;
        let blocks = found.blocks.iter().map(|block| {
            let path = block.path(&self.account.tenant);
            BlockRef::new(path, (block.min, block.max), block.lines)
        });
        let places = Places { own: self.log.id(), after, upto: upto.min(look.boundary), earlier: after == 0 };
        let mut units = store.history.units(blocks, places);
        units.extend(found.corrupt.into_iter().map(|error| Unit::Stretch(Arc::new(Lost::new(error, (first, last))))));
        units.extend(look.units);
        Ok(units)
    }

    fn deletions(&self) -> Result<Arc<[Deletion]>, NodeError> {
        let Some(Store { deletes: Some(deletes), runtime, .. }) = &self.store else { return Ok(Arc::default()) };
        runtime.block_on(deletes.filter(&self.account.tenant)).map_err(|error| self.unavailable(&error))
    }
}

/// Something that should have been there and cannot be read: a search that looks at it says so.
struct Lost {
    error: Mutex<Option<Error>>,
    text: String,
    times: (i64, i64),
}

impl Lost {
    fn new(error: Error, times: (i64, i64)) -> Self {
        Self { text: error.to_string(), error: Mutex::new(Some(error)), times }
    }
}

impl Stretch for Lost {
    fn min(&self) -> i64 {
        self.times.0
    }

    fn max(&self) -> i64 {
        self.times.1
    }

    fn lines(&self) -> u64 {
        1
    }

    fn visit(&self, _: &mut dyn FnMut(Arc<Entries>) -> ControlFlow<()>) -> Result<(), Error> {
        let known = self.error.lock().take();
        Err(known.unwrap_or_else(|| Error::Corrupt { what: "the catalog".to_owned(), reason: self.text.clone() }))
    }
}

/// The account of a tenant of which the log knows nothing.
pub(crate) fn stranger(tenant: &TenantId) -> Arc<Account> {
    Arc::new(Account::new(tenant.clone()))
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("objects", self.catalog.objects()).finish_non_exhaustive()
    }
}
