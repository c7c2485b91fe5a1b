//! One client's tail: history first if asked, then the feed's frames, each line exactly once.
//!
//! ```text
//!   History ──▶ Sending ──▶ Live ◀──────▶ CatchUp          any ──▶ Done
//! ```
//!
//! Invariants:
//! * History is read as of the mark at which the session joined its feed, live is what the feed gave out after that mark: no gap and no
//!   duplicate by construction.
//! * A session that falls off the ring reads the difference between the last frame it took and the feed's newest mark from the
//!   logs again, then goes on live. Being slow means being late. Lines are missing only if a log was trimmed, or if the client
//!   asked for dropping; then it is told in `dropped_entries`.
//! * The ledger balances at every moment: `matched = delivered + dropped`. What a catch-up found is compared with what the feed
//!   counted; a disagreement is a defect and counted as one.
//! * [`Session::next`] is cancel-safe: what it waits for is kept in the session.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tailwater_model::{Clock, TenantIds, Timestamp};
use tailwater_wire::frame::{Dropped, Extras, FrameEncoder, Notice};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::away::Away;
use crate::feed::{Feed, MAX_FRAME_BYTES, MAX_FRAME_LINES, lost_notice, trimmed_notice};
use crate::history::{History, history};
use crate::mark::Mark;
use crate::metrics::Metrics;
use crate::querier::{Admission, OnSlow};
use crate::replay::{CatchUp, Own, Reading};
use crate::ring::{Cursor, Taken};

/// Most historic lines of a tail; a larger `limit` gets this many.
pub(crate) const MAX_HISTORY_LINES: usize = 500_000;

/// Why a tail ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// `tail_max_duration` has passed.
    MaxDuration,
    /// Every ingester's stream ended: the process is going down.
    IngestersGone,
    /// It cannot go on.
    Failed(String),
}

/// What a session has for its client.
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// A text frame.
    Frame(Bytes),
    /// Nothing more will come.
    End(EndReason),
}

/// A session's account, of a metric query in steps instead of lines. `matched = delivered + dropped` after every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Lines that matched since the tail began, history included.
    pub matched: u64,
    /// Lines handed to the socket.
    pub delivered: u64,
    /// Lines that matched and were not delivered.
    pub dropped: u64,
    /// Lines, matching or not, that were trimmed from a log before anybody could look whether they match.
    pub trimmed: u64,
}

/// An open tail as operators see it.
#[derive(Clone, Debug)]
pub struct TailInfo {
    /// Number of the tail in this process.
    pub id: u64,
    /// Whose: the tenants that the request named.
    pub tenants: TenantIds,
    /// The canonical query.
    pub query: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Its account.
    pub ledger: Ledger,
}

/// The part of a session that others may look at.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) tenants: TenantIds,
    pub(crate) query: String,
    pub(crate) opened_at: Timestamp,
    matched: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
    trimmed: AtomicU64,
}

impl Account {
    pub(crate) fn new(id: u64, tenants: TenantIds, query: String, opened_at: Timestamp) -> Self {
        let zero = || AtomicU64::new(0);
        Self { id, tenants, query, opened_at, matched: zero(), delivered: zero(), dropped: zero(), trimmed: zero() }
    }

    /// A tail of steps has delivered one.
    pub(crate) fn step_delivered(&self) {
        self.matched.fetch_add(1, Ordering::Relaxed);
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// A tail of steps has told that so many lines were trimmed.
    pub(crate) fn lines_trimmed(&self, lines: u64) {
        self.trimmed.fetch_add(lines, Ordering::Relaxed);
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Ledger {
            matched: get(&self.matched),
            delivered: get(&self.delivered),
            dropped: get(&self.dropped),
            trimmed: get(&self.trimmed),
        }
    }
}

enum State {
    /// Reading history.
    History(Reading<History>),
    /// Sending lines that were read for this session alone; then the state that follows.
    Sending(Own, After),
    /// Taking the feed's frames.
    Live,
    /// Reading again what the ring has lost.
    CatchUp(Box<CatchUp>),
    /// Over.
    Done(EndReason),
}

enum After {
    Live,
    CatchUp(Box<CatchUp>),
}

/// See the module.
pub struct Session {
    feed: Arc<Feed>,
    number: u64,
    on_slow: OnSlow,
    state: State,
    published: watch::Receiver<u64>,
    cursor: Cursor,
    /// The next frame.
    next: u64,
    /// Lines in the feed's frames before `next`.
    lines_taken: u64,
    /// What the feed had given out before `next`.
    mark: Mark,
    /// To be told with the next frame of this session's own.
    dropped: Vec<Dropped>,
    /// The same for a client that asked for notices.
    notices: Vec<Notice>,
    /// The logs that the client has been told are away.
    away: Away,
    encoder: Option<FrameEncoder>,
    deadline: Pin<Box<Sleep>>,
    account: Arc<Account>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    _admission: Admission,
}

/// What a session needs beside its feed.
pub(crate) struct SessionParts {
    pub(crate) on_slow: OnSlow,
    pub(crate) start: Timestamp,
    pub(crate) limit: usize,
    pub(crate) max_duration: Duration,
    pub(crate) account: Arc<Account>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) admission: Admission,
}

