//! Blocks: immutable objects that hold entries, and what finds them. The format is described in `docs/formats/block.md`.
//!
//! Everything here is a function of bytes: who fetches and keeps them is another matter. A block has four sections and a footer; each part
//! that is read alone has a checksum of its own, so any byte that is not what was written is found when it is read.
//!
//! ```text
//! [pages] [grams] [index] [footer] [trailer]
//! ```

mod columns;
mod footer;
mod frame;
mod grams;
mod index;
mod metadata;
mod page;
mod varint;
mod writer;

pub use self::columns::Columns;
pub use self::footer::{Footer, Indexed, Located, PageInfo, Section, StreamEntry, TAIL_GUESS, VERSION};
pub use self::grams::{GRAM, Grams, Probe, decode_grams};
pub use self::index::{Index, PageSet};
pub use self::page::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, decode_columns, decode_page};
pub use self::writer::{Built, Covered, Entry, Options, Sizes, Summary, Writer};

#[cfg(test)]
mod tests;
