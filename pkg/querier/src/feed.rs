//! A feed: one (tenants, query, encoding, delay) followed on every log, merged, encoded once, for however many sessions.
//!
//! What it follows comes and goes ([`Follows`]); the feed goes on with what there is. Its task lives as long as somebody holds the [`Feed`]. A round: take what the follow streams have ready (bounded), let the
//! merger say what is due, encode it, publish the frames under one lock, wake the sessions. There is no polling: the task sleeps
//! until a stream has something or a held line falls due. With many sessions rounds are kept a little apart, so that the number
//! of socket writes stays in proportion to time and not to pushes; the first line after a pause still leaves at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tailwater_logql::LogQuery;
use tailwater_model::{Clock, LabelSet, Labels, TenantId, Timestamp};
use tailwater_wire::frame::{Dropped, Extras, FrameEncoder, TailEncoding};
use tailwater_wire::node::{FollowEvent, Gap};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::Error;
use crate::away::Away;
use crate::catch_up::Lost;
use crate::follows::{Follows, Happened, Listed};
use crate::had::{Name, Placed};
use crate::mark::Mark;
use crate::merge::{Held, MergeCounts, Merger, Round};
use crate::metrics::Metrics;
use crate::resume::Seal;
use crate::ring::{Frame, Ring};
use crate::session::EndReason;
use crate::source::{MAX_SOURCES, SourceId, Sources};
use crate::tenant_labels::TenantLabels;

/// Most lines in a frame.
pub(crate) const MAX_FRAME_LINES: usize = 100;

/// A frame is closed when its text passes this.
pub(crate) const MAX_FRAME_BYTES: usize = 32 << 10;

/// A round takes no more from the follow streams than this.
const MAX_ROUND_BYTES: usize = 1 << 20;

/// How far apart rounds are kept per session, and at most.
const PACE_PER_SESSION: Duration = Duration::from_micros(200);
const MAX_PACE: Duration = Duration::from_millis(20);

/// Up to so many sessions rounds are not kept apart.
const UNPACED_SESSIONS: usize = 4;

/// What makes two tails the same feed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FeedKey {
    /// Sorted, without repeats, at least one.
    pub(crate) tenants: Vec<FeedTenant>,
    /// Lines have their tenant as a label.
    pub(crate) names_tenants: bool,
    pub(crate) query: String,
    pub(crate) encoding: TailEncoding,
    pub(crate) delay: Duration,
    /// Frames say which logs are away.
    pub(crate) notices: bool,
    /// Frames have resume tokens.
    pub(crate) resume: bool,
}

/// A tenant that a feed follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FeedTenant {
    pub(crate) id: TenantId,
    pub(crate) detect_level: bool,
}

/// The feeds that are open.
pub(crate) type Feeds = Mutex<HashMap<FeedKey, Weak<Feed>>>;

/// See the module. Dropping the last reference ends it.
pub(crate) struct Feed {
    key: FeedKey,
    pub(crate) query: Arc<LogQuery>,
    pub(crate) sources: Sources,
    pub(crate) ring: Arc<Mutex<Ring>>,
    opened: Timestamp,
    /// What makes its tokens, if it has any.
    pub(crate) seal: Option<Seal>,
    /// Changes when frames are published or the feed ends.
    pub(crate) published: watch::Receiver<u64>,
    task: AbortHandle,
    feeds: Weak<Feeds>,
    metrics: Metrics,
    next_session: AtomicU64,
}

/// What a feed needs from outside.
pub(crate) struct FeedParts {
    pub(crate) nodes: Listed,
    /// True when feeds are to end.
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) query: Arc<LogQuery>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    /// If its frames have resume tokens.
    pub(crate) seal: Option<Seal>,
    pub(crate) ring_bytes: usize,
    pub(crate) merge_bytes: usize,
}

