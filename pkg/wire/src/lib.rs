//! Bytes ⇄ model: push bodies in, Loki's JSON out, and what queriers ask of ingesters. Pure: no I/O, no clock; no panic on any
//! input, and no more memory than the caller's caps allow.

pub mod answer;
pub mod compress;
mod error;
pub mod frame;
pub mod host;
mod json;
pub mod labels;
mod media;
pub mod node;
pub mod otlp;
mod proto;
mod protobuf;
pub mod push;
mod text;

pub use error::{Error, Kind};
