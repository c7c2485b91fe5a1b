//! A feed: one (tenants, query, encoding, delay) followed on every ingester, merged, encoded once, for however many sessions.
//!
//! Its task lives as long as somebody holds the [`Feed`]. A round: take what the follow streams have ready (bounded), let the
//! merger say what is due, encode it, publish the frames under one lock, wake the sessions. There is no polling: the task sleeps
//! until a stream has something or a held line falls due. With many sessions rounds are kept a little apart, so that the number
//! of socket writes stays in proportion to time and not to pushes; the first line after a pause still leaves at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{SelectAll, StreamExt, select_all};
use parking_lot::Mutex;
use tailwater_logql::LogQuery;
use tailwater_model::{Clock, LabelSet, Labels, TenantId, Timestamp};
use tailwater_wire::frame::{Dropped, Extras, FrameEncoder, TailEncoding};
use tailwater_wire::node::{FollowEvent, Gap, Node, StateRequest};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::Error;
use crate::catch_up::Lost;
use crate::had::{Name, Placed};
use crate::mark::Mark;
use crate::merge::{Held, MergeCounts, Merger, Round};
use crate::metrics::Metrics;
use crate::resume::Seal;
use crate::ring::{Frame, Ring};
use crate::session::EndReason;
use crate::source::{Positions, Source, SourceId, Sources};
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
    pub(crate) nodes: Vec<Arc<dyn Node>>,
    pub(crate) query: Arc<LogQuery>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    /// If its frames have resume tokens.
    pub(crate) seal: Option<Seal>,
    pub(crate) ring_bytes: usize,
    pub(crate) merge_bytes: usize,
}

