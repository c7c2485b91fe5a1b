//! What Loki accepts and what it says when it does not (contract, Loki API §2.5-2.7).

mod entries;
mod labels;
mod metadata;
mod refusals;
mod rewrite;
mod time;

pub(crate) use entries::{EntryRules, Verdict, cutoff, entry_bytes};
pub(crate) use labels::{SERVICE_NAME, accepted_labels, stream_labels};
pub(crate) use refusals::{Reason, Refusals};
pub(crate) use rewrite::rewrite;
pub(crate) use time::{byte_size, go_time, rfc3339};
