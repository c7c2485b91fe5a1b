//! The edge as clients meet it: a whole server on a free port, spoken to in plain bytes.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails the test")]

mod admin;
mod client;
mod drilldown;
mod limits;
mod metric;
mod push;
mod read;
mod tail;
mod tail_of_tenants;
