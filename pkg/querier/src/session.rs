//! One client's tail: history first if asked, then the feed's frames, each line exactly once.
//!
//! ```text
//!   History ──▶ Sending ──▶ Live ◀──────▶ CatchUp          any ──▶ Done
//!      with a token: ──▶ Joining ──▶ CatchUp ──▶ (Lagging ──▶ Joining)* ──▶ Live
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
//! * A session that goes on with a token has had what the token says, by whichever feed. It reads what its feed's newest mark contains
//!   beyond that, again and again until the feed is as far in everything as the other one was, and only then takes the feed's frames. What
//!   the feed has not got (a log that is away, or new) it is owed: frames get a token of its own that says so, and when the feed gets it
//!   the difference is read before the frame is taken.
//! * The token of a frame says that everything up to and including this frame has been had. A client that asked for tokens is told before the
//!   first frame that has none because there can be none, once until there are some again.
//! * A client that asked for notices is told which logs are away when it joins, and again whenever that has changed, before anything else.
//! * [`Session::next`] is cancel-safe: what it waits for is kept in the session.

mod account;
mod go_on;
mod tokens;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tailwater_model::{Clock, Timestamp};
use tailwater_wire::frame::{Dropped, Extras, FrameEncoder, Notice, with_resume};
use tailwater_wire::node::MatchedLine;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

pub(crate) use self::account::Account;
pub use self::account::{Ledger, TailInfo};
use self::go_on::Foreign;
use crate::away::Away;
use crate::catch_up::{CatchUp, Found};
use crate::feed::{Feed, MAX_FRAME_BYTES, MAX_FRAME_LINES, dropped_notice, lost_notice, trimmed_notice};
use crate::had::Had;
use crate::history::{History, history};
use crate::mark::Mark;
use crate::metrics::Metrics;
use crate::outside::Outside;
use crate::querier::{Admission, Nodes, OnSlow};
use crate::replay::{Own, Reading};
use crate::resume::{At, HistoryAt, Token};
use crate::ring::{Cursor, Taken};

/// Most historic lines of a tail; a larger `limit` gets this many.
pub(crate) const MAX_HISTORY_LINES: usize = 500_000;

/// How often a feed that is behind the token is looked at when it gives out nothing.
const LAGGING: Duration = Duration::from_millis(250);

/// Why a tail ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// `tail_max_duration` has passed.
    MaxDuration,
    /// Every ingester's stream ended: the process is going down.
    IngestersGone,
    /// History or a catch-up could not be read.
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

enum State {
    /// Reading history.
    History(Reading<History>),
    /// Sending lines that were read for this session alone; then the state that follows.
    Sending(Own, After),
    /// Taking the feed's frames.
    Live,
    /// Reading again what the ring has lost, or what the client has not had.
    CatchUp(Box<CatchUp>),
    /// About to read what the feed has given out and the client has not had.
    Joining,
    /// Waiting for the feed to come as far as the token.
    Lagging,
    /// Over.
    Done(EndReason),
}

enum After {
    Live,
    History(Box<HistoryAt>),
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
    /// When its tail began.
    origin: Timestamp,
    foreign: Option<Foreign>,
    /// To be told with the next frame.
    resumed: Option<bool>,
    outside: Outside,
    /// History, while it is read.
    history: Option<Box<HistoryAt>>,
    /// To be told with the next frame of this session's own.
    dropped: Vec<Dropped>,
    /// The same for a client that asked for notices.
    notices: Vec<Notice>,
    /// The logs that the client has been told are away.
    away: Away,
    /// The client has been told that there are no tokens, and has got none since.
    told_no_token: bool,
    /// A frame that comes next, whatever happens: something had to be told before it.
    held: Option<Bytes>,
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
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) resume: Option<Token>,
}

impl Session {
    pub(crate) fn join(feed: Arc<Feed>, parts: SessionParts) -> Self {
        let number = feed.session_number();
        let (joined, cursor) = feed.ring.lock().join(number, parts.on_slow == OnSlow::Drop);
        let nodes = Arc::clone(&parts.nodes);
        let outside = Outside { feed: Arc::clone(&feed), nodes, clock: Arc::clone(&parts.clock) };
        parts.metrics.tails.inc();
        let notices = if feed.key().notices { joined.away.since(&Away::default()) } else { Vec::new() };
        let mut session = Self {
            published: feed.published.clone(),
            number,
            on_slow: parts.on_slow,
            state: State::Joining,
            cursor,
            next: joined.next,
            lines_taken: joined.lines,
            mark: joined.mark.clone(),
            origin: feed.opened(),
            foreign: None,
            resumed: None,
            outside,
            history: None,
            dropped: Vec::new(),
            notices,
            away: joined.away.clone(),
            told_no_token: false,
            held: None,
            encoder: None,
            deadline: Box::pin(tokio::time::sleep_until(Instant::now() + parts.max_duration)),
            account: parts.account,
            clock: parts.clock,
            metrics: parts.metrics,
            _admission: parts.admission,
            feed,
        };
        if let Some(token) = parts.resume {
            session.go_on(token);
        } else {
            let limit = parts.limit.min(MAX_HISTORY_LINES);
            let (mark, waiting) = (session.feed.placed(joined.mark), joined.waiting);
            session.read_history(HistoryAt { mark, start: parts.start, limit, waiting, sent: None }, false);
        }
        session
    }

