//! Bytes ⇄ model: push bodies in, Loki's JSON out, and what queriers ask of ingesters. Pure: no I/O, no clock; no panic on any
//! input, and no more memory than the caller's caps allow.

pub mod compress;
mod error;
mod json;
pub mod labels;
mod media;
pub mod push;

pub use error::{Error, Kind};