impl Feed {
    /// Opens a feed that begins after the newest batch of each node.
    pub(crate) async fn open(key: FeedKey, parts: FeedParts, feeds: Weak<Feeds>) -> Result<Arc<Self>, Error> {
        let opened = parts.clock.now();
        let heads = try_join_all(parts.nodes.iter().map(|node| node.state(StateRequest::default()))).await?;
        let (mut sources, mut positions) = (Vec::new(), Positions::default());
        // Tenant by tenant: lines of equal times come in this order.
        for FeedTenant { id, detect_level } in &key.tenants {
            for (node, head) in parts.nodes.iter().zip(&heads) {
                let source = SourceId::new(sources.len());
                sources.push(Source { node: Arc::clone(node), tenant: id.clone(), detect_level: *detect_level });
                positions.advance(source, head.head);
            }
        }
        let sources = Sources::new(sources);
        let follows = sources.iter().map(|(id, source)| {
            let events = source.follow(&parts.query, positions.seq(id)).map(move |event| (id, event));
            Box::pin(events) as Events
        });
        let follows = select_all(follows);
        let merger = Merger::new(positions, key.delay, parts.merge_bytes);
        let ring = Arc::new(Mutex::new(Ring::new(merger.mark().clone(), parts.ring_bytes)));
        let (published_tx, published) = watch::channel(0);
        let run = Run {
            follows,
            merger,
            counts: MergeCounts::default(),
            tenant_labels: key.names_tenants.then(|| TenantLabels::new(sources.clone())),
            encoder: FrameEncoder::new(key.encoding.clone()),
            ring: Arc::clone(&ring),
            published: published_tx,
            clock: parts.clock,
            metrics: parts.metrics.clone(),
            sources: sources.clone(),
            trimmed: 0,
            opened,
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
            opened,
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

/// What the follow of a source yields.
type Events = Pin<Box<dyn futures_core::Stream<Item = (SourceId, FollowEvent)> + Send>>;

/// The feed's task.
struct Run {
    follows: SelectAll<Events>,
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
    opened: Timestamp,
    seal: Option<Seal>,
    /// The sources, if there are tokens.
    names: Arc<[Name]>,
}

/// What the sources of a feed are, by number.
fn names_of(sources: &Sources) -> Arc<[Name]> {
    sources.iter().map(|(_, source)| Name { log: source.node.log_id(), tenant: source.tenant.clone() }).collect()
}

impl Run {
    async fn run(mut self) {
        loop {
            let Some(absorbed) = self.wait().await else { break };
            self.take_ready(absorbed);
            let sessions = self.round();
            if sessions > UNPACED_SESSIONS {
                tokio::time::sleep((PACE_PER_SESSION * u32::try_from(sessions).unwrap_or(u32::MAX)).min(MAX_PACE))
                    .await;
            } else {
                // Sessions send while this task would already encode the next round.
                tokio::task::yield_now().await;
            }
        }
        self.ring.lock().end(EndReason::IngestersGone);
        self.published.send_modify(|_| {});
    }

    /// Sleeps until there is something to do. Returns the bytes taken, `None` when every follow has ended and nothing is held.
    async fn wait(&mut self) -> Option<usize> {
        let due = self.merger.next_due().map(|due| Instant::now() + due.since(self.clock.now()));
        tokio::select! {
            biased;
            event = self.follows.next() => match event {
                Some((source, event)) => Some(self.absorb(source, event)),
                None => { tokio::time::sleep_until(due?).await; Some(0) }
            },
            () = async { match due { Some(due) => tokio::time::sleep_until(due).await, None => std::future::pending().await } } => Some(0),
        }
    }

    /// Takes what the follows have ready, within a round's bound.
    fn take_ready(&mut self, mut taken: usize) {
        use futures_util::FutureExt as _;
        while taken < MAX_ROUND_BYTES {
            match self.follows.next().now_or_never() {
                Some(Some((source, event))) => taken += self.absorb(source, event).max(1),
                _ => break,
            }
        }
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
                if let Some(Source { node, tenant, .. }) = self.sources.get(source) {
                    let log = node.log_id();
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
        let round = self.merger.release(now);
        let keep_entries = self.ring.lock().has_droppers();
        let frames = self.encode(&round, keep_entries, now);
        let published = !frames.is_empty();
        let counts = self.merger.counts();
        self.metrics.late_lines.inc_by(counts.late - self.counts.late);
        self.metrics.forced_lines.inc_by(counts.forced - self.counts.forced);
        self.counts = counts;
        let (next, sessions) = {
            let mut ring = self.ring.lock();
            let next = ring.publish(frames, round.after, self.merger.waiting());
            (next, ring.sessions())
        };
        if published {
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
        if frames.is_empty() && self.trimmed > 0 {
            frames.push(self.frame(&[], round.after.clone(), keep_entries, now));
        }
        self.metrics.frames.inc_by(frames.len() as u64);
        self.metrics.encoded_lines.inc_by(round.lines.len() as u64);
        frames
    }

    fn frame(&mut self, lines: &[Held], mark: Mark, keep_entries: bool, now: Timestamp) -> Frame {
        let trimmed = std::mem::take(&mut self.trimmed);
        let told = if trimmed > 0 { vec![trimmed_notice(trimmed, now)] } else { Vec::new() };
        let token = self.token(&mark);
        let bytes = self.encoder.finish(&told, &Extras { resume: token.as_deref(), ..Extras::default() });
        let entries = if keep_entries {
            let entry = |held: &Held| (held.line().timestamp, labels_of(&mut self.tenant_labels, held).into_owned());
            lines.iter().map(entry).collect()
        } else {
            Vec::new()
        };
        Frame { bytes, lines: u32::try_from(lines.len()).unwrap_or(u32::MAX), mark, entries, trimmed, token }
    }

    /// The token of a frame, once for all sessions.
    fn token(&mut self, mark: &Mark) -> Option<Arc<str>> {
        let seal = self.seal.as_ref()?;
        if self.names.len() != self.sources.len() {
            self.names = names_of(&self.sources);
        }
        seal.token_at(self.opened, &self.names, mark).map(Arc::from)
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
    let pairs = vec![("dropped_lines".into(), lines.to_string().into()), ("reason".into(), "log_trimmed".into())];
    Dropped { timestamp: now, labels: LabelSet::from(&Labels::from_pairs(pairs)) }
}
