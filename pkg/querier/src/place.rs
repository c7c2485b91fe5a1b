//! Where logs are, and where they were when something was opened.
//!
//! Invariants: nobody waits longer than the constants say; a place that is learnt late lies at or before where the log was at the opening,
//! by the node's own clock, and before it by little.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tailwater_wire::node::{LogState, Node, NodeError, StateRequest};
use tokio::time::{Instant, timeout};

/// How long the opening of a tail waits for the places of logs; the others begin later.
pub(crate) const OPENING: Duration = Duration::from_millis(300);

/// How long an answer may take that nobody waits for.
pub(crate) const ASKING: Duration = Duration::from_secs(1);

/// How quick an answer has to be that says where a log was without much on top.
const SLACK: Duration = Duration::from_millis(50);

/// By at most one part in so many clocks run faster than others.
const CLOCKS_DIFFER_BY: u32 = 2000;

/// Asks a node where its log was when something was opened, `ago` before the asking.
pub(crate) async fn place(node: &dyn Node, ago: Duration) -> Result<u64, NodeError> {
    let began = Instant::now();
    // The request takes a while to get there, and clocks do not run alike: without something on top the place could lie after the opening.
    for slack in [SLACK, ASKING] {
        let (asked, open) = (Instant::now(), ago.saturating_add(began.elapsed()));
        let age = open.saturating_add(slack).saturating_add(open / CLOCKS_DIFFER_BY);
        let state = within(ASKING, node, StateRequest { age: Some(age) }).await?;
        if asked.elapsed() <= slack {
            return Ok(state.before);
        }
    }
    Err(late(node))
}

/// Asks nodes where their logs are, side by side.
pub(crate) async fn heads(nodes: &[Arc<dyn Node>]) -> Vec<Result<u64, NodeError>> {
    let head = |node: Arc<dyn Node>| async move {
        within(OPENING, node.as_ref(), StateRequest::default()).await.map(|state| state.head)
    };
    join_all(nodes.iter().cloned().map(head)).await
}

async fn within(patience: Duration, node: &dyn Node, request: StateRequest) -> Result<LogState, NodeError> {
    match timeout(patience, node.state(request)).await {
        Ok(state) => state,
        Err(_elapsed) => Err(late(node)),
    }
}

fn late(node: &dyn Node) -> NodeError {
    NodeError::Unavailable { log: node.log_id(), reason: "it did not answer in time".into() }
}