impl Feed {
    /// Opens a feed that begins after the newest batch of each log.
    ///
    /// # Errors
    /// There is more to follow than a feed may.
    pub(crate) async fn open(key: FeedKey, parts: FeedParts, feeds: Weak<Feeds>) -> Result<Arc<Self>, Error> {
        let begins = parts.clock.now();
        let (tenants, query, metrics) = (key.tenants.clone(), Arc::clone(&parts.query), parts.metrics.clone());
        let opened = Follows::open(parts.nodes, parts.closing, tenants, query, metrics).await;
        let (follows, begun) = opened.ok_or(Error::TooManySources { limit: MAX_SOURCES })?;
        let sources = follows.sources().clone();
        let merger = Merger::new(begun, key.delay, parts.merge_bytes);
        let ring = Arc::new(Mutex::new(Ring::new(merger.mark().clone(), follows.away().clone(), parts.ring_bytes)));
        let (published_tx, published) = watch::channel(0);
        let run = Run {
            merger,
            counts: MergeCounts::default(),
            tenant_labels: key.names_tenants.then(|| TenantLabels::new(sources.clone())),
            encoder: FrameEncoder::new(key.encoding.clone()),
            ring: Arc::clone(&ring),
            published: published_tx,
            clock: parts.clock,
            metrics: parts.metrics.clone(),
            sources: sources.clone(),
            told: key.notices.then(|| follows.away().clone()),
            away: follows.away().clone(),
            follows,
            trimmed: 0,
            begins,
            seal: parts.seal.clone(),
            names: Arc::new([]),
        };
        let task = tokio::spawn(run.run()).abort_handle();
        parts.metrics.feeds.inc();
        Ok(Arc::new(Self {
            key,
            query: parts.query,
            sources,
            ring,
            opened: begins,
            seal: parts.seal,
            published,
            task,
            feeds,
            metrics: parts.metrics,
            next_session: AtomicU64::new(1),
        }))
    }

    pub(crate) fn key(&self) -> &FeedKey {
        &self.key
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// When it was opened: sources that join it later begin where their logs were then.
    pub(crate) fn opened(&self) -> Timestamp {
        self.opened
    }

    /// A mark of this feed with the names of its sources.
    pub(crate) fn placed(&self, mark: Mark) -> Placed {
        Placed::new(names_of(&self.sources), mark)
    }

    pub(crate) fn session_number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
        self.metrics.feeds.dec();
        if let Some(feeds) = self.feeds.upgrade() {
            let mut feeds = feeds.lock();
            // A new feed of the same key may stand there already.
            if feeds.get(&self.key).is_some_and(|feed| feed.strong_count() == 0) {
                feeds.remove(&self.key);
            }
        }
    }
}

/// The feed's task.
struct Run {
    follows: Follows,
    merger: Merger,
    counts: MergeCounts,
    tenant_labels: Option<TenantLabels>,
    encoder: FrameEncoder,
    ring: Arc<Mutex<Ring>>,
    published: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    sources: Sources,
    /// Lines trimmed since the last frame.
    trimmed: u64,
    /// When the feed was opened.
    begins: Timestamp,
    seal: Option<Seal>,
    /// The sources, if there are tokens: those of now or a little earlier.
    names: Arc<[Name]>,
    /// The logs that were away after the last round.
    away: Away,
    /// Those of which frames have said so; none if frames say nothing of it.
    told: Option<Away>,
}

/// What the sources of a feed are, by number.
fn names_of(sources: &Sources) -> Arc<[Name]> {
    sources.iter().map(|(_, source)| Name { log: source.node.log_id(), tenant: source.tenant.clone() }).collect()
}

/// What there was to take.
enum Taken {
    /// So many bytes, possibly none.
    Bytes(usize),
    /// Nothing, and nothing will come any more.
    Over,
    /// It cannot go on.
    Failed(Error),
}

impl Run {
    async fn run(mut self) {
        let reason = loop {
            match self.wait().await {
                Taken::Bytes(taken) => self.take_ready(taken),
                Taken::Over => break EndReason::IngestersGone,
                Taken::Failed(error) => break EndReason::Failed(error.to_string()),
            }
            let sessions = self.round();
            if sessions > UNPACED_SESSIONS {
                tokio::time::sleep((PACE_PER_SESSION * u32::try_from(sessions).unwrap_or(u32::MAX)).min(MAX_PACE))
                    .await;
            } else {
                // Sessions send while this task would already encode the next round.
                tokio::task::yield_now().await;
            }
        };
        self.ring.lock().end(reason);
        self.published.send_modify(|_| {});
    }

