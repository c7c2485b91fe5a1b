//! Housekeeping.

mod compaction;
mod input;
mod rewrite;
#[cfg(test)]
mod tests;

use crate::Error;

fn stopped() -> Error {
    Error::Unavailable { what: "housekeeping".into(), reason: "it is stopped".into() }
}
