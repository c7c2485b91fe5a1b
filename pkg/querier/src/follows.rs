//! What a feed follows, and since where: the logs come and go, the feed stays.
//!
//! ```text
//!              its place is not known                its place is known
//!   listed ──▶ asked for, again and again ──▶ begun: one source per tenant, followed ──▶ left the list ──▶ closed
//!                                                      ▲      follow ended: begun anew      │                │
//!                                                      └──────────────── listed again ──────┴────────────────┘
//! ```
//!
//! Invariants:
//! * Every log of the list becomes sources from where it was when the feed was opened, however late that is learnt: what is accepted after
//!   the opening is live. The place errs on the side of what came before, by little.
//! * A source is followed from where it was; however often a follow begins anew, no event is taken from two of them at a time.
//! * Nothing waits for a log. One of which nothing can be had is in [`Follows::away`] until it says something.
//! * It is over when the list cannot change any more and every follow has ended, or when the querier is closed.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, AbortHandle, FuturesUnordered, SelectAll, StreamExt, abortable};
use tailwater_logql::LogQuery;
use tailwater_model::{Backoff, LogId};
use tailwater_wire::node::{FollowEvent, Gap, Node, NodeError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::away::Away;
use crate::feed::FeedTenant;
use crate::metrics::Metrics;
use crate::place::{heads, place};
use crate::source::{Positions, Source, SourceId, Sources};

/// Pauses before a log is asked again where it was.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Pauses before a follow that ended begins anew.
const FOLLOW_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// How long a log that has left the list may still say what it had to say.
const LEAVING: Duration = Duration::from_secs(5);

/// The same when the querier is closed, for all logs.
const CLOSING: Duration = Duration::from_secs(1);

/// The logs there are, see [`crate::Nodes::nodes`].
pub(crate) type Listed = watch::Receiver<Arc<[Arc<dyn Node>]>>;

/// What the feed is told.
pub(crate) enum Happened {
    /// Sources have begun, each after a position.
    Began(Vec<(SourceId, u64)>),
    /// A source has something.
    Event(SourceId, FollowEvent),
    /// Something may have changed in who is away.
    Turned,
    /// There are more sources than a feed may have.
    TooMany,
    /// Nothing will come any more.
    Over,
}

/// What a follow yields: its source, which follow of that source it is, and an event or that it has ended.
type Events = Pin<Box<dyn futures_core::Stream<Item = (SourceId, u64, Option<FollowEvent>)> + Send>>;

/// What was waited for beside events.
enum Done {
    /// Where a log was, or why that is not known.
    Place(LogId, Result<u64, NodeError>),
    /// A log has left the list some time ago.
    Left(LogId),
}

/// A log that is or was in the list.
struct Log {
    node: Arc<dyn Node>,
    /// None until it has begun: its place is being asked for.
    sources: Option<Vec<SourceId>>,
    /// When it left the list.
    left: Option<Instant>,
    asking: Backoff,
}

/// How a source is followed.
struct Followed {
    log: LogId,
    /// Which of its follows counts.
    number: u64,
    /// None: it is closed.
    abort: Option<AbortHandle>,
    away: bool,
    again: Backoff,
}

/// See the module.
pub(crate) struct Follows {
    listed: Listed,
    /// The list cannot change any more.
    is_final: bool,
    closing: watch::Receiver<bool>,
    closes_at: Option<Instant>,
    opened: Instant,
    tenants: Vec<FeedTenant>,
    query: Arc<LogQuery>,
    sources: Sources,
    logs: HashMap<LogId, Log>,
    /// By the number of the source.
    followed: Vec<Followed>,
    /// Up to where each source has been taken.
    reached: Positions,
    away: Away,
    waits: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    events: SelectAll<Events>,
    counted: Counted,
}

impl Follows {
    /// Begins to follow what is listed; of logs that do not answer within [`crate::place::OPENING`] later. Returns where its first sources begin, too.
    /// `None`: there would be more than a feed may have.
    pub(crate) async fn open(
        mut listed: Listed,
        closing: watch::Receiver<bool>,
        tenants: Vec<FeedTenant>,
        query: Arc<LogQuery>,
        metrics: Metrics,
    ) -> Option<(Self, Positions)> {
        let opened = Instant::now();
        let nodes = Arc::clone(&listed.borrow_and_update());
        let heads = heads(&nodes).await;
        let mut follows = Self {
            is_final: listed.has_changed().is_err(),
            listed,
            closing,
            closes_at: None,
            opened,
            tenants,
            query,
            sources: Sources::default(),
            logs: HashMap::new(),
            followed: Vec::new(),
            reached: Positions::default(),
            away: Away::default(),
            waits: FuturesUnordered::new(),
            events: SelectAll::new(),
            counted: Counted { metrics, sources: 0, away: 0 },
        };
        for node in nodes.iter() {
            follows.note(node);
        }
        // Tenant by tenant: lines of equal times come in this order.
        for tenant in follows.tenants.clone() {
            for (node, head) in nodes.iter().zip(&heads) {
                if let Ok(head) = head {
                    follows.begin(node.log_id(), &tenant, *head)?;
                }
            }
        }
        for (node, head) in nodes.iter().zip(heads) {
            if let Err(error) = head {
                follows.ask_again(node.log_id(), &error);
            }
        }
        follows.count();
        let begun = follows.reached.clone();
        Some((follows, begun))
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The logs of which nothing can be had now.
    pub(crate) fn away(&self) -> &Away {
        &self.away
    }

    /// The next thing that happens. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Happened {
        loop {
            let Self { listed, closing, waits, events, .. } = self;
            if self.is_final && waits.is_empty() && events.is_empty() {
                return Happened::Over;
            }
            let closes_at = self.closes_at;
            // Events come last: they may never pause.
            let happened = tokio::select! {
                biased;
                changed = listed.changed(), if !self.is_final => match changed {
                    Ok(()) => self.list(),
                    Err(_gone) => { self.is_final = true; None }
                },
                () = closed(closing), if closes_at.is_none() => {
                    self.closes_at = Some(Instant::now() + CLOSING);
                    // Whoever has not begun by now never will.
                    waits.clear();
                    None
                },
                () = async { match closes_at { Some(at) => sleep_until(at).await, None => std::future::pending().await } }, if !self.is_final => {
                    self.is_final = true;
                    waits.clear();
                    events.clear();
                    None
                },
                done = waits.next(), if !waits.is_empty() => done.and_then(|done| self.waited(done)),
                event = events.next(), if !events.is_empty() => {
                    event.and_then(|(source, number, event)| self.happened(source, number, event))
                }
            };
            match happened {
                None => {}
                Some(event @ Happened::Event(..)) => return event,
                Some(happened) => {
                    self.count();
                    return happened;
                }
            }
        }
    }

    /// The list has changed.
    fn list(&mut self) -> Option<Happened> {
        let nodes = Arc::clone(&self.listed.borrow_and_update());
        if self.closes_at.is_some() {
            return None;
        }
        let mut turned = false;
        for node in nodes.iter() {
            let log = node.log_id();
            match self.logs.get_mut(&log) {
                None => {
                    self.note(node);
                    self.ask(log, Duration::ZERO);
                }
                Some(known) => {
                    let is_same = Arc::ptr_eq(&known.node, node);
                    known.node = Arc::clone(node);
                    known.left = None;
                    for source in known.sources.clone().unwrap_or_default() {
                        if !is_same {
                            self.sources.answered_by(source, node);
                        }
                        if !is_same || self.followed.get(source.at()).is_some_and(|of| of.abort.is_none()) {
                            self.follow(source, Duration::ZERO);
                        }
                    }
                }
            }
        }
        for (log, known) in &mut self.logs {
            if known.left.is_some() || nodes.iter().any(|node| node.log_id() == *log) {
                continue;
            }
            known.left = Some(Instant::now());
            turned = true;
            if known.sources.is_some() {
                let log = *log;
                self.waits.push(Box::pin(async move {
                    sleep(LEAVING).await;
                    Done::Left(log)
                }));
            }
        }
        let away: Vec<LogId> = self
            .logs
            .iter()
            .filter(|(log, known)| known.left.is_some() && self.away.why(**log).is_some())
            .map(|(log, _)| *log)
            .collect();
        away.into_iter().for_each(|log| self.close(log));
        turned.then_some(Happened::Turned)
    }

    /// Something that was waited for has come.
    fn waited(&mut self, done: Done) -> Option<Happened> {
        match done {
            Done::Place(log, answer) => {
                let known = self.logs.get(&log).filter(|known| known.sources.is_none())?;
                if known.left.is_some() {
                    self.logs.remove(&log);
                    self.away.came(log);
                    return Some(Happened::Turned);
                }
                match answer {
                    Err(error) => {
                        self.ask_again(log, &error);
                        Some(Happened::Turned)
                    }
                    Ok(place) => {
                        let tenants = self.tenants.clone();
                        let begun = tenants.iter().map(|tenant| Some((self.begin(log, tenant, place)?, place)));
                        let begun: Option<Vec<_>> = begun.collect();
                        self.away.came(log);
                        Some(begun.map_or(Happened::TooMany, Happened::Began))
                    }
                }
            }
            Done::Left(log) => {
                let left = self.logs.get(&log)?.left?;
                if left.elapsed() >= LEAVING {
                    self.close(log);
                }
                Some(Happened::Turned)
            }
        }
    }

    /// A follow has an event, or has ended.
    fn happened(&mut self, source: SourceId, number: u64, event: Option<FollowEvent>) -> Option<Happened> {
        let followed = self.followed.get_mut(source.at()).filter(|followed| followed.number == number)?;
        let log = followed.log;
        let leaves = || self.logs.get(&log).is_none_or(|log| log.left.is_some());
        let reached = match &event {
            Some(FollowEvent::Lines(batch)) => batch.through,
            Some(FollowEvent::Idle { through, .. } | FollowEvent::Gap(Gap { through, .. })) => *through,
            Some(FollowEvent::Away { reason }) => {
                followed.away = true;
                if leaves() {
                    // There is nobody left who could go on.
                    self.close(log);
                } else {
                    self.away.went(log, reason);
                }
                return Some(Happened::Turned);
            }
            None => {
                followed.abort = None;
                if self.is_final || self.closes_at.is_some() || leaves() {
                    return Some(Happened::Turned);
                }
                followed.away = true;
                self.away.went(log, &"what followed it has ended".into());
                let pause = followed.again.pause();
                self.follow(source, pause);
                return Some(Happened::Turned);
            }
        };
        followed.again.reset();
        if std::mem::take(&mut followed.away) {
            self.turn(log);
        }
        self.reached.advance(source, reached);
        event.map(|event| Happened::Event(source, event))
    }

    /// A source of a log has said something: the log is back when all have.
    fn turn(&mut self, log: LogId) {
        let sources = self.logs.get(&log).and_then(|log| log.sources.as_deref()).unwrap_or_default();
        if !sources.iter().any(|source| self.followed.get(source.at()).is_some_and(|of| of.away)) {
            self.away.came(log);
            self.count();
        }
    }

    fn note(&mut self, node: &Arc<dyn Node>) {
        let log = Log { node: Arc::clone(node), sources: None, left: None, asking: ASK_AGAIN };
        self.logs.insert(node.log_id(), log);
    }

    /// Asks where a log was when the feed was opened: after a pause, or as soon as the list changes.
    fn ask(&mut self, log: LogId, pause: Duration) {
        let Some(known) = self.logs.get(&log) else { return };
        let (node, opened, mut listed) = (Arc::clone(&known.node), self.opened, self.listed.clone());
        self.waits.push(Box::pin(async move {
            let changed = async {
                if listed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = changed => {}
            }
            Done::Place(log, place(node.as_ref(), opened.elapsed()).await)
        }));
    }

    fn ask_again(&mut self, log: LogId, error: &NodeError) {
        let Some(known) = self.logs.get_mut(&log) else { return };
        let pause = known.asking.pause();
        self.away.went(log, &error.to_string().into());
        self.ask(log, pause);
    }

    /// A tenant in a log becomes a source.
    fn begin(&mut self, log: LogId, FeedTenant { id, detect_level }: &FeedTenant, after: u64) -> Option<SourceId> {
        let known = self.logs.get_mut(&log)?;
        let node = Arc::clone(&known.node);
        let source = self.sources.add(Source { node, tenant: id.clone(), detect_level: *detect_level })?;
        known.sources.get_or_insert_default().push(source);
        self.reached.advance(source, after);
        self.followed.push(Followed { log, number: 0, abort: None, away: false, again: FOLLOW_AGAIN });
        self.follow(source, Duration::ZERO);
        Some(source)
    }

    /// Follows a source from where it was. What an earlier follow of it still says counts no more.
    fn follow(&mut self, source: SourceId, pause: Duration) {
        let (Some(of), Some(followed)) = (self.sources.get(source), self.followed.get_mut(source.at())) else { return };
        followed.number += 1;
        let (number, after, query) = (followed.number, self.reached.seq(source), Arc::clone(&self.query));
        let begin = async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            of.follow(&query, after)
        };
        let (events, abort) = abortable(stream::once(begin).flatten());
        if let Some(earlier) = followed.abort.replace(abort) {
            earlier.abort();
        }
        let events = events.map(move |event| (source, number, Some(event)));
        self.events.push(Box::pin(events.chain(stream::once(std::future::ready((source, number, None))))));
    }

    /// Gives a log up that has left the list. It goes on where it was if it comes back.
    fn close(&mut self, log: LogId) {
        self.away.came(log);
        let Some(known) = self.logs.get(&log) else { return };
        for source in known.sources.iter().flatten() {
            let Some(followed) = self.followed.get_mut(source.at()) else { continue };
            followed.number += 1;
            followed.away = false;
            if let Some(abort) = followed.abort.take() {
                abort.abort();
            }
        }
    }

    fn count(&mut self) {
        let open = self.followed.iter().filter(|followed| followed.abort.is_some()).count();
        self.counted.set(open, self.away.len());
    }
}

/// Waits until the querier is closed. One that is gone never closes: what it has opened goes on.
async fn closed(closing: &mut watch::Receiver<bool>) {
    if closing.wait_for(|closing| *closing).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What this feed has added to the gauges; taken back when it ends.
struct Counted {
    metrics: Metrics,
    sources: i64,
    away: i64,
}

impl Counted {
    fn set(&mut self, sources: usize, away: usize) {
        let (sources, away) = (i64::try_from(sources).unwrap_or(i64::MAX), i64::try_from(away).unwrap_or(i64::MAX));
        self.metrics.sources.inc_by(sources - self.sources);
        self.metrics.away.inc_by(away - self.away);
        (self.sources, self.away) = (sources, away);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}
