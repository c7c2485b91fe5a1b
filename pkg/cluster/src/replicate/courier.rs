//! How records reach other nodes. Calls between nodes provide it; tests have one of their own.

use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use futures_util::stream;
use tailwater_wire::host::{CopiedRecord, CopyBegin};
use tailwater_wire::node::{Answer, NodeError};

use crate::member::Member;
use crate::rpc::{self, Peers};

/// The way to nodes that keep copies.
pub trait Courier: Send + Sync + 'static {
    /// Begins, or goes on with, a copy on that node.
    fn copy(&self, to: &Member, begin: CopyBegin) -> Answer<CopyStream>;
}

/// A copy that is being written on another node. Dropped, it is no longer.
pub struct CopyStream {
    /// The last batch that the copy had when this began; 0: none.
    pub head: u64,
    /// Where records go.
    pub sink: Box<dyn CopySink>,
    /// What the copy has acknowledged, in order. It ends, or yields an error, when the stream breaks.
    pub acks: Acks,
}

/// See [`CopyStream::acks`].
pub type Acks = Pin<Box<dyn Stream<Item = Result<u64, NodeError>> + Send>>;

/// See [`CopyStream::sink`]. What is given to it is sent in that order; the answer comes when there is room for more.
pub trait CopySink: Send + 'static {
    /// Sends records.
    fn send(&mut self, records: Vec<CopiedRecord>) -> Answer<()>;

    /// Says that everything up to this batch is in blocks.
    fn in_blocks(&mut self, through: u64) -> Answer<()>;
}

impl Courier for Peers {
    fn copy(&self, to: &Member, begin: CopyBegin) -> Answer<CopyStream> {
        let begun = self.peer(to.grpc).copy(begin);
        Box::pin(async move {
            let copy = Arc::new(begun.await?);
            let acks = stream::try_unfold(Arc::clone(&copy), |copy| async move {
                let through = copy.acks().await?;
                Ok(Some((through, copy)))
            });
            Ok(CopyStream { head: copy.head, acks: Box::pin(acks), sink: Box::new(Call(copy)) })
        })
    }
}

/// The call that a copy is written with.
struct Call(Arc<rpc::CopyStream>);

impl CopySink for Call {
    fn send(&mut self, records: Vec<CopiedRecord>) -> Answer<()> {
        let copy = Arc::clone(&self.0);
        Box::pin(async move { copy.send(records).await })
    }

    fn in_blocks(&mut self, through: u64) -> Answer<()> {
        let copy = Arc::clone(&self.0);
        Box::pin(async move { copy.in_blocks(through).await })
    }
}
