//! What the integration tests share: the real binary as a child process, clients that know nothing of the server's code, and
//! a checker that judges what a tail delivered by what was pushed.
//!
//! Invariants:
//! * Nothing here uses a crate of the product: bodies, frames and rules are written a second time, from the protocol alone.
//! * Every server listens on a free port and has a folder of its own, so tests run in parallel; it dies with its [`Server`].
//! * Waiting means polling with a [`DEADLINE`]; no assertion depends on how long something took.

use std::time::Duration;

pub mod binary;
pub mod checker;
pub mod client;
pub mod cluster;
pub mod ledger;
pub mod lines;
pub mod load;
pub mod netns;
pub mod push;
pub mod read;
pub mod s3;
pub mod seeds;
pub mod server;
pub mod spread;
pub mod tail;
pub mod watch;

pub use checker::Checker;
pub use client::{Client, Pairs, Reply};
pub use cluster::Cluster;
pub use ledger::Ledger;
pub use push::Batch;
pub use server::{Home, Server};
pub use tail::Tail;
pub use watch::Watch;

/// How long anything may take that is expected to happen; generous, because it is only reached by a failing test.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it holds.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was waited for.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited {DEADLINE:?} in vain for: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits for `future`.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was waited for.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} in vain for: {what}"),
    }
}

/// Nanoseconds since 1970, by the clock of this machine.
///
/// # Panics
/// If that clock is set before 1970.
#[must_use]
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock set after 1970");
    i64::try_from(since.as_nanos()).expect("a clock set before 2262")
}