    /// Sleeps until there is something to do. It is over when nothing can come any more and nothing is held.
    async fn wait(&mut self) -> Taken {
        let due = self.merger.next_due().map(|due| Instant::now() + due.since(self.clock.now()));
        tokio::select! {
            biased;
            happened = self.follows.next() => match happened {
                Happened::Over => match due {
                    Some(due) => { tokio::time::sleep_until(due).await; Taken::Bytes(0) }
                    None => Taken::Over,
                },
                happened => self.take(happened),
            },
            () = async { match due { Some(due) => tokio::time::sleep_until(due).await, None => std::future::pending().await } } => Taken::Bytes(0),
        }
    }

    /// Takes what the follows have ready, within a round's bound.
    fn take_ready(&mut self, mut taken: usize) {
        use futures_util::FutureExt as _;
        while taken < MAX_ROUND_BYTES {
            // What ends the feed comes again.
            match self.follows.next().now_or_never() {
                None | Some(Happened::Over | Happened::TooMany) => break,
                Some(happened) => match self.take(happened) {
                    Taken::Bytes(more) => taken += more.max(1),
                    Taken::Over | Taken::Failed(_) => break,
                },
            }
        }
    }

    fn take(&mut self, happened: Happened) -> Taken {
        match happened {
            Happened::Event(source, event) => return Taken::Bytes(self.absorb(source, event)),
            Happened::Began(begun) => begun.into_iter().for_each(|(source, after)| self.merger.begin(source, after)),
            Happened::Turned => {}
            Happened::TooMany => return Taken::Failed(Error::TooManySources { limit: MAX_SOURCES }),
            Happened::Over => return Taken::Over,
        }
        Taken::Bytes(0)
    }

    fn absorb(&mut self, source: SourceId, event: FollowEvent) -> usize {
        match event {
            FollowEvent::Lines(batch) => {
                self.merger.absorb(source, &batch);
                batch.text.len() + batch.lines.len() * size_of::<Held>()
            }
            FollowEvent::Idle { through, .. } => {
                self.merger.advance(source, through);
                0
            }
            FollowEvent::Away { .. } => 0,
            FollowEvent::Gap(Gap { after, through, lines }) => {
                if let Some(source) = self.sources.get(source) {
                    let (log, tenant) = (source.node.log_id(), &source.tenant);
                    tracing::warn!(%log, %tenant, after, through, lines, "a feed fell behind a trimmed log");
                }
                self.trimmed += lines;
                self.metrics.trimmed_lines.inc_by(lines);
                self.merger.advance(source, through);
                0
            }
        }
    }

    /// Gives out what is due. Returns how many sessions there are.
    fn round(&mut self) -> usize {
        let now = self.clock.now();
        let known = self.merger.mark().floor.len();
        let round = self.merger.release(now);
        // A session may have waited for a source.
        let begun = round.after.floor.len() > known;
        let keep_entries = self.ring.lock().has_droppers();
        self.away = self.follows.away().clone();
        let frames = self.encode(&round, keep_entries, now);
        let published = !frames.is_empty();
        let counts = self.merger.counts();
        self.metrics.late_lines.inc_by(counts.late - self.counts.late);
        self.metrics.forced_lines.inc_by(counts.forced - self.counts.forced);
        self.counts = counts;
        let (next, sessions) = {
            let mut ring = self.ring.lock();
            let next = ring.publish(frames, round.after, self.merger.waiting(), self.away.clone());
            (next, ring.sessions())
        };
        if published || begun {
            self.published.send_replace(next);
        }
        if published { sessions } else { 0 }
    }

