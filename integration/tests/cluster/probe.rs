//! Asks a node again and again for everything while trouble goes on, and holds every answer to what it claims.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tailwater_integration::cluster::Board;
use tailwater_integration::load::Shared;
use tailwater_integration::{Client, DEADLINE};
use tokio::task::JoinHandle;

use crate::verdict;

/// The wait between queries.
const REST: Duration = Duration::from_millis(100);

/// What queries answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Whole ones.
    pub(crate) whole: usize,
    /// Those that said what they lacked, by the first warning.
    pub(crate) partial: BTreeMap<String, usize>,
    /// Those that failed, by their text.
    pub(crate) failed: BTreeMap<String, usize>,
}

/// A running prober.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Answers>,
}

impl Probe {
    /// Asks for all lines of a tenant. An answer without warnings must be complete, no answer may hold a line twice, a line of others, or
    /// lines out of order.
    pub(crate) fn start(board: &Board, node: &str, tenant: &str, ledger: &Shared) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (board, node, tenant, ledger) = (board.clone(), [node.to_owned()], tenant.to_owned(), ledger.clone());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut answers = Answers::default();
            while !stopped.load(Ordering::Relaxed) {
                tokio::time::sleep(REST).await;
                let Some(entry) = board.of(&node).pop() else { continue };
                let client = Client::new(entry.addr).header("X-Scope-OrgID", &tenant);
                let ready = client.try_send("GET", "/ready", &[], bytes::Bytes::new());
                if !matches!(tokio::time::timeout(DEADLINE, ready).await, Ok(Ok(reply)) if reply.status == 200) {
                    continue;
                }
                match verdict(&client, &tenant, &ledger).await {
                    Ok((mut verdict, warnings)) => {
                        match warnings.first() {
                            None => answers.whole += 1,
                            Some(first) => *answers.partial.entry(first.clone()).or_default() += 1,
                        }
                        if !warnings.is_empty() {
                            verdict.lost.clear();
                        }
                        assert!(verdict.is_clean(), "a query of {} at {node:?}, {warnings:?}: {verdict}", tenant);
                    }
                    Err(refused) => *answers.failed.entry(refused).or_default() += 1,
                }
            }
            answers
        });
        Self { stop, task }
    }

    /// Ends it.
    pub(crate) async fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
