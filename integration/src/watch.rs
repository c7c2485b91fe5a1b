//! A tail that does not give up: it keeps every line, and when its querier goes it goes on at another one with the newest token.
//!
//! Invariant: a frame is kept whole or not at all, and the token that is used is that of the last frame kept. So what is kept is exactly
//! what tokens promise, and a line that comes twice or not at all is the servers' doing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Board;
use crate::tail::{self, Delivered, Event, Unopened};
use crate::{Client, Tail, client, eventually};

/// How long a handshake may take.
const OPEN: Duration = Duration::from_secs(5);

/// The longest silence of a tail: servers ping every second.
const SILENCE: Duration = Duration::from_secs(10);

/// The wait before the next querier is tried.
const RETRY: Duration = Duration::from_millis(50);

/// Most refusals that are kept.
const REFUSALS: usize = 20;

/// What a tail has got so far.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The lines, in order.
    pub lines: Vec<Delivered>,
    /// The notices, and when they came.
    pub notices: Vec<(Instant, Value)>,
    /// The newest token.
    pub token: Option<String>,
    /// Frames with lines and without a token.
    pub untold: usize,
    /// What frames said of lines that do not come.
    pub dropped: Vec<Value>,
    /// The nodes that have served it, in order.
    pub served: Vec<String>,
    /// How it was ended or not opened, the first few times.
    pub ends: Vec<String>,
    /// Whether it is open now.
    pub open: bool,
}

impl Kept {
    /// Whether a notice of this type came.
    #[must_use]
    pub fn noticed(&self, kind: &str) -> bool {
        self.notices.iter().any(|(_, notice)| notice["type"] == kind)
    }

    fn frame(&mut self, frame: &Value) {
        let lines = tail::lines(frame);
        let token = frame["resume"].as_str();
        self.untold += usize::from(token.is_none() && !lines.is_empty());
        self.token = token.map(str::to_owned).or_else(|| self.token.take());
        self.lines.extend(lines);
        self.dropped.extend(frame["dropped_entries"].as_array().into_iter().flatten().cloned());
        let now = Instant::now();
        self.notices.extend(frame["notices"].as_array().into_iter().flatten().map(|notice| (now, notice.clone())));
    }

    fn ended(&mut self, why: String) {
        self.open = false;
        if self.ends.len() < REFUSALS {
            self.ends.push(why);
        }
    }
}

/// A running tail.
pub struct Watch {
    kept: Arc<Mutex<Kept>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts a tail at the first of the named nodes; all if none is named. It is open when this returns.
    ///
    /// # Panics
    /// If it does not open.
    pub async fn open(board: &Board, nodes: &[&str], tenant: &str, query: &str) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (stop, stopped) = watch::channel(false);
        let watcher = Watcher {
            board: board.clone(),
            nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
            tenant: tenant.to_owned(),
            query: query.to_owned(),
            begin: crate::now_ns().to_string(),
            kept: kept.clone(),
            stopped,
        };
        let watch = Self { kept, stop, task: tokio::spawn(watcher.run()) };
        eventually("a tail to open", async || watch.kept.lock().open).await;
        watch
    }

    /// What it has got so far.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept.lock().clone()
    }

    /// Looks at what it has got.
    pub fn look<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.kept.lock())
    }

    /// Waits until what it has got is so.
    ///
    /// # Panics
    /// If it does not come to that, naming `what` was waited for.
    pub async fn until(&self, what: &str, holds: impl Fn(&Kept) -> bool) {
        let at_last = async || holds(&self.kept.lock());
        eventually(what, at_last).await;
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it has panicked.
    pub async fn stop(self) -> Kept {
        // It may have ended by a panic.
        let _ = self.stop.send(true);
        self.task.await.expect("a tail does not panic");
        self.kept.lock().clone()
    }
}

struct Watcher {
    board: Board,
    nodes: Vec<String>,
    tenant: String,
    query: String,
    begin: String,
    kept: Arc<Mutex<Kept>>,
    stopped: watch::Receiver<bool>,
}

impl Watcher {
    async fn run(mut self) {
        let mut turn = 0;
        loop {
            let mut stopped = self.stopped.clone();
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = self.once(turn) => {}
            }
            turn += 1;
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One tail, from opening it to its end.
    async fn once(&mut self, turn: usize) {
        let nodes = self.board.of(&self.nodes);
        let Some(node) = nodes.get(turn % nodes.len().max(1)) else { return };
        let token = self.kept.lock().token.clone();
        let begin = [("start", self.begin.as_str()), ("limit", "5000")];
        let mut params = vec![("query", self.query.as_str()), ("notices", "true")];
        params.push(("resume", token.as_deref().unwrap_or("true")));
        if token.is_none() {
            params.extend(begin);
        }
        let target = client::target("/loki/api/v1/tail", &params);
        let client = Client::new(node.addr).header("X-Scope-OrgID", &self.tenant);
        let mut tail = match tokio::time::timeout(OPEN, Tail::attempt(&client, &target)).await {
            Ok(Ok(tail)) => tail,
            Ok(Err(Unopened::Refused(reply))) => {
                // A token that is not taken will not be taken later either.
                assert_ne!(reply.status, 400, "{}: {}", node.name, reply.text());
                return self.kept.lock().ended(format!("{}: {} {}", node.name, reply.status, reply.text()));
            }
            Ok(Err(Unopened::Broken(why))) => return self.kept.lock().ended(format!("{}: {why}", node.name)),
            Err(_) => return self.kept.lock().ended(format!("{}: no answer", node.name)),
        };
        {
            let mut kept = self.kept.lock();
            kept.open = true;
            kept.served.push(node.name.clone());
        }
        let end = loop {
            match tokio::time::timeout(SILENCE, tail.event()).await {
                Ok(Event::Frame(frame)) => self.kept.lock().frame(&frame),
                Ok(Event::Ping(_)) => {}
                Ok(Event::Closed(code, reason)) => break format!("closed with {code} {reason}"),
                Ok(Event::Gone) => break "gone".to_owned(),
                Err(_) => break "silent".to_owned(),
            }
        };
        self.kept.lock().ended(format!("{}: {end}", node.name));
    }
}