impl Session {
    pub(crate) fn join(feed: Arc<Feed>, parts: SessionParts) -> Self {
        let number = feed.session_number();
        let (joined, cursor) = feed.ring.lock().join(number, parts.on_slow == OnSlow::Drop);
        let history = history(Arc::clone(&feed), &joined, parts.start, parts.limit.min(MAX_HISTORY_LINES));
        parts.metrics.tails.inc();
        let notices = if feed.key().notices { joined.away.since(&Away::default()) } else { Vec::new() };
        Self {
            published: feed.published.clone(),
            number,
            on_slow: parts.on_slow,
            state: State::History(history),
            cursor,
            next: joined.next,
            lines_taken: joined.lines,
            mark: joined.mark,
            dropped: Vec::new(),
            notices,
            away: joined.away,
            encoder: None,
            deadline: Box::pin(tokio::time::sleep_until(Instant::now() + parts.max_duration)),
            account: parts.account,
            clock: parts.clock,
            metrics: parts.metrics,
            _admission: parts.admission,
            feed,
        }
    }

    /// Number of the tail in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.account.id
    }

    /// The account so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.account.ledger()
    }

    /// The next frame, or the end. Cancel-safe. After the end it keeps answering the end.
    pub async fn next(&mut self) -> SessionEvent {
        loop {
            if Instant::now() >= self.deadline.deadline() {
                self.end(EndReason::MaxDuration);
            }
            match &mut self.state {
                State::Done(reason) => return SessionEvent::End(reason.clone()),
                // What is away is told before history, which may take a while.
                State::History(_) if !self.notices.is_empty() => {
                    return SessionEvent::Frame(self.encode(&mut Own::new()));
                }
                State::History(reading) => {
                    let read = tokio::select! {
                        biased;
                        read = reading.as_mut() => read,
                        () = self.deadline.as_mut() => { self.end(EndReason::MaxDuration); continue }
                    };
                    match read {
                        Ok(history) => {
                            if self.feed.key().notices {
                                self.notices = history.notices(&self.away);
                            }
                            self.state = State::Sending(history.lines, After::Live);
                        }
                        Err(e) => self.end(EndReason::Failed(e.to_string())),
                    }
                }
                State::Sending(..) => {
                    if let Some(frame) = self.own_frame() {
                        return SessionEvent::Frame(frame);
                    }
                }
                State::Live => {
                    let taken = self.feed.ring.lock().take(self.next);
                    match taken {
                        Taken::Frame(frame) => return SessionEvent::Frame(self.deliver(frame)),
                        Taken::Gone => self.fell_off(),
                        Taken::End(reason) => self.end(reason),
                        Taken::Wait => {
                            // The sender lives as long as the feed's task; if that is gone the ring has an end.
                            let ended = tokio::select! {
                                biased;
                                () = self.deadline.as_mut() => Some(EndReason::MaxDuration),
                                changed = self.published.changed() => changed.is_err().then_some(EndReason::IngestersGone),
                            };
                            if let Some(reason) = ended {
                                if self.feed.ring.lock().ended() || reason == EndReason::MaxDuration {
                                    self.end(reason);
                                } else {
                                    self.end(EndReason::Failed("the feed stopped".to_owned()));
                                }
                            }
                        }
                    }
                }
                State::CatchUp(catch_up) => {
                    let read = tokio::select! {
                        biased;
                        read = catch_up.read(&self.feed) => read,
                        () = self.deadline.as_mut() => { self.end(EndReason::MaxDuration); continue }
                    };
                    self.caught(read);
                }
            }
        }
    }

    fn end(&mut self, reason: EndReason) {
        if !matches!(self.state, State::Done(_)) {
            self.state = State::Done(reason);
        }
    }

    /// A frame of the feed, on its way to the socket.
    fn deliver(&mut self, frame: crate::ring::Frame) -> Bytes {
        self.next += 1;
        self.lines_taken += u64::from(frame.lines);
        self.mark = frame.mark;
        self.away = frame.away;
        self.cursor.store(self.next, Ordering::Relaxed);
        self.count_matched(u64::from(frame.lines));
        self.count_delivered(u64::from(frame.lines), frame.bytes.len());
        self.account.trimmed.fetch_add(frame.trimmed, Ordering::Relaxed);
        frame.bytes
    }

    /// The next frame was driven out of the ring.
    fn fell_off(&mut self) {
        let ring = self.feed.ring.lock();
        match self.on_slow {
            OnSlow::Drop => {
                let (next, skipped, lines, away) = ring.skip(self.next, self.lines_taken);
                drop(ring);
                self.turned(away);
                self.next = next;
                self.lines_taken += skipped;
                self.cursor.store(next, Ordering::Relaxed);
                self.count_matched(skipped);
                self.count_dropped(skipped);
                self.dropped.extend(lines.into_iter().map(|l| Dropped { timestamp: l.timestamp, labels: l.labels }));
                self.state = State::Sending(Own::new(), After::Live);
            }
            OnSlow::Wait => {
                let to = ring.newest();
                drop(ring);
                self.metrics.catch_ups.inc();
                // What the feed publishes from here on is wanted again.
                self.cursor.store(to.next, Ordering::Relaxed);
                self.state = State::CatchUp(Box::new(CatchUp::new(&self.feed, self.mark.clone(), to)));
            }
        }
    }

    /// A part of a catch-up has been read, or all of it (`None`).
    fn caught(&mut self, read: Result<Option<Own>, crate::Error>) {
        let State::CatchUp(catch_up) = std::mem::replace(&mut self.state, State::Live) else { return };
        match read {
            Err(e) => self.end(EndReason::Failed(e.to_string())),
            Ok(Some(lines)) => self.state = State::Sending(lines, After::CatchUp(catch_up)),
            Ok(None) => {
                let wanted = catch_up.to.lines - self.lines_taken;
                self.next = catch_up.to.next;
                self.lines_taken = catch_up.to.lines;
                self.mark = catch_up.to.mark;
                self.turned(catch_up.to.away);
                let missing = wanted.saturating_sub(catch_up.found);
                if catch_up.found > wanted || (missing > 0 && catch_up.trimmed == 0 && !catch_up.gave_up) {
                    self.metrics.ledger_violations.inc();
                    tracing::error!(
                        tail = self.account.id,
                        wanted,
                        found = catch_up.found,
                        "a catch-up does not balance"
                    );
                }
                if missing > 0 {
                    self.count_matched(missing);
                    self.count_dropped(missing);
                    let now = self.clock.now();
                    self.dropped.push(if catch_up.gave_up {
                        self.metrics.unread_lines.inc_by(missing);
                        lost_notice(missing, "log_unavailable", now)
                    } else {
                        trimmed_notice(missing, now)
                    });
                }
                self.state = State::Sending(Own::new(), After::Live);
            }
        }
    }

    /// The client did not get the frames that said which logs are away now.
    fn turned(&mut self, away: Away) {
        if self.feed.key().notices {
            self.notices.extend(away.since(&self.away));
        }
        self.away = away;
    }

    /// A frame of lines that were read for this session alone; `None` when there are no more and the state has moved on.
    fn own_frame(&mut self) -> Option<Bytes> {
        let State::Sending(lines, _) = &mut self.state else { return None };
        if lines.is_empty() && self.dropped.is_empty() && self.notices.is_empty() {
            if let State::Sending(_, after) = std::mem::replace(&mut self.state, State::Live)
                && let After::CatchUp(catch_up) = after
            {
                self.state = State::CatchUp(catch_up);
            }
            if matches!(self.state, State::Live) {
                self.encoder = None;
            }
            return None;
        }
        let mut lines = std::mem::take(lines);
        let frame = self.encode(&mut lines);
        if let State::Sending(left, _) = &mut self.state {
            *left = lines;
        }
        Some(frame)
    }

    /// A frame of the first of some lines, and of what is to be told.
    fn encode(&mut self, lines: &mut Own) -> Bytes {
        let encoder = self.encoder.get_or_insert_with(|| FrameEncoder::new(self.feed.key().encoding.clone()));
        while let Some((line, text)) = lines.pop_front() {
            encoder.push(line.timestamp, &text, &line.labels);
            if encoder.lines() >= MAX_FRAME_LINES || encoder.len_bytes() >= MAX_FRAME_BYTES {
                break;
            }
        }
        let count = encoder.lines() as u64;
        let extras = Extras { notices: &std::mem::take(&mut self.notices), resume: None };
        let frame = encoder.finish(&std::mem::take(&mut self.dropped), &extras);
        self.count_matched(count);
        self.count_delivered(count, frame.len());
        frame
    }

    fn count_matched(&self, lines: u64) {
        self.account.matched.fetch_add(lines, Ordering::Relaxed);
    }

    fn count_delivered(&self, lines: u64, bytes: usize) {
        self.account.delivered.fetch_add(lines, Ordering::Relaxed);
        self.metrics.delivered_lines.inc_by(lines);
        self.metrics.delivered_bytes.inc_by(bytes as u64);
    }

    fn count_dropped(&self, lines: u64) {
        self.account.dropped.fetch_add(lines, Ordering::Relaxed);
        self.metrics.dropped_lines.inc_by(lines);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.feed.ring.lock().leave(self.number, self.on_slow == OnSlow::Drop);
        self.metrics.tails.dec();
    }
}
