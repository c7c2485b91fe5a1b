//! What a search looks at: entries at hand, and entries that are read when their turn comes.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_wire::node::NodeError;

use crate::Error;
use crate::deletes::Deletion;
use crate::entries::Entries;
use crate::history::Block;

/// What can be searched: the entries of one tenant.
pub trait Source: Sync {
    /// The arrival log whose positions are meant.
    fn log(&self) -> LogId;

    /// The units that hold the entries of the batches after the first position and up to the second, as far as they may have a timestamp
    /// between the two, inclusive. Every such entry is in one of them, and in no two. Batches and stretches are in the order of the log.
    ///
    /// After 0 are also all entries of earlier logs.
    ///
    /// # Errors
    /// [`NodeError::Unavailable`]: what there is cannot be learnt now.
    fn collect(&self, positions: (u64, u64), times: (i64, i64)) -> Result<Vec<Unit>, NodeError>;

    /// What is deleted of all that. Asked for before the units are.
    ///
    /// # Errors
    /// [`NodeError::Unavailable`]: it cannot be learnt now.
    fn deletions(&self) -> Result<Arc<[Deletion]>, NodeError> {
        Ok(Arc::default())
    }
}

/// Entries with one place to be.
#[derive(Clone, Debug)]
pub enum Unit {
    /// Entries at hand. Those outside of the times asked for are passed over.
    Batch(Arc<Entries>),
    /// Entries in the write-ahead log.
    Stretch(Arc<dyn Stretch>),
    /// Entries of a block; see [`crate::history::History::units`].
    Block(Arc<Block>),
    /// Entries that are lost: answers say so.
    Lost(Arc<Error>),
}

/// Entries that are read piece by piece when they are looked at: what a segment of the write-ahead log holds of a tenant within positions
/// and times.
pub trait Stretch: Send + Sync {
    /// No timestamp is earlier.
    fn min(&self) -> i64;

    /// No timestamp is later.
    fn max(&self) -> i64;

    /// About how many entries there are.
    fn lines(&self) -> u64;

    /// Calls `f` with the entries, a batch or so at a time, in the order of the log, until it breaks. Can be repeated.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::NotFound`]: the rest is lost, the search goes on without it and says so. Others end the search.
    fn visit(&self, f: &mut dyn FnMut(Arc<Entries>) -> ControlFlow<()>) -> Result<(), Error>;
}

impl Unit {
    /// No timestamp is earlier.
    pub(super) fn min(&self) -> i64 {
        match self {
            Self::Batch(entries) => entries.min,
            Self::Stretch(stretch) => stretch.min(),
            Self::Block(block) => block.min(),
            Self::Lost(_) => i64::MAX,
        }
    }

    /// No timestamp is later.
    pub(super) fn max(&self) -> i64 {
        match self {
            Self::Batch(entries) => entries.max,
            Self::Stretch(stretch) => stretch.max(),
            Self::Block(block) => block.max(),
            Self::Lost(_) => i64::MIN,
        }
    }

    /// About how many entries there are.
    pub(super) fn lines(&self) -> u64 {
        match self {
            Self::Batch(entries) => entries.lines(),
            Self::Stretch(stretch) => stretch.lines(),
            Self::Block(block) => block.lines(),
            Self::Lost(_) => 0,
        }
    }

    /// The same without entries of earlier logs.
    pub(super) fn without_earlier(self) -> Self {
        match self {
            Self::Block(block) => Self::Block(Arc::new(block.without_earlier())),
            other => other,
        }
    }
}

impl fmt::Debug for dyn Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stretch").field("min", &self.min()).field("max", &self.max()).finish_non_exhaustive()
    }
}
