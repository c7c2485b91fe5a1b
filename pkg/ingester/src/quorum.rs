//! Pushes that wait until enough copies of the log have them.
//!
//! Invariants: a batch that was acknowledged by enough copies at some instant stays acknowledged. Whoever waits is told once: that it is,
//! or that the time is over, which takes nothing back. At most [`MAX_WAITING`] wait; more pushes are refused before anything is stored.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tailwater_wire::host::CopyState;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// Most pushes that wait for copies. (Few in tests.)
pub(crate) const MAX_WAITING: usize = if cfg!(test) { 64 } else { 1 << 14 };

/// When a push is acknowledged, beyond being in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Copies, beside the log itself, that must have the push; until [`Copied::acknowledged_by`] says otherwise.
    ///
    /// [`Copied::acknowledged_by`]: tailwater_wire::host::Copied::acknowledged_by
    pub quorum: usize,
    /// How long that may take (`ingester.replication_timeout`). Then the push is answered with an error; its lines stay.
    pub timeout: Duration,
}

impl Default for Replication {
    fn default() -> Self {
        Self { quorum: 0, timeout: Duration::from_secs(5) }
    }
}

/// See the module's words.
#[derive(Debug)]
pub(crate) struct Quorum {
    timeout: Duration,
    /// [`Replication::quorum`].
    needed: AtomicUsize,
    waiting: AtomicUsize,
    state: Mutex<State>,
    pub(crate) timeouts: Counter,
}

#[derive(Debug, Default)]
struct State {
    /// Everything up to this batch is acknowledged.
    reached: u64,
    copies: Vec<CopyState>,
    ids: u64,
    waiting: BTreeMap<Key, oneshot::Sender<()>>,
}

/// A batch, and what tells apart those who wait for it.
type Key = (u64, u64);

/// Waits until enough copies have a batch.
pub(crate) struct Acknowledged {
    key: Key,
    quorum: Arc<Quorum>,
    answer: oneshot::Receiver<()>,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Copies did not get a batch in time.
#[derive(Debug)]
pub(crate) struct TooLate;

impl Quorum {
    pub(crate) fn new(Replication { quorum, timeout }: Replication) -> Self {
        Self {
            timeout,
            needed: quorum.into(),
            waiting: AtomicUsize::new(0),
            state: Mutex::default(),
            timeouts: Counter::default(),
        }
    }

    /// Takes note of how far copies are.
    pub(crate) fn acknowledged_by(&self, copies: &[CopyState], quorum: usize) {
        let mut state = self.state.lock();
        self.needed.store(quorum, Ordering::Relaxed);
        state.copies = copies.to_vec();
        let upto = match quorum.checked_sub(1) {
            None => u64::MAX,
            Some(last) => {
                let mut through: Vec<u64> = copies.iter().map(|copy| copy.through).collect();
                through.sort_unstable_by(|a, b| b.cmp(a));
                state.reached = state.reached.max(through.get(last).copied().unwrap_or(0));
                state.reached
            }
        };
        let later = state.waiting.split_off(&(upto.saturating_add(1), 0));
        let reached = std::mem::replace(&mut state.waiting, later);
        drop(state);
        self.waiting.fetch_sub(reached.len(), Ordering::Relaxed);
        for answer in reached.into_values() {
            // Who waited may be gone.
            let _gone = answer.send(());
        }
    }

    /// Waits for a batch. None: enough copies have it, or none are needed.
    pub(crate) fn wait(self: &Arc<Self>, seq: u64) -> Option<Acknowledged> {
        if self.needed.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut state = self.state.lock();
        // It may have changed while the lock was waited for.
        if self.needed.load(Ordering::Relaxed) == 0 || state.reached >= seq {
            return None;
        }
        state.ids += 1;
        let key = (seq, state.ids);
        let (sender, answer) = oneshot::channel();
        state.waiting.insert(key, sender);
        drop(state);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + self.timeout;
        Some(Acknowledged { key, quorum: Arc::clone(self), answer, deadline, timer: None })
    }

    /// Whether no more pushes may wait.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting() >= MAX_WAITING
    }

    /// Pushes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Copies that a push needs.
    pub(crate) fn needed(&self) -> usize {
        self.needed.load(Ordering::Relaxed)
    }

    /// How far copies are.
    pub(crate) fn copies(&self) -> Vec<CopyState> {
        self.state.lock().copies.clone()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl Acknowledged {
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TooLate>> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(context) {
            return Poll::Ready(answer.map_err(|_| TooLate));
        }
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(timer.as_mut().poll(context));
        self.quorum.timeouts.inc();
        Poll::Ready(Err(TooLate))
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.quorum.timeout()
    }
}

impl Drop for Acknowledged {
    fn drop(&mut self) {
        if self.quorum.state.lock().waiting.remove(&self.key).is_some() {
            self.quorum.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledged").field("key", &self.key).finish_non_exhaustive()
    }
}
