//! A feed of steps: for however many sessions each step is read, evaluated and encoded once.
//!
//! Its task lives as long as somebody holds the [`Feed`]. There is no polling: it sleeps until the next step is due, asks every node what
//! has come since, and publishes one frame. A step that fails is a frame that says so; the next one is tried all the same. Where there was
//! no room for what was collected, it is forgotten and read again at the next step, when the windows have moved on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tailwater_model::{Clock, TenantIds, Timestamp};
use tailwater_wire::node::{Node, NodeError, warn};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Plan;
use super::collected::Collected;
use super::frame::{Told, frame};
use super::others::{Others, Read};
use super::reader::{Reached, Reader};
use super::ring::{Frame, Positions, Ring};
use crate::busy::busy;
use crate::follows::Listed;
use crate::place::heads;
use crate::source::MAX_SOURCES;
use crate::{EndReason, Error};

/// What makes two tails the same feed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(super) tenants: TenantIds,
    pub(super) query: String,
    /// Nanoseconds, positive.
    pub(super) step: i64,
    pub(super) delay: Duration,
    /// As [`crate::MetricRequest::max_series`].
    pub(super) max_series: usize,
}

/// The feeds that are open.
pub(crate) type Feeds = Mutex<HashMap<Key, Weak<Feed>>>;

/// See the module. Dropping the last reference ends it.
pub(crate) struct Feed {
    pub(super) plan: Arc<Plan>,
    pub(super) ring: Arc<Mutex<Ring>>,
    /// Changes when a frame is published or the feed ends.
    pub(super) published: watch::Receiver<u32>,
    task: AbortHandle,
    feeds: Weak<Feeds>,
    next_session: AtomicU64,
}

impl Feed {
    /// The feed of a plan, opened if there is none of its kind.
    pub(super) async fn shared(plan: Arc<Plan>, feeds: &Arc<Feeds>, closing: watch::Receiver<bool>) -> Arc<Self> {
        let open = |feed: &Weak<Self>| feed.upgrade().filter(|feed| !feed.ring.lock().ended());
        if let Some(feed) = feeds.lock().get(&plan.key).and_then(open) {
            return feed;
        }
        let opened = Self::open(plan, Arc::downgrade(feeds), closing).await;
        let mut known = feeds.lock();
        // Another tail may have been quicker; the one that is there is shared, ours is dropped (outside the lock, see its Drop).
        if let Some(feed) = known.get(&opened.plan.key).and_then(open) {
            drop(known);
            return feed;
        }
        known.insert(opened.plan.key.clone(), Arc::downgrade(&opened));
        drop(known);
        opened
    }

    async fn open(plan: Arc<Plan>, feeds: Weak<Feeds>, closing: watch::Receiver<bool>) -> Arc<Self> {
        let (first, opened, mut listed) = (plan.step_due_after(plan.clock.now()), Instant::now(), plan.listed.clone());
        // What reads no lines waits for no node.
        let reads = plan.pairs().next().is_some();
        let nodes = if reads { listed.borrow_and_update().to_vec() } else { Vec::new() };
        let heads = heads(&nodes).await;
        let reader = |(node, head): (&Arc<dyn Node>, Result<u64, NodeError>)| {
            Reader::new(Arc::clone(node), opened, head.ok(), first)
        };
        let readers: Vec<_> = nodes.iter().zip(heads).map(reader).collect();
        *plan.nodes.write() = nodes;
        let ring = Arc::new(Mutex::new(Ring::new(first, positions(&readers), plan.ring_bytes)));
        let (published_tx, published) = watch::channel(first);
        let run = Run {
            collected: Collected::new(&plan),
            plan: Arc::clone(&plan),
            opened,
            listed: reads.then_some(listed),
            readers,
            others: Others::default(),
            ring: Arc::clone(&ring),
            published: published_tx,
        };
        plan.metrics.feeds.inc();
        let task = tokio::spawn(run.run(first, closing)).abort_handle();
        Arc::new(Self { plan, ring, published, task, feeds, next_session: AtomicU64::new(1) })
    }

    pub(super) fn session_number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
        self.plan.metrics.feeds.dec();
        if let Some(feeds) = self.feeds.upgrade() {
            let mut feeds = feeds.lock();
            // A new feed of the same key may stand there already.
            if feeds.get(&self.plan.key).is_some_and(|feed| feed.strong_count() == 0) {
                feeds.remove(&self.plan.key);
            }
        }
    }
}

/// The feed's task.
struct Run {
    plan: Arc<Plan>,
    opened: Instant,
    /// None: nothing is read.
    listed: Option<Listed>,
    /// In the order of the plan's nodes.
    readers: Vec<Reader>,
    others: Others,
    collected: Collected,
    ring: Arc<Mutex<Ring>>,
    published: watch::Sender<u32>,
}

