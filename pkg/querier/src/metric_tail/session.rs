//! One client's tail of a metric query: every step from its first on, in order and once.
//!
//! ```text
//!   Live ◀──▶ Again          any ──▶ Done
//! ```
//!
//! Invariants:
//! * A step that the feed's ring holds is taken from there; one before it is evaluated for this session alone. So history and catching up
//!   are the same thing.
//! * The ledger is in steps: `matched = delivered` after every event, nothing is dropped.
//! * [`MetricSession::next`] is cancel-safe: what it waits for is kept in the session.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::again::again;
use super::feed::Feed;
use super::frame::Told;
use super::ring::{Cursor, Gone, Taken};
use crate::querier::Admission;
use crate::replay::Reading;
use crate::session::Account;
use crate::{EndReason, Ledger, SessionEvent};

enum State {
    /// Taking the feed's frames.
    Live,
    /// Waiting for frames of this session's own.
    Again(Reading<Result<VecDeque<Bytes>, crate::Error>>),
    /// Sending them.
    Sending(VecDeque<Bytes>),
    /// Over.
    Done(EndReason),
}

/// See the module.
pub struct MetricSession {
    feed: Arc<Feed>,
    number: u64,
    state: State,
    published: watch::Receiver<u32>,
    cursor: Cursor,
    /// The next step.
    next: u32,
    deadline: Pin<Box<Sleep>>,
    account: Arc<Account>,
    _admission: Admission,
}

impl MetricSession {
    /// A session that begins with a step.
    pub(super) fn join(
        feed: Arc<Feed>,
        first: u32,
        max_duration: Duration,
        account: Arc<Account>,
        admission: Admission,
    ) -> Self {
        let number = feed.session_number();
        let cursor = feed.ring.lock().join(number, first);
        feed.plan.metrics.tails.inc();
        Self {
            published: feed.published.clone(),
            number,
            state: State::Live,
            cursor,
            next: first,
            deadline: Box::pin(tokio::time::sleep_until(Instant::now() + max_duration)),
            account,
            _admission: admission,
            feed,
        }
    }

    /// Number of the tail in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.account.id
    }

    /// The account so far, in steps.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.account.ledger()
    }

    /// The next frame, or the end. Cancel-safe. After the end it keeps answering the end.
    pub async fn next(&mut self) -> SessionEvent {
        loop {
            if Instant::now() >= self.deadline.deadline() && !matches!(self.state, State::Done(_)) {
                self.state = State::Done(EndReason::MaxDuration);
            }
            match &mut self.state {
                State::Done(reason) => return SessionEvent::End(reason.clone()),
                State::Sending(frames) => match frames.pop_front() {
                    Some(frame) => return SessionEvent::Frame(self.deliver(frame)),
                    None => self.state = State::Live,
                },
                State::Again(reading) => {
                    let read = tokio::select! {
                        biased;
                        read = reading.as_mut() => read,
                        () = self.deadline.as_mut() => continue,
                    };
                    self.state = match read {
                        Ok(frames) => State::Sending(frames),
                        Err(error) => State::Done(EndReason::Failed(error.to_string())),
                    };
                }
                State::Live => {
                    let taken = self.feed.ring.lock().take(self.number, self.next);
                    match taken {
                        Taken::Frame(frame) => {
                            self.tell(frame.told);
                            return SessionEvent::Frame(self.deliver(frame.bytes));
                        }
                        Taken::Gone(Gone { first, as_of, missed }) => {
                            self.tell(missed);
                            let plan = Arc::clone(&self.feed.plan);
                            self.state = State::Again(Box::pin(again(plan, self.next..first, as_of, missed)));
                        }
                        Taken::End(reason) => self.state = State::Done(reason),
                        Taken::Wait => {
                            let changed = tokio::select! {
                                biased;
                                () = self.deadline.as_mut() => continue,
                                changed = self.published.changed() => changed,
                            };
                            // The sender lives as long as the feed's task; if that is gone the ring has an end.
                            if changed.is_err() && !self.feed.ring.lock().ended() {
                                self.state = State::Done(EndReason::Failed("the feed stopped".to_owned()));
                            }
                        }
                    }
                }
            }
        }
    }

    /// A frame on its way to the socket.
    fn deliver(&mut self, frame: Bytes) -> Bytes {
        self.next = self.next.saturating_add(1);
        self.cursor.store(self.next, Ordering::Relaxed);
        self.account.step_delivered();
        self.feed.plan.metrics.delivered_bytes.inc_by(frame.len() as u64);
        frame
    }

    fn tell(&self, told: Told) {
        self.account.lines_trimmed(told.trimmed);
    }
}

impl Drop for MetricSession {
    fn drop(&mut self) {
        self.feed.ring.lock().leave(self.number);
        self.feed.plan.metrics.tails.dec();
    }
}
