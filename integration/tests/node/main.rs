//! One node, seen from outside: the real binary, spoken to as its clients speak to it. A module per part of the contract.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod bad_input;
mod cli;
mod client_library;
mod drilldown;
mod limits;
mod metrics;
mod push;
mod queries;
mod slow_tails;
mod tail;
mod tenancy;
mod tenant_tails;

/// The lines of a query's answer as a reader of the checker sees them.
fn delivered(lines: Vec<tailwater_integration::client::Line>) -> Vec<tailwater_integration::tail::Delivered> {
    lines
        .into_iter()
        .map(|line| tailwater_integration::tail::Delivered {
            labels: line.labels,
            timestamp: line.timestamp,
            line: line.line,
        })
        .collect()
}

/// Texts of lines.
fn texts(lines: &[tailwater_integration::client::Line]) -> Vec<&str> {
    lines.iter().map(|line| line.line.as_str()).collect()
}
