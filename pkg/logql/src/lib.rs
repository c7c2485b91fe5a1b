//! LogQL: text → [`ast`] → compiled [`pipeline`]. Pure: no I/O, no async, and no clock but for templates that ask for the
//! current time; no panic on any input; nesting and size are bounded.

pub mod ast;
mod error;
pub mod fields;
pub mod go;
pub mod level;
pub mod matchers;
pub mod metric;
pub mod patterns;
pub mod pipeline;
mod portable;
mod pretty;
mod print;
mod query;
pub mod regex;
mod requirements;
pub mod syntax;
pub mod template;

pub use error::Error;
pub use pipeline::{Matched, Runner};
pub use portable::Malformed;
pub use pretty::pretty;
pub use query::LogQuery;
pub use requirements::{AnyOf, Requirements};
pub use syntax::{parse, parse_log, parse_match, parse_selector};
