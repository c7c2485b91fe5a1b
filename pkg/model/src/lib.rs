//! The words of the domain. No I/O, no async, no wire formats.
//!
//! Everything else in the workspace is written in these terms: a *tenant* owns *streams*; a stream is a set of
//! [`Labels`]; an *entry* is a timestamp, a line of bytes and structured metadata; accepted pushes are batches in an
//! *arrival log* and a [`Position`] names a place in it.

mod backoff;
mod labels;
mod limits;
mod position;
mod tenant;
mod timestamp;

pub use backoff::{Backoff, jittered};
pub use labels::{Category, LabelPair, LabelSet, Labels, selector_text};
pub use limits::{DeletionMode, Limits, StreamRetention, TenantLimits};
pub use position::{LogId, Position};
pub use tenant::{TenantError, TenantId, TenantIds};
pub use timestamp::{Clock, SystemClock, Timestamp};
