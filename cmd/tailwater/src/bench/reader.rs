//! The tailing half: sockets that count lines, and sockets that only sit there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tailwater_model::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use super::account::TailAccount;
use super::line::Scanner;
use crate::client::answer::decode_frame;
use crate::client::http::reason;
use crate::client::socket::{self, Socket};
use crate::client::{ClientError, Endpoint};

const PATH: &str = "/loki/api/v1/tail";
const BUSY_READ_BUFFER: usize = 128 << 10;
const IDLE_READ_BUFFER: usize = 1 << 10;
/// How long a slow tail does nothing after each frame, while lines are pushed.
const SLOW_PAUSE: Duration = Duration::from_millis(50);

/// How eagerly a tail reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as it can.
    Full,
    /// A frame, then a pause, until the pushing is over.
    Slow,
}

/// What a run is doing; tails look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Lines are pushed.
    Pushing,
    /// All lines are pushed, the last ones are awaited.
    Settling,
    /// It is over.
    Over,
}

/// An open tail.
pub(crate) struct Tail {
    task: JoinHandle<Ended>,
    lines: Arc<AtomicU64>,
}

/// A tail that has ended.
pub(crate) struct Ended {
    /// What it received.
    pub(crate) account: TailAccount,
    /// Why the server closed it, if it did.
    pub(crate) closed: Option<String>,
}

/// What to tail.
pub(crate) struct TailPlan<'a> {
    /// The log query.
    pub(crate) query: &'a str,
    /// The run.
    pub(crate) tag: &'a str,
    /// Streams of the run.
    pub(crate) streams: u32,
    /// Seconds to wait for late lines.
    pub(crate) delay_for: u8,
}

impl Tail {
    /// Opens a tail that counts lines.
    ///
    /// # Errors
    /// The server's refusal.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        plan: &TailPlan<'_>,
        pace: Pace,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, ClientError> {
        let socket = connect(endpoint, plan.query, plan.delay_for, BUSY_READ_BUFFER).await?;
        let lines = Arc::new(AtomicU64::new(0));
        let reader = Reader {
            socket,
            scanner: Scanner::new(plan.tag),
            account: TailAccount::new(plan.streams),
            last: None,
            lines: Arc::clone(&lines),
            pace,
            phase,
        };
        Ok(Self { task: tokio::spawn(reader.run()), lines })
    }

    /// Lines received so far.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Whether it is over already.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// What it received, once it is over.
    pub(crate) async fn end(self, streams: u32) -> Ended {
        self.task.await.unwrap_or_else(|e| Ended { account: TailAccount::new(streams), closed: Some(e.to_string()) })
    }
}

struct Reader {
    socket: Socket,
    scanner: Scanner,
    account: TailAccount,
    /// When the last line came.
    last: Option<Instant>,
    lines: Arc<AtomicU64>,
    pace: Pace,
    phase: watch::Receiver<Phase>,
}

impl Reader {
    async fn run(mut self) -> Ended {
        let mut over = self.phase.clone();
        let mut pushed = self.phase.clone();
        let closed = loop {
            let message = tokio::select! {
                biased;
                message = self.socket.next() => message,
                _ = over.wait_for(|p| *p == Phase::Over) => break None,
            };
            match message {
                Some(Ok(Message::Text(text))) => self.take(text.as_bytes()),
                Some(Ok(Message::Binary(bytes))) => self.take(&bytes),
                Some(Ok(Message::Close(frame))) => {
                    break Some(frame.map_or_else(String::new, |f| f.reason.to_string()));
                }
                Some(Ok(_)) => continue,
                Some(Err(e)) => break Some(reason(&e)),
                None => break Some("the connection was closed".to_owned()),
            }
            if self.pace == Pace::Slow && *self.phase.borrow() == Phase::Pushing {
                tokio::select! {
                    () = sleep(SLOW_PAUSE) => {}
                    _ = pushed.wait_for(|p| *p > Phase::Pushing) => {}
                }
            }
        };
        Ended { account: self.account, closed }
    }

    fn take(&mut self, frame: &[u8]) {
        let now = Timestamp::now().nanos();
        let before = self.account.lines;
        let (account, scanner) = (&mut self.account, &self.scanner);
        let broken = scanner.scan(frame, |mark| account.see(mark, now));
        account.broken += broken;
        if account.lines > before {
            account.frames += 1;
            account.bytes += frame.len() as u64;
            let now = Instant::now();
            if let Some(last) = self.last.replace(now)
                && *self.phase.borrow() == Phase::Pushing
            {
                account.silence = account.silence.max(now.duration_since(last));
            }
        }
        self.lines.store(account.lines, Ordering::Relaxed);
        // Rare, and at the end of the frame if at all.
        if memchr::memmem::rfind(frame, b"\"dropped_entries\"").is_some()
            && let Ok(frame) = decode_frame(&String::from_utf8_lossy(frame))
        {
            account.told_dropped += frame.dropped.len() as u64;
        }
    }
}

/// Opens `count` tails to which nothing comes, and keeps answering their pings until `phase` is over.
///
/// # Errors
/// The first that cannot be opened.
pub(crate) async fn open_idle(
    endpoint: &Arc<Endpoint>,
    query: &str,
    count: u32,
    phase: &watch::Receiver<Phase>,
) -> Result<Vec<JoinHandle<()>>, ClientError> {
    let mut tasks = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut socket = connect(endpoint, query, 0, IDLE_READ_BUFFER).await?;
        let mut phase = phase.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = socket.next() => if !matches!(message, Some(Ok(ref m)) if !m.is_close()) { return },
                    _ = phase.wait_for(|p| *p == Phase::Over) => return,
                }
            }
        }));
    }
    Ok(tasks)
}

async fn connect(endpoint: &Endpoint, query: &str, delay_for: u8, read_buffer: usize) -> Result<Socket, ClientError> {
    let start = Timestamp::now().nanos().to_string();
    let delay_for = delay_for.to_string();
    let parameters = [("query", query), ("start", start.as_str()), ("limit", "1"), ("delay_for", delay_for.as_str())];
    socket::open(endpoint, &endpoint.target(PATH, &parameters), read_buffer).await
}
