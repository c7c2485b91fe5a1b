//! LogQL: text → [`ast`] → compiled [`pipeline`]. Pure: no I/O, no clock, no async; no panic on any input; nesting and size
//! are bounded.

pub mod ast;
pub mod go;