    fn read_history(&mut self, at: HistoryAt, resumed: bool) {
        self.state = State::History(history(self.outside.clone(), self.origin, at.clone(), self.away.clone(), resumed));
        self.history = Some(Box::new(at));
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
            if let Some(frame) = self.held.take() {
                return SessionEvent::Frame(frame);
            }
            if Instant::now() >= self.deadline.deadline() {
                self.end(EndReason::MaxDuration);
            }
            match &mut self.state {
                State::Done(reason) => return SessionEvent::End(reason.clone()),
                // What is away is told before what takes a while.
                State::History(_) | State::CatchUp(_) | State::Joining | State::Lagging if !self.notices.is_empty() => {
                    return SessionEvent::Frame(self.notices_frame());
                }
                State::History(reading) => {
                    let read = tokio::select! {
                        biased;
                        read = reading.as_mut() => read,
                        () = self.deadline.as_mut() => { self.end(EndReason::MaxDuration); continue }
                    };
                    self.has_read(read);
                }
                State::Sending(..) => {
                    if let Some(frame) = self.own_frame() {
                        return SessionEvent::Frame(frame);
                    }
                }
                State::Live => {
                    let (taken, newest) = {
                        let ring = self.feed.ring.lock();
                        (ring.take(self.next), self.foreign.is_some().then(|| ring.newest().mark))
                    };
                    match taken {
                        Taken::Frame(frame) if self.is_owed(&frame.mark) => self.join_again(),
                        Taken::Frame(frame) => return SessionEvent::Frame(self.deliver(frame)),
                        Taken::Gone => self.fell_off(),
                        Taken::End(reason) => self.end(reason),
                        Taken::Wait if newest.is_some_and(|mark| self.is_owed(&mark)) => self.join_again(),
                        Taken::Wait => {
                            // The sender lives as long as the feed's task; if that is gone the ring has an end.
                            let until = self.foreign.as_ref().map(|foreign| foreign.until);
                            let ended = tokio::select! {
                                biased;
                                () = self.deadline.as_mut() => Some(EndReason::MaxDuration),
                                () = passed(until) => { self.join_again(); continue }
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
                State::Joining => self.join_feed(),
                State::Lagging => {
                    let ended = tokio::select! {
                        biased;
                        () = self.deadline.as_mut() => Some(EndReason::MaxDuration),
                        changed = self.published.changed() => changed.is_err().then_some(EndReason::IngestersGone),
                        () = tokio::time::sleep(LAGGING) => None,
                    };
                    match ended {
                        Some(reason) => self.end(reason),
                        None => self.state = State::Joining,
                    }
                }
                State::CatchUp(catch_up) => {
                    let read = tokio::select! {
                        biased;
                        read = catch_up.read(&self.outside) => read,
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
        self.account.lines_trimmed(frame.trimmed);
        let token = if self.foreign.is_some() { self.sealed(&self.standing()) } else { frame.token.clone() };
        // The frame may have notices of its own.
        let told = self.tokens_end(token.is_some()).then(|| self.notices_frame());
        let bytes = if self.foreign.is_none() && self.resumed.is_none() {
            frame.bytes
        } else {
            let extras = Extras { resumed: self.resumed.take(), resume: token.as_deref(), ..Extras::default() };
            with_resume(&frame.bytes, frame.token.as_deref(), &extras)
        };
        let Some(told) = told else { return bytes };
        self.encoder = None;
        self.held = Some(bytes);
        told
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
            OnSlow::Wait if self.foreign.is_some() => {
                drop(ring);
                self.metrics.catch_ups.inc();
                self.join_again();
            }
            OnSlow::Wait => {
                let to = ring.newest();
                drop(ring);
                self.metrics.catch_ups.inc();
                // What the feed publishes from here on is wanted again.
                self.cursor.store(to.next, Ordering::Relaxed);
                let had = Had::of(self.origin, self.feed.placed(self.mark.clone()));
                self.state = State::CatchUp(Box::new(CatchUp::to_feed(&self.outside, had, to, false, false)));
            }
        }
    }

    /// History has been read.
    fn has_read(&mut self, history: History) {
        if self.feed.key().notices {
            self.notices = history.notices(&self.away);
        }
        if self.foreign.is_some() && !history.is_whole() {
            self.metrics.resume_gaps.inc();
            self.resumed = Some(false);
        }
        let after = self.history.take().map_or(After::Live, After::History);
        self.state = State::Sending(history.lines, after);
    }

    /// A part of a catch-up has been read, or all of it (`None`).
    fn caught(&mut self, read: Option<Found>) {
        let State::CatchUp(catch_up) = std::mem::replace(&mut self.state, State::Live) else { return };
        if let Some(Found { lines, lost }) = read {
            if self.foreign.is_some() {
                let now = self.clock.now();
                self.dropped.extend(lost.iter().map(|lost| lost_notice(lost, now)));
                self.account.lines_trimmed(lost.iter().map(|lost| lost.lines).sum());
                self.metrics.resume_gaps.inc_by(lost.len() as u64);
                self.resumed = if lost.is_empty() { self.resumed } else { Some(false) };
            }
            self.state = State::Sending(lines, After::CatchUp(catch_up));
            return;
        }
        if self.foreign.is_some() {
            self.joined(*catch_up);
            return;
        }
        let (found, incomplete, gave_up) = (catch_up.found, catch_up.incomplete, catch_up.gave_up);
        let (_, _, Some(to)) = catch_up.end() else { return };
        let wanted = to.lines - self.lines_taken;
        (self.next, self.lines_taken, self.mark) = (to.next, to.lines, to.mark);
        self.turned(to.away);
        let missing = wanted.saturating_sub(found);
        if found > wanted || (missing > 0 && !incomplete) {
            self.metrics.ledger_violations.inc();
            tracing::error!(tail = self.account.id, wanted, found, "a catch-up does not balance");
        }
        if missing > 0 {
            self.count_matched(missing);
            self.count_dropped(missing);
            let now = self.clock.now();
            self.dropped.push(if gave_up {
                self.metrics.unread_lines.inc_by(missing);
                dropped_notice(missing, "log_unavailable", now)
            } else {
                trimmed_notice(missing, now)
            });
        }
        self.state = State::Sending(Own::new(), After::Live);
    }

    /// The client did not get the frames that said which logs are away now.
    fn turned(&mut self, away: Away) {
        if self.feed.key().notices {
            self.notices.extend(away.since(&self.away));
        }
        self.away = away;
    }

    /// A frame without lines, of what is to be told.
    fn notices_frame(&mut self) -> Bytes {
        let history = self.history.as_ref().map(|history| At::History(HistoryAt::clone(history)));
        let token = history.and_then(|at| self.token(&at));
        self.encode(token.as_deref())
    }

    /// A frame of the lines that the encoder has, and of what is to be told.
    fn encode(&mut self, token: Option<&str>) -> Bytes {
        let (notices, dropped) = (std::mem::take(&mut self.notices), std::mem::take(&mut self.dropped));
        let extras = Extras { notices: &notices, resumed: self.resumed.take(), resume: token };
        let encoder = self.encoder.get_or_insert_with(|| FrameEncoder::new(self.feed.key().encoding.clone()));
        let count = encoder.lines() as u64;
        let frame = encoder.finish(&dropped, &extras);
        self.count_matched(count);
        self.count_delivered(count, frame.len());
        frame
    }

    /// A frame of lines that were read for this session alone; `None` when there are no more and the state has moved on.
    fn own_frame(&mut self) -> Option<Bytes> {
        let State::Sending(lines, after) = &mut self.state else { return None };
        if lines.is_empty() && self.dropped.is_empty() && self.notices.is_empty() {
            if let State::Sending(_, after) = std::mem::replace(&mut self.state, State::Live) {
                match after {
                    After::CatchUp(catch_up) => self.state = State::CatchUp(catch_up),
                    After::History(_) if self.foreign.is_some() => self.state = State::Joining,
                    After::History(_) | After::Live => self.encoder = None,
                }
            }
            return None;
        }
        let encoder = self.encoder.get_or_insert_with(|| FrameEncoder::new(self.feed.key().encoding.clone()));
        let mut last: Option<MatchedLine> = None;
        while let Some((line, text)) = lines.pop_front() {
            encoder.push(line.timestamp, &text, &line.labels);
            if let After::History(history) = after {
                history.sent(&line);
            }
            last = Some(line);
            if encoder.lines() >= MAX_FRAME_LINES || encoder.len_bytes() >= MAX_FRAME_BYTES {
                break;
            }
        }
        let last = last.filter(|_| !lines.is_empty());
        let at = match after {
            _ if self.feed.seal.is_none() => None,
            After::History(history) if last.is_some() => Some(At::History(HistoryAt::clone(history))),
            After::History(history) => Some(At::Marks(vec![history.mark.clone()])),
            After::CatchUp(catch_up) => Some(catch_up.at(last.as_ref())),
            // Lines that its client did not want to wait for are not had.
            After::Live if self.on_slow == OnSlow::Drop => None,
            After::Live => Some(self.standing()),
        };
        let token = at.and_then(|at| self.token(&at));
        Some(self.encode(token.as_deref()))
    }

    fn count_matched(&self, lines: u64) {
        self.account.lines_matched(lines);
    }

    fn count_delivered(&self, lines: u64, bytes: usize) {
        self.account.lines_delivered(lines);
        self.metrics.delivered_lines.inc_by(lines);
        self.metrics.delivered_bytes.inc_by(bytes as u64);
    }

    fn count_dropped(&self, lines: u64) {
        self.account.lines_dropped(lines);
        self.metrics.dropped_lines.inc_by(lines);
    }
}

/// Waits for a moment, for ever if there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.feed.ring.lock().leave(self.number, self.on_slow == OnSlow::Drop);
        self.metrics.tails.dec();
    }
}
