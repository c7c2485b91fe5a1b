//! What is on disk and in object storage, and the search over entries wherever they are: in memory, in the write-ahead log, in blocks.

pub mod deletes;
pub mod entries;
pub mod scan;
mod stream;

pub use stream::{ByStream, Stream};