impl Run {
    async fn run(mut self, first: u32, mut closing: watch::Receiver<bool>) {
        let steps = async {
            // The last number there is has no step after it; with steps of a second it is that of the year 2106.
            for step in first..u32::MAX {
                sleep_until(self.plan.clock.as_ref(), self.plan.due(step)).await;
                let frame = self.answer(step).await;
                let next = self.ring.lock().publish(frame);
                self.published.send_replace(next);
            }
        };
        tokio::select! {
            () = steps => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.ring.lock().end(EndReason::IngestersGone);
        self.published.send_modify(|_| {});
    }

    /// Takes in what has been listed since the last step.
    fn look_around(&mut self, step: u32) {
        let Some(listed) = &mut self.listed else { return };
        let nodes = Arc::clone(&listed.borrow_and_update());
        for reader in &mut self.readers {
            match nodes.iter().find(|node| node.log_id() == reader.log()) {
                Some(node) => reader.listed(node),
                None => reader.unlisted(),
            }
        }
        for node in nodes.iter() {
            let known = self.readers.iter().any(|reader| reader.log() == node.log_id());
            if !known && self.readers.len() < MAX_SOURCES {
                self.readers.push(Reader::new(Arc::clone(node), self.opened, None, step));
                self.plan.nodes.write().push(Arc::clone(node));
            }
        }
        let taken_for_others = |reader: &&mut Reader| reader.takes_part() && self.others.may_have(reader.log());
        let doubtful: Vec<&mut Reader> = self.readers.iter_mut().filter(taken_for_others).collect();
        if !doubtful.is_empty() && !self.others.leaves_out_more() {
            doubtful.into_iter().for_each(Reader::doubt);
        }
    }

    async fn answer(&mut self, step: u32) -> Frame {
        self.look_around(step);
        let reads = self.listed.is_some();
        let Self { plan, readers, others, collected, .. } = self;
        let deadline = Instant::now() + plan.patience();
        let rooms = collected.rooms(plan);
        let parts: Vec<&mut Reader> = readers.iter_mut().filter(|reader| reader.takes_part()).collect();
        let logs = parts.iter().map(|reader| reader.log()).collect();
        let others_too = async {
            if reads { Box::pin(others.reach(plan, logs, step, &rooms, deadline)).await } else { Ok(Read::default()) }
        };
        let all = join_all(parts.into_iter().map(|reader| reader.reach(plan, step, &rooms, deadline)));
        let (all, of_others) = tokio::join!(all, others_too);
        readers.iter_mut().for_each(Reader::stepped);
        let (mut told, mut lacking, mut missing) = (Told::default(), Vec::new(), Vec::new());
        let taken = of_others.and_then(|Read { parts, lacking: more }| {
            warn(&mut lacking, more);
            collected.take(plan, parts)
        });
        let mut full = taken.err();
        let (asked, mut anew) = (all.len(), false);
        for Reached { parts, told: more, lacking: more_lacking, missing: why, read_elsewhere } in all {
            told += more;
            anew |= read_elsewhere;
            warn(&mut lacking, more_lacking);
            match (collected.take(plan, parts), why) {
                (Err(error), _) | (Ok(()), Some(error @ NodeError::TooLarge { .. })) => full = Some(error),
                (Ok(()), Some(error)) => missing.push(error.to_string()),
                (Ok(()), None) => {}
            }
        }
        let value = match full {
            Some(error) => {
                anew = true;
                Err(Error::Node(error))
            }
            None if reads && missing.len() == asked => Err(Error::NoIngester),
            None => busy(|| collected.evaluate(plan, step)),
        };
        if anew {
            *collected = Collected::new(plan);
            readers.iter_mut().for_each(Reader::begin_anew);
            others.begin_anew();
        }
        collected.forget_before(plan, step.saturating_add(1));
        let metrics = &plan.metrics;
        metrics.frames.inc();
        metrics.steps.inc();
        metrics.failed_steps.inc_by(u64::from(value.is_err()));
        metrics.incomplete_steps.inc_by(u64::from(!missing.is_empty() || !lacking.is_empty()));
        metrics.step_late_lines.inc_by(told.late.lines);
        metrics.trimmed_lines.inc_by(told.trimmed);
        if told.trimmed > 0 {
            tracing::warn!(query = %plan.key.query, lines = told.trimmed, "a feed of steps fell behind a trimmed log");
        }
        missing.extend(lacking);
        Frame { bytes: frame(plan.time(step), &value, told, &missing), told, positions: positions(readers) }
    }
}

fn positions(readers: &[Reader]) -> Positions {
    readers.iter().map(Reader::position).collect()
}

/// Sleeps until a clock says that it is time.
async fn sleep_until(clock: &dyn Clock, due: Timestamp) {
    loop {
        let left = due.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}
