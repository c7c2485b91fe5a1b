//! What a node of a cluster offers other nodes beside reads: it takes pushes that came in elsewhere, and copies of logs.
//!
//! Invariants of copying:
//! * Only the log's owner gives out numbers. A copy is a contiguous part of the owner's log, record by record with the owner's numbers and
//!   times: it never differs, it only ends earlier, and begins where the owner said that everything before is in blocks.
//! * A copy acknowledges a position when everything from its beginning up to there is written, as durably as its node is configured to.
//! * Records come in order. What a copy has already it passes over, so that a stream may begin anew anywhere at or before the copy's end.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use tailwater_model::{LogId, TenantId, Timestamp};

use crate::node::{Answer, Node, NodeError};

/// A node as other nodes use it.
pub trait Host: Send + Sync + 'static {
    /// The log as this node has it: its own, or a copy. None: it does not have it.
    fn log(&self, log: LogId) -> Option<Arc<dyn Node>>;

    /// Its name in the cluster; empty if nobody is to know.
    fn name(&self) -> String {
        String::new()
    }

    /// Every log that this node can answer for, its own first.
    fn logs(&self) -> Vec<LogId>;

    /// Stores a push that came in at another node.
    fn push(&self, push: ForwardedPush) -> Answer<PushAnswer>;

    /// Begins, or goes on with, a copy of a log.
    ///
    /// # Errors
    /// This node keeps no copies, or the folder cannot be made.
    fn copy(&self, begin: CopyBegin) -> Answer<Arc<dyn Copying>>;
}

/// A push on its way from the node that received it to the one that stores it.
#[derive(Clone, Debug)]
pub struct ForwardedPush {
    /// Whose lines.
    pub tenant: TenantId,
    /// The push in its protobuf form, in a snappy block.
    pub body: Bytes,
}

/// What became of a [`ForwardedPush`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAnswer {
    /// The HTTP status that the client gets: 204 if all of it is stored.
    pub status: u16,
    /// What else it is told, in Loki's words; empty for 204.
    pub message: String,
}

/// How a copy begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyBegin {
    /// The log.
    pub log: LogId,
    /// The name of the node that owns it.
    pub owner: String,
    /// Everything up to this batch is in blocks: a new copy begins after it.
    pub in_blocks: u64,
}

/// A copy of a log that is being written.
pub trait Copying: Send + Sync + 'static {
    /// The last batch that the copy has.
    fn head(&self) -> u64;

    /// Takes records in. Answers the last batch that is written by then.
    ///
    /// # Errors
    /// They cannot be written now, or do not follow what the copy has.
    fn append(&self, records: Vec<CopiedRecord>) -> Answer<u64>;

    /// Everything up to this batch is in blocks: the copy may let go of it.
    fn in_blocks(&self, through: u64);
}

/// A record of a log on its way to a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopiedRecord {
    /// A batch.
    Batch {
        /// Its number.
        seq: u64,
        /// When it was accepted.
        accepted_at: Timestamp,
        /// Whose it is.
        tenant: TenantId,
        /// Lines of the tenant up to and including this record.
        tenant_lines: u64,
        /// The earliest timestamp of its lines, in nanoseconds.
        min: i64,
        /// The latest.
        max: i64,
        /// Its lines.
        lines: u32,
        /// What the owner's write-ahead log holds of it.
        payload: Bytes,
    },
    /// Numbers without a batch.
    Missing {
        /// The first of them.
        first: u64,
        /// The last.
        last: u64,
        /// Whether lines may be lost with them. Otherwise the numbers were never given to anything that a reader has seen.
        lost: bool,
    },
}

impl CopiedRecord {
    /// The last number that it is about.
    #[must_use]
    pub fn last(&self) -> u64 {
        match self {
            Self::Batch { seq, .. } => *seq,
            Self::Missing { last, .. } => *last,
        }
    }
}

/// A log that is copied: what its owner offers those who carry copies to other nodes.
pub trait Copied: Send + Sync + 'static {
    /// The log.
    fn log_id(&self) -> LogId;

    /// What is in blocks: see [`CopyBegin::in_blocks`].
    fn in_blocks(&self) -> u64;

    /// Records after a position, some at a time, waiting for new ones. It ends with an error if the position was let go of.
    fn records(&self, after: u64) -> Records;

    /// Who has copies now: pushes are acknowledged when `quorum` of them have the push, too. 0: when it is in the log.
    fn acknowledged_by(&self, copies: &[CopyState], quorum: usize);
}

/// Records in order; never an empty piece.
pub type Records = Pin<Box<dyn Stream<Item = Result<Vec<CopiedRecord>, NodeError>> + Send>>;

/// How far a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// The node that has it.
    pub node: String,
    /// The last batch that it has acknowledged.
    pub through: u64,
}
