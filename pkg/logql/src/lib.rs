//! LogQL: text → [`ast`] → compiled pipeline. Pure: no I/O, no clock, no async; no panic on any input; nesting and size
//! are bounded.

pub mod ast;
mod error;
pub mod go;
pub mod syntax;

pub use error::Error;
pub use syntax::{parse, parse_log, parse_match, parse_selector};
