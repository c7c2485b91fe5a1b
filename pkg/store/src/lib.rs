//! What is on disk and in object storage, and the search over entries wherever they are: in memory, in the write-ahead log, in blocks.

pub mod catalog;
pub mod entries;
mod error;
pub mod objects;
mod stream;

pub use error::{Error, Kind};
pub use stream::{ByStream, Stream};