    fn encode(&mut self, round: &Round, keep_entries: bool, now: Timestamp) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut first = 0;
        for (i, held) in round.lines.iter().enumerate() {
            let labels = labels_of(&mut self.tenant_labels, held);
            self.encoder.push(held.line().timestamp, held.text(), &labels);
            let last = i + 1 == round.lines.len();
            if last || self.encoder.lines() >= MAX_FRAME_LINES || self.encoder.len_bytes() >= MAX_FRAME_BYTES {
                let mark = if last { round.after.clone() } else { round.mark_at(held.key) };
                frames.push(self.frame(&round.lines[first..=i], mark, keep_entries, now));
                first = i + 1;
            }
        }
        let to_tell = self.told.as_ref().is_some_and(|told| *told != self.away);
        if frames.is_empty() && (self.trimmed > 0 || to_tell) {
            frames.push(self.frame(&[], round.after.clone(), keep_entries, now));
        }
        self.metrics.frames.inc_by(frames.len() as u64);
        self.metrics.encoded_lines.inc_by(round.lines.len() as u64);
        frames
    }

    fn frame(&mut self, lines: &[Held], mark: Mark, keep_entries: bool, now: Timestamp) -> Frame {
        let trimmed = std::mem::take(&mut self.trimmed);
        let told = if trimmed > 0 { vec![trimmed_notice(trimmed, now)] } else { Vec::new() };
        let notices = match &mut self.told {
            Some(before) => self.away.since(&std::mem::replace(before, self.away.clone())),
            None => Vec::new(),
        };
        let token = self.token(&mark);
        let extras = Extras { notices: &notices, resume: token.as_deref(), resumed: None };
        let bytes = self.encoder.finish(&told, &extras);
        let entries = if keep_entries {
            let entry = |held: &Held| (held.line().timestamp, labels_of(&mut self.tenant_labels, held).into_owned());
            lines.iter().map(entry).collect()
        } else {
            Vec::new()
        };
        let lines = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        Frame { bytes, lines, mark, entries, trimmed, away: self.away.clone(), token }
    }

    /// The token of a frame, once for all sessions.
    fn token(&mut self, mark: &Mark) -> Option<Arc<str>> {
        let seal = self.seal.as_ref()?;
        if self.names.len() != self.sources.len() {
            self.names = names_of(&self.sources);
        }
        seal.token_at(self.begins, &self.names, mark).map(Arc::from)
    }
}

/// The labels with which a line leaves.
fn labels_of<'a>(tenant_labels: &mut Option<TenantLabels>, held: &'a Held) -> Cow<'a, LabelSet> {
    let labels = &held.line().labels;
    match tenant_labels {
        None => Cow::Borrowed(labels),
        Some(known) => Cow::Owned(known.add(held.key.source(), labels)),
    }
}

/// How a client is told that lines of a stretch of a log do not come: where, how many if that is known, and why.
pub(crate) fn lost_notice(lost: &Lost, now: Timestamp) -> Dropped {
    let mut pairs: Vec<(Box<str>, Box<str>)> = vec![
        ("after".into(), lost.after.to_string().into()),
        ("log".into(), lost.name.log.to_string().into()),
        ("reason".into(), lost.reason.into()),
    ];
    pairs.extend(lost.through.map(|through| ("through".into(), through.to_string().into())));
    pairs.extend((lost.lines > 0).then(|| ("dropped_lines".into(), lost.lines.to_string().into())));
    Dropped { timestamp: now, labels: LabelSet::from(&Labels::from_pairs(pairs)) }
}

/// How a client is told, in Loki's shape for dropped entries, that a log was trimmed before it was read.
pub(crate) fn trimmed_notice(lines: u64, now: Timestamp) -> Dropped {
    dropped_notice(lines, "log_trimmed", now)
}

/// How a client is told that lines do not come, and why.
pub(crate) fn dropped_notice(lines: u64, reason: &str, now: Timestamp) -> Dropped {
    let pairs = vec![("dropped_lines".into(), lines.to_string().into()), ("reason".into(), reason.into())];
    Dropped { timestamp: now, labels: LabelSet::from(&Labels::from_pairs(pairs)) }
}
