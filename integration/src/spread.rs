//! Pushers of a cluster: they push to any of its nodes until they are told to stop, go elsewhere when a node is not there, send again
//! what was refused, and keep exact books in a ledger.
//!
//! What becomes of a push, and what the ledger says of it:
//! * 204: acknowledged.
//! * The connection could not be made: nothing was sent; another node is tried, and the push counts as if it had gone there only.
//! * Refused with 429 or 5xx: it may have been stored all the same (too few copies, for example). It is sent again to another node, and
//!   may be there as often as it was sent.
//! * No answer: in doubt. It is not sent again, so it is there once or not at all.
//!
//! Any other answer is a failure of the test. Every part belongs to one pusher, which sends one push after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::cluster::{Board, Entry, Role};
use crate::ledger::Receipt;
use crate::lines::Numbers;
use crate::load::{Shared, Statuses};
use crate::{Batch, Client};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(1);

/// How long an answer may take; then the push is in doubt.
const ANSWER: Duration = Duration::from_secs(15);

/// The wait after a refusal.
const REFUSED: Duration = Duration::from_millis(50);

/// How long a push is still tried when the pushers are to stop.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// What the pushers do.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Each pusher has one of these tenants, in turn.
    pub tenants: Vec<String>,
    /// The nodes that are pushed to; all if none is named.
    pub nodes: Vec<String>,
    /// How many push at once.
    pub pushers: usize,
    /// Most lines of each part in a push.
    pub lines: u64,
    /// How long a pusher waits after a push.
    pub pause: Duration,
    /// The names of parts begin so.
    pub prefix: String,
    /// Whether an ingester stores itself what is pushed to it: not if it may be leaving.
    pub routes: bool,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            tenants: vec!["a".to_owned(), "b".to_owned()],
            nodes: Vec::new(),
            pushers: 4,
            lines: 20,
            pause: Duration::from_millis(20),
            prefix: String::new(),
            routes: true,
        }
    }
}

/// What became of the pushes.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answers by status; 0 stands for no answer.
    pub statuses: Statuses,
    /// Connections that could not be made.
    pub unreachable: usize,
    /// The longest time that a push, with all its repetitions, took.
    pub longest: Duration,
    /// What the first few refusals said.
    pub refusals: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.unreachable += other.unreachable;
        self.longest = self.longest.max(other.longest);
        self.refusals.extend(other.refusals);
        self.refusals.truncate(5);
    }
}

/// Running pushers.
pub struct Pushers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Outcome>>,
}

impl Pushers {
    /// Starts pushers; the seed decides what they send where.
    #[must_use]
    pub fn start(board: &Board, ledger: &Shared, shape: &Spread, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pusher = |number: usize| {
            let pusher = Pusher {
                tenant: shape.tenants[number % shape.tenants.len()].clone(),
                name: format!("{}p{number}", shape.prefix),
                board: board.clone(),
                ledger: ledger.clone(),
                shape: shape.clone(),
                numbers: Numbers::new(seed ^ (number as u64) << 32),
                stop: stop.clone(),
                outcome: Outcome::default(),
            };
            tokio::spawn(pusher.run())
        };
        let tasks = (0..shape.pushers).map(pusher).collect();
        Self { stop, tasks }
    }

    /// Stops after the pushes that are on their way.
    ///
    /// # Panics
    /// If a pusher did.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for task in self.tasks {
            all.add(task.await.expect("a pusher does not panic"));
        }
        all
    }
}

enum Attempt {
    Unreachable,
    Unanswered,
    Answered(u16, String),
}

struct Pusher {
    tenant: String,
    name: String,
    board: Board,
    ledger: Shared,
    shape: Spread,
    numbers: Numbers,
    stop: Arc<AtomicBool>,
    outcome: Outcome,
}

impl Pusher {
    async fn run(mut self) -> Outcome {
        while !self.stop.load(Ordering::Relaxed) {
            let now = crate::now_ns();
            let names = [format!("{}s{}", self.name, self.numbers.below(3)), format!("{}s3", self.name)];
            let parts: Vec<_> = names.iter().map(|name| (name.as_str(), now)).collect();
            let parts = if self.numbers.below(3) == 0 { &parts[..] } else { &parts[..1] };
            let count = 1 + self.numbers.below(self.shape.lines) as usize;
            let (batch, receipt) = self.ledger.lock().push(&self.tenant, parts, count, &mut self.numbers);
            let begun = Instant::now();
            self.push(&batch, &receipt).await;
            self.outcome.longest = self.outcome.longest.max(begun.elapsed());
            tokio::time::sleep(self.shape.pause).await;
        }
        self.outcome
    }

    async fn push(&mut self, batch: &Batch, receipt: &Receipt) {
        let mut sent = false;
        let mut until = None;
        loop {
            if self.stop.load(Ordering::Relaxed) && *until.get_or_insert(Instant::now() + LAST_TRIES) < Instant::now() {
                break;
            }
            let nodes = self.board.of(&self.shape.nodes);
            if nodes.is_empty() {
                tokio::time::sleep(REFUSED).await;
                continue;
            }
            let node = &nodes[self.numbers.below(nodes.len() as u64) as usize];
            match self.attempt(node, batch, receipt, sent).await {
                Attempt::Unreachable => {
                    self.outcome.unreachable += 1;
                    tokio::time::sleep(REFUSED).await;
                }
                Attempt::Unanswered => {
                    *self.outcome.statuses.entry(0).or_default() += 1;
                    return;
                }
                Attempt::Answered(status, text) => {
                    *self.outcome.statuses.entry(status).or_default() += 1;
                    if status == 204 {
                        self.ledger.lock().acknowledge(receipt);
                        return;
                    }
                    assert!(status == 429 || status >= 500, "{}: {status} {text}", node.name);
                    if self.outcome.refusals.len() < 5 {
                        self.outcome.refusals.push(format!("{}: {status} {}", node.name, text.trim_end()));
                    }
                    sent = true;
                    tokio::time::sleep(REFUSED).await;
                }
            }
        }
        if !sent {
            self.ledger.lock().never_sent(receipt);
        }
    }

    /// One attempt. What it may store is in the ledger before anything is sent.
    async fn attempt(&mut self, node: &Entry, batch: &Batch, receipt: &Receipt, again: bool) -> Attempt {
        let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, TcpStream::connect(node.addr)).await else {
            return Attempt::Unreachable;
        };
        if again {
            self.ledger.lock().again(receipt);
        } else {
            let stores = self.shape.routes && node.role != Role::Querier;
            self.ledger.lock().goes_by(receipt, stores.then_some(node.number));
        }
        let (kind, body) = if self.numbers.below(8) == 0 {
            ("application/json", batch.json().to_string().into_bytes())
        } else {
            ("application/x-protobuf", batch.snappy())
        };
        let client = Client::new(node.addr).header("X-Scope-OrgID", &self.tenant);
        let headers = [("Content-Type", kind)];
        let pushed = client.try_send_over(stream, "POST", "/loki/api/v1/push", &headers, body.into());
        match tokio::time::timeout(ANSWER, pushed).await {
            Ok(Ok(reply)) => Attempt::Answered(reply.status, reply.text()),
            Ok(Err(_)) | Err(_) => Attempt::Unanswered,
        }
    }
}
