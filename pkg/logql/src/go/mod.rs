//! What Go's standard library (and the few Go packages Loki leans on) does to numbers, durations, sizes and text. Users see
//! these rules in query syntax, in label filters, in templates and word for word in error texts, so they are kept exactly.
//!
//! Everything takes bytes (`&str` is fine too), because label values and lines need not be UTF-8; nothing panics.

pub mod bytes;
pub mod duration;
pub mod layout;
pub mod number;
pub mod quote;
pub mod time;
pub mod unicode;
