//! The ingester: streams, the arrival log and its readers, tail groups, and the pager.
//!
//! A push is checked as Loki checks it and becomes a batch of the arrival log; everything else reads: follows through tail
//! groups, history by position and time. No reader can hold up a push.
//!
//! A log can be copied to other nodes, and copies of their logs be kept here: [`Copies`].

mod batch;
mod bucket;
mod copied;
mod copies;
mod error;
mod evaluate;
mod group;
mod ingester;
mod log;
mod metrics;
mod pager;
mod push;
mod quorum;
mod read;
mod receipt;
mod recover;
mod stream;
mod tails;
mod tenant;
#[cfg(test)]
mod tests;
mod validate;

pub use self::copied::COPIES_NEED_WAL;
pub use self::copies::{Copies, CopiesConfig, CopyInfo};
pub use self::error::{PushError, PushErrorKind};
pub use self::ingester::{Config, Ingester};
pub use self::pager::{PagerConfig, PagerFailure};
pub use self::push::Accepted;
pub use self::quorum::Replication;
pub use self::receipt::Receipt;
pub use self::recover::Recovering;
pub use tailwater_store::wal::{Config as WalConfig, SyncPolicy};
