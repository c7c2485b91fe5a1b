//! Pushers that push until they are told to stop or the server dies, and record in a ledger what was acknowledged.
//!
//! Every part belongs to one pusher, which sends one push after the other, so the order within a part is known. A push that gets no
//! answer, or another one than 204, counts as sent and is not repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::lines::Numbers;
use crate::{Client, Ledger};

const DAY: i64 = 86_400_000_000_000;

/// A ledger that pushers and judges share.
pub type Shared = Arc<Mutex<Ledger>>;

/// What the pushers do.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Each pusher has one of these tenants, in turn.
    pub tenants: Vec<String>,
    /// How many push at once.
    pub pushers: usize,
    /// Lines of each part in a push.
    pub lines: usize,
    /// How long a pusher waits after a push.
    pub pause: Duration,
    /// The names of parts begin so.
    pub prefix: String,
    /// Whether each pusher has a part whose timestamps are a day old.
    pub old: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            tenants: vec!["a".to_owned(), "b".to_owned()],
            pushers: 4,
            lines: 20,
            pause: Duration::ZERO,
            prefix: String::new(),
            old: true,
        }
    }
}

/// Answers by status; 0 stands for no answer.
pub type Statuses = BTreeMap<u16, usize>;

/// Running pushers.
pub struct Load {
    stop: Arc<AtomicBool>,
    pushers: Vec<JoinHandle<Statuses>>,
}

impl Load {
    /// Starts pushers against a server; the seed decides what they send.
    #[must_use]
    pub fn start(server: &Client, ledger: &Shared, shape: &Shape, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pusher = |number: usize| {
            let tenant = shape.tenants[number % shape.tenants.len()].clone();
            let pusher = Pusher {
                client: server.clone().header("X-Scope-OrgID", &tenant),
                tenant,
                name: format!("{}p{number}", shape.prefix),
                ledger: ledger.clone(),
                shape: shape.clone(),
                numbers: Numbers::new(seed ^ (number as u64) << 32),
                stop: stop.clone(),
            };
            tokio::spawn(pusher.run())
        };
        let pushers = (0..shape.pushers).map(pusher).collect();
        Self { stop, pushers }
    }

    /// Stops after the pushes that are on their way; answers how pushes were answered.
    ///
    /// # Panics
    /// If a pusher did.
    pub async fn stop(self) -> Statuses {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Statuses::new();
        for pusher in self.pushers {
            for (status, count) in pusher.await.expect("a pusher does not panic") {
                *all.entry(status).or_default() += count;
            }
        }
        all
    }
}

struct Pusher {
    client: Client,
    tenant: String,
    name: String,
    ledger: Shared,
    shape: Shape,
    numbers: Numbers,
    stop: Arc<AtomicBool>,
}

impl Pusher {
    async fn run(mut self) -> Statuses {
        let mut statuses = Statuses::new();
        while !self.stop.load(Ordering::Relaxed) {
            let status = self.push().await;
            *statuses.entry(status).or_default() += 1;
            if status == 0 {
                return statuses;
            }
            // A server that refuses is not asked in a tight loop.
            let pause = if status == 204 { self.shape.pause } else { Duration::from_millis(20) };
            tokio::time::sleep(pause).await;
        }
        statuses
    }

    async fn push(&mut self) -> u16 {
        let now = crate::now_ns();
        let mut parts = vec![(format!("{}s{}", self.name, self.numbers.below(3)), now)];
        if self.numbers.below(3) == 0 {
            parts.push((format!("{}s3", self.name), now));
        }
        if self.shape.old && self.numbers.below(4) == 0 {
            parts.push((format!("{}old", self.name), now - DAY));
        }
        let parts: Vec<_> = parts.iter().map(|(name, at)| (name.as_str(), *at)).collect();
        let count = 1 + self.numbers.below(2 * self.shape.lines as u64) as usize;
        let (batch, receipt) = self.ledger.lock().push(&self.tenant, &parts, count, &mut self.numbers);
        let (kind, body) = if self.numbers.below(8) == 0 {
            ("application/json", batch.json().to_string().into_bytes())
        } else {
            ("application/x-protobuf", batch.snappy())
        };
        let headers = [("Content-Type", kind)];
        let pushed = self.client.try_send("POST", "/loki/api/v1/push", &headers, body.into());
        match crate::within("an answer to a push", pushed).await {
            Ok(reply) => {
                if reply.status == 204 {
                    self.ledger.lock().acknowledge(&receipt);
                }
                assert!(reply.status == 204 || reply.status >= 500, "{} {}", reply.status, reply.text());
                reply.status
            }
            Err(_) => 0,
        }
    }
}
