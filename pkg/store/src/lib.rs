//! What is on disk and in object storage, and the search over entries wherever they are: in memory, in the write-ahead log, in blocks.

pub mod block;
pub mod catalog;
pub mod deletes;
pub mod entries;
mod error;
pub mod history;
pub mod housekeeping;
pub mod inspect;
pub mod objects;
pub mod scan;
mod stream;
pub mod wal;

pub use error::{Error, Kind};
pub use stream::{ByStream, Stream};
